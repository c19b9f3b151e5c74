"""How a model reads a kind of data that is not its own. Stated once, here.

| model reads  | image (B, C, H, W)             | tokens (B, T)   | series (B, T, F)      | vector (B, F) |
|--------------|--------------------------------|-----------------|-----------------------|---------------|
| a vector     | flattened                      | embedded, flat  | flattened             | as it is      |
| a sequence   | rows as steps, or its patches  | embedded        | projected             | -             |
| an image     | as it is                       | -               | (B, F, 1, T)          | -             |
"""

import math
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Readable(Protocol):
    """The part of a DataSpec that reading needs."""

    @property
    def kind(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def vocabulary(self) -> tuple[str, ...]: ...
    @property
    def name(self) -> str: ...


def patches(x: Tensor, size: int) -> Tensor:
    """Square patches as steps: (B, C, H, W) -> (B, H/size * W/size, C * size * size), row by row."""
    return F.unfold(x, size, stride=size).transpose(1, 2)


def rows(x: Tensor) -> Tensor:
    """Rows as steps: (B, C, H, W) -> (B, H, C * W)."""
    return x.permute(0, 2, 1, 3).flatten(2)


class Vector(nn.Module):
    """Anything but tokens -> (B, size), flattened."""

    def __init__(self, spec: Readable):
        super().__init__()
        self.size = math.prod(spec.shape)

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


class Image(nn.Module):
    """An image as it is, a series as an image of height 1: (B, T, F) -> (B, F, 1, T)."""

    def __init__(self, spec: Readable):
        super().__init__()
        self.series = spec.kind == "series"
        self.shape = (spec.shape[1], 1, spec.shape[0]) if self.series else spec.shape  # (C, H, W)

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2).unsqueeze(2) if self.series else x


class Sequence(nn.Module):
    """Tokens, series or images -> (B, T, width): ids embedded, features projected by one linear map.

    patch: side of the square patches that an image is cut into; 0 = rows as steps.
    Raises ValueError where the patches do not tile the image.
    """

    def __init__(self, spec: Readable, width: int, patch: int = 0):
        super().__init__()
        self.kind, self.patch = spec.kind, patch
        if spec.kind != "image" and patch:
            raise ValueError(f"model.patch={patch}: cuts images, but data={spec.name} gives {spec.kind}; leave it at 0")
        if spec.kind == "tokens":
            self.steps, self.map = spec.shape[0], nn.Embedding(len(spec.vocabulary), width)
            return
        if spec.kind == "series":
            self.steps, features = spec.shape
        else:
            C, H, W = spec.shape
            if patch and (H % patch or W % patch):
                raise ValueError(f"model.patch={patch}: does not tile {H} x {W}")
            self.steps, features = (H // patch * (W // patch), C * patch * patch) if patch else (H, C * W)
        self.map = nn.Linear(features, width)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "image":
            x = patches(x, self.patch) if self.patch else rows(x)
        return self.map(x)


def last(h: Tensor, mask: Tensor | None) -> Tensor:
    """State at the last step that is not padding: (B, T, width), mask (B, T) True inside -> (B, width)."""
    if mask is None:
        return h[:, -1]
    at = mask.sum(1).clamp(min=1) - 1  # (B,)
    return h[torch.arange(h.shape[0], device=h.device), at]


def mean(h: Tensor, mask: Tensor | None) -> Tensor:
    """Mean over the steps that are not padding: (B, T, width), mask (B, T) -> (B, width)."""
    if mask is None:
        return h.mean(1)
    m = mask.unsqueeze(-1).to(h.dtype)  # (B, T, 1)
    return (h * m).sum(1) / m.sum(1).clamp(min=1)
