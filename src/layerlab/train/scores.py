"""What stands beside a test accuracy: its interval, what guessing would give, and precision and recall by class."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerlab.models.base import Model
from layerlab.tasks.classify import Classify

DRAWS = 2000  # of the bootstrap
MOST_CLASSES = 64  # for which figures beyond the accuracy are drawn too: draws x classes^2 numbers
FEW = 100  # test examples below which an interval is too wide to choose by


def apply(model: Model) -> bool:
    """Whether a model gives one class per example."""
    return isinstance(model.task, Classify) and model.task.labels != "multilabel"


def counts(model: Any) -> Tensor:
    """How often each class (rows) was taken for which (columns) on the test split: (C, C), from the model's outputs."""
    out, y = model.outputs
    C = model.task.spec.out
    said = model.task.probabilities(out).argmax(1)
    found = torch.zeros(C, C, dtype=torch.int64)
    return found.index_put_((y.flatten().long(), said), torch.tensor(1), accumulate=True)


def intervals(found: Tensor, seed: int = 0) -> dict[str, dict[str, float]]:
    """95 % intervals of acc, balanced_acc and f1 over the test examples, from their counts (C, C).

    low, high: percentile bootstrap (Efron 1979), 2,000 draws of as many examples. For acc also wilson_low and
    wilson_high (Wilson 1927), which do not shrink to nothing where every answer is right.
    """
    from scipy.stats import binomtest

    matrix = found.numpy()
    C, n = len(matrix), int(matrix.sum())
    right = int(np.trace(matrix))
    generator = np.random.default_rng(seed)
    if C > MOST_CLASSES:
        draws = {"acc": generator.binomial(n, right / n, DRAWS) / n}
    else:
        drawn = generator.multinomial(n, matrix.flatten() / n, DRAWS).reshape(DRAWS, C, C)
        hit = drawn.diagonal(axis1=1, axis2=2)  # (draws, C)
        real, said = drawn.sum(2), drawn.sum(1)
        there = np.maximum((real > 0).sum(1), 1)
        draws = {
            "acc": hit.sum(1) / n,
            "balanced_acc": (hit / np.maximum(real, 1)).sum(1) / there,
            "f1": (2 * hit / np.maximum(real + said, 1)).sum(1) / np.maximum((real + said > 0).sum(1), 1),
        }
    result = {}
    for name, values in draws.items():
        low, high = np.percentile(values, [2.5, 97.5])
        result[name] = {"low": float(low), "high": float(high), "n": n}
    low, high = binomtest(right, n).proportion_ci(method="wilson")
    result["acc"] |= {"wilson_low": float(low), "wilson_high": float(high)}
    return result


def majority(found: Tensor) -> float:
    """Accuracy of always answering the most frequent class of the test split."""
    return float(found.sum(1).max() / found.sum())


def per_class(found: Tensor, classes: tuple[str, ...], place: Path) -> None:
    """Examples, precision, recall and F1 of each class -> per_class.csv; empty where nothing was of, or said, it."""
    names = classes or tuple(map(str, range(len(found))))
    hit, real, said = (v.tolist() for v in (found.diagonal(), found.sum(1), found.sum(0)))
    with place.open("w", newline="", encoding="utf-8") as f:
        writer = csv.writer(f)
        writer.writerow(["class", "examples", "precision", "recall", "f1"])
        for name, h, r, s in zip(names, hit, real, said, strict=True):
            shares = [_share(h, s), _share(h, r), _share(2 * h, r + s)]
            writer.writerow([name, r, *shares])


def _share(part: int, whole: int) -> str:
    return f"{part / whole:.4f}" if whole else ""


def line(results: dict[str, Any]) -> str:
    """The test accuracy in words, with its interval and what guessing would give."""
    name = next(n for n in results["intervals"] if n.endswith("/acc"))  # test/acc, test/<other data>/acc
    acc, guess = results["intervals"][name], results["majority"]
    few = f"; {acc['n']} are few: compare nothing by it" if acc["n"] < FEW else ""
    return (
        f"{name.replace('/', ' ')} {results['metrics'][name]:.3f}, 95 % interval {acc['wilson_low']:.3f} to "
        f"{acc['wilson_high']:.3f} (of {acc['n']:,} examples{few}); always the most frequent class: {guess:.3f}"
    )
