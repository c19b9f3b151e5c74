"""Running text, character by character: any file or folder."""

from pathlib import Path

import torch

from layerlab.contract import UNKNOWN, Count, DataError, DataSpec, encode
from layerlab.data import files
from layerlab.data.base import Data
from layerlab.data.batches import Split, TextWindows


class Text(Data):
    """The characters of a UTF-8 file, or of all text files of a folder in the order of their names.

    The first 90 % are trained on, but for their last 5 %, which are val; the last 10 % are test, every character but
    the first scored once. The vocabulary comes from the training part, with one symbol for what it lacks.
    context: steps of a window.
    """

    kind, tasks = "tokens", ("next_token",)
    carved = True

    def __init__(self, batch_size: Count = 32, path: str | None = None, context: Count = 64):
        super().__init__(batch_size)
        self.path, self.context = path, context

    def parts(self) -> tuple[dict[str, str], str]:
        """Text of each split, and the name of the source."""
        if not self.path:
            raise DataError("data.path=null: data=text needs a text; give data.path=book.txt, or try data=code")
        place = files.existing(self.path, "a UTF-8 text file or a folder of them")
        text = files.read_text(place) if place.is_file() else _folder(place)
        return cut(text), place.stem

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        parts, name = self.parts()
        if (short := min(len(t) for t in parts.values())) < 2 or len(parts["train"]) <= self.context:
            n = sum(map(len, parts.values()))
            raise DataError(
                f"data={name}: {n} characters (smallest part {short}) are too few for data.context={self.context}; "
                f"give a longer text or a shorter context"
            )
        own = (UNKNOWN, *sorted(set(parts["train"]) - {UNKNOWN}))
        vocabulary = self.fitted.vocabulary if self.fitted else own
        splits: dict[str, Split] = {
            part: TextWindows(
                torch.tensor(encode(t, vocabulary, unknown=True)), self.context, self.seed, train=part == "train"
            )
            for part, t in parts.items()
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
    test = int(len(text) * 0.9)
    val = int(test * 0.95)
    return {"train": text[:val], "val": text[val:test], "test": text[test:]}


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
