"""Jobs of a sweep, each in a child process of its own: one that raises, exits or is killed costs itself alone."""

from __future__ import annotations

import atexit
import multiprocessing
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import replace
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from filelock import FileLock

from layerlab.build import trust
from layerlab.compose import Composed
from layerlab.contract import LayerlabError
from layerlab.sweep.ledger import Job, Ledger, duration
from layerlab.train.devices import gpus, prepare
from layerlab.train.manifest import read_json
from layerlab.train.signals import exit_code, listened

FEW = 4  # jobs that are started without a forecast
FIXED_S = 0.5  # of a job beside its training
PATIENCE_S = 60  # that a child has for its checkpoint, after a signal
OUTPUT = "output.log"


class Interrupted(SystemExit):
    """A signal ended the sweep; its jobs have written what they had."""


def launch(
    composed: Sequence[Composed],
    varied: Sequence[list[str]],
    ledger: Ledger,
    at_once: int,
    fail_fast: bool = False,
    say: Callable[[str], None] = print,
    places: Sequence[str] = (),
    forecast: bool = True,
) -> list[Job]:
    """Run what has not finished yet of these configs, so many at once; what became of each, in the order given.

    varied: the overrides that make each another than the others. places: as in Ledger.plan. Ends with
    Interrupted where a signal asks for it, after the running jobs have written their checkpoints.
    """
    jobs = ledger.plan(composed, varied, places)
    todo = [(job, config) for job, config in zip(jobs, composed, strict=True) if job.status != "ok"]
    todo = list({id(job): (job, config) for job, config in todo}.values())  # a setting named twice runs once
    if len(todo) < len(jobs):
        say(f"sweep    {len(jobs) - len(todo)} of {len(jobs)} done, skipped; {len(todo)} to run")
    if todo:
        _Pool(ledger, at_once, fail_fast, say).run(todo, forecast)
    return jobs


class _Pool:
    """Starts jobs, waits for them, and keeps the ledger."""

    def __init__(self, ledger: Ledger, at_once: int, fail_fast: bool, say: Callable[[str], None]):
        self.ledger, self.at_once, self.fail_fast, self.say = ledger, at_once, fail_fast, say
        self.running: dict[Any, tuple[BaseProcess, Job, int, float]] = {}
        self.received = 0
        self.done, self.spent, self.failed = 0, 0.0, False

    def run(self, todo: list[tuple[Job, Composed]], forecast: bool) -> None:
        prepare(todo[0][1].config)  # of the server: its threads, and whether it looks for GPUs
        server = context(wandb=bool(todo[0][1].config["logger"].get("wandb")))
        queue, self.total = list(todo), len(todo)
        if forecast and self.total >= FEW:
            self._forecast(server, todo[0][1])
        before = {s: signal.signal(s, self._receive) for s in listened()}
        try:
            while self.running or (queue and not self.received):
                while queue and len(self.running) < self.at_once and not self.received:
                    self._start(server, *queue.pop(0))
                ended = wait(list(self.running), timeout=0.5)
                if self.ledger.behind:
                    self.ledger.write(now=False)
                for sentinel in ended:
                    self._finish(sentinel)
                    if self.fail_fast and self.failed:
                        queue.clear()
        finally:
            self._stop()
            for s, handler in before.items():
                signal.signal(s, handler)
        if self.received:
            raise Interrupted(exit_code(self.received))

    def _forecast(self, server: Any, config: Composed) -> None:
        """Say how long all of it will take, from a few steps of the first job."""
        with tempfile.TemporaryDirectory() as place:
            checked = replace(config, config=config.config | {"check_only": True, "record": "full"})
            child = server.Process(target=_child, args=(checked, f"{place}/check", _gpu(config, 0)))
            child.start()
            child.join()
            found = Path(place, "check", "forecast.json")
            if child.exitcode == 0 and found.is_file():  # what is wrong with it, its own job will say
                seconds = (read_json(found)["seconds"] + FIXED_S) * self.total / self.at_once
                self.say(f"sweep    {self.total} runs, about {duration(seconds)}, {self.at_once} at a time")

    def _start(self, server: Any, job: Job, config: Composed) -> None:
        slot = next(i for i in range(self.at_once) if i not in {s for _, _, s, _ in self.running.values()})
        child = server.Process(target=_child, args=(config, str(self.ledger.folder / job.place), _gpu(config, slot)))
        job.status, job.error, job.code = "running", None, None
        self.ledger.write(now=False)
        child.start()
        self.running[child.sentinel] = child, job, slot, time.monotonic()

    def _finish(self, sentinel: Any) -> None:
        child, job, _, began = self.running.pop(sentinel)
        child.join()
        code = child.exitcode if child.exitcode is not None else 1
        child.close()
        self.ledger.look(job, code)
        job.seconds = job.seconds if job.status == "ok" else time.monotonic() - began
        self.ledger.write(now=False)
        self.done += 1
        self.spent += job.seconds or 0
        if job.status != "ok":
            self.failed = True
            self.say(f"{job.name}: {job.status}: {job.error}")
            return
        told = f"{job.figure} {job.metrics[job.figure]:.4f}" if job.figure in job.metrics else "ok"
        left = self.spent / self.done * (self.total - self.done) / self.at_once
        more = f"   {duration(left)} left" if self.done < self.total else ""
        self.say(
            f"{self.done}/{self.total}  {' '.join(job.overrides) or 'as given'}  {told}  {job.seconds:.1f} s{more}"
        )

    def _receive(self, number: int, frame: Any) -> None:
        again, self.received = self.received, number
        for child, _, _, _ in self.running.values():
            if child.pid and child.is_alive():
                os.kill(child.pid, signal.SIGKILL if again else signal.SIGTERM)

    def _stop(self) -> None:
        """End what still runs: after an error here, nothing may go on unseen."""
        for child, _, _, _ in self.running.values():
            child.terminate()
            child.join(PATIENCE_S)
        for sentinel in list(self.running):
            self._finish(sentinel)


