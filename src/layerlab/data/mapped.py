"""A text file larger than memory: encoded once, piece by piece, into a file that is mapped into memory."""

import json
import os
from collections.abc import Iterator
from hashlib import blake2b
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from torch import Tensor

from layerlab.contract import UNKNOWN, DataError
from layerlab.data.split import characters

PIECE = 1 << 24  # characters in memory at a time


def read(
    place: Path, vocabulary: tuple[str, ...] | None, folder: Path = Path("data", "cache")
) -> tuple[tuple[str, ...], Tensor]:
    """Vocabulary and ids (N,), 16 bits each, of a UTF-8 text file; the file is read three times, the first time only.

    The vocabulary is that of the training part, as data=text has it, or the one given. Raises DataError for a file that
    is not UTF-8 or has more than 65,535 different symbols.
    """
    facts = place.stat()
    name = blake2b(repr((str(place.absolute()), facts.st_size, facts.st_mtime_ns, vocabulary)).encode(), digest_size=12)
    target, side = folder / f"{name.hexdigest()}.bin", folder / f"{name.hexdigest()}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{target.name}.lock"):  # two runs at once encode once
        if not side.is_file():
            n = sum(map(len, _pieces(place)))
            symbols = vocabulary or (UNKNOWN, *sorted(_seen(place, characters(n)["train"][1]) - {UNKNOWN}))
            if len(symbols) > 65_535:
                raise DataError(f"{place}: {len(symbols)} different symbols, at most 65,535 fit; is it a text?")
            part = target.with_name(f".{target.name}.{os.getpid()}")
            try:
                _encode(place, symbols, part)
                part.replace(target)
                part.write_text(json.dumps(symbols), encoding="utf-8")
                part.replace(side)  # last: what is cut leaves nothing that is taken for whole
            finally:
                part.unlink(missing_ok=True)
    symbols = tuple(json.loads(side.read_text("utf-8")))
    return symbols, torch.from_numpy(np.memmap(target, np.uint16, mode="c"))  # c: a write would stay in memory


def _pieces(place: Path) -> Iterator[str]:
    try:
        with place.open(encoding="utf-8-sig", newline=None) as f:  # newline: \\r\\n as \\n
            while piece := f.read(PIECE):
                yield piece
    except UnicodeDecodeError as e:
        raise DataError(f"{place}: not UTF-8 ({e.reason}); save it as UTF-8") from e


def _seen(place: Path, n: int) -> set[str]:
    """Symbols of the first n characters."""
    seen: set[str] = set()
    for piece in _pieces(place):
        seen |= set(piece[: max(n, 0)])
        n -= len(piece)
    return seen


def _encode(place: Path, symbols: tuple[str, ...], target: Path) -> None:
    table = np.full(0x110000, symbols.index(UNKNOWN), np.uint16)  # of every code point
    for i, symbol in enumerate(symbols):
        table[ord(symbol)] = i
    with target.open("wb") as out:
        for piece in _pieces(place):
            table[np.frombuffer(piece.encode("utf-32-le"), np.uint32)].tofile(out)
