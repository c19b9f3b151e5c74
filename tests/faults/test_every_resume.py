"""The property of exact resume over every model and every freeze strategy. Rows 1, 4, 6, 53."""

import signal

import pytest
import timm
import torch

from layerlab.build import model_class
from layerlab.train import checkpoint
from layerlab.train.guards import Signals
from tests.every.cells import options
from tests.every.conftest import files, given  # noqa: F401  (the files that a source of data needs)
from tests.every.test_plain import TRAINED, first_data

SHORT = ("trainer.limit_train_batches=3", "trainer.limit_val_batches=1", "trainer.limit_test_batches=1")
SHORT += ("trainer.max_epochs=3", "select=last", "trainer.gradient_clip_val=1")
PARTS = ("state_dict", "optimizer_states", "lr_schedulers", "epoch_sums")


def ends(train, tmp_path, cut_after, step, *options):
    """The last checkpoints and the logs of a run that was not cut, and of one that was after so many steps."""
    whole = train(*options)
    straight = whole.folder.rename(tmp_path / "straight")

    with cut_after(step):
        train(*options)
    (folder,) = (f.parent for f in tmp_path.glob("*/*/manifest.json"))
    torch.manual_seed(99)
    again = train(f"resume={folder}", *(o for o in options if o.startswith("user.")))
    assert again.metrics == whole.metrics
    assert (folder / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()
    last = max((f.name for f in (straight / "checkpoints").glob("step-*.ckpt")), key=lambda n: n)
    return [checkpoint.read(f / "checkpoints" / last) for f in (folder, straight)]


@pytest.mark.row(1, 4, 6)
@pytest.mark.parametrize("model", TRAINED)
def test_every_model_goes_on_exactly(model, given, train, tmp_path, cut_after):  # noqa: F811
    data = first_data(model)
    chosen = [*given(model, data), f"model={model}", f"data={data}", *SHORT]
    if "dropout" in model_class(model).parameters:
        chosen.append("model.dropout=0.2")
    mine, theirs = ends(train, tmp_path, cut_after, 4, *chosen)
    for part in PARTS:
        assert checkpoint.equal(mine[part], theirs[part]), part


@pytest.mark.row(53)
@pytest.mark.parametrize("step", [pytest.param(2, marks=pytest.mark.slow), 5, pytest.param(7, marks=pytest.mark.slow)])
@pytest.mark.parametrize("strategy", [s for s in options("freeze") if s not in ("auto", "lp_ft")])
def test_every_freeze_strategy_goes_on_exactly(strategy, step, train, tmp_path, cut_after):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    weights = "null" if strategy == "scratch" else str(tmp_path / "w.pth")
    chosen = ["model=pretrained", "model.backbone=test_efficientnet", f"model.weights={weights}", f"freeze={strategy}"]
    chosen += ["data=photos", "data.batch_size=16", "model.drop_path=0.1", "model.dropout=0.2", *SHORT]
    chosen += ["freeze.n=2"] if strategy == "first_n" else []
    mine, theirs = ends(train, tmp_path, cut_after, step, *chosen)
    for part in PARTS:
        assert checkpoint.equal(mine[part], theirs[part]), part


@pytest.mark.row(53)
def test_both_runs_of_lp_ft_go_on_exactly_and_a_finished_probe_is_kept(train, tmp_path, monkeypatch):
    torch.manual_seed(0)
    torch.save(timm.create_model("test_efficientnet").state_dict(), tmp_path / "w.pth")
    chosen = ["model=pretrained", "model.backbone=test_efficientnet", f"model.weights={tmp_path / 'w.pth'}"]
    chosen += ["freeze=lp_ft", "freeze.probe_epochs=3", "data=photos", "data.batch_size=16", *SHORT]
    whole = train(*chosen)
    straight = whole.folder.rename(tmp_path / "straight")
    for place, step in (("probe", 4), ("", 4)):
        look = Signals.on_train_batch_end

        def receive(self, trainer, *rest, place=place, step=step, look=look):
            if trainer.global_step == step and (self.saver.folder.parent.name == "probe") == bool(place):
                self.received = signal.SIGTERM
            look(self, trainer, *rest)

        with monkeypatch.context() as m:
            m.setattr(Signals, "on_train_batch_end", receive)
            with pytest.raises(SystemExit):
                train(*chosen)
        (folder,) = (f.parent for f in tmp_path.glob("*/*/manifest.json") if f.parent.name != "probe")
        kept = {f: f.stat().st_mtime_ns for f in (folder / "probe").rglob("*.ckpt")} if not place else {}
        again = train(f"resume={folder}")
        assert again.metrics == whole.metrics
        assert (folder / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()
        assert {f: f.stat().st_mtime_ns for f in kept} == kept  # a finished probe is not repeated
        folder.rename(tmp_path / f"cut-{place or 'second'}")
