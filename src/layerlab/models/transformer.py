"""Every step looks at every other."""

import torch
from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Fraction, Size
from layerlab.models.base import Model
from layerlab.nn import read
from layerlab.nn.activation import Activation
from layerlab.nn.attention import Attention, Block


class Transformer(Model):
    """Pre-norm transformer: encoder (B, ...) -> (B, out), causal for next_token (B, T) -> (B, T, out).

    The encoder averages over the steps; positions are learned. patch: cuts an image into square patches as steps, as
    ViT does; 0 = its rows.
    Sources: Vaswani et al. 2017; pre-norm: Xiong et al. 2020; patches: Dosovitskiy et al. 2021.
    """

    accepts, tasks = ("image", "tokens", "series"), ("classify", "regress", "next_token", "forecast")
    stages = (("embed", r"(embed\.|position$)"), ("body", r"(body|norm)\."), ("head", r"head\."))

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 64,
        depth: Count = 2,
        heads: Count = 4,
        activation: Activation = "gelu",
        dropout: Fraction = 0.0,
        patch: Size = 0,
    ):
        super().__init__(spec)
        self.embed = read.Sequence(self.spec, width, patch)
        self.position = nn.Parameter(torch.randn(self.embed.steps, width) * 0.02)  # .02: Devlin et al. 2019
        self.dropout = nn.Dropout(dropout)
        causal = self.spec.task == "next_token"
        self.body = nn.ModuleList(
            Block(width, heads, causal=causal, dropout=dropout, act=activation) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        causal = self.spec.task == "next_token"
        mask = None if causal else self.mask(x)  # causal: what is padded at the end is never looked at
        h = self.embed(x)  # (B, T, width)
        h = self.dropout(h + self.position[: h.shape[1]])
        for block in self.body:
            h = block(h, mask)
        h = self.norm(h)
        return h if causal else read.mean(h, mask)

    @torch.no_grad()
    def attention(self, x: Tensor) -> list[Tensor]:
        """Attention weights of each block for a batch: (B, ...) -> depth tensors (B, heads, T, T), rows sum to 1."""
        looks = [m for m in self.modules() if isinstance(m, Attention)]
        for m in looks:
            m.keep_weights = True
        try:
            self(x)
            return [m.weights for m in looks if m.weights is not None]
        finally:
            for m in looks:
                m.keep_weights, m.weights = False, None
