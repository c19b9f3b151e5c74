"""How far back in time the gradient reaches."""

from typing import Any

import torch
from torch.nn import functional as F

from layerlab.models.base import Model

GIVES = {"glog": ("lag",)}
LETTERS, STEPS, SEQUENCES = 26, 200, 8


def reach(model: Model, data: Any, lag: list[int]) -> dict[str, float]:
    """glog: log10 of the gradient of the last state by the input so many steps back, over that by the last input.

    The recurrent layer alone, on 200 random letters, one-hot, in 64 bits: 32 underflow (Pascanu et al. 2013).
    """
    body: Any = model.double().get_submodule("body")
    ids = torch.randint(LETTERS, (SEQUENCES, STEPS))
    x = F.one_hot(ids, body.input_size).double().requires_grad_()  # (B, T, width)
    states, _ = body(x)
    states[:, -1].sum().backward()
    assert x.grad is not None
    norms = x.grad.norm(dim=2).mean(0)  # (B, T, width) -> (T,)
    return {f"glog(lag={n})": float((norms[-1 - n] / norms[-1]).log10()) for n in lag}
