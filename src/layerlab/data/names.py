"""Names, one a line: the census lists of the package `names`, or any list of words."""

import importlib.util
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from layerlab.contract import IGNORE, UNKNOWN, Count, DataError, DataSpec, encode
from layerlab.data import files
from layerlab.data.base import Data
from layerlab.data.batches import Split, Words
from layerlab.data.split import hashed

END = "."  # before the first and after the last letter


class Names(Data):
    """Words as ids (T,): x begins with `.`, y ends with it; padded at the end, y with -100.

    list: `first` (5,163 names) or `last` (88,799) of the US census of 1990. path: a file with one word a line, in
    place of a list. Split by the hash of the word itself, about 80/10/10.
    """

    kind, tasks = "tokens", ("next_token",)

    def __init__(
        self,
        batch_size: Count = 128,
        list: Literal["first", "last"] = "first",
        path: str | None = None,
    ):
        super().__init__(batch_size)
        if path and list != "first":
            raise DataError(f"data.list={list}: has no effect beside data.path; leave one of them out")
        self.list, self.path = list, path

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        parts, name = self.parts()
        for part, words in parts.items():
            if not words:
                raise DataError(f"data={name}: no words in {part}; give a longer list")
        vocabulary = self.fitted.vocabulary if self.fitted else (END, *sorted(set().union(*parts["train"])))
        if not self.fitted and not set().union(*parts["val"], *parts["test"]) <= set(vocabulary):
            vocabulary += (UNKNOWN,)  # a letter that no training word has
        T = 1 + max(len(w) for words in parts.values() for w in words)
        if self.fitted:
            if self.fitted.steps < T:
                raise DataError(f"data={name}: a word of {T - 1} letters, the run knows up to {self.fitted.steps - 1}")
            T = self.fitted.steps
        splits: dict[str, Split] = {part: Words(*_encode(words, vocabulary, T)) for part, words in parts.items()}
        spec = DataSpec(
            kind="tokens",
            task="next_token",
            shape=(T,),
            out=len(vocabulary),
            name=name,
            vocabulary=vocabulary,
            pad=0,
        )
        return spec, splits

    def parts(self) -> tuple[dict[str, list[str]], str]:
        """Words of each split, and the name of the source."""
        if self.path:
            text = files.read_text(files.existing(self.path, "a file with one word a line", folder=False))
            words = [w for line in text.split("\n") if (w := line.strip())]
            if found := next((w for w in words if END in w), None):
                raise DataError(f"{self.path}: {found!r} contains {END!r}, which marks the end of a word; remove it")
            return hashed(dict.fromkeys(words)), Path(self.path).stem
        return hashed(_census(self.list)), "names"


def _census(which: str) -> dict[str, None]:
    """Distinct lower-case names of the package's fixed-width files (column 1), in their order."""
    spec = importlib.util.find_spec("names")
    if spec is None or spec.origin is None:
        raise DataError("data=names: the package `names` is missing; pip install names==0.3.0")
    lists = {"first": ("dist.female.first", "dist.male.first"), "last": ("dist.all.last",)}[which]
    lines = [line for f in lists for line in Path(spec.origin).with_name(f).read_text("utf-8").splitlines()]
    return dict.fromkeys(line.split()[0].lower() for line in lines if line.strip())


def _encode(words: list[str], vocabulary: tuple[str, ...], T: int) -> tuple[Tensor, Tensor]:
    """x (N, T) = . w1 w2 ..., y (N, T) = w1 w2 ... . with -100 beyond."""
    ids = torch.tensor(
        encode("".join(w + END for w in words), vocabulary, unknown=UNKNOWN in vocabulary)
    )  # all words at once, each ended by id 0
    lengths = torch.tensor([len(w) + 1 for w in words])
    inside = torch.arange(T) < lengths[:, None]  # (N, T)
    y = torch.full((len(words), T), IGNORE)
    y[inside] = ids
    x = torch.zeros_like(y)
    x[:, 1:] = y[:, :-1].clamp(min=0)
    return x, y
