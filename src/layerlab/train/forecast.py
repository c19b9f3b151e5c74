"""What a run will cost, from a few steps of it: debug=check, and what a sweep says before it starts."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from typing import Any

import torch

from layerlab.models.base import Model

STEPS = 5  # that are timed, after one that is not
CACHED_STEP_S = 1e-3  # of a head on features that are there


@dataclass(frozen=True)
class Forecast:
    """Expected cost of a run: optimizer steps, seconds of a step and of one validation, and memory in bytes."""

    steps: int
    step_s: float
    validations: int
    validation_s: float
    memory: int

    @property
    def seconds(self) -> float:
        """Of training and validation, without start-up, test and pictures."""
        return self.steps * self.step_s + self.validations * self.validation_s

    def facts(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self) | {"seconds": self.seconds}

    def __str__(self) -> str:
        if not self.steps:
            return f"solved in one pass; {self.memory / 1e6:.0f} MB of memory"
        return (
            f"about {self.seconds:.0f} s of training: {self.steps:,} steps of {1e3 * self.step_s:.1f} ms, "
            f"{self.validations} validations of {1e3 * self.validation_s:.0f} ms; {self.memory / 1e6:.0f} MB of memory"
        )


def forecast(
    model: Model, data: Any, recipe: Any, device: torch.device, trainer: dict[str, Any], cached: bool = False
) -> Forecast:
    """Time a few real steps, which change the model, and count how many there will be.

    cached: the head alone is trained, on features that are computed once: one pass over the data, and then next to
    nothing a step.
    """
    epochs = trainer["max_epochs"]
    batches = data.train_batches(lambda: (0, 0))
    each = _limited(len(batches), trainer.get("limit_train_batches", 1.0))
    steps = -(-each // trainer.get("accumulate_grad_batches", 1)) * epochs
    if (most := trainer.get("max_steps", -1)) > 0:
        steps = min(steps, most)
    model.to(device)
    validation = data.batches("val")
    checked = _limited(len(validation), trainer.get("limit_val_batches", 1.0))
    step_s = 0.0 if model.closed_form or cached else _step_s(model, batches, recipe, steps, device)
    with torch.no_grad():
        model.eval()
        began = time.perf_counter()
        if not model.closed_form:
            model.step(_on(next(iter(validation)), device))
        val_s = (time.perf_counter() - began) * checked
    if model.closed_form:
        steps, epochs = 0, 0
    if cached:
        passes = len(data.splits["train"]) / len(data.splits["val"]) + 1
        return Forecast(steps, CACHED_STEP_S, 1, val_s * passes, _memory(device))
    return Forecast(steps, step_s, epochs, val_s, _memory(device))


def _step_s(model: Model, batches: Any, recipe: Any, steps: int, device: torch.device) -> float:
    optimizer, _ = recipe.build(max(steps, 1))
    model.train()
    taken = []
    for i, batch in enumerate(batches):
        began = time.perf_counter()
        loss, _, _ = model.step(_on(batch, device))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        taken.append(time.perf_counter() - began)
        if i == STEPS:
            break
    return sum(taken[1:]) / len(taken[1:]) if len(taken) > 1 else taken[0]


def _on(batch: Any, device: torch.device) -> Any:
    return tuple(v.to(device) for v in batch)


def _limited(batches: int, limit: float) -> int:
    return min(batches, int(limit)) if limit > 1 else max(int(batches * limit), 1)


def _memory(device: torch.device) -> int:
    """Bytes at the peak so far: of the GPU where there is one, else of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    try:
        import resource
    except ImportError:  # Windows
        return 0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
