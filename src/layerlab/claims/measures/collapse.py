"""Whether layers in a row are one affine map."""

from typing import Any

import torch
from torch import nn

from layerlab.models.base import Model

GIVES = {"error": (), "logreg": ()}


@torch.no_grad()
def collapse(model: Model, data: Any) -> dict[str, float]:
    """error: largest difference, relative, between the net and the product of its affine maps, in 64 bits.

    logreg: test accuracy of scikit-learn's logistic regression on the same split, which no affine map should beat.
    """
    from sklearn.linear_model import LogisticRegression

    (x, y), (xt, yt) = (data.splits[p].read(torch.arange(len(data.splits[p])), None) for p in ("train", "test"))
    fitted = LogisticRegression(max_iter=2000).fit(x.flatten(1).numpy(), y.numpy())
    model = model.double()
    weight = torch.eye(xt[0].numel(), dtype=torch.float64)
    bias = torch.zeros(len(weight), dtype=torch.float64)
    for layer in (m for m in model.modules() if isinstance(m, nn.Linear)):
        weight, bias = layer.weight @ weight, layer.weight @ bias + layer.bias
    out, one = model(xt.double()), xt.double().flatten(1) @ weight.T + bias
    return {
        "error": float((out - one).abs().max() / out.abs().max()),
        "logreg": float(fitted.score(xt.flatten(1).numpy(), yt.numpy())),
    }
