"""Kills while saving, full disks, missing steps, weights that are no numbers: rows 1, 2, 9 to 12, 15, 25, 26."""

import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch

from layerlab.contract import LayerlabError
from layerlab.data.batches import Batches
from layerlab.sweep.launch import context
from layerlab.train import checkpoint, resume
from layerlab.train.callbacks import Keyed
from layerlab.train.guards import Diverged
from tests.conftest import ROOT
from tests.faults.fault import save_for_ever
from tests.test_cli import ENVIRONMENT, cli

SHORT = ("model=mlp", "model.dropout=0.2", "trainer.limit_train_batches=4", "trainer.limit_val_batches=2")
SHORT += ("trainer.max_epochs=2", "select=last")


class Crash(Exception):
    """Nothing that the run would know of."""


@pytest.mark.row(1, 2)
@pytest.mark.parametrize("step", range(1, 9))
def test_a_run_that_crashes_at_any_step_ends_as_one_that_did_not(step, train, tmp_path, monkeypatch):
    whole = train(*SHORT)
    straight = whole.folder.rename(tmp_path / "straight")
    begin, seen = Keyed.on_train_batch_start, []

    def crash(self, trainer, module, batch, batch_idx):
        seen.append(batch_idx)
        if len(seen) == step:
            raise Crash
        begin(self, trainer, module, batch, batch_idx)

    with monkeypatch.context() as m:
        m.setattr(Keyed, "on_train_batch_start", crash)
        with pytest.raises(Crash):
            train(*SHORT)
    (folder,) = (f.parent for f in tmp_path.rglob("manifest.json") if f.parent != straight)
    assert json.loads((folder / "status.json").read_text())["error"] == "Crash: "
    again = train(f"resume={folder}")
    assert again.metrics == whole.metrics
    assert again.results["steps"] == 8
    assert (folder / "metrics.csv").read_text() == (straight / "metrics.csv").read_text()
    mine, theirs = (checkpoint.read(f / "checkpoints" / "step-000008.ckpt") for f in (folder, straight))
    for part in ("state_dict", "optimizer_states", "lr_schedulers", "epoch_sums"):
        assert checkpoint.equal(mine[part], theirs[part]), part


@pytest.mark.row(2)
def test_fewer_steps_than_planned_are_no_success(train, tmp_path, monkeypatch):
    every = Batches.__iter__
    monkeypatch.setattr(Batches, "__iter__", lambda self: (b for i, b in enumerate(every(self)) if i < 2))
    with pytest.raises(LayerlabError, match=r"run: 4 of 8 planned steps trained; resume=") as e:
        train(*SHORT)
    assert e.value.exit_code == 1
    (status,) = tmp_path.rglob("status.json")
    assert json.loads(status.read_text())["status"] == "failed"


def killed(folder, kills, elsewhere=None):
    """Kill a process that saves without a pause, so many times; how many steps were lost at most."""
    server, lost = context(), 0
    for _ in range(kills):
        done = server.Value("i", 0)
        child = server.Process(target=save_for_ever, args=(str(folder), done, elsewhere))
        child.start()
        while not done.value:
            assert child.is_alive()
            os.sched_yield()
        time_to_live = random.uniform(0, 0.3)
        began = time.monotonic()
        while time.monotonic() - began < time_to_live:
            os.sched_yield()
        os.kill(child.pid, signal.SIGKILL)
        child.join()
        found = resume.newest(folder, main=True)
        assert found is not None
        state = checkpoint.read(found)  # whole, by its hash
        assert torch.equal(state["state_dict"]["w"], torch.full((200_000,), float(state["global_step"])))
        lost = max(lost, done.value - state["global_step"])
        assert not [f for f in (folder / "checkpoints").iterdir() if f.is_symlink() or f.name.startswith(".")]
    return lost


@pytest.mark.row(9, 11, 12)
def test_a_kill_while_saving_loses_one_interval_at_most(tmp_path, record_property, capsys):
    random.seed(0)
    assert killed(tmp_path, 8) <= 1
    record_property("kills", 8)


@pytest.mark.slow
@pytest.mark.row(9, 11, 12)
def test_a_hundred_kills_while_saving_lose_one_interval_at_most(tmp_path, record_property, capsys):
    random.seed(1)
    assert killed(tmp_path, 100) <= 1
    record_property("kills", 100)
    assert "unfinished files" in capsys.readouterr().err  # some of them were in the middle of a file


