"""Numbers of a report in words and small drawings."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup, escape

WIDTH, HEIGHT, EDGE = 150, 18, 6


def number(value: Any) -> str:
    """Three significant digits; what is no number as it is."""
    try:
        found = float(value)
    except (TypeError, ValueError):
        return str(value)
    if not math.isfinite(found):
        return {math.inf: "∞", -math.inf: "-∞"}.get(found, "-")
    return f"{found:,.0f}" if abs(found) >= 1000 else f"{found:.3g}"


def measured(link: dict[str, Any]) -> tuple[dict[str, float], float, str]:
    """What a link of a check compares: an estimate, the number it is held against, and how (`>=`).

    Where neither side is a number it is their difference, held against 0.
    """
    turned = {"<": ">", ">": "<", "<=": ">=", ">=": "<=", "==": "=="}
    left, right = ({k: float(v) for k, v in link[side].items()} for side in ("left", "right"))
    if _constant(right):
        return left, right["mean"], link["relation"]
    if _constant(left):
        return right, left["mean"], turned[link["relation"]]
    return {k: float(v) for k, v in link["difference"].items()}, 0.0, link["relation"]


def effect(link: dict[str, Any]) -> str:
    """The estimate of a link with its interval: .42 [.35, .49]."""
    found, _, _ = measured(link)
    interval = "" if found["low"] == found["high"] else f" [{number(found['low'])}, {number(found['high'])}]"
    return number(found["mean"]) + interval


def interval(link: dict[str, Any], answer: str) -> Markup:
    """An interval against its threshold, drawn: a bar with a point, a line where the threshold is, its side shaded."""
    found, threshold, relation = measured(link)
    if not math.isfinite(found["mean"]):
        return Markup("")
    ends = [v for v in (found["low"], found["high"], found["mean"], threshold) if math.isfinite(v)]
    low, high = min(ends), max(ends)
    span = (high - low) or abs(high) or 1.0

    def at(value: float) -> float:
        return EDGE + (min(max(value, low), high) - low) / span * (WIDTH - 2 * EDGE)

    t, middle = at(threshold), HEIGHT / 2
    begin, end = {">": (t, WIDTH), ">=": (t, WIDTH), "==": (t, t)}.get(relation, (0, t))
    left, right = (at(found["low"]), at(found["high"]))
    title = escape(f"{effect(link)}, asked {relation} {number(threshold)}: {answer}")
    return Markup(
        f'<svg class="interval {answer}" width="{WIDTH}" height="{HEIGHT}" role="img" aria-label="{title}">'
        f"<title>{title}</title>"
        f'<rect class="side" x="{begin:.1f}" y="0" width="{max(end - begin, 0):.1f}" height="{HEIGHT}"/>'
        f'<line class="threshold" x1="{t:.1f}" x2="{t:.1f}" y1="0" y2="{HEIGHT}"/>'
        f'<line class="bar" x1="{left:.1f}" x2="{right:.1f}" y1="{middle}" y2="{middle}"/>'
        f'<circle cx="{at(found["mean"]):.1f}" cy="{middle}" r="3.5"/></svg>'
    )


def _constant(side: dict[str, float]) -> bool:
    return side["low"] == side["high"] and side["n"] == 0
