"""Texts with a label: two columns of a csv."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from layerlab.contract import UNKNOWN, Count, DataError, DataSpec, Size
from layerlab.data import cells
from layerlab.data.base import Drawn
from layerlab.data.batches import Batch, Split, Tensors

PAD = ""  # fills a text beyond its end


class Texts(Tensors):
    """Padded texts: x (N, T), 0 beyond the end, and labels (N,); each batch is cut to its longest text."""

    def read(self, index: Tensor, epoch: int | None) -> Batch:
        x, y = super().read(index, epoch)
        return x[:, : int((x != 0).sum(1).max())], y


class TextCSV(Drawn):
    """Which label has a text? Ids (T,) of its characters or words -> a class; 70/10/20 drawn with split_seed.

    unit: `chars`, or `words` (lower case; punctuation marks are words). vocabulary: the most frequent so many units of
    the training part; the others are one unknown symbol. longest: units of a text that are read, from its start.
    """

    kind, tasks = "tokens", ("classify",)
    encoding = ("unit",)

    def __init__(
        self,
        batch_size: Count = 32,
        path: str | None = None,
        text: str = "text",
        label: str = "label",
        unit: Literal["chars", "words"] = "words",
        vocabulary: Count = 5000,
        longest: Count = 128,
        split_seed: Size = 0,
        folds: Size = 0,
        fold: Size = 0,
    ):
        super().__init__(batch_size, split_seed, folds, fold)
        self.path, self.text, self.label, self.unit = path, text, label, unit
        self.vocabulary, self.longest = vocabulary, longest

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if not self.path:
            raise DataError(
                "data.path=null: data=text_csv needs a csv; give data.path=reviews.csv data.text= data.label="
            )
        frame = cells.read(self.path)
        text = cells.column(frame, self.text, "data.text", self.path)
        label = cells.column(frame, self.label, "data.label", self.path)
        for name in (text, label):
            empty = np.flatnonzero(frame[name] == "")
            if len(empty):
                row = frame.index[empty[0]]
                raise DataError(f'{Path(self.path).name} row {row} column "{name}": empty; fill it, or remove the row')
        units = [self._units(t) for t in frame[text]]
        classes = self.fitted.classes if self.fitted else tuple(sorted(set(frame[label])))
        if len(classes) < 2:
            raise DataError(f"{self.path}: column {label!r} has one value; a classifier needs at least two")
        if strange := sorted(set(frame[label]) - set(classes)):
            raise DataError(f"{self.path}: label {strange[0]!r} is not among those the run knows")
        y = np.array([classes.index(v) for v in frame[label]])
        parts = self.parts(y)
        if self.fitted:
            symbols = self.fitted.vocabulary
        else:
            counts = Counter(u for i in parts["train"] for u in units[i])
            symbols = (PAD, UNKNOWN, *(u for u, _ in sorted(counts.items(), key=_by_count)[: self.vocabulary]))
        x = self._ids(units, symbols)
        spec = DataSpec(
            kind="tokens",
            task="classify",
            shape=(self.longest,),
            out=len(classes),
            name=Path(self.path).stem,
            classes=classes,
            vocabulary=symbols,
            pad=0,
        )
        return spec, {part: Texts(x[i], torch.from_numpy(y)[i]) for part, i in parts.items()}

    def _units(self, text: str) -> list[str]:
        return list(text) if self.unit == "chars" else re.findall(r"\w+|[^\w\s]", text.lower())

    def _ids(self, units: list[list[str]], symbols: tuple[str, ...]) -> Tensor:
        ids = {s: i for i, s in enumerate(symbols)}
        x = torch.zeros(len(units), self.longest, dtype=torch.int64)
        for row, found in zip(x, units, strict=True):
            known = [ids.get(u, 1) for u in found[: self.longest]] or [1]
            row[: len(known)] = torch.tensor(known)
        return x

    def encode_text(self, text: str) -> tuple[Tensor, list[str]]:
        """A text as x (1, T), and the text."""
        if not text.strip():
            raise DataError("input: missing; give input='a text', or a csv with a column of texts")
        return self._ids([self._units(text)], self.spec.vocabulary), [text]

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        """The texts of a csv, (N, T), and the row of each."""
        if path is None:
            raise DataError("input: missing; give input='a text', or a csv with a column of texts")
        frame = cells.read(str(path), "input")
        texts = frame[cells.column(frame, self.text, "data.text", str(path))]
        return self._ids([self._units(t) for t in texts], self.spec.vocabulary), [f"row {i}" for i in frame.index]


def _by_count(item: tuple[str, int]) -> tuple[Any, ...]:
    return -item[1], item[0]  # most frequent first, the same order on every machine
