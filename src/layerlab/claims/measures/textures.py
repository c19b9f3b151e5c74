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

    picture `whole`: as they are. A number n: cut into n x n tiles in an order drawn anew; textures and all pixels stay,
    shapes larger than a tile go. `silhouette`: two shades a channel, by the median after a blur over 5 pixels; shapes
    and coarse textures stay. `silhouette_known`: those, with the regression fitted to silhouettes too. Raises
    ValueError where n tiles do not fill a side. Source of the idea: Geirhos et al. 2019, arXiv 1811.12231; Brendel &
    Bethge 2019, arXiv 1904.00760.
    """
    train, test = (data.splits[p].read(torch.arange(len(data.splits[p])), None) for p in ("train", "test"))
    model.eval()

    def read(x: Tensor, how: str) -> Tensor:
        return model.features(_changed(x, how)).double()

    known = read(train[0], "whole")
    one = F.one_hot(train[1], int(train[1].max()) + 1).double()
    found = {}
    for how in picture:
        kind = how.removesuffix("_known")
        answer = ridge(known if kind == how else read(train[0], kind), one, read(test[0], kind))
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
    if H % n or W % n:
        raise ValueError(f"picture={how}: {n} tiles do not fill {H} x {W} pixels")
    tiles = x.reshape(B, C, n, H // n, n, W // n).permute(0, 2, 4, 1, 3, 5).flatten(1, 2)  # (B, n n, C, H/n, W/n)
    order = torch.rand(B, n * n).argsort(1)[:, :, None, None, None].expand_as(tiles)
    mixed = tiles.gather(1, order).reshape(B, n, n, C, H // n, W // n)
    return mixed.permute(0, 3, 1, 4, 2, 5).reshape(B, C, H, W)
