"""Convolution blocks."""

from torch import Tensor, nn

from layerlab.nn.activation import Activation, activation


class Block(nn.Module):
    """Convolution 3 x 3 -> batch norm -> activation -> max-pool 2 x 2: (B, C, H, W) -> (B, width, H // 2, W // 2).

    An axis of length 1 is left alone by kernel and pool, so that a series as an image (B, F, 1, T) works.
    Sources: LeCun et al. 1989; batch norm: Ioffe & Szegedy 2015.
    """

    def __init__(self, channels: int, width: int, size: tuple[int, int], act: Activation):
        super().__init__()
        H, W = size
        kernel = (3 if H > 1 else 1, 3 if W > 1 else 1)
        self.size = (max(H // 2, 1), max(W // 2, 1))  # (H, W) after the pool
        self.conv = nn.Conv2d(channels, width, kernel, padding=(kernel[0] // 2, kernel[1] // 2), bias=False)
        self.norm = nn.BatchNorm2d(width)
        self.act = activation(act)
        self.pool = nn.MaxPool2d((2 if H > 1 else 1, 2 if W > 1 else 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.pool(self.act(self.norm(self.conv(x))))
