"""A real Slurm of one node: make test-slurm. A sweep that it runs, a job that it signals, one that it preempts."""

import csv
import json
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_cli import ENVIRONMENT, cli

if os.environ.get("LAYERLAB_TEST_SLURM") != "1":
    pytest.skip("needs Slurm: make test-slurm", allow_module_level=True)

TRAIN = f"{sys.executable} {ROOT / 'train.py'}"
LONG = "model=mlp trainer.max_epochs=150 progress=none"


def sbatch(folder: Path, partition: str, command: str, *options: str) -> str:
    """Submit a command; the id of its job."""
    script = folder / f"{partition}.sh"
    script.write_text(f"#!/bin/bash\nsrun {command}\n")
    done = subprocess.run(
        ["sbatch", "--parsable", f"--partition={partition}", "--requeue", "--open-mode=append", *options, str(script)],
        cwd=folder,
        env=ENVIRONMENT,
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout.strip()


def state(job: str) -> str:
    done = subprocess.run(["squeue", "-h", "-j", job, "-o", "%T"], capture_output=True, text=True, check=False)
    return done.stdout.strip() or "GONE"


def until(condition, seconds=300):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, subprocess.run(["squeue"], capture_output=True, text=True).stdout
        time.sleep(0.5)  # another program's clock: Slurm's


def finished(folder: Path) -> bool:
    file = folder / "run" / "status.json"
    return file.is_file() and json.loads(file.read_text() or "{}").get("status") == "ok"


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """metrics.csv of the run that nobody touched."""
    folder = tmp_path_factory.mktemp("straight")
    done = cli(*LONG.split(), "hydra.run.dir=run", cwd=folder)
    assert done.returncode == 0, done.stderr
    return (folder / "run" / "metrics.csv").read_text()


def begun(folder: Path, run: str = "run") -> bool:
    return bool(list((folder / run / "checkpoints").glob("step-*.ckpt")))


def hurry() -> bool:
    """Whether nothing waits any more; what was requeued need not wait its two minutes."""
    told = subprocess.run(["squeue", "-h", "-t", "PENDING", "-o", "%A"], capture_output=True, text=True, check=True)
    for job in told.stdout.split():
        subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
    return not told.stdout


def test_a_job_that_is_signalled_is_requeued_and_goes_on_exactly(tmp_path, straight):
    job = sbatch(tmp_path, "low", f"{TRAIN} {LONG} hydra.run.dir={tmp_path}/run")
    until(lambda: begun(tmp_path))
    subprocess.run(["scancel", "--signal=USR1", job], check=True)
    until(lambda: state(job) in ("PENDING", "GONE", "REQUEUED"))
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)  # not in two minutes
    until(lambda: finished(tmp_path))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert len(manifest["resumed"]) == 1
    assert (tmp_path / "run" / "metrics.csv").read_text() == straight


def test_a_job_that_is_preempted_loses_nothing(tmp_path, straight):
    job = sbatch(tmp_path, "low", f"{TRAIN} {LONG} hydra.run.dir={tmp_path}/run", "--cpus-per-task=2")
    until(lambda: begun(tmp_path))
    other = sbatch(tmp_path, "high", "sleep 5", "--cpus-per-task=2")
    until(lambda: state(other) == "GONE")
    subprocess.run(["scontrol", "update", f"JobId={job}", "StartTime=now"], check=False)
    until(lambda: finished(tmp_path))
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert len(manifest["resumed"]) == 1
    assert (tmp_path / "run" / "metrics.csv").read_text() == straight


SWEEP = ("-m", "hydra/launcher=submitit_slurm", "hydra.launcher.partition=low", "hydra.launcher.mem_gb=2")
SWEEP += ("hydra.launcher.timeout_min=10", "model=mlp")


def test_a_sweep_on_slurm_ends_in_a_complete_table(tmp_path):
    done = cli(
        *(*SWEEP, "hydra.launcher.cpus_per_task=1", f"hydra.sweep.dir={tmp_path}/sweep"),
        *("trainer.max_epochs=2", "model.width=8,32", "seed=0,1"),
        cwd=tmp_path,
        SLURM_CONF=os.environ["SLURM_CONF"],
    )
    assert done.returncode == 0, done.stderr
    assert table(tmp_path) == [("model.width=32", "2"), ("model.width=8", "2")]


def test_a_job_of_a_sweep_that_is_preempted_goes_on_exactly_and_is_in_the_table(tmp_path, straight):
    with ThreadPoolExecutor(1) as background:
        sweep = background.submit(
            cli,
            *(*SWEEP, "hydra.launcher.cpus_per_task=2", f"hydra.sweep.dir={tmp_path}/sweep"),
            *("trainer.max_epochs=150", "progress=none", "seed=0,1"),
            cwd=tmp_path,
            SLURM_CONF=os.environ["SLURM_CONF"],
        )
        until(lambda: sweep.done() or begun(tmp_path / "sweep", "0"))
        other = sbatch(tmp_path, "high", "sleep 5", "--cpus-per-task=2")
        until(lambda: state(other) == "GONE")
        until(lambda: hurry() and sweep.done())
        done = sweep.result()
    assert done.returncode == 0, done.stderr
    assert table(tmp_path) == [("as given", "2")]
    manifest = json.loads((tmp_path / "sweep" / "0" / "manifest.json").read_text())
    assert len(manifest["resumed"]) == 1
    assert (tmp_path / "sweep" / "0" / "metrics.csv").read_text() == straight


def table(folder: Path) -> list[tuple[str, str]]:
    """Settings and numbers of runs in the table of a sweep; none of its jobs may be other than ok."""
    jobs = json.loads((folder / "sweep" / "sweep.json").read_text())["jobs"]
    assert {j["status"] for j in jobs} == {"ok"}
    with (folder / "sweep" / "sweep.csv").open(newline="") as f:
        return sorted((r["setting"], r["n"]) for r in csv.DictReader(f))
