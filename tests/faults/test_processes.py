"""Signals twice, Slurm, ranks that fail or differ, two processes with one seed: rows 17 to 20, 40, 50, 51."""

import csv
import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.faults.test_signals import start, until_it_trains
from tests.test_cli import ENVIRONMENT, cli

HERE = Path(__file__).parent
FAULTY = ("--config-dir", str(HERE / "conf"), "callbacks=fault", f"user.paths=[{HERE}]", "user.targets=[fault]")


@pytest.mark.slow
@pytest.mark.row(17, 19)
def test_two_signals_end_a_run_once_and_it_goes_on_exactly(tmp_path):
    options = ("model=mlp", "trainer.max_epochs=60", "progress=none")
    child = start(tmp_path, *options, "hydra.run.dir=run")
    until_it_trains(tmp_path, child)
    child.send_signal(signal.SIGTERM)
    began = time.monotonic()
    while time.monotonic() - began < 0.01:
        os.sched_yield()
    child.send_signal(signal.SIGTERM)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
    assert "Traceback" not in err
    done = cli("resume=run", "progress=none", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "sha256" not in done.stderr
    whole = cli(*options, "hydra.run.dir=whole", cwd=tmp_path)
    assert whole.returncode == 0
    assert (tmp_path / "run" / "metrics.csv").read_text() == (tmp_path / "whole" / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.row(20)
def test_slurm_gets_its_job_back_and_all_steps_are_trained_once(tmp_path):
    """A scontrol of our own on PATH stands for Slurm's; the real one: make test-slurm."""
    tool = tmp_path / "bin" / "scontrol"
    tool.parent.mkdir()
    tool.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    tool.chmod(tool.stat().st_mode | stat.S_IEXEC)
    slurm = {"PATH": f"{tool.parent}:{os.environ['PATH']}", "SLURM_JOB_ID": "7", "SLURM_NTASKS": "1"}
    slurm |= {"SLURM_JOB_NAME": "x", "SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0"}
    options = ("model=mlp", "trainer.max_epochs=60", "progress=none", "hydra.run.dir=run")
    child = start(tmp_path, *options, **slurm)
    until_it_trains(tmp_path, child)
    child.send_signal(signal.SIGUSR1)
    _, err = child.communicate(timeout=60)
    assert child.returncode == 143, err
    assert (tmp_path / "asked").read_text() == "requeue 7\n"
    again = start(tmp_path, *options, **slurm, SLURM_RESTART_COUNT="1")  # the same command
    _, err = again.communicate(timeout=120)
    assert again.returncode == 0, err
    assert json.loads((tmp_path / "run" / "results.json").read_text())["steps"] == 60 * 40
    with (tmp_path / "run" / "metrics.csv").open(newline="") as f:
        epochs = [row["epoch"] for row in csv.DictReader(f) if row["train/loss"]]
    assert epochs == [str(i) for i in range(60)]


@pytest.mark.row(40)
@pytest.mark.parametrize("how", ["raise", pytest.param("kill", marks=pytest.mark.slow)])
def test_a_rank_that_fails_ends_all_of_them(how, tmp_path):
    rank = ("trainer=ddp_cpu", f"callbacks.fault.how={how}", "callbacks.fault.rank=1", "trainer.max_epochs=50")
    began = time.monotonic()
    done = cli(*FAULTY[:2], *rank, "model=mlp", *FAULTY[2:], cwd=tmp_path)
    assert done.returncode not in (0, 2), done.stderr
    assert time.monotonic() - began < 120  # start-up of both, and a minute
    if how == "raise":
        assert "rank 1: ValueError: planted" in done.stderr
    (status,) = tmp_path.rglob("status.json")
    assert json.loads(status.read_text())["status"] != "ok"


@pytest.mark.row(51)
def test_ranks_with_different_configs_are_refused_before_the_first_step(tmp_path):
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        port = str(s.getsockname()[1])
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "TORCHELASTIC_RUN_ID": "x"}
    common |= {"GROUP_RANK": "0", "LOCAL_WORLD_SIZE": "2", "TORCHELASTIC_RESTART_COUNT": "0"}
    children = [
        subprocess.Popen(
            [sys.executable, str(ROOT / "train.py"), "model=mlp", "trainer=ddp_cpu", f"optimizer.lr={lr}"],
            cwd=tmp_path,
            env=ENVIRONMENT | common | {"RANK": str(rank), "LOCAL_RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank, lr in enumerate(("1e-3", "2e-3"))
    ]
    said = [child.communicate(timeout=120)[1] for child in children]
    assert [child.returncode for child in children] == [2, 2], said
    assert all("config hash" in text and "start every rank with the same command" in text for text in said)
    assert not list(tmp_path.rglob("*.ckpt"))


@pytest.mark.row(50)
@pytest.mark.parametrize("seed", [0, pytest.param(3, marks=pytest.mark.slow)])
def test_two_processes_with_one_seed_end_with_the_same_weights(seed, tmp_path):
    from layerlab.train import checkpoint

    states = []
    for name in ("a", "b"):
        done = cli("model=mlp", f"seed={seed}", "trainer.max_epochs=1", f"hydra.run.dir={name}", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        manifest = json.loads((tmp_path / name / "manifest.json").read_text())
        assert (manifest["threads"], manifest["seed"]) == (1, seed)
        states.append(checkpoint.read(tmp_path / name / "checkpoints" / "step-000040.ckpt")["state_dict"])
    assert checkpoint.equal(*states)
