"""Whether a filter answers a moved picture with its moved answer."""

from typing import Any

import torch

from layerlab.models.base import Model

GIVES = {"err": (), "pooled": ("shift",)}
DOWN, RIGHT = 2, 3


@torch.no_grad()
def equivariance(model: Model, data: Any, shift: list[int]) -> dict[str, float]:
    """Relative differences, in norm, of a CNN's first convolution on 64 test images.

    err: between the maps of the images moved by (2, 3) pixels and the moved maps of the images. pooled: the same for
    the maps after max-pooling, moved by `shift` pixels to the right, against the best of the moves that the coarser
    map can make (Zhang 2019, "Making convolutional networks shift-invariant again").
    """
    x, _ = data.splits["test"].read(torch.arange(64), None)  # (64, 1, H, W)
    net: Any = model.double().eval()
    x = x.double()

    def maps(images: torch.Tensor) -> torch.Tensor:
        return next(iter(net.feature_maps(images).values()))  # (64, filters, H, W)

    def pooled(images: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.max_pool2d(maps(images), 2)

    found = {"err": _off(maps(x.roll((DOWN, RIGHT), (2, 3))), maps(x).roll((DOWN, RIGHT), (2, 3)))}
    for n in shift:
        moved, still = pooled(x.roll(n, 3)), pooled(x)
        found[f"pooled(shift={n})"] = min(_off(moved, still.roll(k, 3)) for k in (n // 2, -(-n // 2)))
    return found


def _off(a: torch.Tensor, b: torch.Tensor) -> float:
    return float((a - b).norm() / b.norm())
