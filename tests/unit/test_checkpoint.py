import json
import os
from pathlib import Path

import pytest
import torch
from tests.conftest import SPECS

from layerlab.models.lstm import LSTM
from layerlab.tasks import NextToken
from layerlab.train import checkpoint
from layerlab.train.checkpoint import CheckpointError, read, sidecar, write


class Touch:
    def __reduce__(self):
        return os.mkdir, ("/tmp/layerlab-was-here",)


def test_what_is_written_is_read_with_weights_only(tmp_path):
    path = tmp_path / "step-000001.ckpt"
    write({"a": torch.arange(4), "n": 1, "s": ["x"]}, path)
    assert torch.equal(read(path)["a"], torch.arange(4))
    assert sorted(p.name for p in tmp_path.iterdir()) == [path.name, sidecar(path).name]
    assert json.loads(sidecar(path).read_text())["bytes"] == path.stat().st_size


def test_a_flipped_byte_is_noticed_anywhere(tmp_path):
    path = tmp_path / "a.ckpt"
    write({"w": torch.randn(200)}, path)
    good = path.read_bytes()
    for at in range(0, len(good), max(len(good) // 40, 1)):
        path.write_bytes(good[:at] + bytes([good[at] ^ 1]) + good[at + 1 :])
        with pytest.raises(CheckpointError, match="sha256 mismatch"):
            read(path)


@pytest.mark.parametrize("content", [b"", b"hello", b"PK\x03\x04"])
def test_a_foreign_file_is_refused_by_name(tmp_path, content):
    path = tmp_path / "x.ckpt"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"x\.ckpt: not a layerlab checkpoint"):
        read(path)
    with pytest.raises(CheckpointError, match="no such checkpoint"):
        read(tmp_path / "y.ckpt")


def test_code_in_a_checkpoint_never_runs(tmp_path):
    path = tmp_path / "evil.ckpt"
    write({"w": Touch()}, path)  # with a sidecar that matches
    with pytest.raises(CheckpointError, match="objects other than tensors and plain values"):
        read(path)
    assert not Path("/tmp/layerlab-was-here").exists()


def test_a_save_that_fails_leaves_the_old_one_and_no_rest(tmp_path, monkeypatch):
    path = tmp_path / "a.ckpt"
    write({"w": torch.ones(3)}, path)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint.torch, "save", full)
    with pytest.raises(OSError, match="No space left"):
        write({"w": torch.zeros(3)}, path)
    monkeypatch.undo()
    assert torch.equal(read(path)["w"], torch.ones(3))
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


def test_best_and_last_are_kept_and_the_others_removed(train):
    run = train("model=mlp", "trainer.max_epochs=6", "optimizer.lr=3e-2")
    kept = {p.name for p in (run.folder / "checkpoints").glob("*.ckpt")}
    named = run.results["checkpoints"]
    assert kept == {Path(named["best"]).name, Path(named["last"]).name}
    assert {p.name for p in (run.folder / "checkpoints").iterdir()} == kept | {f"{k}.json" for k in kept}
    assert named["last"].endswith("step-000240.ckpt")


def test_hyper_parameters_are_plain(train):
    model = LSTM(SPECS["series", "classify"], forget_bias="chrono")
    plain = dict(model.hparams)
    assert plain.pop("spec") == SPECS["series", "classify"].to_dict()
    assert plain == {"width": 128, "depth": 1, "forget_bias": "chrono", "ablate": "none", "dropout": 0.0, "patch": 0}
