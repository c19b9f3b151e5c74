"""The runs of a sweep as one table: a row per setting, mean and 95 % interval over its seeds."""

from __future__ import annotations

import csv
import json
import statistics
from dataclasses import dataclass
from pathlib import Path

REPEATS = ("seed",)  # overrides that repeat a setting and make no new one


@dataclass(frozen=True)
class Row:
    """One setting: the figure of each seed, and what a run of it cost on average."""

    setting: str
    values: tuple[float, ...]
    parameters: int
    cpu_s: float

    @property
    def mean(self) -> float:
        """Mean over the seeds."""
        return statistics.mean(self.values)

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % t-interval; None for a single seed."""
        return half_width(self.values)


def half_width(values: tuple[float, ...] | list[float]) -> float | None:
    """Half of the 95 % interval of a mean by Student's t; None where a single value tells no spread."""
    from scipy.stats import t

    n = len(values)
    return float(t.ppf(0.975, n - 1)) * statistics.stdev(values) / n**0.5 if n > 1 else None


def rows(jobs: list[tuple[list[str], Path]]) -> tuple[str, list[Row]]:
    """The test figure and a row per setting, best first, from the overrides and the folder of each finished run."""
    found: dict[str, list[dict]] = {}
    for overrides, folder in jobs:
        setting = " ".join(o for o in overrides if o.partition("=")[0] not in REPEATS) or "as given"
        found.setdefault(setting, []).append(json.loads((folder / "results.json").read_text("utf-8")))
    first = next(iter(found.values()))[0]
    figure = "test/" + first["monitor"].split("/")[1]
    made = [
        Row(
            setting,
            tuple(r["metrics"][figure] for r in results),
            round(statistics.mean(r["parameters"] for r in results)),
            statistics.mean(r["cpu_seconds"]["run"] for r in results),
        )
        for setting, results in found.items()
    ]
    return figure, sorted(made, key=lambda r: r.mean, reverse=first["mode"] == "max")


def text(figure: str, found: list[Row]) -> str:
    """The table for a terminal."""
    width = max(len(r.setting) for r in found)
    lines = [f"{'':{width}}  {figure:>18}    n  {'trainable':>11}  {'CPU s a run':>11}"]
    for r in found:
        spread = f"{r.mean:.4f}" + (f" ± {r.half_width:.4f}" if r.half_width is not None else "")
        lines.append(f"{r.setting:{width}}  {spread:>18}  {len(r.values):>3}  {r.parameters:>11,}  {r.cpu_s:>11.1f}")
    return "\n".join(lines)


def write(figure: str, found: list[Row], place: Path) -> None:
    """The table as csv, every value in it."""
    with place.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["setting", "figure", "n", "mean", "half_width_95", "parameters", "cpu_s", "values"])
        for r in found:
            half = "" if r.half_width is None else f"{r.half_width:.6f}"
            values = " ".join(f"{v:.6f}" for v in r.values)
            row = [r.setting, figure, len(r.values), f"{r.mean:.6f}", half, r.parameters, f"{r.cpu_s:.1f}", values]
            writer.writerow(row)
