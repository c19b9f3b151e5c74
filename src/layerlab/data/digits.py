"""Handwritten digits, 8 x 8: in the scikit-learn wheel."""

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from layerlab.contract import Count, DataSpec, Size
from layerlab.data import images
from layerlab.data.base import Drawn, standardise
from layerlab.data.batches import Split, Tensors


class Digits(Drawn):
    """1,797 gray images (1, 8, 8) of ten digits, light strokes on dark; stratified 70/10/20 drawn with split_seed.

    Source: Alpaydin & Kaynak 1998, the UCI test set as scikit-learn ships it (CC BY 4.0).
    """

    kind, tasks = "image", ("classify",)

    def __init__(self, batch_size: Count = 32, split_seed: Size = 0, folds: Size = 0, fold: Size = 0):
        super().__init__(batch_size, split_seed, folds, fold)

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        from sklearn.datasets import load_digits

        raw = load_digits()
        parts = self.parts(raw.target)
        x = torch.tensor(raw.images, dtype=torch.float32)[:, None] / 16  # (N, 1, 8, 8), ink 0..16 -> 0..1
        y = torch.tensor(raw.target)
        x, mean, std = standardise(x, x[parts["train"]], (0, 2, 3), self.fitted)
        spec = DataSpec(
            kind="image",
            task="classify",
            shape=(1, 8, 8),
            out=10,
            name="digits",
            classes=tuple("0123456789"),
            mean=mean,
            std=std,
            pixels=True,
        )
        return spec, {name: Tensors(x[i], y[i]) for name, i in parts.items()}

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        return images.read(path, self.spec, Image.Resampling.BOX)  # BOX: as the blocks of the original were counted
