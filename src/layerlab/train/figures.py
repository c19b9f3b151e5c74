"""Pictures of a run, as PNG in its folder."""

from __future__ import annotations

import csv
from pathlib import Path

COLOURS = {"train": "#4269d0", "val": "#efb118"}


def curves(folder: Path, title: str) -> Path | None:
    """Loss and the task's figure over the epochs, from metrics.csv -> curves.png; None where nothing was logged."""
    columns = _columns(folder / "metrics.csv")
    names = [n for n in ("loss", "acc", "mae") if any(f"{split}/{n}" in columns for split in COLOURS)]
    if not names:
        return None
    # the object interface: pyplot would pick a window system, and keep every figure of a sweep
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4.5 * len(names), 3.4), layout="constrained")
    FigureCanvasAgg(figure)
    for axes, name in zip(figure.subplots(1, len(names), squeeze=False)[0], names, strict=True):
        for split, colour in COLOURS.items():
            if points := columns.get(f"{split}/{name}"):
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, color=colour, label=split, marker="." if len(steps) < 40 else None)
        axes.set_xlabel("optimizer step")
        axes.set_title(name)
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(alpha=0.25)
        axes.legend(frameon=False)
    figure.suptitle(title)
    figure.savefig(place := folder / "curves.png", dpi=130)
    return place


def _columns(file: Path) -> dict[str, list[tuple[int, float]]]:
    """metric -> (step, value) of the rows that have it."""
    found: dict[str, list[tuple[int, float]]] = {}
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as f:
            for row in csv.DictReader(f):
                for name, value in row.items():
                    if value and name != "step":
                        found.setdefault(name, []).append((int(row["step"]), float(value)))
    return found
