"""Handwritten digits, 8 x 8: in the scikit-learn wheel."""

from functools import cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from layerlab.contract import Count, DataError, DataSpec, Size, key
from layerlab.data import images
from layerlab.data.base import Drawn, shuffled, standardise
from layerlab.data.batches import Split, Tensors


@cache
def _read() -> tuple[np.ndarray, np.ndarray]:
    """Pictures (N, 8, 8) and labels (N,), unpacked once in a process and those forked from it."""
    from sklearn.datasets import load_digits

    raw = load_digits()
    return raw.images, raw.target


class Digits(Drawn):
    """1,797 gray images (1, 8, 8) of ten digits, light strokes on dark; stratified 70/10/20 drawn with split_seed.

    canvas: pixels of a side; above 8 the digit stands in the middle of a black square. zoom: each pixel as a square of
    so many, for nets that expect larger pictures. permute: every image in one
    fixed order of pixels that is not that of the eye. shuffle_labels: training labels that mean nothing (Zhang et al.
    2017). Source: Alpaydin & Kaynak 1998, the UCI test set as scikit-learn ships it (CC BY 4.0).
    """

    kind, tasks = "image", ("classify",)
    encoding = ("canvas", "zoom", "permute")

    def __init__(
        self,
        batch_size: Count = 32,
        split_seed: Size = 0,
        folds: Size = 0,
        fold: Size = 0,
        train_size: Count | None = None,
        canvas: Count = 8,
        zoom: Count = 1,
        permute: bool = False,
        shuffle_labels: bool = False,
    ):
        super().__init__(batch_size, split_seed, folds, fold, train_size)
        if canvas < 8:
            raise DataError(f"data.canvas={canvas}: a digit has 8 pixels a side; give 8 or more")
        self.canvas, self.zoom, self.permute, self.shuffle_labels = canvas, zoom, permute, shuffle_labels

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        pictures, labels = _read()
        parts = self.parts(labels)
        x = torch.tensor(pictures, dtype=torch.float32)[:, None] / 16  # (N, 1, 8, 8), ink 0..16 -> 0..1
        x = self._arranged(x, 0.0)
        y = torch.tensor(labels)
        if self.shuffle_labels:
            y = shuffled(y, parts["train"], self.split_seed)
        x, mean, std = standardise(x, x[parts["train"]], (0, 2, 3), self.fitted)
        spec = DataSpec(
            kind="image",
            task="classify",
            shape=(1, self.canvas * self.zoom, self.canvas * self.zoom),
            out=10,
            name="digits",
            classes=tuple("0123456789"),
            mean=mean,
            std=std,
            pixels=True,
        )
        return spec, {name: Tensors(x[i], y[i]) for name, i in parts.items()}

    def _arranged(self, x: Tensor, black: float) -> Tensor:
        """Images (N, 1, 8, 8) on the canvas, zoomed, their pixels in the order of the run."""
        left = (self.canvas - 8) // 2
        right = self.canvas - 8 - left
        x = nn.functional.pad(x, (left, right, left, right), value=black)
        x = x.repeat_interleave(self.zoom, 2).repeat_interleave(self.zoom, 3)
        if not self.permute:
            return x
        order = torch.randperm(x[0].numel(), generator=torch.Generator().manual_seed(key("digits", "permute")))
        return x.flatten(1)[:, order].view_as(x)

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        spec = self.spec.replace(shape=(1, 8, 8))
        x, names = images.read(path, spec, Image.Resampling.BOX)  # BOX: as the blocks of the original were counted
        return self._arranged(x, -spec.mean[0] / spec.std[0]), names
