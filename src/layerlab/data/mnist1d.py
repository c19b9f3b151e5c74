"""MNIST-1D: ten classes of one-dimensional signals, generated offline. It separates models where digits do not."""

import os
import random
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from layerlab.contract import Count, DataSpec, Size
from layerlab.data.base import Drawn, shuffled, standardise
from layerlab.data.batches import Split, Tensors

PARTS = ("x", "y", "x_test", "y_test")
PUBLISHED = {"train": np.arange(3600), "val": np.arange(3600, 4000), "test": np.arange(4000, 5000)}


class MNIST1D(Drawn):
    """5,000 signals (40, 1) in ten classes: 3,600 train, 400 val, 1,000 test; the package's own test split.

    generator_seed: 42 is the published set. split_seed: a number draws another stratified 70/10/20. shuffle_labels:
    training labels that mean nothing. Source: Greydanus & Kobak 2024, arXiv 2011.14439 (Apache-2.0).
    """

    kind, tasks = "series", ("classify",)

    def __init__(
        self,
        batch_size: Count = 64,
        generator_seed: Size = 42,
        split_seed: Size | None = None,
        folds: Size = 0,
        fold: Size = 0,
        train_size: Count | None = None,
        shuffle_labels: bool = False,
    ):
        super().__init__(batch_size, split_seed or 0, folds, fold, train_size)
        self.generator_seed, self.shuffle_labels = generator_seed, shuffle_labels
        self.published = split_seed is None and not folds

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        raw = generated(self.generator_seed)
        x = torch.tensor(np.concatenate([raw["x"], raw["x_test"]]), dtype=torch.float32)[..., None]  # (5000, 40, 1)
        labels = np.concatenate([raw["y"], raw["y_test"]])
        parts = self.fewer(PUBLISHED, labels) if self.published else self.parts(labels)
        y = torch.tensor(labels)
        if self.shuffle_labels:
            y = shuffled(y, parts["train"], self.split_seed)
        x, mean, std = standardise(x, x[parts["train"]], (0, 1), self.fitted)
        spec = DataSpec(
            kind="series",
            task="classify",
            shape=(40, 1),
            out=10,
            name="mnist1d",
            classes=tuple("0123456789"),
            channels=("signal",),
            mean=mean,
            std=std,
        )
        return spec, {name: Tensors(x[i], y[i]) for name, i in parts.items()}


def generated(seed: int, folder: Path = Path("data", "cache")) -> dict[str, np.ndarray]:
    """The set of a generator seed: drawn once, 3 CPU s, then read from a file under data/cache."""
    place = folder / f"mnist1d-{version('mnist1d')}-{seed}.npz"
    damaged = (OSError, ValueError, KeyError, BadZipFile)  # or not there yet; its parts have checksums
    with suppress(*damaged), place.open("rb") as f, np.load(f) as kept:
        return {name: kept[name] for name in PARTS}
    made = _drawn(seed)
    with suppress(OSError):  # a folder that cannot be written costs the time again, nothing else
        folder.mkdir(parents=True, exist_ok=True)
        part = place.with_name(f".{place.stem}.{os.getpid()}.npz")
        np.savez(part, x=made["x"], y=made["y"], x_test=made["x_test"], y_test=made["y_test"])
        part.replace(place)
    return made


def _drawn(seed: int) -> dict[str, np.ndarray]:
    from mnist1d.data import get_dataset_args, make_dataset  # make_dataset: never get_dataset, it downloads a pickle

    args = get_dataset_args()
    args.seed = seed
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # make_dataset seeds all three
    try:
        return make_dataset(args)
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])
        torch.set_rng_state(states[2])
