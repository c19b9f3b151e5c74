"""What the promises of docs/reliability.md cost: the same small run with and without them.

    python benchmarks/overhead.py [--rounds 40] [--epochs 10]

With: loss and gradient norm looked at in every step, weights before each checkpoint, signals, verified and flushed
checkpoints, lock, preflight, keyed dropout, saved sums. Without: none of the looks, checkpoints by torch.save alone.
Rounds interleave the arms in random order, in CPU seconds; medians of the paired ratios
with their 95 % intervals, and an A/A pair beside them.
"""

import argparse
import contextlib
import io
import random
import statistics
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from unittest import mock

import scipy.stats
import torch

from layerlab.compose import compose
from layerlab.train import checkpoint, guards, resume
from layerlab.train.run import fit


def nothing(*args: object, **kwargs: object) -> None:
    """In place of a look."""


def bare(state: dict, path: Path) -> None:
    """A checkpoint as torch writes it; the sidecar only so that it can be read again."""
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(state, path)


@contextlib.contextmanager
def without() -> Generator[None]:
    """No guard and no verified checkpoint."""
    looks = ("on_before_backward", "on_before_optimizer_step", "on_train_batch_end", "on_validation_start", "look")
    with contextlib.ExitStack() as stack:
        for name in (*looks, "on_train_start"):
            stack.enter_context(mock.patch.object(guards.Finite, name, nothing))
        stack.enter_context(mock.patch.object(guards.Signals, "on_train_batch_end", nothing))
        stack.enter_context(mock.patch.object(checkpoint, "write", bare))
        stack.enter_context(mock.patch.object(checkpoint, "verify", nothing))
        stack.enter_context(mock.patch.object(checkpoint, "refuse_full_disk", nothing))
        stack.enter_context(mock.patch.object(resume, "warn_of_other_data", nothing))
        yield


def cost(epochs: int, plain: bool) -> float:
    """CPU seconds of one run."""
    with tempfile.TemporaryDirectory() as logs, contextlib.redirect_stdout(io.StringIO()):
        composed = compose("model=mlp", f"trainer.max_epochs={epochs}", f"logs={logs}", "progress=none")
        with without() if plain else contextlib.nullcontext():
            began = time.process_time()
            fit(composed, curves=False)
            return time.process_time() - began


def main() -> None:
    """Print the ratios."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--epochs", type=int, default=10)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cost(2, False)
    costs: dict[str, list[float]] = {"with": [], "without": [], "without again": []}
    for i in range(options.rounds):
        for name in random.Random(i).sample(sorted(costs), 3):  # no arm always comes first
            costs[name].append(cost(options.epochs, plain=name != "with"))
    for name in ("with", "without again"):
        ratios = [a / b for a, b in zip(costs[name], costs["without"], strict=True)]
        low, high = scipy.stats.quantile_test(ratios, p=0.5).confidence_interval()
        print(f"{name:13} / without: median {statistics.median(ratios):.3f} [{low:.3f}, {high:.3f}]", flush=True)
    steps = options.epochs * 40
    print(f"{options.rounds} rounds, MLP on digits, {steps:,} steps and {options.epochs} checkpoints each, 1 thread")


if __name__ == "__main__":
    main()
