"""What will the next values be? Mean squared error, and the wrapper that decides most of the result."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlab.contract import Count, DataSpec, Mismatch
from layerlab.tasks.base import Task, sums


class Forecast(Task):
    """Forecasts (B, H, targets) of a window (B, L, F), in the scale of the data (z-scores of the training part).

    The wrapper, applied around any core network: channels into the batch -> normalise -> cut into patches -> core ->
    undo. normalise: `none`; `last` subtracts the last value (Zeng et al. 2023, NLinear); `revin` subtracts the mean of
    the window and divides by its std (Kim et al. 2022). channels: `independent` gives each channel a row of its own,
    one network for all (Nie et al. 2023); `joint` reads them together. patch: steps per patch (Nie et al. 2023).
    `auto`: independent where every channel is a target, else joint; revin; the longest patch up to 8 that divides L.
    Reported: mse and mae over windows x steps x targets, loss (mse).
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
                f"would have no effect; use task.channels=joint"
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
        )

    def apply(self, model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        B, L, F_ = x.shape
        offset, scale = self._statistics(x)  # each (B, 1, F)
        z = (x - offset) / scale
        if self.channels == "independent":
            z = z.transpose(1, 2).reshape(B * F_, L, 1)  # (B, L, F) -> (B F, L, 1)
        out = model(z.reshape(len(z), L // self.patch, -1))  # (B, L, f) -> (B, L / patch, patch f)
        H = self.spec.horizon
        if self.channels == "independent":
            out = out.reshape(B, F_, H).transpose(1, 2)  # (B F, H) -> (B, H, F)
        else:
            out = out.reshape(B, H, -1)
        return out * scale[..., self.targets] + offset[..., self.targets]

    def _statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        one = torch.ones_like(x[:, :1])
        if self.normalise == "none":
            return 0 * one, one
        if self.normalise == "last":
            return x[:, -1:], one
        mean = x.mean(1, keepdim=True)
        return mean, x.std(1, keepdim=True, correction=0) + 1e-3  # 1e-3: a constant window stays finite

    def measure(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        loss, n = F.mse_loss(out, y), y.numel()
        return loss, sums(loss * n, F.l1_loss(out, y) * n, n)

    def report(self, sums: list[float]) -> dict[str, float]:
        squared, absolute, n, _ = sums
        return {"loss": squared / n, "mse": squared / n, "mae": absolute / n}
