"""Any classification set that torchvision knows, by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec, Size
from layerlab.data import images
from layerlab.data.base import Data
from layerlab.data.batches import Split
from layerlab.data.split import SHARES, shares

KNOWN: dict[str, dict[str, dict[str, Any]]] = {  # set -> part -> how torchvision calls it; all in one: {"train": {}}
    **{n: {"train": {"train": True}, "test": {"train": False}} for n in ("KMNIST", "USPS")},
    **{
        n: {"train": {"split": "train"}, "test": {"split": "test"}}
        for n in ("Food101", "GTSRB", "STL10", "SVHN", "StanfordCars")
    },
    **{
        n: {p: {"split": p} for p in ("train", "val", "test")}
        for n in ("DTD", "FGVCAircraft", "Flowers102", "PCAM", "RenderedSST2")
    },
    "Country211": {"train": {"split": "train"}, "val": {"split": "valid"}, "test": {"split": "test"}},
    "EMNIST": {p: {"split": "balanced", "train": p == "train"} for p in ("train", "test")},
    "QMNIST": {p: {"what": p} for p in ("train", "test")},
    "Imagenette": {"train": {"split": "train"}, "test": {"split": "val"}},
    "OxfordIIITPet": {"train": {"split": "trainval"}, "test": {"split": "test"}},
    **{n: {"train": {}} for n in ("Caltech101", "Caltech256", "EuroSAT", "SEMEION", "SUN397")},
}


class TorchvisionSet(Data):
    """Images (channels, size, size) and their classes, decoded once; parts as published.

    What a set does not publish is drawn from its training part with split_seed, each class alike: 10 % val, 20 % test.
    path: torchvision's root folder with the files in it; without it they are downloaded once into data/torchvision,
    checked by torchvision where it states a checksum. Some sets need further packages, which it names.
    """

    kind, tasks = "image", ("classify",)

    def __init__(
        self,
        batch_size: Count = 64,
        name: str = "SVHN",
        path: str | None = None,
        size: Count = 32,
        channels: Literal[1, 3] = 3,
        split_seed: Size = 0,
    ):
        super().__init__(batch_size)
        self.set_name, self.path, self.size, self.channels, self.split_seed = name, path, size, channels, split_seed
        if name not in KNOWN:
            own = "MNIST, FashionMNIST, CIFAR10 and CIFAR100 are data=mnist, fashion_mnist, cifar10, cifar100"
            raise DataError(f"data.name={name}: not among {', '.join(sorted(KNOWN))}; {own}")

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        sets = {part: self._opened(options) for part, options in KNOWN[self.set_name].items()}
        whole = [(part, i) for part, found in sets.items() for i in range(len(found))]
        shape = (self.channels, self.size, self.size)

        def read(i: int) -> np.ndarray:
            part, at = whole[i]
            try:
                return images.pixels(sets[part][at][0].convert("RGB"), shape)
            except (OSError, ValueError, SyntaxError) as e:
                raise DataError(
                    f"data.name={self.set_name}: image {at} of {part} is damaged ({e}); fetch it anew"
                ) from e

        root = Path(self.path or "data/torchvision").expanduser().absolute()
        stamps = sorted((str(f), f.stat().st_size, f.stat().st_mtime_ns) for f in root.rglob("[!.]*") if f.is_file())
        x, _ = images.cached(("torchvision", self.set_name, stamps), read, len(whole), shape)
        y = torch.tensor([int(_label(sets[part], at)) for part, at in whole])
        parts = {part: np.array([i for i, (p, _) in enumerate(whole) if p == part]) for part in SHARES}
        n = len(parts["train"])
        for part in [p for p in ("test", "val") if not len(parts[p])]:
            train, own = shares(y[parts["train"]].numpy(), SHARES[part] * n / len(parts["train"]), self.split_seed)
            parts[part], parts["train"] = parts["train"][own], parts["train"][train]
        classes = getattr(sets["train"], "classes", None) or [str(i) for i in range(int(y.max()) + 1)]
        names = [c if isinstance(c, str) else c[0] for c in classes]  # Imagenette gives every name of a class
        return images.splits(x, y, parts, names, self.set_name, self.fitted)

    def _opened(self, options: dict[str, Any]) -> Any:
        from torchvision import datasets

        root = Path(self.path or "data/torchvision").expanduser()
        if self.path is None:
            root.mkdir(parents=True, exist_ok=True)
        try:
            if self.path:
                return getattr(datasets, self.set_name)(root=root, download=False, **options)
            with FileLock(root / f".{self.set_name}.lock"):
                return getattr(datasets, self.set_name)(root=root, download=True, **options)
        except (RuntimeError, OSError, ImportError, ValueError) as e:
            why = str(e).strip().splitlines()[0].removesuffix(" You can use download=True to download it")
            raise DataError(
                f"data.name={self.set_name}: cannot be read or downloaded ({why}); "
                f"put its files where torchvision.datasets.{self.set_name} looks for them, below data.path=FOLDER"
            ) from e

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        return images.read(path, self.spec)


def _label(found: Any, i: int) -> int:
    """The class of an example, without decoding its image where the set keeps its labels apart."""
    for name in ("targets", "labels", "_labels", "y"):
        if (labels := getattr(found, name, None)) is not None:
            return labels[i]
    samples = getattr(found, "_samples", None)  # of (path, class)
    return samples[i][1] if samples else found[i][1]
