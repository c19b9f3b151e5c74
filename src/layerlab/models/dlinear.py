"""Trend and rest, a linear forecast of each."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlab.contract import Count, DataSpec
from layerlab.models.base import Model


class DLinear(Model):
    """Moving average and remainder, one linear map of each, shared by all channels: (B, L, 1) -> (B, H).

    kernel: steps of the moving average, odd; the ends are repeated. Source: Zeng et al. 2023, arXiv 2205.13504.
    """

    accepts, tasks = ("series",), ("forecast",)
    stages = (("head", r"head\."),)
    raw_window = True

    def __init__(self, spec: DataSpec, kernel: Count = 25):
        super().__init__(spec)
        if kernel % 2 == 0:
            raise ValueError(f"model.kernel={kernel}: expected an odd number of steps")
        self.kernel = kernel
        self.head = nn.Linear(2 * self.spec.shape[0], self.spec.out)  # both maps side by side

    def features(self, x: Tensor) -> Tensor:
        side = self.kernel // 2
        padded = F.pad(x.transpose(1, 2), (side, side), mode="replicate")  # (B, 1, L + kernel - 1)
        trend = F.avg_pool1d(padded, self.kernel, 1)[:, 0]  # (B, L)
        return torch.cat([trend, x[..., 0] - trend], 1)  # (B, 2 L)
