"""A layer of neurons that fire above a threshold."""

from typing import Any

import torch
from torch import nn

from layerlab.models.base import Model

GIVES = {"fwd_err": (), "grad1": ()}


def threshold(model: Model, data: Any) -> dict[str, float]:
    """fwd_err: share of hidden units of a `step` net that differ from (sum of weight x input) > -bias, by hand.

    grad1: norm of the gradient of the loss by the weights of the first layer. On 256 training examples, in 64 bits.
    """
    model = model.double().eval()
    x, y = data.splits["train"].read(torch.arange(256), None)
    x = x.double()
    model.requires_grad_(True)  # of a frozen layer too one may ask
    linear = next(m for m in model.get_submodule("body").modules() if isinstance(m, nn.Linear))
    fires = -linear.bias < (x.flatten(1) * linear.weight[:, None]).sum(2).T  # (256, width)
    loss = model.step((x, y))[0]
    (gradient,) = torch.autograd.grad(loss, [linear.weight])
    with torch.no_grad():
        differ = (model.features(x) > 0.5) != fires
    return {"fwd_err": float(differ.double().mean()), "grad1": float(gradient.norm())}
