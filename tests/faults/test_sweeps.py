"""A sweep whose jobs raise, exit and are killed, that is killed itself, that is run again: rows 18, 21 to 24."""

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.test_cli import ENVIRONMENT, cli

HERE = Path(__file__).parent
FAULTY = ("--config-dir", str(HERE / "conf"), "callbacks=fault", f"user.paths=[{HERE}]", "user.targets=[fault]")
SHORT = ("model=mlp", "trainer.max_epochs=1", "trainer.limit_train_batches=8", "hydra.sweep.dir=sweep")
ERRORS = {
    "raise": "ValueError: planted",
    "exit": "ended by sys.exit(3)",
    "exit_0": "ended by sys.exit(0)",
    "os_exit": "ended with code 9 and left no result",
    "kill": "killed by signal 9",
    "poison": "loss: nan at step 3",
}


def ledger(folder):
    return json.loads((folder / "sweep" / "sweep.json").read_text())["jobs"]


def table(folder):
    with (folder / "sweep" / "sweep.csv").open(newline="") as f:
        return list(csv.DictReader(f))


@pytest.fixture(scope="module")
def broken(tmp_path_factory):
    """A sweep of 14 jobs, two of each fault, and what it said."""
    folder = tmp_path_factory.mktemp("broken")
    hows = ",".join(["none", *ERRORS])
    return folder, cli("-m", *FAULTY, *SHORT, f"callbacks.fault.how={hows}", "seed=0,1", cwd=folder)


@pytest.mark.row(21, 22, 23)
def test_a_job_that_raises_exits_or_is_killed_costs_itself_alone(broken):
    folder, done = broken
    assert done.returncode == 1
    jobs = {tuple(j["overrides"]): j for j in ledger(folder)}
    assert len(jobs) == 14
    for how in ["none", *ERRORS]:
        for seed in (0, 1):
            job = jobs[f"callbacks.fault.how={how}", f"seed={seed}"]
            assert job["status"] == ("ok" if how == "none" else "failed"), job
            if how != "none":
                assert ERRORS[how] in job["error"]


@pytest.mark.row(21)
def test_every_failure_is_told_with_its_overrides_at_once_and_at_the_end(broken):
    _, done = broken
    for how, error in ERRORS.items():
        assert f"callbacks.fault.how={how} seed=1: failed: {error}" in done.stdout
        assert f"callbacks.fault.how={how} seed=1: {error}" in done.stderr
    assert done.stderr.strip().splitlines()[-1] == "12 of 14 jobs failed; the same command tries them again"


def test_the_table_is_of_what_finished(broken):
    folder, _ = broken
    assert [(r["setting"], r["n"]) for r in table(folder)] == [("callbacks.fault.how=none", "2")]


@pytest.mark.row(24)
def test_the_same_command_runs_what_is_missing_and_nothing_else(broken):
    folder, _ = broken
    before = {p: p.stat().st_mtime_ns for p in folder.rglob("results.json")}
    hows = ",".join(["none", *ERRORS])
    command = ("-m", *FAULTY, *SHORT, f"callbacks.fault.how={hows}", "seed=0,1")
    done = cli(*command, cwd=folder, FAULT_OFF="1")
    assert done.returncode == 0, done.stderr
    assert "2 of 14 done, skipped; 12 to run" in done.stdout
    assert {p: p.stat().st_mtime_ns for p in before} == before
    assert {j["status"] for j in ledger(folder)} == {"ok"}
    assert len(list((folder / "sweep").glob("*-failed-1"))) >= 8  # what a failed job left is kept beside the new one
    assert [r["n"] for r in table(folder)] == ["2"] * 7
    more = cli(*command[:-1], "seed=0,1,2", cwd=folder, FAULT_OFF="1")  # more values of the same keys
    assert "14 of 21 done, skipped; 7 to run" in more.stdout
    assert [r["n"] for r in table(folder)] == ["3"] * 7


