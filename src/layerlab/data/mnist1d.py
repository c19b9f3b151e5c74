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
from layerlab.data.base import Data, standardise
from layerlab.data.batches import Split, Tensors

PARTS = ("x", "y", "x_test", "y_test")


class MNIST1D(Data):
    """5,000 signals (40, 1) in ten classes: 3,600 train, 400 val, 1,000 test; the package's own test split.

    generator_seed: 42 is the published set. Source: Greydanus & Kobak 2024, arXiv 2011.14439 (Apache-2.0).
    """

    kind, tasks = "series", ("classify",)

    def __init__(self, batch_size: Count = 64, generator_seed: Size = 42):
        super().__init__(batch_size)
        self.generator_seed = generator_seed

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        raw = generated(self.generator_seed)
        x = torch.tensor(raw["x"], dtype=torch.float32)[..., None]  # (4000, 40, 1)
        test = torch.tensor(raw["x_test"], dtype=torch.float32)[..., None]
        y, y_test = torch.tensor(raw["y"]), torch.tensor(raw["y_test"])
        cut = 3600
        both, mean, std = standardise(torch.cat([x, test]), x[:cut], (0, 1), self.fitted)
        x, test = both[:4000], both[4000:]
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
        return spec, {
            "train": Tensors(x[:cut], y[:cut]),
            "val": Tensors(x[cut:], y[cut:]),
            "test": Tensors(test, y_test),
        }


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
