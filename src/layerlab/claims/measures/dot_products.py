"""Attention scores between random queries and keys, with and without the scaling by sqrt(d_k)."""

from typing import Any

import torch

from layerlab.models.base import Model

GIVES = dict.fromkeys(("std", "entropy", "jacobian"), ("d", "scale"))
KEYS, QUERIES = 64, 256


def dot_products(model: Model, data: Any, d: list[int], scale: list[str]) -> dict[str, float]:
    """Queries and keys drawn from N(0, 1); neither model nor data is used, but the seed of the run.

    std: of the scores, sqrt(d) without scaling. entropy: of the weights over `KEYS` keys, 1 = uniform. jacobian:
    Frobenius norm of dsoftmax/dscores, which is what can be learnt from. Source: Vaswani et al. 2017, section 3.2.1.
    """
    found = {}
    for size in d:
        q, k = (torch.randn(n, size, dtype=torch.float64) for n in (QUERIES, KEYS))
        for scaled in scale:
            scores = q @ k.T / (size**0.5 if scaled == "true" else 1.0)  # (QUERIES, KEYS)
            p = scores.softmax(1)
            jacobian = torch.diag_embed(p) - p[:, :, None] * p[:, None, :]  # (QUERIES, KEYS, KEYS)
            entropy = torch.special.entr(p).sum(1).mean() / torch.tensor(KEYS).log()
            where = f"(d={size},scale={scaled})"
            found["std" + where] = float(scores.std())
            found["entropy" + where] = float(entropy)
            found["jacobian" + where] = float(jacobian.norm(dim=(1, 2)).mean())
    return found
