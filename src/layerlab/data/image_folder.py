"""Your own photos: a folder for each class."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec, Size
from layerlab.data import copies, files, folders, images
from layerlab.data.batches import Split
from layerlab.data.folders import Balance
from layerlab.data.images import Fit


class ImageFolder(folders.Balanced):
    """CLASS/*.jpg, or train/ val/ test/ of such folders, also in a zip: images (channels, size, size), a class each.

    Missing parts are drawn from train with split_seed, each class alike: 10 % val, 20 % test, near-copies together.
    Pictures are turned upright, laid on white, made square as `fit` says and decoded once, into a file under data/cache
    that is mapped into memory. Files that are no readable image are left out and listed. path: a folder or a zip.
    balance: `sample` draws every class as often in training, `weight` weighs the loss instead.
    """

    kind, tasks = "image", ("classify",)
    encoding = ("fit",)

    def __init__(
        self,
        batch_size: Count = 32,
        path: str | None = None,
        size: Count = 128,
        fit: Fit = "squash",
        channels: Literal[1, 3] = 3,
        balance: Balance = "none",
        split_seed: Size = 0,
        folds: Size = 0,
        fold: Size = 0,
    ):
        super().__init__(batch_size, split_seed, folds, fold)
        self.path, self.size, self.fit, self.channels = path, size, fit, channels
        self.balance = balance

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if not self.path:
            raise DataError(
                "data.path=null: data=image_folder needs a folder with a folder for each class, or a zip of one; "
                "give data.path=photos"
            )
        place = files.existing(self.path, "a folder with a folder for each class, or a zip of one")
        found = folders.entries(place, images.SUFFIXES)
        shape = (self.channels, self.size, self.size)

        why: dict[int, str] = {}

        def read(i: int) -> np.ndarray | None:
            try:
                with found[i].open() as file:
                    return images.decode(file, found[i].name, shape, Image.Resampling.BICUBIC, self.fit)
            except DataError as e:
                why[i] = str(e).removeprefix(f"{found[i].name}: ").split(";")[0]
                return None

        x, kept = images.cached([self.fit, *((e.name, e.stamp) for e in found)], read, len(found), shape)
        known = folders.labelled(found, kept, place, "image", self.drawing, self.fitted, copies.groups(x), why)
        spec, splits = images.splits(x, torch.from_numpy(known.y), known.parts, known.classes, place.stem, self.fitted)
        return self.balanced(spec, known), splits

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        return images.read(path, self.spec, fit=self.fit)
