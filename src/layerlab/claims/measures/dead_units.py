"""Hidden units that never fire."""

from typing import Any

import torch
from torch import nn

from layerlab.models.base import Model

GIVES = {"dead": ()}


@torch.no_grad()
def dead_units(model: Model, data: Any) -> dict[str, float]:
    """dead: share of the hidden units whose activation is at or below 0 for every test example.

    Of a ReLU such a unit passes no gradient and cannot come back; of a leaky one it can.
    """
    split = data.splits["test"]
    x, _ = split.read(torch.arange(len(split)), None)
    shares: list[torch.Tensor] = []

    def look(module: nn.Module, inputs: Any, output: torch.Tensor) -> None:
        shares.append((output <= 0).all(0))  # (N, width) -> (width,)

    layers = [m for m in model.get_submodule("body").modules() if isinstance(m, nn.Linear)]
    hooks = [m.register_forward_hook(look) for m in layers]  # an activation fires where its input is above 0
    model.answer(x)
    for hook in hooks:
        hook.remove()
    return {"dead": float(torch.cat(shares).float().mean())}
