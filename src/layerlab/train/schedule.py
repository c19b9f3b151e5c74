"""Learning-rate schedules as closed forms of the optimizer step: lr(step) = optimizer.lr * shape(step)."""

import math
from collections.abc import Callable
from typing import Annotated, Any, Literal

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau

from layerlab.contract import Count, Fraction, NonNegative

Schedule = dict[str, Any]


def warmed(warmup: float, total: int, shape: Callable[[int, int], float]) -> Callable[[int], float]:
    """`shape(step, steps)` after a linear rise over `warmup` optimizer steps, or a share of the run where it is < 1."""
    n = min(round(warmup * total) if warmup < 1 else int(warmup), max(total - 1, 0))

    def factor(step: int) -> float:
        return (step + 1) / (n + 1) if step < n else shape(step - n, total - n)

    return factor


def _per_step(optimizer: Optimizer, factor: Callable[[int], float]) -> Schedule:
    return {"scheduler": LambdaLR(optimizer, factor), "interval": "step"}


def constant(optimizer: Optimizer, total: int, warmup: NonNegative = 0.0) -> Schedule:
    """1 throughout, after the warm-up. warmup: optimizer steps, or a share of the run where it is < 1."""
    return _per_step(optimizer, warmed(warmup, total, lambda step, steps: 1.0))


def cosine(optimizer: Optimizer, total: int, warmup: NonNegative = 0.05, final: Fraction = 0.05) -> Schedule:
    """Half a cosine from 1 to `final` after the warm-up (Loshchilov & Hutter 2017, without restarts)."""

    def shape(step: int, steps: int) -> float:
        return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))

    return _per_step(optimizer, warmed(warmup, total, shape))


def onecycle(
    optimizer: Optimizer,
    total: int,
    rise: Annotated[float, "> 0", "< 1"] = 0.3,
    start: Annotated[float, "> 0", "<= 1"] = 0.04,
    final: Fraction = 4e-6,
) -> Schedule:
    """Cosine up from `start` over the first `rise` of the run, cosine down to `final`: Smith & Topin 2018, lr only."""
    top = rise * total - 1

    def factor(step: int) -> float:
        if step <= top and top > 0:
            return _cosine_between(start, 1.0, step / top)
        return _cosine_between(1.0, final, min((step - top) / max(total - 1 - top, 1), 1.0))

    return _per_step(optimizer, factor)


def _cosine_between(a: float, b: float, share: float) -> float:
    return b + (a - b) / 2 * (1 + math.cos(math.pi * share))


def step(optimizer: Optimizer, total: int, drops: Count = 3, gamma: Annotated[float, "> 0", "< 1"] = 0.1) -> Schedule:
    """Times `gamma`, `drops` times, at equal distances over the run."""
    every = max(total // (drops + 1), 1)
    return _per_step(optimizer, lambda i: gamma ** min(i // every, drops))


def plateau(
    optimizer: Optimizer,
    total: int,
    mode: Literal["min", "max"] = "min",
    factor: Annotated[float, "> 0", "< 1"] = 0.3,
    patience: Count = 3,
    monitor: str = "val/loss",
) -> Schedule:
    """Times `factor` when `monitor` has not improved for more than `patience` validations."""
    scheduler = ReduceLROnPlateau(optimizer, mode=mode, factor=factor, patience=patience)
    never = 2**31  # by Lightning: train/callbacks.py does it
    return {"scheduler": scheduler, "interval": "epoch", "frequency": never, "monitor": monitor}
