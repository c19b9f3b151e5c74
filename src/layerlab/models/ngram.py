"""Counts of what followed what: the language model that every network has to beat."""

from collections.abc import Iterable
from typing import Any, Literal

import torch
from torch import Tensor, nn

from layerlab.contract import IGNORE, Count, DataSpec, Positive
from layerlab.models.base import Batch, Model


class NGram(Model):
    """Probability of the next symbol from the last order - 1: ids (B, T) -> log-probabilities (B, T, V).

    smoothing: `witten_bell` interpolates, P_n = (c + u P_(n-1)) / (m + u) with m the count of a context and u the
    number of distinct symbols that followed it; `add_k` is (c + k) / (m + k V). The unigram adds one. Words are read as
    if start symbols stood before them, a text begins with the lower orders.
    Sources: Witten & Bell 1991; Chen & Goodman 1999, section 2.
    """

    accepts, tasks, stages = ("tokens",), ("next_token",), ()

    def __init__(
        self,
        spec: DataSpec,
        order: Count = 5,
        smoothing: Literal["witten_bell", "add_k"] = "witten_bell",
        k: Positive = 1.0,
    ):
        super().__init__(spec)
        self.order, self.smoothing, self.k, self.head = order, smoothing, k, nn.Identity()
        self.symbols = V = len(self.spec.vocabulary)
        if (V + 1) ** order >= 2**62:
            raise ValueError(f"model.order={order}: too long for {V} symbols; at most {int(62 / (V + 1).bit_length())}")
        for n in range(order):  # n: symbols of context
            for name in ("contexts", "totals", "distinct", "pairs", "counts"):
                self.register_buffer(f"{name}{n}", torch.zeros(0, dtype=torch.int64))

    def _load_from_state_dict(self, state_dict: Any, prefix: str, *args: Any, **kwargs: Any) -> None:
        for name in self._buffers:  # the tables are as long as the data was rich
            if prefix + name in state_dict:
                self._buffers[name] = torch.empty_like(state_dict[prefix + name])
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)

    def _contexts(self, x: Tensor, n: int) -> Tensor:
        """A number for the last n ids at each position, (B, T); -1 where a text has not that many yet."""
        B, T = x.shape
        code = torch.zeros_like(x)
        before = -1 if self.spec.pad is None else self.spec.pad
        for i in range(n - 1, -1, -1):  # the oldest of them first
            shifted = torch.cat([torch.full((B, min(i, T)), before, device=x.device), x[:, : max(T - i, 0)]], 1)
            code = torch.where((code < 0) | (shifted < 0), -1, code * self.symbols + shifted)
        return code

    def solve(self, train: Iterable[Batch], val: Iterable[Batch]) -> None:
        """Count every context of 0 ... order - 1 symbols and what followed it."""
        found: list[list[Tensor]] = [[] for _ in range(self.order)]
        for x, y in train:
            for n in range(self.order):
                code = self._contexts(x, n)
                keep = (y != IGNORE) & (code >= 0)
                found[n].append(code[keep] * self.symbols + y[keep])
        for n, codes in enumerate(found):
            pairs, counts = torch.cat(codes).unique(return_counts=True)
            contexts, rows, distinct = (pairs // self.symbols).unique(return_inverse=True, return_counts=True)
            totals = torch.zeros_like(contexts).index_add_(0, rows, counts)
            tables = {"contexts": contexts, "totals": totals, "distinct": distinct, "pairs": pairs, "counts": counts}
            for name, table in tables.items():
                setattr(self, f"{name}{n}", table)

    def features(self, x: Tensor) -> Tensor:
        V = self.symbols
        symbols = torch.arange(V, device=x.device)
        p = torch.full((*x.shape, V), 1 / V, dtype=torch.float64, device=x.device)
        for n in range(self.order):
            if n and self.smoothing == "add_k" and n < self.order - 1:
                continue  # only the longest context counts
            code = self._contexts(x, n)
            m, u = self._look_up(n, code)  # (B, T)
            c = self._count(n, code[..., None] * V + symbols)  # (B, T, V)
            if n == 0:
                p = (c + 1) / (m + V)[..., None]
            elif self.smoothing == "add_k":
                p = (c + self.k) / (m + self.k * V)[..., None]
            else:
                m, u = m[..., None], u[..., None]
                p = torch.where(m > 0, (c + u * p) / (m + u).clamp(min=1), p)
        return p.log().float()

    def _look_up(self, n: int, code: Tensor) -> tuple[Tensor, Tensor]:
        """Count and number of distinct successors of each context; 0 for one that training never saw."""
        at, there = _find(getattr(self, f"contexts{n}"), code)
        zero = torch.zeros_like(code, dtype=torch.float64)
        total, distinct = getattr(self, f"totals{n}"), getattr(self, f"distinct{n}")
        return torch.where(there, total[at], zero).double(), torch.where(there, distinct[at], zero).double()

    def _count(self, n: int, pair: Tensor) -> Tensor:
        at, there = _find(getattr(self, f"pairs{n}"), pair)
        return torch.where(there, getattr(self, f"counts{n}")[at], 0).double()


def _find(table: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
    """Place of each value in a sorted table, and whether it is there."""
    at = torch.searchsorted(table, values).clamp(max=len(table) - 1)
    return at, table[at] == values
