"""Exponential smoothing, fitted anew to every window."""

from __future__ import annotations

import warnings
from collections.abc import Iterable

import numpy as np
import torch
from statsmodels.tools.sm_exceptions import ConvergenceWarning
from statsmodels.tsa.holtwinters import ExponentialSmoothing
from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Mismatch
from layerlab.models.base import Batch, Model

LONGEST_SEASON = 24  # a longer one has too many parameters for what a window holds


class ETS(Model):
    """Additive damped trend, and an additive season where it is known: (B, L, 1) -> (B, H).

    Nothing is learned from the training part: each window is a series of its own, of which the last `points` are
    fitted by statsmodels, some 20 to 100 ms each. The season is left out where it is 1 or above 24, and where the
    window holds fewer than two. Raises Mismatch where a fit fails. Source: Hyndman et al. 2008; damped trend: Gardner &
    McKenzie 1985.
    """

    accepts, tasks, stages = ("series",), ("forecast",), ()
    raw_window = True

    def __init__(self, spec: DataSpec, points: Count = 180):
        super().__init__(spec)
        self.points, self.head = points, nn.Identity()
        n, m = min(points, self.spec.shape[0]), self.spec.season
        needed = max(2 * m, 10 + 2 * (m // 2))  # of statsmodels, to start from
        self.season = m if 1 < m <= LONGEST_SEASON and n >= needed else 0

    def solve(self, train: Iterable[Batch], val: Iterable[Batch]) -> None:
        """There is nothing to solve before a window comes."""

    def features(self, x: Tensor) -> Tensor:
        windows = x[:, -self.points :, 0].double().cpu().numpy()  # (B, n)
        return torch.from_numpy(np.stack([self._forecast(w) for w in windows])).to(x)

    def _forecast(self, values: np.ndarray) -> np.ndarray:
        if np.ptp(values) == 0:
            return np.full(self.spec.out, values[-1])
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", ConvergenceWarning)  # its last estimate is an estimate
                fitted = ExponentialSmoothing(
                    values,
                    trend="add",
                    damped_trend=True,
                    seasonal="add" if self.season else None,
                    seasonal_periods=self.season or None,
                    initialization_method="estimated",
                ).fit()
            found = np.asarray(fitted.forecast(self.spec.out))
        except (ValueError, np.linalg.LinAlgError) as e:
            raise Mismatch(f"model=ets: the fit of a window of {len(values)} values failed ({e})") from e
        if not np.isfinite(found).all():
            raise Mismatch(f"model=ets: the fit of a window of {len(values)} values gave no finite forecast")
        return found
