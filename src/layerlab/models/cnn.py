"""Filters that slide over the image."""

from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Fraction
from layerlab.models.base import Model
from layerlab.nn import conv, read
from layerlab.nn.activation import Activation


class CNN(Model):
    """Convolutional network: images (B, C, H, W), or series as images of height 1, -> (B, out).

    `depth` blocks of convolution, batch norm, activation and max-pool; each doubles the number of filters, the first
    has `width`. Source: LeCun et al. 1998.
    Raises ValueError where depth halves the image to nothing.
    """

    accepts, tasks = ("image", "series"), ("classify", "regress", "forecast")
    stages = (("stem", r"body\.0\."), ("body", r"body\.[1-9]\d*\."), ("head", r"head\."))

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 32,
        depth: Count = 2,
        activation: Activation = "relu",
        dropout: Fraction = 0.0,
    ):
        super().__init__(spec)
        self.read = read.Image(self.spec)
        channels, H, W = self.read.shape
        if (most := max(H, W).bit_length() - 1) < depth:
            raise ValueError(f"model.depth={depth}: halves {H} x {W} to nothing; at most {most}")
        blocks = []
        for i in range(depth):
            blocks.append(conv.Block(channels, width << i, (H, W), activation))
            channels, (H, W) = width << i, blocks[-1].size
        self.body = nn.Sequential(*blocks)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(channels * H * W, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        return self.dropout(self.body(self.read(x)).flatten(1))  # (B, C, H, W) -> (B, C H W)
