"""Backpropagation against finite differences."""

from typing import Any

import torch

from layerlab.models.base import Model

GIVES = {"rel": (), "wrong_rel": ()}
WEIGHTS, STEP = 9, 1e-5


def gradient_check(model: Model, data: Any) -> dict[str, float]:
    """Relative differences between autograd and central differences, in 64 bits.

    rel: of nine weights of each parameter, drawn by chance, the median (a ReLU's kink spoils single ones), and of
    those the largest: one wrong layer would show. wrong_rel: the smallest of them against a backward pass without the
    last link of the chain, the derivative of the loss by the outputs: what a check that works has to catch.
    """
    model = model.double().eval()
    x, y = data.splits["train"].read(torch.arange(16), None)
    x = x.double() if x.is_floating_point() else x
    parameters = [p for p in model.parameters() if p.requires_grad]

    def loss() -> torch.Tensor:
        return model.step((x, y))[0]

    right = torch.autograd.grad(loss(), parameters)
    wrong = torch.autograd.grad(model.answer(x).mean(), parameters)
    errors = [_errors(loss, p, g, w) for p, g, w in zip(parameters, right, wrong, strict=True) if bool(g.any())]
    return {"rel": max(e for e, _ in errors), "wrong_rel": min(w for _, w in errors)}


@torch.no_grad()
def _errors(loss: Any, parameter: torch.Tensor, *gradients: torch.Tensor) -> list[float]:
    """For each of these gradients of a parameter, the median of its relative differences from central differences."""
    largest = gradients[0].flatten().abs().argsort(descending=True)[: max(WEIGHTS, parameter.numel() // 2)]
    chosen = largest[torch.randperm(len(largest))[:WEIGHTS]]  # not those whose gradient is about 0
    flat, numeric = parameter.view(-1), []
    for i in chosen:
        before = flat[i].clone()
        flat[i] = before + STEP
        above = loss()
        flat[i] = before - STEP
        numeric.append((above - loss()) / (2 * STEP))
        flat[i] = before
    known = torch.stack(numeric)
    return [float(((g.flatten()[chosen] - known).abs() / known.abs()).median()) for g in gradients]
