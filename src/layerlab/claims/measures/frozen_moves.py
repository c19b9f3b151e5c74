"""Whether weights that are frozen in mid-training move."""

from typing import Any

import torch
from torch import nn

from layerlab.models.base import Model

GIVES = {"moved": ("optimizer", "none"), "bn_moved": ("mode",)}
WARM, COLD = 5, 5  # steps before and after freezing
OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, 0.1),
    "momentum": lambda p: torch.optim.SGD(p, 0.1, momentum=0.9),
    "adam": lambda p: torch.optim.Adam(p, 1e-3),
    "adamw": lambda p: torch.optim.AdamW(p, 1e-3, weight_decay=0.1),
}


def frozen_moves(model: Model, data: Any, optimizer: list[str], none: list[str], mode: list[str]) -> dict[str, float]:
    """moved: largest change of a first-layer weight in 5 steps after requires_grad=False, as the model was before it.

    none: whether zero_grad then sets gradients to None (`true`, the default of torch) or to 0, which momentum, weight
    decay and Adam's averages read as a gradient. bn_moved: of a batch norm's running mean in a forward pass in `train`
    or `eval` mode, its parameters frozen.
    """
    start = {k: v.clone() for k, v in model.state_dict().items()}
    found = {}
    for name in optimizer:
        for set_to_none in none:
            model.load_state_dict(start)
            found[f"moved(optimizer={name},none={set_to_none})"] = _moved(model, data, name, set_to_none == "true")
    for how in mode:
        norm = nn.BatchNorm1d(8)
        norm.requires_grad_(False).train(how == "train")
        norm(torch.randn(64, 8) + 1)
        assert norm.running_mean is not None
        found[f"bn_moved(mode={how})"] = float(norm.running_mean.abs().max())
    return found


def _moved(model: Model, data: Any, name: str, set_to_none: bool) -> float:
    first = next(model.parameters())
    first.requires_grad_(True)
    steps = OPTIMIZERS[name](model.parameters())
    batches = torch.arange((WARM + COLD) * 32).split(32)
    for i, index in enumerate(batches):
        if i == WARM:
            first.requires_grad_(False)
            before = first.detach().clone()
        steps.zero_grad(set_to_none=set_to_none)
        model.step(data.splits["train"].read(index, None))[0].backward()
        steps.step()
    return float((first - before).abs().max())
