"""A digit read row by row, then silence, then the question."""

import torch

from layerlab.contract import Count, DataSpec, Size
from layerlab.data.base import Data
from layerlab.data.batches import Split, Tensors
from layerlab.data.digits import Digits


class Recall(Data):
    """The eight rows of a digit as steps, then `blanks` empty ones: series (8 + blanks, 9) -> one of ten classes.

    The ninth feature is 1 at the last step alone, where the answer is due. Split as data=digits.
    """

    kind, tasks = "series", ("classify",)

    def __init__(self, batch_size: Count = 64, blanks: Size = 50, split_seed: Size = 0):
        super().__init__(batch_size)
        self.blanks, self.split_seed = blanks, split_seed

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        digits = Digits(split_seed=self.split_seed)
        if self.fitted:
            digits.fitted = self.fitted.replace(mean=self.fitted.mean[:1], std=self.fitted.std[:1])
        spec, parts = digits.load()
        splits: dict[str, Split] = {}
        for part, split in parts.items():
            images, y = split.read(torch.arange(len(split)), None)
            x = torch.zeros(len(images), 8 + self.blanks, 9)
            x[:, :8, :8] = images[:, 0]  # (N, 8, 8): a row is a step
            x[:, -1, 8] = 1
            splits[part] = Tensors(x, y)
        return spec.replace(
            kind="series",
            shape=(8 + self.blanks, 9),
            name="recall",
            channels=(*(f"pixel{i}" for i in range(8)), "question"),
            mean=(*spec.mean * 8, 0.0),
            std=(*spec.std * 8, 1.0),
        ), splits
