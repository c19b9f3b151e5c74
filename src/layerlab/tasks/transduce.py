"""Which sequence belongs to this one? Cross-entropy per symbol, and error rates of what the model says by itself."""

from __future__ import annotations

from typing import Any

from torch import Tensor
from torchmetrics.functional.text import edit_distance

from layerlab.contract import IGNORE, DataSpec
from layerlab.tasks.base import Task, symbol_error, symbol_report


class Transduce(Task):
    """Logits (B, U, V) of each symbol of the answer, given those before it, against ids (B, U), -100 beyond its end.

    Reported: nll in nats per symbol and acc, both with the right beginning given (teacher forcing), loss (the nll);
    on the test split also what the model writes alone, greedily: exact, the share of answers without an error, and
    ser, edit distance / symbols of the right answer (Levenshtein 1966; for phonemes the phoneme error rate).
    """

    name, monitor, mode = "transduce", "val/nll", "min"
    further = ("exact", "ser")

    def __init__(self, spec: DataSpec | dict[str, Any]):
        super().__init__(spec)

    def measure(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return symbol_error(out, y)

    def report(self, sums: list[float]) -> dict[str, float]:
        return symbol_report(sums)

    def prediction(self, model: Any, x: Tensor, out: Tensor) -> Tensor:
        return model.generate(x)

    def metrics(self, out: Tensor, y: Tensor) -> dict[str, float]:
        said, right = ([words(row) for row in ids.tolist()] for ids in (out, y))
        distance = edit_distance([chars(w) for w in said], [chars(w) for w in right], reduction="sum")
        exact = sum(a == b for a, b in zip(said, right, strict=True)) / len(right)
        return {"exact": exact, "ser": float(distance) / max(sum(map(len, right)), 1)}


def words(ids: list[int], end: int = 0) -> list[int]:
    """The ids of an answer before its end."""
    found = [i for i in ids if i != IGNORE]
    return found[: found.index(end)] if end in found else found


def chars(ids: list[int]) -> str:
    """One character per id, for an edit distance over text."""
    return "".join(chr(0x100 + i) for i in ids)
