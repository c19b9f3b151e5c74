"""What the stages of a network know: where edges are, and what the picture shows."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlab.models.base import Model

GIVES = {"edge": ("stage",), "cls": ("stage",)}
RIDGE, PLACES = 1e-2, 5_000  # beside variances of 1; places of the pictures that a fit uses at most


@torch.no_grad()
def stages(model: Model, data: Any, stage: list[int]) -> dict[str, float]:
    """Linear probes of the maps of lite0: after the stem (0), each of seven blocks, and the last convolution (8).

    edge: R2, on test images, of ridge regression from the channels at a place to how strong the gradient (Sobel) of
    the picture is there, all at the resolution of the stem. cls: test accuracy of ridge regression from the mean of
    each channel to the class. Source of the idea: Alain & Bengio 2016, arXiv 1610.01644.
    """
    parts = {}
    for part in ("train", "test"):
        split = data.splits[part]
        x, y = split.read(torch.arange(len(split)), None)
        parts[part] = _maps(model.eval(), x), _edges(x), y
    found, (h, w) = {}, parts["train"][0][0].shape[2:]
    for s in stage:
        (maps, edges, y), (maps_t, edges_t, y_t) = ((m[s], e, y) for m, e, y in parts.values())
        found[f"edge(stage={s})"] = _r2(*_places(maps, edges, (h, w)), *_places(maps_t, edges_t, (h, w)))
        one = F.one_hot(y, int(y.max()) + 1).double()
        answer = ridge(maps.mean((2, 3)), one, maps_t.mean((2, 3)))
        found[f"cls(stage={s})"] = float((answer.argmax(1) == y_t).double().mean())
    return found


def _maps(model: Any, x: Tensor) -> list[Tensor]:
    """(B, C, H, W) after the stem, after each block, and after the last convolution."""
    net = model.net
    h = x.expand(-1, 3, -1, -1) * model.scale + model.shift
    found = [net.bn1(net.conv_stem(h))]  # timm: the norm has the activation in it
    for block in net.blocks:
        found.append(block(found[-1]))
    found.append(net.bn2(net.conv_head(found[-1])))
    return [m.double() for m in found]


def _edges(x: Tensor) -> Tensor:
    """Strength of the gradient at each pixel: (B, C, H, W) -> (B, 1, H, W)."""
    sobel = torch.tensor([[-1.0, 0, 1], [-2, 0, 2], [-1, 0, 1]])
    gray = F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
    across, down = (F.conv2d(gray, k[None, None]) for k in (sobel, sobel.T))
    return (across**2 + down**2).sqrt().double()


def _places(maps: Tensor, edges: Tensor, size: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Channels at places of a grid (H, W), drawn anew in each image, and how strong edges are there: (N, C), (N, 1)."""
    each = max(1, PLACES // len(maps))
    h, w = size
    edges = F.adaptive_avg_pool2d(edges, size).flatten(1)  # (B, H W)
    generator = torch.Generator().manual_seed(0)  # the same places for every stage
    at = torch.stack([torch.randperm(h * w, generator=generator)[:each] for _ in maps])  # (B, P)
    centres = torch.stack(((2 * (at % w) + 1) / w - 1, (2 * (at // w) + 1) / h - 1), -1)  # (B, P, 2), x and y in -1..1
    channels = F.grid_sample(maps, centres[:, None].to(maps.dtype), padding_mode="border", align_corners=False)
    return channels[:, :, 0].transpose(1, 2).flatten(0, 1), edges.gather(1, at).reshape(-1, 1)


def ridge(x: Tensor, y: Tensor, new: Tensor) -> Tensor:
    """What ridge regression, fitted to x (N, C) and y (N, K), answers to `new`."""
    mean, std = x.mean(0), x.std(0)
    std = std.clamp(min=1e-2 * float(std.max()))  # a channel that is silent in training says nothing
    x, new, level = (x - mean) / std, (new - mean) / std, y.mean(0)
    gram = x.T @ x / len(x) + RIDGE * torch.eye(x.shape[1], dtype=x.dtype)
    return new @ torch.linalg.solve(gram, x.T @ (y - level) / len(x)) + level


def _r2(x: Tensor, y: Tensor, new: Tensor, known: Tensor) -> float:
    rest = ((ridge(x, y, new) - known) ** 2).sum()
    return float(1 - rest / ((known - known.mean()) ** 2).sum())
