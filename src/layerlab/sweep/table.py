"""The table of a sweep: for a terminal, as csv and json, and as a picture."""

from __future__ import annotations

import csv
import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from layerlab.sweep import figure as pictures
from layerlab.sweep import stats
from layerlab.sweep.ledger import Job
from layerlab.sweep.stats import Comparison, Setting


def leave(jobs: Sequence[Job], folder: Path, control: str | None) -> str:
    """Write sweep.csv, statistics.json and sweep.png of finished jobs; the table as text.

    control: the setting that the others are compared with, None for the first. Raises LayerlabError.
    """
    name, more, found = stats.settings(jobs)
    against = stats.chosen_control(found, control)
    repeated = any(len(s.values) > 1 for s in found)  # single runs tell no spread: nothing to compare by
    compared = stats.compare(found, against) if len(found) > 1 and repeated else []
    close = stats.not_distinguishable(found, more)
    ordered = stats.best_first(found, more)
    write(name, ordered, folder / "sweep.csv")
    facts = {
        "figure": name,
        "better": "more" if more else "less",
        "settings": [
            asdict(s) | {"mean": s.mean, "half_width_95": s.half_width, "bootstrap_95": s.bootstrap} for s in ordered
        ],
        "control": against.name,
        "comparisons": [asdict(c) for c in compared],
        "best": ordered[0].name,
        "not_distinguishable_from_the_best": close,
    }
    text_of = json.dumps(facts, indent=1, ensure_ascii=False, allow_nan=False)
    (folder / "statistics.json").write_text(text_of + "\n", encoding="utf-8")
    pictures.draw(name, more, found, folder / "sweep.png")
    lines = [text(name, ordered)]
    if compared:
        lines += ["", differences(compared), "", f"best     {ordered[0].name}"]
        lines.append(f"         not distinguishable from it: {', '.join(close) or 'none'} (paired t-test, Holm, 5 %)")
    lines += ["", f"sweep    {folder}: sweep.csv, statistics.json, sweep.png"]
    return "\n".join(lines)


def text(figure: str, found: Sequence[Setting]) -> str:
    """A row per setting for a terminal: mean and 95 % t-interval, bootstrap interval, costs."""
    width = max(len(s.name) for s in found)
    lines = [f"{'':{width}}  {figure + ' ± 95 %':>18}  {'bootstrap':>17}    n  {'trainable':>11}  {'CPU s a run':>11}"]
    for s in found:
        spread = f"{s.mean:.4f}" + (f" ± {s.half_width:.4f}" if s.half_width is not None else "")
        resampled = "{:.4f} … {:.4f}".format(*s.bootstrap) if s.bootstrap else ""
        costs = f"{len(s.values):>3}  {s.parameters:>11,}  {s.cpu_s:>11.1f}"
        lines.append(f"{s.name:{width}}  {spread:>18}  {resampled:>17}  {costs}")
    return "\n".join(lines)


def differences(compared: Sequence[Comparison]) -> str:
    """A row per comparison with the control."""
    width = max(len(c.setting) for c in compared)
    against = f"minus {compared[0].against}"
    lines = [f"{against:{width}}  {'difference':>10}  {'95 %':>19}    n  {'p (Holm)':>9}  {'effect d':>8}"]
    for c in compared:
        interval = f"{c.low:+.4f} … {c.high:+.4f}" if c.low is not None else ""
        sure = f"{c.p_holm:>9.3g}" if c.p_holm is not None else ""
        sure += f"  {c.effect:>8.2f}" if c.effect is not None else ""
        lines.append(f"{c.setting:{width}}  {c.difference:>+10.4f}  {interval:>19}  {c.n:>3}  {sure}".rstrip())
    return "\n".join(lines)


def write(figure: str, found: Sequence[Setting], place: Path) -> None:
    """The table as csv, every value in it."""
    with place.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        head = ["setting", "figure", "n", "mean", "half_width_95", "bootstrap_low", "bootstrap_high"]
        writer.writerow([*head, "parameters", "cpu_s", "values"])
        for s in found:
            half = "" if s.half_width is None else f"{s.half_width:.6f}"
            low, high = (f"{v:.6f}" for v in s.bootstrap) if s.bootstrap else ("", "")
            values = " ".join(f"{v:.6f}" for v in s.values.values())
            row = [s.name, figure, len(s.values), f"{s.mean:.6f}", half, low, high, s.parameters, f"{s.cpu_s:.1f}"]
            writer.writerow([*row, values])
