"""Convolutions in time that see twice as far in every layer."""

from torch import Tensor, nn
from torch.nn import functional as F

from layerlab.contract import Count, DataSpec, Fraction
from layerlab.models.base import Model
from layerlab.nn import read, recurrent


class WaveNet(Model):
    """Dilated causal convolutions: sequences -> (B, out), or (B, T, out) for next_token.

    Layer i joins each step with the one 2^i before it, so that `depth` layers see the last 2^depth steps, pair by pair:
    the tree of the makemore lectures, at every position at once. Each layer is followed by a norm over the features and
    tanh. Source: van den Oord et al. 2016, arXiv 1609.03499, section 2.1.
    """

    accepts, tasks = ("tokens", "series"), ("classify", "regress", "next_token", "forecast")
    stages = (("embed", r"embed\."), ("body", r"body\."), ("head", r"head\."))

    def __init__(
        self, spec: DataSpec, width: Count = 128, depth: Count = 3, embed: Count = 24, dropout: Fraction = 0.0
    ):
        super().__init__(spec)
        self.embed = read.Sequence(self.spec, embed)
        self.body = nn.ModuleList(_Layer(embed if i == 0 else width, width, 1 << i) for i in range(depth))
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        h = F.pad(self.embed(x).transpose(1, 2), ((1 << len(self.body)) - 1, 0))  # (B, width, 2^depth - 1 + T)
        for layer in self.body:
            h = layer(h)
        return self.dropout(recurrent.states(h.transpose(1, 2), self.spec.task, self.mask(x)))


class _Layer(nn.Module):
    """Convolution over two steps -> layer norm over the features -> tanh: (B, C, T) -> (B, width, T - dilation)."""

    def __init__(self, channels: int, width: int, dilation: int):
        super().__init__()
        self.conv = nn.Conv1d(channels, width, 2, dilation=dilation, bias=False)
        self.norm = nn.LayerNorm(width)  # over the features of a step: padding of other words cannot enter it

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x).transpose(1, 2)).tanh().transpose(1, 2)
