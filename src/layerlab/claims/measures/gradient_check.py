"""Backpropagation against finite differences."""

from typing import Any

import torch

from layerlab.models.base import Model

GIVES = ("median_rel", "wrong_rel")
WEIGHTS, STEP = 60, 1e-5


def gradient_check(model: Model, data: Any) -> dict[str, float]:
    """Relative differences between autograd and central differences, for 60 weights drawn by chance, in 64 bits.

    median_rel: their median (a ReLU's kink spoils single ones). wrong_rel: the same against a backward pass without the
    last link of the chain, the derivative of the loss by the outputs: what a check that works has to catch.
    """
    model = model.double().eval()
    x, y = data.splits["train"].read(torch.arange(16), None)
    x = x.double() if x.is_floating_point() else x
    parameters = [p for p in model.parameters() if p.requires_grad]

    def loss() -> torch.Tensor:
        return model.step((x, y))[0]

    right = torch.cat([g.flatten() for g in torch.autograd.grad(loss(), parameters)])
    wrong = torch.cat([g.flatten() for g in torch.autograd.grad(model.answer(x).mean(), parameters)])
    candidates = right.abs().argsort(descending=True)[: max(WEIGHTS, len(right) // 2)]  # not those whose gradient is 0
    chosen = candidates[torch.randperm(len(candidates))[:WEIGHTS]]
    numeric = torch.stack([_central(loss, parameters, int(i)) for i in chosen])
    return {
        name: float(((analytic[chosen] - numeric).abs() / numeric.abs()).median())
        for name, analytic in (("median_rel", right), ("wrong_rel", wrong))
    }


@torch.no_grad()
def _central(loss: Any, parameters: list[torch.nn.Parameter], index: int) -> torch.Tensor:
    """(loss(w + h) - loss(w - h)) / 2h for one weight, counted through all parameters."""
    for p in parameters:
        if index < p.numel():
            break
        index -= p.numel()
    flat = p.view(-1)
    before = flat[index].clone()
    flat[index] = before + STEP
    above = loss()
    flat[index] = before - STEP
    below = loss()
    flat[index] = before
    return (above - below) / (2 * STEP)
