import hashlib
import io
import json
import os
from pathlib import Path

import pytest
import torch
from tests.conftest import SPECS

from layerlab.models.lstm import LSTM
from layerlab.tasks import NextToken
from layerlab.train import checkpoint
from layerlab.train.checkpoint import CheckpointError, NotWritten, read, sidecar, write


class Touch:
    def __reduce__(self):
        return os.mkdir, ("/tmp/layerlab-was-here",)


def test_what_is_written_is_read_with_weights_only(tmp_path):
    path = tmp_path / "step-000001.ckpt"
    write({"state_dict": {"a": torch.arange(4)}, "n": 1, "s": ["x"]}, path)
    assert torch.equal(read(path)["state_dict"]["a"], torch.arange(4))
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, sidecar(path).name]
    assert json.loads(sidecar(path).read_text())["bytes"] == path.stat().st_size


@pytest.mark.row(13)
def test_a_flipped_byte_is_noticed_anywhere(tmp_path, record_property):
    path = tmp_path / "a.ckpt"
    write({"w": torch.randn(200)}, path)
    good = path.read_bytes()
    for at in range(0, len(good), max(len(good) // 40, 1)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(CheckpointError, match="sha256 mismatch"):
            read(path)
    record_property("flips", len(range(0, len(good), max(len(good) // 40, 1))))


def foreign():
    """Files that are no checkpoints of ours: empty, text, cut short, of other tensors."""
    whole = io.BytesIO()
    torch.save({"w": torch.ones(3)}, whole)
    return {
        "empty": b"",
        "text": b"hello",
        "zip": b"PK\x03\x04",
        "cut": whole.getvalue()[:300],
        "other": whole.getvalue(),
    }


@pytest.mark.row(14)
@pytest.mark.parametrize("sided", [False, True])
@pytest.mark.parametrize("kind", foreign())
def test_a_foreign_file_is_refused_by_name(tmp_path, kind, sided):
    path = tmp_path / "x.ckpt"
    path.write_bytes(foreign()[kind])
    if sided:  # even where somebody made a sidecar for it
        sidecar(path).write_text(json.dumps({"sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    size = path.stat().st_size
    with pytest.raises(CheckpointError, match=rf"x\.ckpt: not a layerlab checkpoint \({size} bytes, .*; give one") as e:
        read(path)
    assert e.value.exit_code == 2
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read(tmp_path / "y.ckpt")


@pytest.mark.row(42)
def test_code_in_a_checkpoint_never_runs(tmp_path):
    path = tmp_path / "evil.ckpt"
    write({"w": Touch()}, path)  # with a sidecar that matches
    with pytest.raises(CheckpointError, match="objects other than tensors and plain values"):
        read(path)
    assert not Path("/tmp/layerlab-was-here").exists()


@pytest.mark.row(15)
def test_a_save_that_fails_leaves_the_old_one_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    write({"state_dict": {"w": torch.ones(3)}}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(NotWritten, match=r"a.ckpt not written \(No space left on device\), needs .* MB free in") as e:
        write({"w": torch.zeros(3)}, path)
    assert e.value.exit_code == 1
    monkeypatch.undo()
    assert torch.equal(read(path)["state_dict"]["w"], torch.ones(3))
    assert len(list(tmp_path.iterdir())) == 2


def test_a_checkpoint_rebuilds_the_model_without_a_config(train):
    run = train("model=lstm", "data=names", "model.width=8", "trainer.max_epochs=1", "trainer.limit_train_batches=3")
    path = run.folder / run.results["checkpoints"]["best"]
    again = LSTM.load_from_checkpoint(path, weights_only=True)
    assert isinstance(again.task, NextToken)
    assert again.hparams["width"] == 8
    x = torch.tensor([[0, 3, 1]])
    assert torch.equal(again.eval()(x), run.model.cpu().eval()(x))
    again.task = None
    again.on_load_checkpoint({})
    assert again.task is None


def test_best_and_the_last_two_are_kept_and_the_others_removed(train):
    run = train("model=mlp", "trainer.max_epochs=6", "optimizer.lr=3e-2")
    kept = {p.name for p in (run.folder / "checkpoints").glob("*.ckpt")}
    named = run.results["checkpoints"]
    assert kept == {Path(named["best"]).name, Path(named["last"]).name, "step-000200.ckpt"}
    assert {p.name for p in (run.folder / "checkpoints").iterdir()} == kept | {f"{k}.json" for k in kept}
    assert named["last"].endswith("step-000240.ckpt")


def test_hyper_parameters_are_plain(train):
    model = LSTM(SPECS["series", "classify"], forget_bias="chrono")
    plain = dict(model.hparams)
    assert plain.pop("spec") == SPECS["series", "classify"].to_dict()
    assert plain == {"width": 128, "depth": 1, "forget_bias": "chrono", "ablate": "none", "dropout": 0.0, "patch": 0}
