"""Scaled dot-product attention and the pre-norm block around it (Vaswani et al. 2017; pre-norm: Xiong et al. 2020)."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from layerlab.nn.activation import Activation, activation


def attend(
    q: Tensor, k: Tensor, v: Tensor, *, causal: bool = False, mask: Tensor | None = None, weights: bool = False
) -> tuple[Tensor, Tensor | None]:
    """softmax(Q K^T / sqrt(d)) V: three (B, heads, T, d) -> (B, heads, T, d), and weights (B, heads, T, T) if asked.

    mask: (B, T) bool, True where a key may be looked at. Without `weights` the fused kernel runs, which never
    builds the T x T matrix; with it the formula is written out. Both give the same output. Source: Vaswani et al.
    2017, eq. 1.
    """
    allowed = None if mask is None else mask[:, None, None, :]  # (B, T) -> (B, 1, 1, T)
    if not weights:
        if allowed is not None and causal:
            allowed, causal = allowed & _lower(q), False
        return F.scaled_dot_product_attention(q, k, v, attn_mask=allowed, is_causal=causal), None
    scores = q @ k.transpose(-2, -1) / q.shape[-1] ** 0.5  # (B, heads, T, T)
    if causal:
        scores = scores.masked_fill(~_lower(q), float("-inf"))
    if allowed is not None:
        scores = scores.masked_fill(~allowed, float("-inf"))
    a = scores.softmax(-1)
    return a @ v, a


def _lower(q: Tensor) -> Tensor:
    T = q.shape[-2]
    return torch.ones(T, T, dtype=torch.bool, device=q.device).tril()  # row t sees columns 0..t


class Attention(nn.Module):
    """Multi-head self-attention: (B, T, width) -> (B, T, width); the weights of the last call with `keep_weights`."""

    def __init__(self, width: int, heads: int, *, causal: bool = False, dropout: float = 0.0):
        super().__init__()
        if width % heads:
            raise ValueError(f"model.heads={heads}: does not divide model.width={width}")
        self.heads, self.causal = heads, causal
        self.qkv = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.keep_weights = False
        self.weights: Tensor | None = None  # (B, heads, T, T)

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        B, T, width = x.shape
        q, k, v = self.qkv(x).reshape(B, T, 3, self.heads, -1).permute(2, 0, 3, 1, 4)  # each (B, heads, T, d)
        h, self.weights = attend(q, k, v, causal=self.causal, mask=mask, weights=self.keep_weights)
        return self.dropout(self.out(h.transpose(1, 2).reshape(B, T, width)))  # (B, heads, T, d) -> (B, T, width)


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

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        x = x + self.attention(self.norm1(x), mask)
        return x + self.mlp(self.norm2(x))
