"""Running text, character by character: any file or folder."""

from pathlib import Path

import torch
from torch import Tensor

from layerlab.contract import UNKNOWN, Count, DataError, DataSpec, encode
from layerlab.data import files, mapped
from layerlab.data.base import Data
from layerlab.data.batches import Split, TextWindows
from layerlab.data.split import characters


class Text(Data):
    """The characters of a UTF-8 file, or of all text files of a folder in the order of their names.

    The first 90 % are trained on, but for their last 5 %, which are val; the last 10 % are test, every character but
    the first scored once. The vocabulary comes from the training part, with one symbol for what it lacks.
    context: steps of a window. mapped: encode one file, larger than memory, into data/cache and map it from there.
    """

    kind, tasks = "tokens", ("next_token",)
    carved = True

    def __init__(self, batch_size: Count = 32, path: str | None = None, context: Count = 64, mapped: bool = False):
        super().__init__(batch_size)
        self.path, self.context, self.mapped = path, context, mapped

    def parts(self) -> tuple[dict[str, str], str]:
        """Text of each split, and the name of the source."""
        place = files.existing(self._needed(), "a UTF-8 text file or a folder of them")
        text = files.read_text(place) if place.is_file() else _folder(place)
        return cut(text), place.stem

    def _needed(self) -> str:
        if not self.path:
            raise DataError("data.path=null: data=text needs a text; give data.path=book.txt, or try data=code")
        return self.path

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if self.mapped:
            place = files.existing(self._needed(), "a UTF-8 text file", folder=False)
            vocabulary, ids = mapped.read(place, self.fitted.vocabulary if self.fitted else None)
            cuts = characters(len(ids))
            return self._windows(vocabulary, {k: ids[slice(*c)] for k, c in cuts.items()}, place.stem)
        parts, name = self.parts()
        own = (UNKNOWN, *sorted(set(parts["train"]) - {UNKNOWN}))
        vocabulary = self.fitted.vocabulary if self.fitted else own
        ids = {part: torch.tensor(encode(t, vocabulary, unknown=True)) for part, t in parts.items()}
        return self._windows(vocabulary, ids, name)

    def _windows(
        self, vocabulary: tuple[str, ...], parts: dict[str, Tensor], name: str
    ) -> tuple[DataSpec, dict[str, Split]]:
        if (short := min(len(t) for t in parts.values())) < 2 or len(parts["train"]) <= self.context:
            n = sum(map(len, parts.values()))
            raise DataError(
                f"data={name}: {n} characters (smallest part {short}) are too few for data.context={self.context}; "
                f"give a longer text or a shorter context"
            )
        splits: dict[str, Split] = {
            part: TextWindows(t, self.context, self.seed, train=part == "train") for part, t in parts.items()
        }
        spec = DataSpec(
            kind="tokens",
            task="next_token",
            shape=(self.context,),
            out=len(vocabulary),
            name=name,
            vocabulary=vocabulary,
        )
        return spec, splits


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def cut(text: str) -> dict[str, str]:
    """The first 90 % train, but for their last 5 %, which are val; the last 10 % test."""
    return {part: text[slice(*cut)] for part, cut in characters(len(text)).items()}


def _folder(place: Path) -> str:
    texts = []
    for file in sorted(p for p in place.rglob("*") if p.is_file() and not _hidden(p.relative_to(place))):
        try:
            texts.append(files.read_text(file))
        except DataError:  # a picture between the texts
            continue
    if not texts:
        raise DataError(f"data.path={str(place)!r}: no UTF-8 text file in this folder")
    return "\n".join(texts)
