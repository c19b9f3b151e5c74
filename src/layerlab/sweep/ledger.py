"""The jobs of a sweep and what became of them: sweep.json in its folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

from filelock import FileLock, Timeout

from layerlab.compose import Composed
from layerlab.contract import LayerlabError
from layerlab.train.manifest import config_hash, write_json

Status = Literal["queued", "running", "ok", "failed", "preempted"]
FILE = "sweep.json"
WRITE_S = 0.5


@dataclass
class Job:
    """One run of a sweep. overrides: what makes it another than the others. place: its folder, or the file of its row.

    code: how its process ended, negative for a signal. metrics: of the finished run, under their logged names.
    """

    number: int
    overrides: list[str]
    config_hash: str
    place: str
    status: Status = "queued"
    code: int | None = None
    error: str | None = None
    seconds: float | None = None
    cpu_s: float | None = None
    metrics: dict[str, float] = field(default_factory=dict)
    monitor: str = ""
    mode: str = "min"
    parameters: int = 0
    pruned: bool = False  # ended early by a search

    @property
    def name(self) -> str:
        """Its overrides, as in a message."""
        return f"job {self.number} {' '.join(self.overrides)}".strip()

    @property
    def figure(self) -> str:
        """The test figure that it is compared by: test/acc where val/acc is monitored."""
        return f"test/{self.monitor.partition('/')[2]}"


class Ledger:
    """sweep.json: written whole after every change; held by one sweep at a time.

    Raises LayerlabError where the folder holds a sweep of something else, or another one runs in it.
    """

    def __init__(self, folder: Path, common: Sequence[str]):
        self.folder, self.common, self.jobs = folder, sorted(common), list[Job]()
        self.source, self.written = source_hash(), 0.0
        self.behind = False  # whether the file does not say yet what is known here
        folder.mkdir(parents=True, exist_ok=True)
        self.lock = FileLock(folder / ".sweep.lock")
        try:
            self.lock.acquire(timeout=0)
        except Timeout as e:
            raise LayerlabError(
                f"{folder}: another sweep runs in this folder; wait for it, or give hydra.sweep.dir="
            ) from e
        if (folder / FILE).is_file():
            held = read(folder)
            if held["common"] != self.common:
                raise LayerlabError(
                    f"{folder}: holds a sweep with {' '.join(held['common']) or 'nothing'} in common, this one has "
                    f"{' '.join(self.common) or 'nothing'}; give another hydra.sweep.dir="
                )
            self.jobs = [Job(**job) for job in held["jobs"]]
            if held["source"] != self.source and any(j.status == "ok" for j in self.jobs):
                print(f"sweep    the code has changed since the finished jobs of {folder} ran; they are kept")

    def plan(self, composed: Sequence[Composed], varied: Sequence[list[str]], places: Sequence[str] = ()) -> list[Job]:
        """The jobs of these configs: those that were here before, and new ones; in the order given.

        places: where each leaves its record, within the folder; by default they are numbered.
        """
        known = {job.config_hash: job for job in self.jobs}
        planned = []
        for config, overrides, place in zip(composed, varied, places or [""] * len(composed), strict=True):
            digest = config_hash(config.config)
            if digest not in known:
                number = len(self.jobs)
                suffix = ".json" if config.config["record"] == "light" else ""
                known[digest] = Job(number, overrides, digest, place or f"{number:03d}-{digest}{suffix}")
                self.jobs.append(known[digest])
            planned.append(known[digest])
        for job in planned:
            self.look(job)
        self.write()
        return planned

    def look(self, job: Job, code: int | None = None) -> None:
        """Learn from its files what became of a job. code: how its process ended, where this sweep started it."""
        found = _found(self.folder / job.place)
        if found.get("config_hash", job.config_hash) != job.config_hash:  # the row of an earlier config
            found = {}
        status = found.get("status")
        if status == "ok" and code in (None, 0) and "metrics" in found:
            job.status, job.error = "ok", None
            job.metrics, job.parameters = found["metrics"], found["parameters"]
            job.pruned = found.get("pruned", False)
            job.monitor, job.mode = found["monitor"], found["mode"]
            job.cpu_s, job.seconds = found["cpu_seconds"]["total"], found["seconds"]["total"]
        elif code is not None:
            job.status = "preempted" if status == "preempted" and code > 128 else "failed"
            job.error = found.get("error") or _ended(code)
        elif job.status in ("ok", "running"):  # its files are gone, or its sweep was killed
            job.status = "queued"
        job.code = code if code is not None else job.code

    def close(self) -> None:
        """Say how it stands at the end, and let another sweep have the folder."""
        self.write()
        self.lock.release()

    def write(self, now: bool = True) -> None:
        """Put everything down, whole or not at all. now: else at most every half second, for many short jobs.

        What a kill leaves unsaid is learnt from the files of the jobs.
        """
        self.behind = not now and time.monotonic() - self.written < WRITE_S
        if self.behind:
            return
        self.written = time.monotonic()
        facts = {
            "written": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            "pid": os.getpid(),
            "common": self.common,
            "source": self.source,
            "jobs": [asdict(job) for job in self.jobs],
        }
        write_json(self.folder / FILE, facts)


def read_jobs(folder: Path) -> list[Job]:
    """The jobs of a sweep, from its folder. Raises LayerlabError."""
    return [Job(**job) for job in read(folder)["jobs"]]


def read(folder: Path) -> dict[str, Any]:
    """sweep.json of a folder. Raises LayerlabError where there is none, or it is damaged."""
    try:
        return json.loads((folder / FILE).read_text("utf-8"))
    except OSError as e:
        raise LayerlabError(f"{folder}: no sweep in this folder ({FILE} is missing)") from e
    except ValueError as e:
        raise LayerlabError(f"{folder / FILE}: damaged ({e}); remove it, and the sweep starts again") from e


def status(folder: Path) -> str:
    """What stands where in a sweep, in lines for a terminal."""
    jobs = read_jobs(folder)
    counts = {s: sum(j.status == s for j in jobs) for s in ("ok", "running", "queued", "failed", "preempted")}
    lines = [f"{folder}: {len(jobs)} jobs, " + ", ".join(f"{n} {s}" for s, n in counts.items() if n)]
    done = [j.seconds for j in jobs if j.status == "ok" and j.seconds]
    running = [j for j in jobs if j.status == "running"]
    left = counts["queued"] + counts["running"]
    if done and left:
        lines[0] += f"; about {duration(sum(done) / len(done) * left / max(len(running), 1))} left"
    for job in jobs:
        told = f"{job.figure} {job.metrics[job.figure]:.4f}" if job.figure in job.metrics else job.error or ""
        lines.append(f"{job.number:4} {job.status:10} {' '.join(job.overrides)}  {told}".rstrip())
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """Seconds in words: 40 seconds, 14 minutes, 3.5 hours."""
    if seconds < 90:
        return f"{max(round(seconds), 1)} seconds"
    return f"{round(seconds / 60)} minutes" if seconds < 90 * 60 else f"{seconds / 3600:.1f} hours"


def source_hash() -> str:
    """Eight hexadecimal digits that stand for our source files."""
    digest = blake2b(digest_size=4)
    for file in sorted(Path(__file__).parents[1].rglob("*.py")):
        digest.update(file.read_bytes())
    return digest.hexdigest()


def _found(place: Path) -> dict[str, Any]:
    """Status and results of a run, from its folder or from its row; {} where there is nothing to read."""
    names = ("row.json", "status.json", "results.json")  # the row: of another launcher, which makes folders
    files = [place] if place.suffix == ".json" else [place / n for n in names]
    found: dict[str, Any] = {}
    for file in files:
        try:
            found |= json.loads(file.read_text("utf-8"))
        except (OSError, ValueError):  # not there yet
            continue
    return found


def _ended(code: int) -> str:
    return f"killed by signal {-code}" if code < 0 else f"ended with code {code} and left no result"
