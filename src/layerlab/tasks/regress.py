"""Which number? Mean squared error."""

from typing import Any

from torch import Tensor
from torchmetrics.functional import r2_score

from layerlab.contract import DataSpec
from layerlab.tasks.base import Task, squared_error, squared_report


class Regress(Task):
    """Predictions (B, K) against targets (B, K), standardised with the training targets: mse 1 = guessing the mean.

    Reported: mse, mae (in standard deviations of the training targets), loss, on the test split also r2.
    """

    name, monitor, mode = "regress", "val/mse", "min"
    further = ("r2",)

    def __init__(self, spec: DataSpec | dict[str, Any]):
        super().__init__(spec)

    def measure(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return squared_error(out, y)

    def report(self, sums: list[float]) -> dict[str, float]:
        return squared_report(sums)

    def metrics(self, out: Tensor, y: Tensor) -> dict[str, float]:
        return {"r2": float(r2_score(out.squeeze(1), y.squeeze(1)))}
