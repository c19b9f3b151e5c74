"""What all tests share: one torch thread, a quiet run in a temporary folder, specs of every kind."""

import contextlib
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path

if os.environ.get("LAYERLAB_TEST_GPU") != "1":  # make test-gpu sets it
    os.environ["CUDA_VISIBLE_DEVICES"] = ""  # before torch: the default suite is about the CPU
os.environ["OMP_NUM_THREADS"] = "1"

import pytest
import torch

import layerlab
from layerlab.contract import DataSpec
from layerlab.train.guards import Signals
from layerlab.train.run import Run

torch.set_num_threads(1)
ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"


@pytest.fixture
def train(tmp_path: Path) -> Callable[..., Run]:
    """`layerlab.train` with its folder under tmp_path and nothing printed."""

    def run(*overrides: str) -> Run:
        with contextlib.redirect_stdout(io.StringIO()):
            return layerlab.train(*overrides, f"logs={tmp_path}", "progress=none")

    return run


@pytest.fixture(autouse=True)
def rows_of_the_fault_table(request, record_property):
    """Put the rows that a test is marked with into the report that tests/faults/report.py reads."""
    for marker in request.node.iter_markers("row"):
        for n in marker.args:
            record_property("row", n)


@pytest.fixture
def cut_after(monkeypatch) -> Callable[[int], contextlib.AbstractContextManager[None]]:
    """`with cut_after(step):` what trains in it is ended as by SIGTERM after so many optimizer steps.

    Or at the validation that is due there.
    """

    @contextlib.contextmanager
    def cut(step: int):
        look = Signals.on_train_batch_end

        def receive(self, trainer, *rest):
            if trainer.global_step == step:
                self.received = signal.SIGTERM
            look(self, trainer, *rest)

        with monkeypatch.context() as m:
            m.setattr(Signals, "on_train_batch_end", receive)
            with pytest.raises(SystemExit) as e:
                yield
        assert e.value.code == 143

    return cut


def shared(name: str) -> Path:
    """A developer's data file; the test is skipped where it is not there."""
    if not (place := SHARED / name).exists():
        pytest.skip(f"needs {name} of the developers' data")
    return place


LETTERS = tuple(".abcdef")
SPECS = {
    ("image", "classify"): DataSpec(
        kind="image", task="classify", shape=(1, 8, 8), out=3, classes=("a", "b", "c"), mean=(0.0,), std=(1.0,)
    ),
    ("tokens", "next_token"): DataSpec(kind="tokens", task="next_token", shape=(9,), out=7, vocabulary=LETTERS, pad=0),
    ("tokens", "classify"): DataSpec(kind="tokens", task="classify", shape=(9,), out=3, vocabulary=LETTERS, pad=0),
    ("series", "classify"): DataSpec(kind="series", task="classify", shape=(12, 2), out=3, channels=("u", "v")),
    ("series", "forecast"): DataSpec(
        kind="series",
        task="forecast",
        shape=(12, 2),
        out=6,
        horizon=3,
        channels=("u", "v"),
        target=("u", "v"),
        mean=(0.0, 0.0),
        std=(1.0, 1.0),
    ),
    ("vector", "classify"): DataSpec(kind="vector", task="classify", shape=(5,), out=3),
    ("vector", "regress"): DataSpec(
        kind="vector", task="regress", shape=(5,), out=1, target=("t",), target_mean=(0.0,), target_std=(1.0,)
    ),
    ("image", "regress"): DataSpec(
        kind="image", task="regress", shape=(1, 8, 8), out=1, target=("t",), mean=(0.0,), std=(1.0,)
    ),
    ("tokens", "transduce"): DataSpec(
        kind="tokens",
        task="transduce",
        shape=(9,),
        out=5,
        vocabulary=LETTERS,
        pad=0,
        target_vocabulary=tuple(".wxyz"),
        target_shape=(6,),
    ),
    ("series", "regress"): DataSpec(kind="series", task="regress", shape=(12, 2), out=1, target=("t",)),
}


def batch(spec: DataSpec, n: int = 4) -> tuple[torch.Tensor, torch.Tensor]:
    """A random batch that keeps what a spec promises."""
    g = torch.Generator().manual_seed(0)
    if spec.kind == "tokens":
        x = torch.randint(1, len(spec.vocabulary), (n, *spec.shape), generator=g)
    else:
        x = torch.randn(n, *spec.shape, generator=g)
    if spec.task == "next_token":
        return x, torch.randint(0, spec.out, (n, *spec.shape), generator=g)
    if spec.task == "transduce":
        return x, torch.randint(1, spec.out, (n, *spec.target_shape), generator=g)
    if spec.task == "classify":
        return x, torch.randint(0, spec.out, (n,), generator=g)
    if spec.task == "forecast":
        return x, torch.randn(n, spec.horizon, len(spec.target), generator=g)
    return x, torch.randn(n, spec.out, generator=g)
