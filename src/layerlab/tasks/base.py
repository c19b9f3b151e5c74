"""The task: what a model's output means, what is minimised and what is reported."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar, Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlab.contract import IGNORE, DataSpec, Mismatch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable


class Task:
    """Loss, metrics and the monitored value of one kind of problem.

    A subclass gives `name`, `monitor`, `mode`, `measure()` and `report()`. Epoch figures are computed from sums, so
    they weigh every example alike and survive a resume: never a mean of batch means.
    """

    name: ClassVar[str]
    monitor: ClassVar[str] = "val/loss"  # what selects the best checkpoint
    mode: ClassVar[Literal["min", "max"]] = "min"
    collects: ClassVar[bool] = True  # whether metrics() wants all predictions of a split at once
    further: ClassVar[tuple[str, ...]] = ()  # what metrics() may find

    def __init__(self, spec: DataSpec | dict[str, Any], **options: Any):
        self.spec = DataSpec.coerce(spec)  # of the data
        self.options = options
        if self.spec.task != self.name:
            raise Mismatch(
                f"task={self.name}: data={self.spec.name} offers {self.spec.task}; try task={self.spec.task}"
            )

    @property
    def model_spec(self) -> DataSpec:
        """What the model reads and has to return, once this task has prepared x."""
        return self.spec

    def apply(self, model: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """The model's answer to a batch of the data; a task may wrap the call (forecast does)."""
        return model(x)

    def core_batch(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """A batch as the network inside the wrapper reads and answers it: what a closed form is solved from."""
        return x, y

    def raw_window(self) -> Task:
        """This task without anything wrapped around the network."""
        return self

    def measure(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """Mean loss of a batch, to minimise, and the sums (4,) that `report` turns into figures."""
        raise NotImplementedError

    def report(self, sums: list[float]) -> dict[str, float]:
        """Figures of a split from the added-up sums of its batches."""
        raise NotImplementedError

    @classmethod
    def figures(cls) -> list[str]:
        """The names of what `report` gives."""
        return list(cls.report(object.__new__(cls), [1.0] * 4))

    def prediction(self, model: Any, x: Tensor, out: Tensor) -> Tensor:
        """What `metrics` compares with y, from a batch x and the output of `model.step`."""
        return out.float()

    def metrics(self, out: Tensor, y: Tensor) -> dict[str, float]:
        """Further figures that need all predictions of the test split at once."""
        return {}

    def calibrate(self, answers: Iterable[tuple[Tensor, Tensor]]) -> dict[str, Any]:
        """Fit to the validation split what a finished model says of its own errors: plain values, {} for nothing.

        answers: output and target of each batch, computed when asked for.
        """
        return {}

    def restore_calibration(self, found: dict[str, Any]) -> None:
        """Take over what `calibrate` gave."""

    def to_dict(self) -> dict[str, Any]:
        """Plain values from which `tasks.restore` makes the same task."""
        return {"class": type(self).__name__, "options": self.options, "spec": self.spec.to_dict()}


def sums(*values: Tensor | float) -> Tensor:
    """Up to four numbers as one detached tensor (4,): float64, float32 on a device that lacks it."""
    device = next(v.device for v in values if isinstance(v, Tensor))
    if device.type == "cpu":  # nothing to wait for, and a fifth of what the assignments cost
        numbers = [v.item() if isinstance(v, Tensor) else v for v in values]
        return torch.tensor(numbers + [0.0] * (4 - len(numbers)), dtype=torch.float64)
    dtype = torch.float32 if device.type == "mps" else torch.float64
    out = torch.zeros(4, dtype=dtype, device=device)
    for i, value in enumerate(values):
        if isinstance(value, Tensor):
            out[i] = value.detach()
        else:
            out[i].fill_(value)  # out[i] = number would wait for a GPU
    return out


def squared_error(out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean squared error of a batch, and its sums (4,) for `squared_report`."""
    loss, n = F.mse_loss(out, y), y.numel()
    return loss, sums(loss * n, F.l1_loss(out, y) * n, n)


def squared_report(sums: list[float]) -> dict[str, float]:
    """loss, mse and mae from added-up sums."""
    squared, absolute, n, _ = sums
    return {"loss": squared / n, "mse": squared / n, "mae": absolute / n}


def symbol_error(out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of a batch over the symbols that count, (B, T, V) against (B, T), and its sums (4,)."""
    out, y = out.flatten(0, 1), y.reshape(-1)  # (B, T, V) -> (B T, V)
    loss = F.cross_entropy(out, y, ignore_index=IGNORE)
    n = (y != IGNORE).sum()
    return loss, sums(loss * n, (out.argmax(1) == y).sum(), n)


def symbol_report(sums: list[float]) -> dict[str, float]:
    """loss, nll in nats per symbol and acc from added-up sums."""
    nll, correct, n, _ = sums
    return {"loss": nll / n, "nll": nll / n, "acc": correct / n}
