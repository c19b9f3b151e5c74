"""What a network still recognises when a picture keeps its texture or its shape alone."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlab.claims.measures.stages import ridge
from layerlab.models.base import Model

GIVES = {"acc": ("picture",)}


@torch.no_grad()
def textures(model: Model, data: Any, picture: list[str]) -> dict[str, float]:
    """acc: of ridge regression from the last features of whole training images to the class, on changed test images.

    picture `whole`: as they are. A number n: cut into n x n tiles in an order drawn anew, textures stay and shapes go.
    `silhouette`: every pixel black or white by the median of its image, after a blur; shapes stay and textures go.
    Source of the idea: Geirhos et al. 2019, arXiv 1811.12231; Brendel & Bethge 2019, arXiv 1904.00760.
    """
    train, test = (data.splits[p].read(torch.arange(len(data.splits[p])), None) for p in ("train", "test"))
    model.eval()
    known = model.features(train[0]).double()
    one = F.one_hot(train[1], int(train[1].max()) + 1).double()
    found = {}
    for how in picture:
        answer = ridge(known, one, model.features(_changed(test[0], how)).double())
        found[f"acc(picture={how})"] = float((answer.argmax(1) == test[1]).double().mean())
    return found


def _changed(x: Tensor, how: str) -> Tensor:
    """Images (B, C, H, W) in one of the ways of `textures`."""
    if how == "whole":
        return x
    if how == "silhouette":
        smooth = F.avg_pool2d(x, 5, 1, 2, count_include_pad=False)
        middle = smooth.flatten(2).median(2).values[:, :, None, None]
        low, high = (x.flatten(2).quantile(q, 2)[:, :, None, None] for q in (0.1, 0.9))
        return torch.where(smooth > middle, high, low)
    n = int(how)
    B, C, H, W = x.shape
    tiles = x.reshape(B, C, n, H // n, n, W // n).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, n n, C, H/n, W/n)
    order = torch.rand(B, n * n).argsort(1)[:, :, None, None, None].expand_as(tiles)
    mixed = tiles.gather(1, order).reshape(B, n, n, C, H // n, W // n)
    return mixed.permute(0, 3, 1, 4, 2, 5).reshape(B, C, H, W)
