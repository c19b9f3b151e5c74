"""What runs, sweeps and claims have left in files, as plain values. Nothing here loads a model."""

from __future__ import annotations

import base64
import csv
import itertools
import json
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from layerlab.contract import LayerlabError, flat

Points = list[tuple[float, float]]  # (step, value)

MANIFEST = dict.fromkeys(("data", "git", "started", "seed", "config_hash", "platform", "cpu_count", "python"))
MANIFEST |= {"command": [], "versions": {}}  # what a run that has just begun, or failed early, may lack


@dataclass(frozen=True)
class Run:
    """A run folder: its record, its curves, its pictures as data addresses."""

    folder: Path
    config: dict[str, Any]
    manifest: dict[str, Any]
    status: dict[str, Any]
    results: dict[str, Any]
    curves: dict[str, Points]
    classes: list[dict[str, str]]
    pictures: dict[str, str]

    @property
    def name(self) -> str:
        """The last two parts of its folder: what was run, and when."""
        return "/".join(self.folder.parts[-2:])


@dataclass(frozen=True)
class Sweep:
    """The folder of a sweep: its jobs, and the statistics of those that have finished ({} before any has)."""

    folder: Path
    ledger: dict[str, Any]
    statistics: dict[str, Any]
    pictures: dict[str, str]


def read_json(file: Path) -> dict[str, Any]:
    """A json file; {} where there is none or it is damaged."""
    try:
        return json.loads(file.read_text("utf-8"))
    except (OSError, ValueError):
        return {}


def is_sweep(folder: Path) -> bool:
    """Whether a folder is that of a sweep."""
    return (folder / "sweep.json").is_file()


def run(folder: Path) -> Run:
    """A run from its folder. Raises LayerlabError where there is none."""
    folder = folder.expanduser()
    if not (folder / "manifest.json").is_file():
        raise LayerlabError(f"{folder}: neither a run (manifest.json) nor a sweep (sweep.json); give the folder of one")
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text("utf-8"))
    except (OSError, yaml.YAMLError):
        config = {}
    return Run(
        folder,
        config if isinstance(config, dict) else {},
        MANIFEST | read_json(folder / "manifest.json"),
        {"status": "", "error": None} | read_json(folder / "status.json"),
        read_json(folder / "results.json"),
        _curves(folder),
        _rows(folder / "per_class.csv"),
        _pictures(folder),
    )


def sweep(folder: Path) -> Sweep:
    """A sweep from its folder."""
    folder = folder.expanduser()
    ledger, statistics = (read_json(folder / f"{name}.json") for name in ("sweep", "statistics"))
    return Sweep(folder, {"jobs": [], "common": []} | ledger, statistics, _pictures(folder))


def claims(logs: Path, size: str) -> list[dict[str, Any]]:
    """The records of claims of a size, by topic and name; one of an earlier version may know less."""
    unknown = {"experiment": {}, "plot": {}, "git": None, "literature": "", "concludes": "", "notes": [], "changed": []}
    found = [unknown | read_json(file) for file in sorted((logs / "claim").glob(f"*/{size}.json"))]
    return sorted((r for r in found if "verdict" in r), key=lambda r: (r["topic"], r["name"]))


def claim_curves(logs: Path, record: dict[str, Any], name: str) -> dict[str, Points]:
    """The mean curve of a logged figure over the seeds of each cell of a record; to where the first of them ends."""
    found: dict[str, Points] = {}
    axes = {a: v for a, v in record["axes"].items() if a != "seed"}
    seeds = range(record["first_seed"], record["first_seed"] + len(record["axes"].get("seed", [0])))
    for values in itertools.product(*axes.values()):
        cell = ",".join(f"{a}={v}" for a, v in zip(axes, values, strict=True)) or "all"
        curves = []
        for seed in seeds:
            rows = read_json(logs / "claim" / record["name"] / cell / f"{seed}.json").get("history", [])
            curves.append([(row["step"], row[name]) for row in rows if name in row and "step" in row])
        if points := [(c[0][0], sum(v for _, v in c) / len(c)) for c in zip(*curves, strict=False)]:
            found[cell] = points
    return found


def overview(logs: Path) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """A line for each run and each sweep below a folder, the newest first."""
    runs, sweeps = [], []
    for file in logs.glob("sweeps/*/sweep.json"):
        jobs = read_json(file).get("jobs", [])
        done = sum(job["status"] == "ok" for job in jobs)
        best = read_json(file.with_name("statistics.json")).get("best", "")
        sweeps.append({"folder": file.parent, "jobs": len(jobs), "ok": done, "best": best})
    for file in logs.glob("*/*/manifest.json"):
        parts = (read_json(file.with_name(f"{name}.json")) for name in ("manifest", "results", "status"))
        runs.append(_line(file.parent, {k: v for part in parts for k, v in part.items()}))
    rows = ((file, read_json(file)) for file in logs.glob("*/*.json"))  # of record=light
    runs += [_line(file, row) for file, row in rows if {"config_hash", "status"} <= row.keys()]
    runs.sort(key=lambda r: r["started"], reverse=True)
    return runs, sweeps


def _line(place: Path, facts: dict[str, Any]) -> dict[str, Any]:
    figure = "test/" + str(facts.get("monitor", "")).partition("/")[2]
    value = facts.get("metrics", {}).get(figure)
    told = {"started": facts.get("started", ""), "status": facts.get("status", "")}
    return {"folder": place, "figure": figure if value is not None else "", "value": value, **told}


def differences(runs: list[Run]) -> list[tuple[str, list[Any]]]:
    """The keys of the configs in which runs differ, with the value of each; `-` where it has no such key."""
    configs = [dict(flat(r.config)) for r in runs]
    keys = sorted(set().union(*configs))
    rows = [(key, [c.get(key, "-") for c in configs]) for key in keys]
    return [(key, values) for key, values in rows if any(v != values[0] for v in values)]


def _curves(folder: Path) -> dict[str, Points]:
    found: dict[str, Points] = {}
    for row in _rows(folder / "metrics.csv"):
        for name, value in row.items():
            if value and name not in ("step", "epoch") and row.get("step"):
                with suppress(ValueError):  # the last line of a run that was killed
                    found.setdefault(name, []).append((float(row["step"]), float(value)))
    return found


def _rows(file: Path) -> list[dict[str, str]]:
    try:
        with file.open(newline="", encoding="utf-8") as f:
            return list(csv.DictReader(f))
    except OSError:
        return []


def _pictures(folder: Path) -> dict[str, str]:
    """The PNG files of a folder by name, as addresses that hold their bytes."""
    found = {}
    for file in sorted(folder.glob("*.png")):
        found[file.stem] = "data:image/png;base64," + base64.b64encode(file.read_bytes()).decode()
    return found
