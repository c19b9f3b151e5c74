"""One head of attention as a table that one asks, with each of its three parts taken away."""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlab.models.base import Model
from layerlab.nn.attention import attend

GIVES = {"acc": ("part",), "right": ("part",), "exact": ()}
PAIRS, WIDTH, BATCH, STEPS, LR, TEST = 16, 64, 64, 120, 1e-2, 2_000


def lookup(model: Model, data: Any, part: list[str]) -> dict[str, float]:
    """A head that learns to look up 16 pairs; neither model nor data is used, but the seed of the run.

    Each table has 16 of 32 keys, each with one of 32 values; a query is one of its keys. Q, K and V are linear maps of
    one-hot symbols, the answer is read from what the weights sum up. part `none`: all three; `query`, `key`, `value`:
    that one knows nothing of its symbol. acc: how often the value is right. right: how often the largest weight lies on
    the asked key. exact: largest difference from a dictionary's answer when scores are multiplied by 1,000, of part
    `none`. Source: Vaswani et al. 2017, eq. 1; associative recall: Graves et al. 2014, arXiv 1410.5401.
    """
    start = torch.randn(4, 2 * PAIRS, WIDTH) / WIDTH**0.5
    test = _tables(TEST)
    found = {}
    for taken in dict.fromkeys(["none", *part]):
        weights = start.clone().requires_grad_()  # of Q, K, V and the output
        optimizer = torch.optim.Adam([weights], LR)
        for _ in range(STEPS):
            keys, values, asked = _tables(BATCH)
            logits, _ = _head(weights, keys, values, asked, taken)
            loss = F.cross_entropy(logits, values.gather(1, asked).squeeze(1))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        keys, values, asked = test
        with torch.no_grad():
            logits, looks = _head(weights, keys, values, asked, taken)
            answer = values.gather(1, asked).squeeze(1)
            found[f"acc(part={taken})"] = float((logits.argmax(1) == answer).double().mean())
            found[f"right(part={taken})"] = float((looks.argmax(1, keepdim=True) == asked).double().mean())
            if taken == "none":
                hard, _ = _head(weights, keys, values, asked, taken, sharp=1_000.0)
                found["exact"] = float((hard - weights[2][answer] @ weights[3].T).abs().max())
    return found


def _tables(n: int) -> tuple[Tensor, Tensor, Tensor]:
    """Keys (n, PAIRS), distinct in each row, values (n, PAIRS), and which of the pairs is asked for (n, 1)."""
    keys = torch.rand(n, 2 * PAIRS).argsort(1)[:, :PAIRS]
    return keys, torch.randint(2 * PAIRS, (n, PAIRS)), torch.randint(PAIRS, (n, 1))


def _head(
    weights: Tensor, keys: Tensor, values: Tensor, asked: Tensor, taken: str, sharp: float = 1.0
) -> tuple[Tensor, Tensor]:
    """Logits (B, 2 PAIRS) and weights (B, PAIRS) of a head: a row of a table is the linear map of a one-hot symbol."""
    q, k, v = weights[0][keys.gather(1, asked)], weights[1][keys], weights[2][values]  # (B, 1 or PAIRS, WIDTH)
    q, k, v = (h * (name != taken) for name, h in (("query", q), ("key", k), ("value", v)))
    h, looks = attend(q[:, None] * sharp, k[:, None], v[:, None], weights=True)  # one head
    assert looks is not None
    return h[:, 0, 0] @ weights[3].T, looks[:, 0, 0]