def context(wandb: bool = False) -> Any:
    """Where the children come from: a server that has imported everything; spawned where there is none (Windows).

    wandb: whether they log to it. What ends a sweep is blocked in the server: a target unblocks it, as `_child` does.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    found = multiprocessing.get_context("forkserver")
    # wait for the server at the end: nothing is left behind, and its costs are those of this process
    atexit.unregister(forkserver._forkserver._stop)  # ty: ignore[missing-attribute]
    atexit.register(forkserver._forkserver._stop)  # ty: ignore[missing-attribute]
    found.set_forkserver_preload(["layerlab.sweep.preload", *(["layerlab.sweep.preload_wandb"] if wandb else [])])
    return found


def warm_up() -> None:
    """Start the server now, which imports while the caller composes; for jobs on whatever device there is."""
    prepare({"trainer": {}})
    if context().get_start_method() == "forkserver":
        forkserver.ensure_running()


def jobs_at_once(wanted: int | str, config: dict[str, Any]) -> int:
    """sweep.jobs; auto: as many as there are GPUs, or cores for their threads."""
    if isinstance(wanted, int):
        return wanted
    if found := _wanted_gpus(config):
        return len(found)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, cores // config["trainer"].get("threads", 1))


def _wanted_gpus(config: dict[str, Any]) -> list[str]:
    return gpus() if config["trainer"].get("accelerator", "auto") in ("auto", "gpu") else []


def _gpu(config: Composed, slot: int) -> str | None:
    """The GPU of a slot, where there are several."""
    found = _wanted_gpus(config.config)
    return found[slot % len(found)] if len(found) > 1 else None


# --- in the child


def _child(composed: Composed, place: str, gpu: str | None) -> None:
    """One job from its frozen config. Ends the process with the exit code of the run."""
    if hasattr(os, "setpgrp"):
        os.setpgrp()  # Ctrl-C is for the parent, which passes it on once
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, listened())  # the server takes none; see preload
    _follow_parent()
    if gpu is not None:
        os.environ["CUDA_VISIBLE_DEVICES"] = gpu
    target = Path(place)
    light = target.suffix == ".json"
    locks = target.parent / ".locks"
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / target.name):  # a child of a killed sweep may still write its checkpoint
        composed = _continued(composed, target)
        log = target.with_suffix(".log") if light else target / OUTPUT
        _redirect(log)
        code = _exit_code(composed, place)
        if light and code == 0:
            log.unlink()
        sys.exit(code)


def _exit_code(composed: Composed, place: str) -> int:
    from layerlab.train.run import fit

    prepare(composed.config)
    trust(composed.config["user"]["paths"], composed.config["user"]["targets"])
    try:
        fit(composed, place, curves=False)
    except LayerlabError as e:
        print(e, file=sys.stderr)
        return e.exit_code
    except SystemExit as e:
        return e.code if isinstance(e.code, int) else 1
    except KeyboardInterrupt:
        return 130
    except BaseException:
        traceback.print_exc()
        return 1
    return 0


def _continued(composed: Composed, place: Path) -> Composed:
    """The config, to go on with what an earlier sweep left; what failed there begins anew beside its remains."""
    if not (place / "manifest.json").is_file():
        return composed
    status = read_json(place / "status.json")["status"]
    if status == "failed":
        n = 1
        while (kept := place.with_name(f"{place.name}-failed-{n}")).exists():
            n += 1
        place.rename(kept)
        return composed
    return replace(composed, config=composed.config | {"resume": str(place)})


def _redirect(log: Path) -> None:
    """What the job says goes into a file beside its results."""
    log.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    with log.open("a") as f:
        os.dup2(f.fileno(), 1)
        os.dup2(f.fileno(), 2)


def _follow_parent() -> None:
    """End with a checkpoint when the sweep is gone: nobody would know of this job."""
    parent = multiprocessing.parent_process()
    if parent is None:
        return

    def watch() -> None:
        wait([parent.sentinel])
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=watch, daemon=True).start()
