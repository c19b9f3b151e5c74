"""What will the next values be? Mean squared error, and the wrapper that decides most of the result."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

from layerlab.contract import Count, DataSpec, Fraction, Mismatch
from layerlab.tasks.base import Task, squared_error, squared_report


class Forecast(Task):
    """Forecasts (B, H, targets) of a window (B, L, F), in the scale of the data (z-scores of the training part).

    The wrapper, applied around any core network: channels into the batch -> normalise -> cut into patches -> core ->
    undo. normalise: `none`; `last` subtracts the last value (Zeng et al. 2023, NLinear); `revin` subtracts the mean of
    the window and divides by its std (Kim et al. 2022). channels: `independent` gives each channel a row of its own,
    one network for all (Nie et al. 2023); `joint` reads them together. patch: steps per patch (Nie et al. 2023).
    `auto`: independent where every channel is a target, else joint; revin; the longest patch up to 8 that divides L.
    interval: share of the targets that an interval around a forecast is to hold, 0 = none; its half width is a quantile
    of the errors on val, for each step and target by itself (split conformal: Lei et al. 2018; Stankeviciute et al.
    2021). Windows overlap and the world drifts, so what it holds is measured: coverage and width on the test split.
    Reported: mse and mae over windows x steps x targets, loss (mse); on the test split also mase, the mae over that of
    the seasonal naive forecast in the training rows (Hyndman & Koehler 2006).
    """

    name, monitor, mode = "forecast", "val/mse", "min"
    further = ("mase", "coverage", "width")

    def __init__(
        self,
        spec: DataSpec | dict[str, Any],
        normalise: Literal["auto", "none", "last", "revin"] = "auto",
        channels: Literal["auto", "independent", "joint"] = "auto",
        patch: Count | Literal["auto"] = "auto",
        interval: Fraction = 0.9,
    ):
        super().__init__(spec, normalise=normalise, channels=channels, patch=patch, interval=interval)
        self.interval = interval
        self.half_width: Tensor | None = None  # (H, targets), in the scale of the data
        L, F_ = self.spec.shape
        self.targets = [self.spec.channels.index(name) for name in self.spec.target]
        every = len(self.targets) == F_
        self.normalise = "revin" if normalise == "auto" else normalise
        self.channels = ("independent" if every else "joint") if channels == "auto" else channels
        self.patch = max(p for p in range(1, 9) if L % p == 0) if patch == "auto" else patch
        if L % self.patch:
            raise Mismatch(f"task.patch={patch}: does not divide data.lookback={L}")
        if self.channels == "independent" and not every:
            raise Mismatch(
                f"task.channels=independent: only {len(self.targets)} of {F_} channels are targets, the others "
                f"would have no effect; use task.channels=joint, or leave data.columns out"
            )

    @property
    def model_spec(self) -> DataSpec:
        L, F_ = self.spec.shape
        width, targets = (1, 1) if self.channels == "independent" else (F_, len(self.targets))
        return self.spec.replace(
            shape=(L // self.patch, self.patch * width),
            out=self.spec.horizon * targets,
            channels=(),
            target=(),
            mean=(),
            std=(),
            naive_mae=(),
        )

    def apply(self, model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        B, _, F_ = x.shape
        offset, scale = self._statistics(x)  # each (B, 1, F)
        out = model(self._cut((x - offset) / scale))
        H = self.spec.horizon
        if self.channels == "independent":
            out = out.reshape(B, F_, H).transpose(1, 2)  # (B F, H) -> (B, H, F)
        else:
            out = out.reshape(B, H, -1)
        return out * self._of_targets(scale) + self._of_targets(offset)

    def _of_targets(self, v: Tensor) -> Tensor:
        """The channels that are forecast: (B, 1, F) -> (B, 1, targets); a list as an index would wait for a GPU."""
        if self.targets == list(range(v.shape[-1])):
            return v
        return torch.stack([v[..., t] for t in self.targets], -1)

    def _cut(self, z: Tensor) -> Tensor:
        """What the core reads: (B, L, F) -> (B or B F, L / patch, patch f)."""
        B, L, F_ = z.shape
        if self.channels == "independent":
            z = z.transpose(1, 2).reshape(B * F_, L, 1)
        return z.reshape(z.shape[0], L // self.patch, -1)

    def core_batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        offset, scale = self._statistics(x)
        y = (y - self._of_targets(offset)) / self._of_targets(scale)
        y = y.transpose(1, 2).flatten(0, 1) if self.channels == "independent" else y.flatten(1)  # (B F, H) or (B, H F)
        return self._cut((x - offset) / scale), y

    def raw_window(self) -> Forecast:
        for name in ("normalise", "channels", "patch"):
            if (value := self.options[name]) != "auto":
                raise Mismatch(f"task.{name}={value}: this model reads the raw window; leave task.{name}=auto")
        return Forecast(self.spec, normalise="none", channels="independent", patch=1, interval=self.interval)

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(x[:, :1])
        if self.normalise == "none":
            return 0 * one, one
        if self.normalise == "last":
            return x[:, -1:], one
        mean = x.mean(1, keepdim=True)
        return mean, x.std(1, keepdim=True, correction=0) + 1e-3  # 1e-3: a constant window stays finite

    def measure(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return squared_error(out, y)

    def report(self, sums: list[float]) -> dict[str, float]:
        return squared_report(sums)

    def metrics(self, out: Tensor, y: Tensor) -> dict[str, float]:
        error, found = (out - y).abs(), {}  # (N, H, targets)
        if self.spec.naive_mae and 0 not in self.spec.naive_mae:
            found["mase"] = float((error.mean((0, 1)) / torch.tensor(self.spec.naive_mae)).mean())
        if self.half_width is not None:
            found["coverage"] = float((error <= self.half_width).double().mean())
            found["width"] = float(2 * self.half_width.mean())
        return found

    def calibrate(self, answers: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
        if not self.interval:
            return {}
        errors = torch.cat([(out - y).abs().float().cpu() for out, y in answers])  # (N, H, targets)
        rank = math.ceil((len(errors) + 1) * self.interval)
        if rank > len(errors):  # too few windows for so high a share
            return {}
        found = {"interval": self.interval, "half_width": errors.sort(0).values[rank - 1].tolist()}
        self.restore_calibration(found)
        return found

    def restore_calibration(self, found: dict[str, Any]) -> None:
        if found:
            self.half_width = torch.tensor(found["half_width"])
