"""Every step looks at every other."""

from typing import Literal

from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Fraction, Size
from layerlab.models.base import Model
from layerlab.nn import read
from layerlab.nn.activation import Activation
from layerlab.nn.attention import Block, Position, Positions, weights_of


class Transformer(Model):
    """Pre-norm transformer: encoder (B, ...) -> (B, out), decoder for next_token (B, T) -> (B, T, out).

    causal: a step sees only those before it and itself; `auto`: for next_token, which refuses another value. pool: what
    the head of an encoder reads, the `mean` over the steps, the `last`, or all of them (`flatten`, not for tokens);
    `auto`: flatten for a forecast (Nie et al. 2023), else mean. patch: cuts an image into square patches as steps, as
    ViT does; 0 = its rows.
    Sources: Vaswani et al. 2017; pre-norm: Xiong et al. 2020; patches: Dosovitskiy et al. 2021; rotary: Su et al. 2021.
    """

    accepts, tasks = ("image", "tokens", "series"), ("classify", "regress", "next_token", "forecast")
    stages = (("embed", r"(embed|position)\."), ("body", r"(body|norm)\."), ("head", r"head\."))

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 64,
        depth: Count = 2,
        heads: Count = 4,
        activation: Activation = "gelu",
        dropout: Fraction = 0.0,
        position: Position = "learned",
        causal: bool | Literal["auto"] = "auto",
        pool: Literal["auto", "mean", "last", "flatten"] = "auto",
        patch: Size = 0,
    ):
        super().__init__(spec)
        decoder = self.spec.task == "next_token"
        if decoder and (causal is False or pool != "auto"):
            raise ValueError(
                f"model.causal={causal} model.pool={pool}: next_token predicts every step from those before it; "
                f"leave both at auto"
            )
        if pool == "flatten" and self.spec.kind == "tokens":
            raise ValueError("model.pool=flatten: sequences of tokens differ in length; use mean or last")
        self.causal = decoder if causal == "auto" else causal
        self.pool = ("flatten" if self.spec.task == "forecast" else "mean") if pool == "auto" else pool
        self.embed = read.Sequence(self.spec, width, patch)
        steps = self.embed.steps
        self.position = Positions(position, steps, width, heads)
        self.dropout = nn.Dropout(dropout)
        self.body = nn.ModuleList(
            Block(width, heads, causal=self.causal, dropout=dropout, act=activation) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width * (steps if self.pool == "flatten" else 1), self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        decoder = self.spec.task == "next_token"
        mask = None if decoder else self.mask(x)  # causal: what is padded at the end is never looked at
        h = self.dropout(self.position(self.embed(x)))  # (B, T, width)
        for block in self.body:
            h = block(h, mask, self.position.turn)
        h = self.norm(h)
        if decoder:
            return h
        if self.pool == "flatten":
            return h.flatten(1)  # (B, T, width) -> (B, T width)
        return (read.mean if self.pool == "mean" else read.last)(h, mask)

    def attention(self, x: Tensor) -> list[Tensor]:
        """Attention weights of each block for a batch: (B, ...) -> depth tensors (B, heads, T, T), rows sum to 1."""
        return weights_of(self, x)
