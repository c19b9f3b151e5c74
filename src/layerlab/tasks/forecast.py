"""What will the next values be? Mean squared error, and the wrapper that decides most of the result."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor

from layerlab.contract import Count, DataSpec, Mismatch
from layerlab.tasks.base import Task, squared_error, squared_report


class Forecast(Task):
    """Forecasts (B, H, targets) of a window (B, L, F), in the scale of the data (z-scores of the training part).

    The wrapper, applied around any core network: channels into the batch -> normalise -> cut into patches -> core ->
    undo. normalise: `none`; `last` subtracts the last value (Zeng et al. 2023, NLinear); `revin` subtracts the mean of
    the window and divides by its std (Kim et al. 2022). channels: `independent` gives each channel a row of its own,
    one network for all (Nie et al. 2023); `joint` reads them together. patch: steps per patch (Nie et al. 2023).
    `auto`: independent where every channel is a target, else joint; revin; the longest patch up to 8 that divides L.
    Reported: mse and mae over windows x steps x targets, loss (mse); on the test split also mase, the mae over that of
    the seasonal naive forecast in the training rows (Hyndman & Koehler 2006).
    """

    name, monitor, mode = "forecast", "val/mse", "min"

    def __init__(
        self,
        spec: DataSpec | dict[str, Any],
        normalise: Literal["auto", "none", "last", "revin"] = "auto",
        channels: Literal["auto", "independent", "joint"] = "auto",
        patch: Count | Literal["auto"] = "auto",
    ):
        super().__init__(spec, normalise=normalise, channels=channels, patch=patch)
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
        return out * scale[..., self.targets] + offset[..., self.targets]

    def _cut(self, z: Tensor) -> Tensor:
        """What the core reads: (B, L, F) -> (B or B F, L / patch, patch f)."""
        B, L, F_ = z.shape
        if self.channels == "independent":
            z = z.transpose(1, 2).reshape(B * F_, L, 1)
        return z.reshape(len(z), L // self.patch, -1)

    def core_batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        offset, scale = self._statistics(x)
        y = (y - offset[..., self.targets]) / scale[..., self.targets]
        y = y.transpose(1, 2).flatten(0, 1) if self.channels == "independent" else y.flatten(1)  # (B F, H) or (B, H F)
        return self._cut((x - offset) / scale), y

    def raw_window(self) -> Forecast:
        for name, value in self.options.items():
            if value != "auto":
                raise Mismatch(f"task.{name}={value}: this model reads the raw window; leave task.{name}=auto")
        return Forecast(self.spec, normalise="none", channels="independent", patch=1)

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
        if not self.spec.naive_mae or 0 in self.spec.naive_mae:
            return {}
        error = (out - y).abs().mean((0, 1))  # (N, H, targets) -> (targets,)
        return {"mase": float((error / torch.tensor(self.spec.naive_mae)).mean())}
