"""Real signals to real processes, and a loss that is no number."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest

from layerlab.train.guards import Diverged
from tests.conftest import ROOT

ENVIRONMENT = {k: v for k, v in os.environ.items() if not k.startswith(("HYDRA", "WANDB", "LAYERLAB"))}
LONG = ("model=mlp", "trainer.max_epochs=400", "progress=none", "hydra.run.dir=run")


def start(tmp_path, *options, **environment):
    """A child with the default handler of Ctrl-C, which a background job of a shell would not have."""
    command = [sys.executable, str(ROOT / "train.py"), *options]
    reset = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=tmp_path, env=ENVIRONMENT | environment, preexec_fn=reset, **pipes)


def until_it_trains(tmp_path, child):
    """Wait for the first checkpoint."""
    deadline = time.monotonic() + 120
    while not list((tmp_path / "run" / "checkpoints").glob("step-*.ckpt")):
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.row(17, 18)
@pytest.mark.parametrize(("name", "code"), [("SIGTERM", 143), ("SIGUSR1", 143), ("SIGINT", 130)])
def test_a_signal_ends_a_run_with_a_checkpoint_and_its_own_code(name, code, tmp_path):
    child = start(tmp_path, *LONG)
    until_it_trains(tmp_path, child)
    child.send_signal(getattr(signal, name))
    _, said = child.communicate(timeout=60)
    assert child.returncode == code
    status = json.loads((tmp_path / "run" / "status.json").read_text())
    assert (status["status"], status["reason"]) == ("preempted", name)
    assert f"{name}: stopped after step" in said
    assert "Traceback" not in said
    assert list((tmp_path / "run" / "checkpoints").glob("*.ckpt"))


@pytest.mark.row(9)
def test_a_killed_run_is_recognised_and_goes_on(tmp_path):
    child = start(tmp_path, *LONG[:1], "trainer.max_epochs=60", *LONG[2:])
    until_it_trains(tmp_path, child)
    child.kill()
    child.communicate()
    assert json.loads((tmp_path / "run" / "status.json").read_text())["status"] == "running"
    again = start(tmp_path, "resume=run", "progress=none")
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 60 * 40


@pytest.mark.row(25)
def test_a_loss_that_is_no_number_stops_the_run_with_code_4(train, tmp_path):
    with pytest.raises(Diverged) as e:
        train("model=mlp", "optimizer=sgd", "optimizer.lr=1e30", "trainer.gradient_clip_val=0", "trainer.max_epochs=3")
    text = str(e.value)
    assert e.value.exit_code == 4
    assert "at step" in text
    assert "gradient norm" in text
    (status,) = tmp_path.rglob("status.json")
    assert json.loads(status.read_text())["reason"] == "diverged"


@pytest.mark.row(25, 26)
def test_gradients_that_are_no_numbers_are_never_applied(train, tmp_path, monkeypatch):
    import torch

    from layerlab.models.mlp import MLP

    def poisoned(self, batch, batch_idx):
        loss = self.step(batch)[0]
        if self.trainer.global_step == 20:
            self.head.weight.register_hook(lambda g: g * float("nan"))
        return loss

    monkeypatch.setattr(MLP, "training_step", poisoned)
    with pytest.raises(Diverged, match=r"gradients: not finite at step 20 .*layer head.*; stopped, no checkpoint yet"):
        train("model=mlp", "trainer.max_epochs=2")
    for file in tmp_path.rglob("step-*.ckpt"):
        state = torch.load(file, weights_only=True)["state_dict"]
        assert all(torch.isfinite(v).all() for v in state.values())