@pytest.mark.row(29)
def test_a_wrong_value_anywhere_in_the_grid_stops_it_before_the_first_job(tmp_path):
    done = cli("-m", *SHORT, "model.width=8,0", "model.activation=relu,rleu", cwd=tmp_path)
    assert done.returncode == 2
    lines = done.stderr.strip().splitlines()
    assert [line.partition(":")[0] for line in lines] == ["model.activation='rleu'", "model.width=0"]
    assert not (tmp_path / "sweep").exists()
    done = cli("-m", *SHORT, "seed=range(0)", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (2, "seed=range(0): has no value; the grid is empty\n")
    done = cli("-m", *SHORT, "model.widht=8,16", cwd=tmp_path)
    assert done.returncode == 2
    assert "did you mean model.width?" in done.stderr


@pytest.mark.slow
def test_two_sweeps_in_one_folder_are_refused(tmp_path):
    assert cli("-m", *SHORT, "seed=0,1", "record=light", cwd=tmp_path).returncode == 0
    other = cli("-m", *SHORT, "seed=0,1", "record=light", "model.width=8", cwd=tmp_path)
    assert other.returncode == 2
    assert "holds a sweep with" in other.stderr
    assert "give another hydra.sweep.dir=" in other.stderr


def start(folder, *options):
    command = [sys.executable, str(ROOT / "train.py"), "-m", *SHORT[:1], *SHORT[2:], *options]
    reset = lambda: signal.signal(signal.SIGINT, signal.default_int_handler)  # noqa: E731
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen(command, cwd=folder, env=ENVIRONMENT, preexec_fn=reset, start_new_session=True, **pipes)


def until(condition, child, seconds=120):
    deadline = time.monotonic() + seconds
    while not condition():
        assert child.poll() is None, child.communicate()
        assert time.monotonic() < deadline
        os.sched_yield()


@pytest.mark.row(18)
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGUSR1, 143)])
def test_a_signal_ends_a_sweep_whose_running_jobs_keep_what_they_have(number, code, tmp_path):
    child = start(tmp_path, "seed=0,1,2", "trainer.max_epochs=1000", "sweep.jobs=2")
    until(lambda: len(list(tmp_path.rglob("step-*.ckpt"))) >= 2, child)
    os.killpg(child.pid, number)  # as a terminal or a scheduler does: to the parent and all that is in its group
    out, err = child.communicate(timeout=100)
    assert child.returncode == code, (out, err)
    assert "Traceback" not in err
    assert sorted(j["status"] for j in ledger(tmp_path)) == ["preempted", "preempted", "queued"]


def kills(tmp_path, moments):
    """Kill the parent of a sweep at these moments, start it again each time, then let it finish."""
    options = ("seed=range(6)", "trainer.max_epochs=4", "sweep.jobs=2")
    for moment in moments:
        child = start(tmp_path, *options)
        began = time.monotonic()
        until(lambda: (tmp_path / "sweep" / "sweep.json").exists(), child)
        while child.poll() is None and time.monotonic() - began < moment:
            os.sched_yield()
        child.kill()
        child.communicate()
    child = start(tmp_path, *options)
    out, err = child.communicate(timeout=300)
    assert child.returncode == 0, (out, err)
    assert [j["status"] for j in ledger(tmp_path)] == ["ok"] * 6
    assert sorted(o for j in ledger(tmp_path) for o in j["overrides"]) == [f"seed={i}" for i in range(6)]
    (row,) = table(tmp_path)
    assert row["n"] == "6"
    return row["values"]


@pytest.mark.slow
@pytest.mark.row(24)
def test_a_sweep_whose_parent_is_killed_is_finished_by_the_same_command(tmp_path):
    random.seed(0)
    (tmp_path / "straight").mkdir()
    straight = kills(tmp_path / "straight", [])
    (tmp_path / "killed").mkdir()
    assert kills(tmp_path / "killed", [random.uniform(6, 12)]) == straight


@pytest.mark.row(24)
@pytest.mark.slow
def test_twenty_kills_at_random_moments_lose_and_double_nothing(tmp_path):
    random.seed(1)
    (tmp_path / "straight").mkdir()
    straight = kills(tmp_path / "straight", [])
    for i in range(5):
        folder = tmp_path / str(i)
        folder.mkdir()
        assert kills(folder, [random.uniform(4, 14) for _ in range(4)]) == straight


@pytest.mark.slow
def test_memory_does_not_grow_with_the_number_of_jobs(tmp_path):
    code = (
        "import resource, subprocess, sys\n"
        "done = subprocess.run(sys.argv[1:], capture_output=True)\n"
        "print(done.returncode, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss)"
    )
    peak = {}
    for jobs in (5, 50):
        sweep = ("-m", "model=neuron", "trainer.max_epochs=1", "record=light", "progress=none", f"seed=range({jobs})")
        start = [sys.executable, "-c", code, sys.executable, str(ROOT / "train.py"), *sweep, f"hydra.sweep.dir=s{jobs}"]
        done = subprocess.run(start, cwd=tmp_path, env=ENVIRONMENT, capture_output=True, text=True, check=True)
        returned, peak[jobs] = map(int, done.stdout.split())
        assert returned == 0
    assert peak[50] < 1.1 * peak[5], peak  # of the largest of all its processes
