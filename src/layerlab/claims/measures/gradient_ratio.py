"""How much smaller the gradient is in the first hidden layer than in the last."""

from typing import Any

import torch
from torch import nn

from layerlab.models.base import Model

GIVES = {"glog": ()}
EXAMPLES = 512


def gradient_ratio(model: Model, data: Any) -> dict[str, float]:
    """glog: log10 of ||dloss/dW|| of the first hidden layer over that of the last, on the first training examples.

    In 64 bits: over 20 sigmoid layers it falls by 16 powers of ten (Glorot & Bengio 2010).
    """
    model = model.double()
    x, y = data.splits["train"].read(torch.arange(min(EXAMPLES, len(data.splits["train"]))), None)
    model.zero_grad()
    model.step((x.double(), y))[0].backward()
    weights = [m.weight for m in model.get_submodule("body").modules() if isinstance(m, nn.Linear)]
    first, last = (w.grad.norm() for w in (weights[0], weights[-1]) if w.grad is not None)
    return {"glog": float((first / last).log10())}
