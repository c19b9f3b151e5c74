"""A sweep as a picture: points, means and intervals; two factors as a heat map, more as parallel coordinates."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from layerlab.sweep.stats import Setting

LABELS = 10  # along one of parallel axes
BLUE, GREY = "#0072b2", "#9a9a9a"  # Okabe & Ito 2008: told apart by everybody


def draw(figure: str, more: bool, found: Sequence[Setting], place: Path) -> None:
    """Draw the settings as what varies between them asks for. more: whether a larger figure is better."""
    factors = _factors(found)
    if len(factors) == 2 and len(found) == np.prod([len(v) for v in factors.values()]):
        made = _heat_map(figure, more, found, factors)
    elif len(factors) > 2:
        made = _parallel(figure, more, found, factors)
    else:
        made = _points(figure, found)
    FigureCanvasAgg(made).print_png(place)


def importance(found: dict[str, float], place: Path) -> None:
    """How much of what varies in a search each key explains."""
    fig = Figure(figsize=(6.4, 0.9 + 0.36 * len(found)), layout="constrained", dpi=150)
    ax = fig.subplots()
    ax.barh(list(found), list(found.values()), color=BLUE)
    ax.invert_yaxis()
    _quiet(ax)
    ax.set_xlabel("share of the variance of the objective (fANOVA)")
    FigureCanvasAgg(fig).print_png(place)


def _factors(found: Sequence[Setting]) -> dict[str, list[str]]:
    """The keys that vary, and their values in the order of the settings."""
    values: dict[str, list[str]] = {}
    for s in found:
        for override in s.overrides:
            key, _, value = override.partition("=")
            if value not in values.setdefault(key, []):
                values[key].append(value)
    return {key: v for key, v in values.items() if len(v) > 1}


def _points(figure: str, found: Sequence[Setting]) -> Figure:
    """Each run as a point, each setting with its mean and 95 % t-interval."""
    fig = Figure(figsize=(6.4, 0.9 + 0.36 * len(found)), layout="constrained", dpi=150)
    ax = fig.subplots()
    for row, s in enumerate(found):
        values = list(s.values.values())
        ax.plot(values, [row] * len(values), "o", color=GREY, ms=4, mec="none", alpha=0.7)
        ax.errorbar(s.mean, row, xerr=s.half_width, fmt="o", color=BLUE, ms=6, capsize=3, lw=1.5)
    ax.set_yticks(range(len(found)), [_short(s) for s in found])
    ax.set_ylim(len(found) - 0.5, -0.5)  # the first on top
    _quiet(ax)
    ax.grid(axis="x", lw=0.4, alpha=0.6)
    n = sorted({len(s.values) for s in found})
    ax.set_xlabel(f"{figure}: runs, mean and 95 % t-interval (n = {', '.join(map(str, n))})")
    return fig


def _heat_map(figure: str, more: bool, found: Sequence[Setting], factors: dict[str, list[str]]) -> Figure:
    """Means of two factors; half widths below them."""
    (rows, ys), (columns, xs) = factors.items()
    at = {(o[rows], o[columns]): s for s in found for o in [dict(x.split("=", 1) for x in s.overrides)]}
    means = np.array([[at[y, x].mean for x in xs] for y in ys])
    fig = Figure(figsize=(1.8 + 1.05 * len(xs), 1.2 + 0.6 * len(ys)), layout="constrained", dpi=150)
    ax = fig.subplots()
    image = ax.imshow(means, cmap="viridis" if more else "viridis_r", aspect="auto")
    middle = (means.min() + means.max()) / 2
    for i, y in enumerate(ys):
        for j, x in enumerate(xs):
            half = at[y, x].half_width
            label = f"{means[i, j]:.3f}" + (f"\n± {half:.3f}" if half is not None else "")
            dark = (means[i, j] < middle) == more
            ax.text(j, i, label, ha="center", va="center", fontsize=8, color="white" if dark else "black")
    ax.set_xticks(range(len(xs)), xs)
    ax.set_yticks(range(len(ys)), ys)
    ax.set_xlabel(columns)
    ax.set_ylabel(rows)
    fig.colorbar(image, label=f"{figure}, mean")
    return fig


def _parallel(figure: str, more: bool, found: Sequence[Setting], factors: dict[str, list[str]]) -> Figure:
    """A line per setting through its values, coloured by its mean; the best drawn last."""
    axes = [(key, _in_order(values)) for key, values in factors.items()]
    fig = Figure(figsize=(1.9 * (len(axes) + 1), 3.6), layout="constrained", dpi=150)
    ax = fig.subplots()
    means = [s.mean for s in found]
    low, high = min(means), max(means)
    scale = mpl.colormaps["viridis" if more else "viridis_r"]
    for s in sorted(found, key=lambda s: s.mean, reverse=not more):
        o = dict(x.split("=", 1) for x in s.overrides)
        share = (s.mean - low) / ((high - low) or 1)
        heights = [values.index(o[key]) / (len(values) - 1) for key, values in axes] + [share]
        ax.plot(heights, color=scale(share), lw=1.4, alpha=0.85)
    for i, (_, values) in enumerate(axes):
        ax.axvline(i, color="black", lw=0.8)
        every = -(-len(values) // LABELS)
        for j, value in [*enumerate(values)][::every]:
            label = f"{float(value):.3g}" if _is_number(value) else value
            ax.text(i, j / (len(values) - 1), f" {label}", fontsize=8, va="center")
    ax.axvline(len(axes), color="black", lw=0.8)
    for share in (0.0, 0.5, 1.0):
        ax.text(len(axes), share, f" {low + share * (high - low):.3f}", fontsize=8, va="center")
    ax.set_xticks(range(len(axes) + 1), [*(key for key, _ in axes), figure], fontsize=8)
    ax.set_yticks([])
    _quiet(ax)
    ax.spines["left"].set_visible(False)
    ax.set_xlim(-0.05, len(axes) + 0.35)
    return fig


def _in_order(values: list[str]) -> list[str]:
    """Numbers by their size, anything else as it came."""
    return sorted(values, key=float) if all(map(_is_number, values)) else values


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return True


def _short(setting: Setting) -> str:
    """The values alone where one key varies."""
    if len(setting.overrides) == 1:
        return setting.overrides[0].partition("=")[2]
    return setting.name


def _quiet(ax: Any) -> None:
    for side in ("top", "right"):
        ax.spines[side].set_visible(False)
