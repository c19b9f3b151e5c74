"""Scaled dot-product attention and the pre-norm block around it (Vaswani et al. 2017; pre-norm: Xiong et al. 2020)."""

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlab.nn.activation import Activation, activation

Position = Literal["learned", "sinusoidal", "rotary", "none"]


def attend(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
    weights: bool = False,
    scaled: bool = True,
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K^T / sqrt(d)) V: three (B, heads, T, d) -> (B, heads, T, d), and weights (B, heads, T, T) if asked.

    mask: (B, T) bool, True where a key may be looked at. scaled=False leaves out the division by sqrt(d). Without
    `weights` the fused kernel runs, which never builds the T x T matrix; with it the formula is written out. Both give
    the same output. Source: Vaswani et al. 2017, eq. 1.
    """
    allowed = None if mask is None else mask[:, None, None, :]  # (B, T) -> (B, 1, 1, T)
    scale = q.shape[-1] ** -0.5 if scaled else 1.0
    if not weights:
        if allowed is not None and causal:
            allowed, causal = allowed & _lower(q), False
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=causal, scale=scale), None
    scores = q @ k.transpose(-2, -1) * scale  # (B, heads, T, T)
    if causal:
        scores = scores.masked_fill(~_lower(q), float("-inf"))
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    a = scores.softmax(-1)
    return a @ v, a


def _lower(q: Tensor) -> Tensor:
    T = q.shape[-2]
    return torch.ones(T, T, dtype=torch.bool, device=q.device).tril()  # row t sees columns 0..t


def angles(steps: int, size: int) -> Tensor:
    """t / 10000^(2 i / size) for every step t and pair i of features: (steps, ceil(size / 2)).

    Source: Vaswani et al. 2017, section 3.5.
    """
    frequency = 10_000.0 ** -(torch.arange(0, size, 2) / size)
    return torch.arange(steps)[:, None] * frequency


def sinusoidal(steps: int, width: int) -> Tensor:
    """Sines on the even, cosines on the odd features: (steps, width). Source: Vaswani et al. 2017, section 3.5."""
    a = angles(steps, width)
    return torch.stack([a.sin(), a.cos()], -1).flatten(1)[:, :width]  # (steps, width / 2, 2) -> (steps, width)


def rotate(x: Tensor, turn: Tensor) -> Tensor:
    """Turn every pair of features of step t: (..., T, d), and cosines and sines (2, >= T, d / 2) -> (..., T, d).

    The product of two turned vectors then depends on their distance alone. Source: Su et al. 2021, arXiv 2104.09864.
    """
    cos, sin = turn[:, : x.shape[-2]].to(x.dtype)  # each (T, d / 2)
    a, b = x[..., ::2], x[..., 1::2]
    return torch.stack([a * cos - b * sin, a * sin + b * cos], -1).flatten(-2)


class Positions(nn.Module):
    """Adds to every step what tells its place: (B, T, width) -> (B, T, width); `rotary` and `none` add nothing.

    `turn` (2, steps, width / heads / 2) is what attention rotates by, None unless rotary.
    Raises ValueError for rotary where a head has an odd width.
    """

    table: Tensor | None
    turn: Tensor | None

    def __init__(self, kind: Position, steps: int, width: int, heads: int = 1):
        super().__init__()
        size = width // heads
        if kind == "rotary" and size % 2:
            raise ValueError(f"model.position=rotary: turns pairs, but width / heads = {size} is odd")
        # cosines and sines, which survive a cast to 16 bits; angles of some hundred would not
        a = angles(steps, size)
        self.register_buffer("turn", torch.stack([a.cos(), a.sin()]) if kind == "rotary" else None, persistent=False)
        if kind == "learned":
            self.table = nn.Parameter(torch.randn(steps, width) * 0.02)  # .02: Devlin et al. 2019
        else:
            self.register_buffer("table", sinusoidal(steps, width) if kind == "sinusoidal" else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return x if self.table is None else x + self.table[: x.shape[1]]


class Attention(nn.Module):
    """Multi-head self-attention: (B, T, width) -> (B, T, width); the weights of the last call with `keep_weights`."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, dropout: float = 0.0, scaled: bool = True):
        super().__init__()
        if width % heads:
            raise ValueError(f"model.heads={heads}: does not divide model.width={width}")
        self.heads, self.causal, self.scaled = heads, causal, scaled
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.keep_weights = False
        self.weights: Tensor | None = None  # (B, heads, T, T)

    def forward(self, x: Tensor, mask: Tensor | None = None, turn: Tensor | None = None) -> Tensor:
        B, T, width = x.shape
        q, k, v = self.qkv(x).reshape(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, heads, T, d)
        if turn is not None:
            q, k = rotate(q, turn), rotate(k, turn)
        h, self.weights = attend(q, k, v, causal=self.causal, mask=mask, weights=self.keep_weights, scaled=self.scaled)
        return self.dropout(self.out(h.transpose(1, 2).reshape(B, T, width)))  # (B, heads, T, d) -> (B, T, width)


@torch.no_grad()
def weights_of(module: nn.Module, x: Tensor) -> list[Tensor]:
    """Attention weights of every layer of a module for a batch: (B, heads, T, T) each, rows sum to 1."""
    looks = [m for m in module.modules() if isinstance(m, Attention)]
    for m in looks:
        m.keep_weights = True
    try:
        module(x)
        return [m.weights for m in looks if m.weights is not None]
    finally:
        for m in looks:
            m.keep_weights, m.weights = False, None


class Block(nn.Module):
    """Pre-norm transformer block: x + attention(norm(x)), then x + mlp(norm(x)): (B, T, width) -> (B, T, width)."""

    def __init__(self, width: int, heads: int, *, causal: bool, dropout: float = 0.0, act: Activation = "gelu"):
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attention = Attention(width, heads, causal=causal, dropout=dropout)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),  # 4: Vaswani et al. 2017, section 3.3
            activation(act),
            nn.Linear(4 * width, width),
            nn.Dropout(dropout),
        )

    def forward(self, x: Tensor, mask: Tensor | None = None, turn: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), mask, turn)
        return x + self.mlp(self.norm2(x))
