"""One state, carried from step to step."""

from typing import Literal

import torch
from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Fraction, Size
from layerlab.models.base import Model
from layerlab.nn import read, recurrent


class RNN(Model):
    """Elman network, h_t = act(W x_t + U h_(t-1) + b): sequences -> (B, out), or (B, T, out) for next_token.

    init: of the weights U from state to state; `identity` is meant for relu (Le et al. 2015). patch: cuts an image into
    square patches as steps; 0 = its rows. Source: Elman 1990.
    """

    accepts, tasks = ("image", "tokens", "series"), ("classify", "regress", "next_token", "forecast")
    stages = (("embed", r"embed\."), ("body", r"body\."), ("head", r"head\."))

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 128,
        depth: Count = 1,
        activation: Literal["tanh", "relu"] = "tanh",
        init: Literal["default", "orthogonal", "identity"] = "default",
        dropout: Fraction = 0.0,
        patch: Size = 0,
    ):
        super().__init__(spec)
        self.embed = read.Sequence(self.spec, width, patch)
        self.body = nn.RNN(
            width, width, depth, nonlinearity=activation, dropout=dropout if depth > 1 else 0, batch_first=True
        )
        recurrent.init_recurrent(self.body, init)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        h, _ = self.body(self.embed(x))  # (B, T, width)
        return self.dropout(recurrent.states(h, self.spec.task, self.mask(x)))

    @torch.no_grad()
    def inside(self, x: Tensor) -> list[dict[str, Tensor]]:
        """The state at every step, by layer and name: (B, T, width) each; see nn.recurrent.unroll."""
        return recurrent.unroll(self.body, self.embed(x))
