"""Convolution blocks, and what can be looked at in them."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlab.nn.activation import Activation, activation

Pool = Literal["max", "avg", "stride", "none"]
Padding = Literal["zeros", "circular", "background"]


class Block(nn.Module):
    """Convolution 3 x 3 -> batch norm -> activation -> pool 2 x 2: (B, C, H, W) -> (B, width, H // 2, W // 2).

    An axis of length 1 is left alone by kernel and pool, so that a series as an image (B, F, 1, T) works. pool `stride`
    halves in the convolution itself, rounding up; `none` does not halve. padding `background`: see `surrounded`.
    Sources: LeCun et al. 1989; batch norm: Ioffe & Szegedy 2015.
    """

    def __init__(
        self,
        channels: int,
        width: int,
        size: tuple[int, int],
        act: Activation,
        pool: Pool = "max",
        padding: Padding = "zeros",
    ):
        super().__init__()
        kernel, halved = _axes(3, size), _axes(2, size)
        stride = halved if pool == "stride" else (1, 1)
        self.margin = (kernel[0] // 2, kernel[1] // 2)
        floor = (size[0] // halved[0], size[1] // halved[1])
        self.size = {"none": size, "stride": _ceil(size, halved)}.get(pool, floor)  # (H, W) after the pool
        self.conv = nn.Conv2d(
            channels,
            width,
            kernel,
            stride,
            padding=(0, 0) if padding == "background" else self.margin,
            padding_mode="circular" if padding == "circular" else "zeros",
            bias=False,
        )
        self.norm = nn.BatchNorm2d(width)
        self.act = activation(act)
        pools = {"max": nn.MaxPool2d, "avg": nn.AvgPool2d}
        self.pool = pools[pool](halved) if pool in pools else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.act(self.norm(self.conv(x))))

    def surrounded(self, x: Tensor, background: Tensor) -> tuple[Tensor, Tensor]:
        """The answer to an image on an endless `background` (C,), and the background of that answer (width,)."""
        (h, w), b = self.margin, background[:, None, None]  # (C,) -> (C, 1, 1)
        y = self.conv(F.pad(x - b, (w, w, h, h)) + b)
        flat = self.conv.weight.sum((2, 3)) @ background  # (width, C) (C,): a window that sees only background
        beyond = self.act(self._normed(flat, y)[None, :, None, None]).flatten()
        return self.pool(self.act(self.norm(y))), beyond

    def _normed(self, flat: Tensor, y: Tensor) -> Tensor:
        """`flat` (width,) through the batch norm, with the statistics that y (B, width, H, W) meets there."""
        n, mean, var = self.norm, self.norm.running_mean, self.norm.running_var
        if self.training or mean is None or var is None:
            mean, var = y.mean((0, 2, 3)), y.var((0, 2, 3), correction=0)
        return (flat - mean) / (var + n.eps).sqrt() * n.weight + n.bias


def _axes(n: int, size: tuple[int, int]) -> tuple[int, int]:
    """`n` along each axis of an image (H, W), 1 along an axis of length 1."""
    return (n if size[0] > 1 else 1, n if size[1] > 1 else 1)


def _ceil(size: tuple[int, int], step: tuple[int, int]) -> tuple[int, int]:
    return (-(-size[0] // step[0]), -(-size[1] // step[1]))


class Residual(nn.Module):
    """relu(shortcut(x) + bn(conv(relu(bn(conv(x)))))): (B, C, H, W) -> (B, width, ceil(H / stride), ...).

    Where the size changes, the shortcut takes every other pixel and fills the new channels with 0: option A of He et
    al. 2016, section 4.2, which has no parameters.
    """

    def __init__(self, channels: int, width: int, size: tuple[int, int], stride: int):
        super().__init__()
        kernel, step = _axes(3, size), _axes(stride, size)
        self.size = _ceil(size, step)
        margin = (kernel[0] // 2, kernel[1] // 2)
        self.conv1 = nn.Conv2d(channels, width, kernel, step, margin, bias=False)
        self.norm1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, kernel, padding=margin, bias=False)
        self.norm2 = nn.BatchNorm2d(width)
        self.act1, self.act2 = nn.ReLU(), nn.ReLU()
        self.step, self.more = step, width - channels

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm2(self.conv2(self.act1(self.norm1(self.conv1(x)))))
        short = x[:, :, :: self.step[0], :: self.step[1]]
        return self.act2(y + F.pad(short, (0, 0, 0, 0, 0, self.more)))  # channels are padded at their end


def filters(module: nn.Module) -> dict[str, Tensor]:
    """Weights of every convolution by name: (filters, C, h, w) each."""
    return {name: m.weight.detach() for name, m in module.named_modules() if isinstance(m, nn.Conv2d)}


@torch.no_grad()
def feature_maps(module: nn.Module, x: Tensor) -> dict[str, Tensor]:
    """What every convolution of a module gives for a batch, by name: (B, filters, H, W) each, before the norm."""
    found: dict[str, Tensor] = {}
    hooks = [
        m.register_forward_hook(lambda _m, _x, y, name=name: found.__setitem__(name, y))
        for name, m in module.named_modules()
        if isinstance(m, nn.Conv2d)
    ]
    try:
        module(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found
