"""The linear forecast, trained."""

from torch import Tensor, nn

from layerlab.contract import DataSpec
from layerlab.models.base import Model


class NLinear(Model):
    """One linear map of x - last, shared by all channels: (B, L, 1) -> (B, H).

    Source: Zeng et al. 2023, arXiv 2205.13504.
    """

    accepts, tasks = ("series",), ("forecast",)
    stages = (("head", r"head\."),)
    raw_window = True

    def __init__(self, spec: DataSpec):
        super().__init__(spec)
        self.head = nn.Linear(self.spec.shape[0], self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        return x[..., 0] - x[:, -1]  # (B, L) - (B, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x)) + x[:, -1]
