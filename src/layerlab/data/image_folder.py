"""Your own photos: a folder for each class."""

from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec, Size
from layerlab.data import files, folders, images
from layerlab.data.base import Data
from layerlab.data.batches import Split


class ImageFolder(Data):
    """CLASS/*.jpg, or train/ val/ test/ of such folders, also in a zip: images (channels, size, size), a class each.

    Missing parts are drawn from train with split_seed, each class alike: 10 % val, 20 % test. Pictures are turned
    upright, laid on white, cut to a square around their middle and decoded once, into a file under data/cache that is
    mapped into memory. Files that are no readable image are left out and listed. path: a folder or a zip.
    """

    kind, tasks = "image", ("classify",)

    def __init__(
        self,
        batch_size: Count = 32,
        path: str | None = None,
        size: Count = 64,
        channels: Literal[1, 3] = 3,
        split_seed: Size = 0,
    ):
        super().__init__(batch_size)
        self.path, self.size, self.channels, self.split_seed = path, size, channels, split_seed

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if not self.path:
            raise DataError(
                "data.path=null: data=image_folder needs a folder with a folder for each class, or a zip of one; "
                "give data.path=photos"
            )
        place = files.existing(self.path, "a folder with a folder for each class, or a zip of one")
        found = folders.entries(place, images.SUFFIXES)
        shape = (self.channels, self.size, self.size)

        def read(i: int) -> np.ndarray | None:
            try:
                with found[i].open() as file:
                    return images.decode(file, found[i].name, shape, Image.Resampling.BICUBIC)
            except DataError:
                return None

        x, kept = images.cached([(e.name, e.stamp) for e in found], read, len(found), shape)
        known = folders.labelled(found, kept, place, "image", self.split_seed, self.fitted)
        return images.splits(x, torch.from_numpy(known.y), known.parts, known.classes, place.stem, self.fitted)

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        return images.read(path, self.spec)
