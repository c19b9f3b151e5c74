"""From the numbers of a check to yes, no or open, and from the checks of a claim to its verdict."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from scipy.stats import binomtest

from layerlab.sweep.stats import half_width

Answer = Literal["yes", "no", "open"]
Verdict = Literal["supported", "nuanced", "refuted", "not decided"]
List = Literal["expect", "control", "limits"]

LEAST_UNITS = 3  # S = 2 decides nothing: t = 12.7


@dataclass(frozen=True)
class Estimate:
    """A mean over units and its 95 % t-interval. exact: no interval, a plain number."""

    mean: float
    low: float
    high: float
    n: int

    def __str__(self) -> str:
        if self.low == self.high:
            return f"{self.mean:.3g}"
        return f"{self.mean:.3g} [{self.low:.3g}, {self.high:.3g}]"


def estimate(values: Sequence[float], rows: int | None = None) -> Estimate:
    """Mean and 95 % t-interval of one value per unit; no finite interval where a value is not finite.

    rows: how many scored rows a value is a share of; the interval is then no narrower than Wilson's for all of them,
    and between 0 and 1.
    """
    n, mean = len(values), statistics.mean(values)
    if not all(map(math.isfinite, values)):
        return Estimate(mean, -math.inf, math.inf, n)
    half = half_width(values)
    if half is None:
        return Estimate(mean, -math.inf, math.inf, n)
    low, high = mean - half, mean + half
    if rows and 0 <= mean <= 1:
        wilson = binomtest(round(mean * rows), rows).proportion_ci(method="wilson")
        low, high = max(min(low, float(wilson.low)), 0.0), min(max(high, float(wilson.high)), 1.0)
    return Estimate(mean, low, high, n)


def answer(low: float, high: float, relation: str) -> Answer:
    """Whether an interval of `left - right` satisfies `left relation right` wholly, violates it wholly, or neither."""
    if math.isnan(low) or math.isnan(high):
        return "open"
    if relation in (">", ">="):
        low, high = -high, -low
    if relation in ("<", ">"):
        return "yes" if high < 0 else "no" if low >= 0 else "open"
    if relation in ("<=", ">="):
        return "yes" if high <= 0 else "no" if low > 0 else "open"
    return "yes" if low == high == 0 else "no" if low > 0 or high < 0 else "open"  # ==


def both(answers: Sequence[Answer]) -> Answer:
    """A chain holds where every link does, and fails where one does."""
    return "no" if "no" in answers else "open" if "open" in answers else "yes"


def verdict(expect: Sequence[Answer], control: Sequence[Answer], limits: Sequence[Answer]) -> Verdict:
    """The verdict of a claim whose checks answered so. An open limit decides nothing."""
    if "open" in expect or "open" in control or not expect or not control:
        return "not decided"
    if "no" not in control:
        if "no" not in expect:
            return "nuanced" if "yes" in limits else "supported"
        return "nuanced" if "yes" in expect else "refuted"
    return "nuanced" if "yes" in expect else "not decided"
