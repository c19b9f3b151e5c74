"""Layers of neurons in a row."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlab.contract import Count, DataSpec, Fraction, Size
from layerlab.models.base import Model
from layerlab.nn import read
from layerlab.nn.activation import Activation, activation
from layerlab.nn.init import Init, init_linear

Norm = Literal["none", "batch", "layer"]


class MLP(Model):
    """Multilayer perceptron: anything, flattened, (B, ...) -> (B, out).

    For next_token it reads the last `context` ids at every position, (B, T) -> (B, T, out): Bengio et al. 2003.
    depth: hidden layers, 0 = one linear map. embed: numbers per symbol, for tokens; context is for next_token alone.
    init_bias: of all hidden layers at the start, 0 = as `init` has it; below 0 units are born dead (Lu et al. 2019).
    norm: before each activation (batch: Ioffe & Szegedy 2015, layer: Ba et al. 2016). residual `pre`: each hidden layer
    after the first adds to what it reads, h + linear(act(norm(h))): He et al. 2016, arXiv 1603.05027.
    """

    accepts, tasks = ("vector", "image", "tokens", "series"), ("classify", "regress", "next_token", "forecast")
    stages = (("embed", r"embed\."), ("body", r"(body|norm)\."), ("head", r"head\."))

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 128,
        depth: Size = 2,
        activation: Activation = "relu",
        dropout: Fraction = 0.0,
        init: Init = "default",
        init_bias: float = 0.0,
        norm: Norm = "none",
        residual: Literal["none", "pre"] = "none",
        embed: Count = 32,
        context: Count = 8,
    ):
        super().__init__(spec)
        self.context = context if self.spec.task == "next_token" else 0
        tokens = self.spec.kind == "tokens"
        for key, value, default, used in (("context", context, 8, self.context), ("embed", embed, 32, tokens)):
            if value != default and not used:  # an option without effect is an error
                where = "next_token" if key == "context" else "tokens"
                raise ValueError(f"model.{key}={value}: has an effect on {where} alone; leave it out")
        hidden = (("norm", norm, "none"), ("residual", residual, "none"), ("init", init, "default"))
        for key, value, default in (*hidden, ("init_bias", init_bias, 0.0)):
            if depth == 0 and value != default:
                raise ValueError(f"model.{key}={value}: belongs to hidden layers, model.depth=0 has none; leave it out")
        if tokens:
            self.embed = nn.Embedding(len(self.spec.vocabulary) + 1, embed)  # + 1: before the beginning
            size = (self.context or self.spec.shape[0]) * embed
        else:
            self.embed = read.Vector(self.spec)
            size = self.embed.size
        self.residual = residual == "pre"
        layers = []
        for i in range(depth):
            linear = nn.Linear(size if i == 0 else width, width)
            init_linear(linear, init, activation)
            if init_bias:
                nn.init.constant_(linear.bias, init_bias)
            around = _around(width, norm, activation, dropout)
            if self.residual:  # a residual layer normalises what it reads, a plain one what it gives; the first reads x
                layers.append(nn.Sequential(*(around if i else []), linear))
            else:
                layers.append(nn.Sequential(linear, *around))
        self.body = nn.Sequential(*layers)
        self.norm = nn.Sequential(*_around(width, norm, activation, dropout) if self.residual and depth else [])
        self.head = nn.Linear(width if depth else size, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        first, *others = self.body if len(self.body) else [nn.Identity()]
        if self.context:
            h = self._looked_up(x, first)
        else:
            if self.spec.kind == "tokens":  # a batch is cut to its longest sequence
                x = F.pad(x, (0, self.spec.shape[0] - x.shape[1]), value=self.spec.pad or 0)
            h = first(self.embed(x).flatten(1))  # (B, ...) -> (B, size)
        for layer in others:
            h = h + layer(h) if self.residual else layer(h)
        return self.norm(h)

    def _looked_up(self, x: Tensor, first: nn.Module) -> Tensor:
        """The first layer over the last `context` ids at every position: (B, T) -> (B, T, width).

        embedding, then linear, is a sum over the places of a table of V + 1 rows each; building the tables costs less
        than multiplying every embedded window.
        """
        B, T = x.shape
        V = len(self.spec.vocabulary)
        ids = F.pad(x, (self.context - 1, 0), value=V).unfold(1, self.context, 1)  # (B, T, context)
        if not isinstance(first, nn.Sequential):
            return self.embed(ids).flatten(2)  # (B, T, context, E) -> (B, T, context E)
        linear, *rest = first
        assert isinstance(linear, nn.Linear)
        assert isinstance(self.embed, nn.Embedding)
        weight = linear.weight.reshape(len(linear.weight), self.context, -1)  # (width, context E) -> by place
        table = torch.einsum("wce,ve->cvw", weight, self.embed.weight).flatten(0, 1)  # (context (V + 1), width)
        at = ids + torch.arange(self.context, device=x.device) * (V + 1)
        h = F.embedding_bag(at.flatten(0, 1), table, mode="sum").reshape(B, T, -1) + linear.bias
        for layer in rest:
            h = layer(h)
        return h


class _BatchNorm(nn.BatchNorm1d):
    """Over all but the features, which stand last: (B, F) or (B, T, F)."""

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(input.flatten(0, -2)).reshape(input.shape)


def _around(width: int, norm: Norm, name: Activation, dropout: float) -> list[nn.Module]:
    """What stands between two linear maps."""
    norms = {"none": [], "batch": [_BatchNorm(width)], "layer": [nn.LayerNorm(width)]}
    # a dropout of 0 would cost a small net as much as its activation
    return [*norms[norm], activation(name), nn.Dropout(dropout) if dropout else nn.Identity()]
