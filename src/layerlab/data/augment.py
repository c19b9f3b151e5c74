"""Changes to the training batches of images: augment=[crop,flip,mixup].

A change is called with a batch (x, y), x (B, C, H, W) standardised, and draws from torch's generator of the CPU, which
is keyed by (seed, epoch, batch) while it does. Evaluation sees none of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Annotated, Literal

import torch
from torch.nn import functional as F
from torchvision.transforms import v2

from layerlab.contract import Count, DataSpec, Fraction, Mismatch, Positive
from layerlab.data.batches import Batch, to

Change = Callable[[Batch], Batch]


def flip(spec: DataSpec, p: Annotated[float, ">= 0", "<= 1"] = 0.5) -> Change:
    """Mirror each image left to right with probability p."""

    def change(batch: Batch) -> Batch:
        x, y = batch
        turned = torch.rand(len(x), 1, 1, 1) < p
        return torch.where(to(x.device, turned), x.flip(3), x), y

    return change


def crop(spec: DataSpec, padding: Count = 4, fill: Literal["black", "reflect"] = "black") -> Change:
    """Move each image by up to `padding` pixels up, down, left and right; what enters is black, or its reflection.

    Source: He et al. 2016, section 4.2.
    """
    _, H, W = spec.shape
    if fill == "reflect" and padding >= min(H, W):
        raise Mismatch(f"augment.crop.padding={padding}: reflects at most {min(H, W) - 1} pixels of {H} x {W}")
    black = -(torch.tensor(spec.mean) / torch.tensor(spec.std)).reshape(-1, 1, 1)

    def change(batch: Batch) -> Batch:
        x, y = batch
        edges = (padding,) * 4
        if fill == "reflect":
            padded = F.pad(x, edges, mode="reflect")
        else:
            b = to(x.device, black)
            padded = F.pad(x - b, edges) + b
        B = len(x)
        down, right = to(x.device, torch.randint(0, 2 * padding + 1, (2, B, 1)))
        rows = down + torch.arange(H, device=x.device)  # (B, H)
        columns = right + torch.arange(W, device=x.device)
        at = torch.arange(B, device=x.device)
        cut = padded.permute(0, 2, 3, 1)[at[:, None, None], rows[:, :, None], columns[:, None, :]]  # (B, H, W, C)
        return cut.permute(0, 3, 1, 2), y

    return change


def randaugment(spec: DataSpec, operations: Count = 2, magnitude: Annotated[int, ">= 0", "<= 30"] = 9) -> Change:
    """So many operations drawn for each image, of a strength of at most 30 (Cubuk et al. 2020, arXiv 1909.13719)."""
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
    draw = v2.RandAugment(num_ops=operations, magnitude=magnitude)

    def change(batch: Batch) -> Batch:
        x, y = batch
        m, s = to(x.device, mean), to(x.device, std)
        pixels = ((x * s + m).clamp(0, 1) * 255).round().to(torch.uint8)
        changed = torch.stack([draw(image) for image in pixels])
        return (changed / 255 - m) / s, y

    return change


def mixup(spec: DataSpec, alpha: Positive = 0.2) -> Change:
    """Blend each image and its label with its neighbour's in the batch, one share ~ Beta(alpha, alpha) for all of them.

    Labels become (B, C).

    Source: Zhang et al. 2018, arXiv 1710.09412.
    """
    mix = v2.MixUp(alpha=alpha, num_classes=spec.out)
    return lambda batch: mix(*batch)


def cutmix(spec: DataSpec, alpha: Positive = 1.0) -> Change:
    """Put a rectangle of its neighbour in the batch into each image, the same for all; labels, by area, become (B, C).

    Source: Yun et al. 2019, arXiv 1905.04899.
    """
    mix = v2.CutMix(alpha=alpha, num_classes=spec.out)
    return lambda batch: mix(*batch)


def erase(spec: DataSpec, p: Annotated[float, ">= 0", "<= 1"] = 0.25, most: Fraction = 0.33) -> Change:
    """Fill a rectangle of up to `most` of the area with the mean, in each image with probability p.

    Its area is uniform from 0.02, its sides as 0.3 to 3.3, uniform in the logarithm; one that does not fit is cut.

    Source: Zhong et al. 2020, arXiv 1708.04896.
    """
    _, H, W = spec.shape

    def change(batch: Batch) -> Batch:
        x, y = batch
        B = len(x)
        area = torch.empty(B).uniform_(0.02, max(most, 0.02)) * H * W
        aspect = torch.empty(B).uniform_(math.log(0.3), math.log(3.3)).exp()
        inside = []
        for length, side in ((H, (area * aspect).sqrt()), (W, (area / aspect).sqrt())):
            side = side.round().clamp(1, length)
            first = (torch.rand(B) * (length - side + 1)).floor()
            at = torch.arange(length)
            inside.append((at >= first[:, None]) & (at < (first + side)[:, None]))  # (B, length)
        erased = inside[0][:, None, :, None] & inside[1][:, None, None, :] & (torch.rand(B, 1, 1, 1) < p)
        return x.masked_fill(to(x.device, erased), 0), y  # x is standardised: 0 is the mean

    return change
