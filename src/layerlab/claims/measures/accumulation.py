"""Gradients of several backward passes."""

from typing import Any

import torch

from layerlab.models.base import Model

GIVES = dict.fromkeys(("sum_error", "batch_error", "one_error"), ())
EXAMPLES, PARTS = 64, 4


def accumulation(model: Model, data: Any) -> dict[str, float]:
    """Largest relative differences of gradients, in 64 bits.

    sum_error: after 4 backward calls, from the sum of the 4 gradients. batch_error: a quarter of that, from that of the
    whole batch. one_error: after the 4 calls, from the gradient of the last one alone, as if nothing added up.
    """
    model = model.double().eval()
    x, y = data.splits["train"].read(torch.arange(EXAMPLES), None)
    parts = list(zip(x.double().chunk(PARTS), y.chunk(PARTS), strict=True))
    singles = [_gradient(model, [part]) for part in parts]
    together, whole = _gradient(model, parts), _gradient(model, [(x.double(), y)])
    return {
        "sum_error": _off(together, sum(singles)),
        "batch_error": _off(together / PARTS, whole),
        "one_error": _off(together, singles[-1]),
    }


def _gradient(model: Model, batches: list[tuple[torch.Tensor, torch.Tensor]]) -> torch.Tensor:
    model.zero_grad()
    for batch in batches:
        model.step(batch)[0].backward()
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])


def _off(a: torch.Tensor, b: torch.Tensor | float) -> float:
    return float((a - b).abs().max() / a.abs().max())
