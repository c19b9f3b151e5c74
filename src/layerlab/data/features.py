"""What a frozen backbone makes of a data set: vectors that a head is trained on."""

from __future__ import annotations

from torch import Tensor

from layerlab.contract import DataSpec
from layerlab.data.base import Data
from layerlab.data.batches import Batch, Split, Tensors


class Views(Tensors):
    """Vectors (views, N, F) with their targets (N, ...): epoch e reads view e modulo their number."""

    def __len__(self) -> int:
        return len(self.y)

    def read(self, index: Tensor, epoch: int | None) -> Batch:
        return self.x[(epoch or 0) % len(self.x), index], self.y[index]


class Features(Data):
    """Features of the splits of another source, in its order and with its batches; made by the run, not by a config."""

    kind, tasks = "vector", ("classify", "regress")

    unchanged = False  # whether the training features are of the images as they are; set by train/probe.py

    def __init__(self, source: Data, splits: dict[str, Split], width: int):
        super().__init__(source.batch_size)
        self.seed, self.sampling = source.seed, source.sampling
        spec = source.spec.replace(kind="vector", shape=(width,), mean=(), std=())
        self.parts = spec, splits

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        return self.parts
