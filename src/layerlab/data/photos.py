"""Sixteen photographs, one a class: in the scikit-image and scikit-learn wheels."""

import importlib.util
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec, Size, key
from layerlab.data import images
from layerlab.data.base import Data
from layerlab.data.batches import Split

SKIMAGE = (
    "astronaut.png",
    "brick.png",
    "camera.png",
    "chelsea.png",
    "coffee.png",
    "coins.png",
    "grass.png",
    "gravel.png",
    "hubble_deep_field.jpg",
    "ihc.png",
    "moon.png",
    "motorcycle_left.png",
    "retina.jpg",
    "rocket.jpg",
)
SKLEARN = ("china.jpg", "flower.jpg")
RANGES = {"train": (0.0, 0.42), "val": (0.43, 0.55), "test": (0.60, 1.0)}  # of the width: disjoint, with a gap
PATCH = 40  # pixels of the photograph


class Photos(Data):
    """Which photograph is this patch from? Images (channels, size, size), 16 classes; patches of 40 pixels.

    Train patches are cut from the left 42 % of each photograph, val from 43 to 55 %, test from the right 40 %, at
    places drawn with generator_seed. Gray by default: colour alone would name the photograph. Test patches overlap each
    other: their number says less than it seems. A set to try things on, no benchmark. Needs the extra `photos`.
    """

    kind, tasks = "image", ("classify",)

    def __init__(
        self,
        batch_size: Count = 32,
        per_class: Count = 32,
        size: Count = 64,
        channels: Literal[1, 3] = 1,
        generator_seed: Size = 0,
    ):
        super().__init__(batch_size)
        self.per_class, self.size, self.channels, self.generator_seed = per_class, size, channels, generator_seed

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        files = sorted(_files(), key=lambda f: f.stem)
        counts = {"train": self.per_class, "val": max(self.per_class // 4, 2), "test": max(self.per_class // 2, 4)}
        x, y, parts = [], [], {part: [] for part in RANGES}
        for label, file in enumerate(files):
            with Image.open(file) as image:
                photo = image.convert("L" if self.channels == 1 else "RGB")
            for part, n in counts.items():
                for patch in self._patches(photo, part, n, file.stem):
                    parts[part].append(len(x))
                    x.append(patch)
                    y.append(label)
        found = {part: np.array(i) for part, i in parts.items()}
        classes = [f.stem for f in files]
        return images.splits(torch.from_numpy(np.stack(x)), torch.tensor(y), found, classes, "photos", self.fitted)

    def _patches(self, photo: Image.Image, part: str, n: int, name: str) -> list[np.ndarray]:
        generator = np.random.default_rng(key(self.generator_seed, "photos", part, name))
        left, right = (round(share * photo.width) for share in RANGES[part])
        across = generator.integers(left, right - PATCH + 1, n)
        down = generator.integers(0, photo.height - PATCH + 1, n)
        shape = (self.channels, self.size, self.size)
        return [
            images.pixels(photo.crop((int(i), int(j), int(i) + PATCH, int(j) + PATCH)), shape)
            for i, j in zip(across, down, strict=True)
        ]

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        return images.read(path, self.spec)


def _files() -> list[Path]:
    found = []
    for package, folder, names in (("skimage", "data", SKIMAGE), ("sklearn", "datasets/images", SKLEARN)):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            raise DataError("data=photos: needs scikit-image; pip install 'layerlab[photos]'")
        found += [Path(spec.origin).parent / folder / name for name in names]
    if missing := [f.name for f in found if not f.is_file()]:
        raise DataError(f"data=photos: {missing[0]} is not in the installed package; pip install 'layerlab[photos]'")
    return found
