"""Convolutions with a way around them."""

from typing import Literal

from torch import Tensor, nn

from layerlab.contract import Count, DataSpec
from layerlab.models.base import Model
from layerlab.nn import conv, read


class ResNet(Model):
    """Residual network: images (B, C, H, W), or series as images of height 1, -> (B, out).

    depth 8, 20, 32, 44, 56, 110: 6n + 2 layers, three stages of n blocks with `width` (auto: 16), twice and four times
    as many filters (He et al. 2016, section 4.2). depth 9: the four convolutions and two residual pairs of Page 2019,
    "How to train your ResNet" (auto: 64 filters), with batch-normalised inputs to a global maximum, times 1/8.
    """

    accepts, tasks = ("image", "series"), ("classify", "regress", "forecast")
    stages = (
        ("stem", r"stem\."),
        ("stage1", r"stage1\."),
        ("stage2", r"stage2\."),
        ("stage3", r"stage3\."),
        ("head", r"head\."),
    )

    def __init__(
        self,
        spec: DataSpec,
        depth: Literal[8, 9, 20, 32, 44, 56, 110] = 20,
        width: Count | Literal["auto"] = "auto",
    ):
        super().__init__(spec)
        self.read = read.Image(self.spec)
        channels, *size = self.read.shape
        self.maximum = depth == 9
        stages = _page if self.maximum else _he
        W = (64 if self.maximum else 16) if width == "auto" else width
        self.stem, self.stage1, self.stage2, self.stage3 = stages(channels, W, (size[0], size[1]), (depth - 2) // 6)
        self.head = nn.Linear(W * (8 if self.maximum else 4), self.spec.out)
        for m in self.modules():
            if isinstance(m, nn.Conv2d):
                nn.init.kaiming_normal_(m.weight, nonlinearity="relu")  # He et al. 2015, eq. 10

    def features(self, x: Tensor) -> Tensor:
        h = self.stage3(self.stage2(self.stage1(self.stem(self.read(x)))))  # (B, C, H, W)
        return h.amax((2, 3)) / 8 if self.maximum else h.mean((2, 3))  # / 8: Page, else the first logits are large

    def filters(self) -> dict[str, Tensor]:
        """Weights of every convolution by name: (filters, C, h, w)."""
        return conv.filters(self)

    def feature_maps(self, x: Tensor) -> dict[str, Tensor]:
        """What every convolution gives for a batch, by name: (B, filters, H, W)."""
        return conv.feature_maps(self, x)


def _he(channels: int, width: int, size: tuple[int, int], blocks: int) -> list[nn.Module]:
    found: list[nn.Module] = [conv.Block(channels, width, size, "relu", "none")]
    channels = width
    for stage in range(3):
        layers = []
        for i in range(blocks):
            layers.append(conv.Residual(channels, width << stage, size, 2 if stage and i == 0 else 1))
            channels, size = width << stage, layers[-1].size
        found.append(nn.Sequential(*layers))
    return found


def _page(channels: int, width: int, size: tuple[int, int], _: int) -> list[nn.Module]:
    found: list[nn.Module] = [conv.Block(channels, width, size, "relu", "none")]
    for stage in range(3):
        halved = conv.Block(width << stage, width << (stage + 1), size, "relu", "max")
        size = halved.size
        found.append(nn.Sequential(halved, *([] if stage == 1 else [_Pair(width << (stage + 1), size)])))
    return found


class _Pair(nn.Module):
    """x + block(block(x)): (B, C, H, W) -> the same."""

    def __init__(self, width: int, size: tuple[int, int]):
        super().__init__()
        self.body = nn.Sequential(*(conv.Block(width, width, size, "relu", "none") for _ in range(2)))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)
