"""How many tanh units are flat, and what that does to the gradient, when weights start larger."""

from copy import deepcopy
from typing import Any

import torch
from torch import nn

from layerlab.claims.measures.gradient_ratio import EXAMPLES, gradient_ratio
from layerlab.models.base import Model

GIVES = {"share": ("gain",), "glog": ("gain",)}
FLAT = 0.97  # of |tanh x|: its slope is below .06 from there on


def saturation(model: Model, data: Any, gain: list[float]) -> dict[str, float]:
    """Of an MLP of tanh units whose hidden weights are multiplied by `gain`, on the first training examples.

    share: of its hidden activations that are flat. glog: as in gradient_ratio.
    """
    x, _ = data.splits["train"].read(torch.arange(min(EXAMPLES, len(data.splits["train"]))), None)
    found = {}
    for g in gain:
        own, flat = deepcopy(model), []
        layers = [m for m in own.get_submodule("body").modules() if isinstance(m, nn.Linear)]
        for layer in layers:
            layer.weight.data *= g
            layer.register_forward_hook(lambda module, inputs, out, flat=flat: flat.append(out.tanh().abs() > FLAT))
        with torch.no_grad():
            own.answer(x)
        found[f"share(gain={g})"] = float(torch.stack(flat).float().mean())
        found[f"glog(gain={g})"] = gradient_ratio(own, data)["glog"]
    return found
