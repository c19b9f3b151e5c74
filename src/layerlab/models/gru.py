"""A state with two gates."""

import torch
from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Fraction, Size
from layerlab.models.base import Model
from layerlab.nn import read, recurrent


class GRU(Model):
    """Gated recurrent unit: sequences -> (B, out), or (B, T, out) for next_token.

    patch: cuts an image into square patches as steps; 0 = its rows. Source: Cho et al. 2014, arXiv 1406.1078.
    """

    accepts, tasks = ("image", "tokens", "series"), ("classify", "regress", "next_token", "forecast")
    stages = (("embed", r"embed\."), ("body", r"body\."), ("head", r"head\."))

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 128,
        depth: Count = 1,
        dropout: Fraction = 0.0,
        patch: Size = 0,
    ):
        super().__init__(spec)
        self.embed = read.Sequence(self.spec, width, patch)
        self.body = nn.GRU(width, width, depth, dropout=dropout if depth > 1 else 0, batch_first=True)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        h, _ = self.body(self.embed(x))  # (B, T, width)
        return self.dropout(recurrent.states(h, self.spec.task, self.mask(x)))

    @torch.no_grad()
    def inside(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Gates and state at every step, by layer and name: (B, T, width) each; see nn.recurrent.unroll."""
        return recurrent.unroll(self.body, self.embed(x))
