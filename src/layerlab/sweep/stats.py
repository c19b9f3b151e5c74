"""What many runs say together: settings over their seeds, intervals, and who is better than whom."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats
from statsmodels.stats.multitest import multipletests

from layerlab.build import suggest
from layerlab.contract import REPEATS, LayerlabError
from layerlab.sweep.ledger import Job

LEVEL = 0.95
RESAMPLES = 9999
ROUNDING = 1e-6  # relative, of figures that were computed in 32 bits


@dataclass(frozen=True)
class Setting:
    """One setting: the figure of each repeat, and what a run of it cost on average."""

    name: str
    overrides: tuple[str, ...]
    values: dict[str, float]  # by what repeats it: "seed=3"
    parameters: int
    cpu_s: float

    @property
    def mean(self) -> float:
        """Mean over the repeats."""
        return statistics.mean(self.values.values())

    @property
    def half_width(self) -> float | None:
        """Half of the 95 % t-interval; None for a single run."""
        return half_width(list(self.values.values()))

    @property
    def bootstrap(self) -> tuple[float, float] | None:
        """The 95 % percentile bootstrap interval of the mean; None for a single run."""
        return bootstrap(list(self.values.values()))


@dataclass(frozen=True)
class Comparison:
    """A setting minus another, paired by what repeats them: mean difference, its 95 % t-interval, and how sure it is.

    p: of the paired t-test, or of the sign test where all pairs differ alike. p_holm: corrected for all comparisons
    made (Holm 1979). effect: mean of the differences in their standard deviations (Cohen's d for paired samples).
    """

    setting: str
    against: str
    n: int
    difference: float
    low: float | None
    high: float | None
    p: float | None
    p_holm: float | None
    effect: float | None


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of a mean by Student's t; None where a single value tells no spread."""
    n = len(values)
    return float(stats.t.ppf((1 + LEVEL) / 2, n - 1)) * statistics.stdev(values) / n**0.5 if n > 1 else None


def bootstrap(values: Sequence[float]) -> tuple[float, float] | None:
    """The 95 % percentile bootstrap interval of a mean (Efron 1979), the same for the same values."""
    if len(values) < 2:
        return None
    found = stats.bootstrap(
        (np.asarray(values),), np.mean, n_resamples=RESAMPLES, confidence_level=LEVEL, method="percentile", rng=0
    )
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def settings(jobs: Sequence[Job]) -> tuple[str, bool, list[Setting]]:
    """The test figure, whether more of it is better, and the settings in the order of the jobs.

    Raises LayerlabError for runs without a figure in common.
    """
    figure, more = jobs[0].figure, jobs[0].mode == "max"
    found: dict[tuple[str, ...], list[Job]] = {}
    for job in jobs:
        if figure not in job.metrics:
            raise LayerlabError(f"{job.name}: has no {figure}, which the others are compared by; sweep over one task")
        found.setdefault(tuple(o for o in job.overrides if o.partition("=")[0] not in REPEATS), []).append(job)
    made = [
        Setting(
            " ".join(overrides) or "as given",
            overrides,
            {" ".join(o for o in j.overrides if o not in overrides): j.metrics[figure] for j in runs},
            round(statistics.mean(j.parameters for j in runs)),
            statistics.mean(j.cpu_s or 0.0 for j in runs),
        )
        for overrides, runs in found.items()
    ]
    return figure, more, made


def best_first(found: Sequence[Setting], more: bool) -> list[Setting]:
    """Settings by their mean."""
    return sorted(found, key=lambda s: s.mean, reverse=more)


def chosen_control(found: Sequence[Setting], wanted: str | None) -> Setting:
    """The setting that the others are compared with: the one named, else the first. Raises LayerlabError."""
    if wanted is None:
        return found[0]
    named = [s for s in found if set(wanted.split()) <= set(s.overrides)]
    if len(named) != 1:
        names = [s.name for s in found]
        what = suggest(wanted, names) if not named else f"it names {len(named)} settings: {', '.join(names)}"
        raise LayerlabError(f"sweep.control={wanted}: not one of the settings; {what}")
    return named[0]


def compare(found: Sequence[Setting], against: Setting) -> list[Comparison]:
    """Every other setting with one, paired; the p-values corrected by Holm for all of them."""
    made = [_pair(s, against) for s in found if s is not against]
    tested = [c.p for c in made if c.p is not None]
    corrected = iter(multipletests(tested, method="holm")[1] if tested else ())
    return [c if c.p is None else _corrected(c, float(next(corrected))) for c in made]


def _corrected(c: Comparison, p: float) -> Comparison:
    return Comparison(c.setting, c.against, c.n, c.difference, c.low, c.high, c.p, p, c.effect)


def _pair(one: Setting, other: Setting) -> Comparison:
    repeats = [r for r in one.values if r in other.values]
    differences = [one.values[r] - other.values[r] for r in repeats]
    n, mean = len(differences), statistics.mean(differences) if differences else one.mean - other.mean
    if n < 2:
        return Comparison(one.name, other.name, n, mean, None, None, None, None, None)
    half, spread = half_width(differences) or 0.0, statistics.stdev(differences)
    p: float
    effect: float | None
    if spread <= ROUNDING * max(
        map(abs, [*one.values.values(), mean])
    ):  # every pair differs alike: no spread to test by
        p, effect = (1.0, 0.0) if abs(mean) <= ROUNDING else (2.0 ** (1 - n), None)  # the sign test (Arbuthnott 1710)
    else:
        p, effect = float(stats.ttest_1samp(differences, 0).pvalue), mean / spread
    return Comparison(one.name, other.name, n, mean, mean - half, mean + half, p, None, effect)


def not_distinguishable(found: Sequence[Setting], more: bool) -> list[str]:
    """The settings that the best is not surely better than: Holm-corrected p of the paired test at 0.05 or more."""
    best = best_first(found, more)[0]
    return [c.setting for c in compare(found, best) if c.p_holm is None or c.p_holm >= 1 - LEVEL]
