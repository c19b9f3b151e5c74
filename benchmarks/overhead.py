"""What the promises of docs/reliability.md cost: the same small run with and without them.

    python benchmarks/overhead.py [--rounds 7] [--epochs 50]

With: loss and gradient norm looked at in every step, weights before each checkpoint, signals, verified and flushed
checkpoints, lock, preflight, keyed dropout, saved sums. Without: none of the looks, checkpoints by torch.save alone.
Rounds alternate; each gives one ratio of CPU seconds; an A/A pair says how much of it is noise.
"""

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Generator
from pathlib import Path
from unittest import mock

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
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--epochs", type=int, default=50)
    options = parser.parse_args()
    torch.set_num_threads(1)
    cost(2, False)
    ratios, same = [], []
    for i in range(options.rounds):
        order = (True, False) if i % 2 else (False, True)
        found = {plain: cost(options.epochs, plain) for plain in order}
        ratios.append(found[False] / found[True])
        same.append(cost(options.epochs, True) / found[True])
    for name, values in (("with / without", ratios), ("A/A", same)):
        print(f"{name:16} median {statistics.median(values):.3f}  [{min(values):.3f}, {max(values):.3f}]")
    steps = options.epochs * 40
    print(f"{options.rounds} rounds, MLP on digits, {steps:,} steps and {options.epochs} checkpoints each, 1 thread")


if __name__ == "__main__":
    main()
