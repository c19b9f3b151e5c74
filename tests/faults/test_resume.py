"""A run that was cut goes on as if it had not been: weights, optimizer, averages, lrs and every logged row."""

import contextlib
import io
import json
import shutil

import pytest
import torch

import layerlab
from layerlab.contract import LayerlabError
from layerlab.train import checkpoint

SHORT = ("trainer.limit_train_batches=4", "trainer.limit_val_batches=2", "trainer.max_epochs=2", "select=last")
RUNS = {
    "cnn": ("model=cnn", "model.dropout=0.3", "augment=[crop,flip]", "callbacks=ema"),
    "gradual": ("model=cnn", "model.dropout=0.3", "freeze=gradual", "callbacks=[ema,early_stopping]"),
    "accumulating": ("model=mlp", "model.dropout=0.2", "trainer.accumulate_grad_batches=2"),
    "plateau": ("model=mlp", "schedule=plateau", "optimizer=sgd"),
    "lstm": ("model=lstm", "data=names", "model.dropout=0.2"),
    "forecast": ("model=transformer", "data=series"),
    "probe": ("model=cnn", "freeze=linear_probe", "freeze.allow_random_features=true", "freeze.cache=false"),
}
CASES = [(name, k) for name in RUNS for k in ((1, 2, 3, 4, 5, 6, 7, 8) if name == "cnn" else (1, 4, 6))]


@pytest.fixture
def quiet(tmp_path, monkeypatch):
    """`layerlab.train` into tmp_path, with nothing printed."""
    monkeypatch.chdir(tmp_path)

    def train(*overrides):
        with contextlib.redirect_stdout(io.StringIO()):
            return layerlab.train(*overrides, f"logs={tmp_path / 'logs'}", "progress=none")

    return train


def cut(cut_after, quiet, step, *options):
    """The folder of a run that a signal ended after so many optimizer steps, or at the validation that is due there."""
    with cut_after(step):
        quiet(*options)
    (folder,) = (f.parent for f in newest_first("logs"))
    assert json.loads((folder / "status.json").read_text())["status"] == "preempted"
    return folder


def newest_first(logs):
    from pathlib import Path

    found = [f for f in Path(logs).rglob("manifest.json") if f.parent.name != "probe"]
    return sorted(found, key=lambda f: f.stat().st_mtime, reverse=True)[:1]


def last(folder):
    """The state of the last checkpoint of a finished run."""
    files = [f for f in (folder / "checkpoints").glob("step-*.ckpt") if "cut" not in f.name]
    return checkpoint.read(max(files, key=lambda f: f.name))


@pytest.mark.row(1, 4, 5, 6, 53, 54)
@pytest.mark.parametrize(("name", "step"), CASES)
def test_a_run_cut_at_any_step_ends_as_one_that_was_not(name, step, quiet, cut_after):
    whole = quiet(*RUNS[name], *SHORT)
    straight = whole.folder.rename("straight")
    if step >= whole.results["steps"] and name != "cnn":
        pytest.skip("the run has no so many steps")
    folder = cut(cut_after, quiet, min(step, whole.results["steps"]), *RUNS[name], *SHORT)
    torch.manual_seed(step)  # the state that a new process finds is another
    again = quiet(f"resume={folder}")
    assert again.folder == folder
    mine, theirs = last(folder), last(straight)
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "current_model_state", "epoch_sums"):
        assert checkpoint.equal(mine.get(part), theirs.get(part)), part
    assert (folder / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()
    assert again.metrics == whole.metrics
    assert len(json.loads((folder / "manifest.json").read_text())["resumed"]) == 1


@pytest.mark.row(7)
def test_last_is_the_newest_run_with_the_same_config(quiet, cut_after):
    options = ("model=mlp", *SHORT)
    folder = cut(cut_after, quiet, 2, *options)
    other = quiet(*options, "seed=3", "resume=last")  # none with this seed: a new run
    assert other.folder != folder
    assert quiet(*options, "resume=last").folder.resolve() == folder.resolve()
    done = quiet(*options, "resume=last")  # finished: nothing to do
    assert done.folder.resolve() == folder.resolve()
    assert len(json.loads((folder / "manifest.json").read_text())["resumed"]) == 1


@pytest.mark.row(7)
@pytest.mark.parametrize(
    ("typed", "words"),
    [
        ("seed=4", "resume: seed is 4, .* was trained with 0; set it back or start a new run"),
        ("data.batch_size=16", "resume: data.batch_size is 16, .* was trained with 32"),
        ("trainer.max_epochs=9", "resume: trainer.max_epochs is 9, .* was trained with 2"),
        ("model=cnn", "resume: model is cnn, .* was trained with mlp"),
        ("trainer=plain", "resume: trainer is plain"),
    ],
)
def test_what_would_make_it_another_run_is_refused_by_name(typed, words, quiet, cut_after):
    folder = cut(cut_after, quiet, 2, "model=mlp", *SHORT)
    with pytest.raises(LayerlabError, match=words):
        quiet(f"resume={folder}", typed)
    quiet(f"resume={folder}", "model=mlp", "seed=0")  # what agrees may be typed


@pytest.mark.row(7, 8, 39)
def test_changed_data_and_other_devices_are_refused(quiet, cut_after):
    folder = cut(cut_after, quiet, 2, "model=mlp", *SHORT)
    manifest = json.loads((folder / "manifest.json").read_text())
    for key, value, words in (
        ("data", manifest["data"] | {"fingerprint": "0" * 16}, "the data has changed"),
        ("devices", 4, "1 devices, the run was trained on 4"),
    ):
        (folder / "manifest.json").write_text(json.dumps(manifest | {key: value}))
        with pytest.raises(LayerlabError, match=words):
            quiet(f"resume={folder}")
    (folder / "manifest.json").write_text(json.dumps(manifest))
    quiet(f"resume={folder}")


@pytest.mark.row(11, 13)
def test_a_damaged_checkpoint_is_passed_over_with_one_line(quiet, cut_after, capsys):
    whole = quiet("model=mlp", *SHORT)
    whole.folder.rename("straight")
    folder = cut(cut_after, quiet, 6, "model=mlp", *SHORT)
    newest = folder / "checkpoints" / "step-000006-cut.ckpt"
    data = bytearray(newest.read_bytes())
    data[len(data) // 2] ^= 1
    newest.write_bytes(bytes(data))
    (folder / "checkpoints" / ".step-000009.ckpt.123").write_bytes(b"half")
    again = quiet(f"resume={folder}")
    said = capsys.readouterr().err
    assert "step-000006-cut.ckpt: sha256 mismatch" in said
    assert "using step-000004.ckpt" in said
    assert "removed 1 unfinished files" in said
    assert again.metrics == whole.metrics


def test_a_folder_without_a_run_is_refused(quiet, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(LayerlabError, match="no run in this folder"):
        quiet("resume=empty")


@pytest.mark.row(14)
def test_nothing_is_left_to_go_on_from_says_so(quiet, cut_after):
    folder = cut(cut_after, quiet, 2, "model=mlp", *SHORT)
    for file in (folder / "checkpoints").glob("*.ckpt"):
        file.write_bytes(b"")
    with pytest.raises(LayerlabError, match=r"sha256 mismatch.*no other checkpoint in"):
        quiet(f"resume={folder}")
    shutil.rmtree(folder / "checkpoints")
    assert quiet(f"resume={folder}").results["steps"] == 8  # from the beginning
