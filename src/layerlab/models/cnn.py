"""Filters that slide over the image."""

from typing import Literal

import torch
from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Fraction
from layerlab.models.base import Model
from layerlab.nn import conv, read
from layerlab.nn.activation import Activation
from layerlab.nn.conv import Padding, Pool


class CNN(Model):
    """Convolutional network: images (B, C, H, W), or series as images of height 1, -> (B, out).

    `depth` blocks of convolution, batch norm, activation and pool; each doubles the number of filters, the first has
    `width`. head: what it reads of the last maps, `flatten` all of it, `gap` the mean of each map (Lin et al.
    2014), `gmp` its maximum. padding: of every convolution, `zeros`, `circular` (shifts of a torus commute with it),
    or `background`, the value of a black pixel as each layer would answer it. Source: LeCun et al. 1998.
    Raises ValueError where depth halves the image to nothing.
    """

    accepts, tasks = ("image", "series"), ("classify", "regress", "forecast")
    stages = (("stem", r"body\.0\."), ("body", r"body\.[1-9]\d*\."), ("head", r"head\."))

    background: Tensor | None

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 32,
        depth: Count = 2,
        activation: Activation = "relu",
        dropout: Fraction = 0.0,
        pool: Pool = "max",
        head: Literal["flatten", "gap", "gmp"] = "flatten",
        padding: Padding = "zeros",
    ):
        super().__init__(spec)
        self.read = read.Image(self.spec)
        channels, H, W = self.read.shape
        if pool != "none" and (most := max(H, W).bit_length() - 1) < depth:
            raise ValueError(f"model.depth={depth}: halves {H} x {W} to nothing; at most {most}")
        blocks = []
        for i in range(depth):
            blocks.append(conv.Block(channels, width << i, (H, W), activation, pool, padding))
            channels, (H, W) = width << i, blocks[-1].size
        self.body = nn.ModuleList(blocks)
        black = [-m / s for m, s in zip(self.spec.mean, self.spec.std, strict=True)] or [0.0] * self.read.shape[0]
        self.register_buffer("background", torch.tensor(black) if padding == "background" else None, persistent=False)
        self.reads = head
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels * (H * W if head == "flatten" else 1), self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        h, background = self.read(x), self.background
        for block in self.body:
            assert isinstance(block, conv.Block)
            if background is None:
                h = block(h)
            else:
                h, background = block.surrounded(h, background)
        if self.reads == "flatten":
            h = h.flatten(1)  # (B, C, H, W) -> (B, C H W)
        else:
            h = h.mean((2, 3)) if self.reads == "gap" else h.amax((2, 3))  # (B, C, H, W) -> (B, C)
        return self.dropout(h)

    def filters(self) -> dict[str, Tensor]:
        """Weights of every convolution by name: (filters, C, h, w)."""
        return conv.filters(self)

    def feature_maps(self, x: Tensor) -> dict[str, Tensor]:
        """What every convolution gives for a batch, by name: (B, filters, H, W)."""
        return conv.feature_maps(self, x)