@pytest.mark.row(10)
@pytest.mark.skipif(not os.path.isdir("/dev/shm"), reason="needs another filesystem for TMPDIR")  # noqa: PTH112
def test_temporary_files_on_another_filesystem_change_nothing(tmp_path, record_property):
    random.seed(2)
    elsewhere = f"/dev/shm/layerlab-{os.getpid()}"
    os.mkdir(elsewhere)  # noqa: PTH102
    try:
        assert killed(tmp_path, 8, elsewhere) <= 1
        assert os.listdir(elsewhere) == []  # noqa: PTH208
    finally:
        shutil.rmtree(elsewhere)
    record_property("kills", 8)


@pytest.mark.row(15)
def test_a_file_that_cannot_grow_ends_the_run_with_its_size_and_keeps_the_old_ones(tmp_path):
    def limited():
        resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))

    command = [sys.executable, str(ROOT / "train.py"), "model=mlp", "model.width=256", "hydra.run.dir=run"]
    done = subprocess.run(
        command, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, preexec_fn=limited, check=False
    )
    assert done.returncode == 1, done.stderr
    assert "checkpoint: step-000040.ckpt not written (File too large), needs 1." in done.stderr
    assert "go on with resume=" in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1
    assert not list((tmp_path / "run" / "checkpoints").iterdir())
    assert json.loads((tmp_path / "run" / "status.json").read_text())["reason"] == "disk"


@pytest.mark.row(15)
def test_a_run_does_not_begin_where_three_checkpoints_find_no_room(train, monkeypatch):
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(10**9, 10**9 - 50_000, 50_000))
    with pytest.raises(LayerlabError, match="0 MB free, three checkpoints need 1 MB; make room") as e:
        train("model=mlp")
    assert e.value.exit_code == 2


@pytest.mark.row(16)
def test_a_folder_that_cannot_be_written_is_refused_before_the_data_is_read(tmp_path):
    done = cli("model=mlp", "data=csv", "data.path=not-there.csv", "hydra.run.dir=/proc/layerlab", cwd=tmp_path)
    assert done.returncode == 2
    assert "/proc/layerlab: not writable" in done.stderr


@pytest.mark.row(25)
def test_weights_that_are_no_numbers_are_never_saved(train, tmp_path, monkeypatch):
    end = Keyed.on_train_batch_end

    def poison(self, trainer, module, *args):
        if trainer.global_step == 4:
            module.head.weight.data[0, 0] = float("nan")
        end(self, trainer, module, *args)

    monkeypatch.setattr(Keyed, "on_train_batch_end", poison)
    with pytest.raises(Diverged, match=r"weights: not finite at step 4 .*layer head") as e:
        train(*SHORT)
    assert e.value.exit_code == 4
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.row(25)
def test_a_loss_that_turns_bad_later_keeps_the_last_good_checkpoint(train, tmp_path, monkeypatch):
    from layerlab.models.mlp import MLP

    plain = MLP.step

    def poisoned(self, batch):
        loss, sums, out = plain(self, batch)
        return loss * float("nan") if self.training and self.trainer.global_step == 6 else loss, sums, out

    monkeypatch.setattr(MLP, "step", poisoned)
    with pytest.raises(Diverged, match=r"loss: nan at step 6 .*gradient norm .*last good step-000004.ckpt"):
        train(*SHORT)
    (kept,) = tmp_path.rglob("*.ckpt")
    assert all(torch.isfinite(v).all() for v in checkpoint.read(kept)["state_dict"].values())


@pytest.mark.row(25)
def test_the_plain_loop_stops_where_the_loss_is_no_number(train, tmp_path):
    with pytest.raises(Diverged, match="loss: not finite in epoch 1, by step 40"):
        train("trainer=plain", "model=mlp", "optimizer=sgd", "optimizer.lr=1e30", "trainer.gradient_clip_val=0")
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.row(26)
@pytest.mark.parametrize("clip", [0, 1])
@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_an_lr_of_a_million_is_no_success(optimizer, clip, train):
    options = ("model=mlp", f"optimizer={optimizer}", "optimizer.lr=1e6", f"trainer.gradient_clip_val={clip}")
    with pytest.raises(Diverged, match=r"(loss|gradients): .* at step \d+ \(lr "):
        train(*options, "trainer.max_epochs=3")


@pytest.mark.row(9)
def test_a_run_that_still_runs_is_not_taken_up_twice(train, tmp_path):
    from filelock import FileLock

    run = train(*SHORT)
    (run.folder / "status.json").write_text('{"status": "running"}')
    with FileLock(run.folder / ".lock"), pytest.raises(LayerlabError, match="still running; wait for it, or end it"):
        train(f"resume={run.folder}")
