"""Tomorrow will be as today: the forecast that every other has to beat."""

from torch import Tensor, nn

from layerlab.contract import Count, DataSpec
from layerlab.models.base import Model


class Naive(Model):
    """Repeats the mean of the last `over` steps over the horizon: (B, L, 1) -> (B, H). over = 1: the last value."""

    accepts, tasks, stages = ("series",), ("forecast",), ()
    raw_window = True

    def __init__(self, spec: DataSpec, over: Count = 1):
        super().__init__(spec)
        if over > self.spec.shape[0]:
            raise ValueError(f"model.over={over}: longer than data.lookback={self.spec.shape[0]}")
        self.over, self.head = over, nn.Identity()

    def solve(self, train: object, val: object) -> None:
        """Nothing to fit."""

    def features(self, x: Tensor) -> Tensor:
        return x[:, -self.over :, 0].mean(1, keepdim=True).expand(-1, self.spec.out)  # (B, 1) -> (B, H)
