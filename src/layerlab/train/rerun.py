"""The same run again, and whether it came out the same: bit-equal, within the interval, or different and where."""

from __future__ import annotations

import csv
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from layerlab.compose import Composed
from layerlab.contract import LayerlabError
from layerlab.train import checkpoint
from layerlab.train.manifest import REDACTED, Record, read_config, read_json
from layerlab.train.run import fit

Verdict = Literal["bit-equal", "within interval", "different"]


@dataclass(frozen=True)
class Report:
    """What a repetition gave. where: the first row of metrics.csv that differs; around: what else is not the same."""

    verdict: Verdict
    where: str | None
    around: list[str]
    figure: str
    before: float
    after: float
    folder: Path

    def __str__(self) -> str:
        lines = [f"rerun    {self.verdict}: {self.figure} {self.before:.6f}, again {self.after:.6f}"]
        lines += [f"         {line}" for line in (*([self.where] if self.where else []), *self.around)]
        return "\n".join([*lines, f"run      {self.folder}"])


def rerun(folder: Path) -> Report:
    """Repeat a finished run from its own config, in reruns/ of its folder, and compare; kept in rerun.json there.

    within interval: the figure that the run is judged by lies in the interval that the run gave for it. Raises
    LayerlabError for a run that has not finished, or whose config lacks a secret.
    """
    config, manifest, results = (
        read_config(folder),
        read_json(folder / "manifest.json"),
        read_json(folder / "results.json"),
    )
    if hidden := _hidden(config):
        raise LayerlabError(f"run={folder}: {', '.join(hidden)} is not in its record; start the run by its command")
    place = folder / "reruns" / f"{len(list((folder / 'reruns').glob('*'))) + 1:03d}"
    composed = Composed(deepcopy(config) | {"resume": None}, manifest["choices"], manifest["overrides"])
    again = fit(composed, str(place))
    figure = "test/" + results["monitor"].partition("/")[2]
    before, after = results["metrics"][figure], again.metrics[figure]
    where = _first_difference(folder / "metrics.csv", place / "metrics.csv")
    where = where or _weights(folder, results, place, again.results)
    interval = results.get("intervals", {}).get(figure)
    if where is None:
        verdict: Verdict = "bit-equal"
    elif interval and interval["low"] <= after <= interval["high"]:
        verdict = "within interval"
    else:
        verdict = "different"
    report = Report(verdict, where, _around(manifest, read_json(place / "manifest.json")), figure, before, after, place)
    Record(place, composed).write("rerun.json", vars(report))
    return report


def _hidden(node: Any, where: tuple[str, ...] = ()) -> list[str]:
    """The keys whose values were left out of the record."""
    if isinstance(node, dict):
        return [name for k, v in node.items() for name in _hidden(v, (*where, str(k)))]
    if isinstance(node, list):
        return [name for v in node for name in _hidden(v, where)]
    return [".".join(where)] if isinstance(node, str) and REDACTED in node else []


def _first_difference(one: Path, other: Path) -> str | None:
    """The first row and column of two metrics.csv that differ."""
    with one.open(newline="") as a, other.open(newline="") as b:
        rows = list(csv.DictReader(a)), list(csv.DictReader(b))
    for mine, theirs in zip(*rows, strict=False):
        for column, value in mine.items():
            if theirs.get(column) != value:
                step = mine.get("step") or theirs.get("step")
                return f"differs first at step {step}: {column} {value}, again {theirs.get(column)}"
    if len(rows[0]) != len(rows[1]):
        return f"metrics.csv has {len(rows[0])} rows, again {len(rows[1])}"
    return None


def _weights(folder: Path, results: dict[str, Any], place: Path, again: dict[str, Any]) -> str | None:
    """Whether the last weights differ, where every logged figure is the same."""
    states = [
        checkpoint.read(f / r["checkpoints"]["last"])["state_dict"] for f, r in ((folder, results), (place, again))
    ]
    return None if checkpoint.equal(*states) else "the last weights differ, and no logged figure does"


def _around(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """What of the machine, the code and the data is not as it was."""
    facts = {"python": "python", "device": "device", "threads": "threads", "precision": "precision"}
    lines = [f"{n} {before.get(k)}, now {after.get(k)}" for k, n in facts.items() if before.get(k) != after.get(k)]
    for package, version in before.get("versions", {}).items():
        if (now := after["versions"].get(package)) != version:
            lines.append(f"{package} {version}, now {now}")
    if (old := (before.get("git") or {}).get("commit")) != (new := (after.get("git") or {}).get("commit")):
        lines.append(f"commit {str(old)[:10]}, now {str(new)[:10]}")
    if before["data"]["fingerprint"] != after["data"]["fingerprint"]:
        lines.append(f"data {before['data']['fingerprint']}, now {after['data']['fingerprint']}")
    return lines
