"""A folder, or a zip, with a folder for each class: what lies in it, and how it is split."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import IO, Literal

import numpy as np
import torch

from layerlab.contract import DataError, DataSpec
from layerlab.data.base import Drawn
from layerlab.data.split import SHARES

PARTS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
MAX_UNPACKED = 50_000_000_000  # bytes that a zip may hold by its own directory


@dataclass(frozen=True)
class Entry:
    """One file: its part (empty where the folder names none), class, name, and what tells it from a later version."""

    part: str
    label: str
    name: str
    stamp: tuple[int, ...]
    open: Callable[[], IO[bytes]]


Balance = Literal["none", "sample", "weight"]


@dataclass(frozen=True)
class Drawing:
    """How missing parts are drawn: by shares with a seed, or the fold-th of `folds` parts as test."""

    seed: int = 0
    folds: int = 0
    fold: int = 0


@dataclass(frozen=True)
class Labelled:
    """The readable files of a folder: class names, class id of each file (N,), and the files of each part."""

    classes: tuple[str, ...]
    y: np.ndarray
    parts: dict[str, np.ndarray]
    notes: tuple[str, ...] = ()  # what a user should know, nothing cut off

    def balanced(self) -> np.ndarray:
        """Weight of each class in which all count alike, 1 on average over the training files: (C,)."""
        y = self.y[self.parts["train"]]
        return len(y) / (len(self.classes) * np.bincount(y, minlength=len(self.classes)).clip(min=1))


def labelled(
    found: Sequence[Entry],
    kept: Sequence[int],
    place: Path,
    what: str,
    drawing: Drawing,
    fitted: DataSpec | None,
    copies: np.ndarray | None = None,
    why: dict[int, str] | None = None,
) -> Labelled:
    """Classes and parts of the entries that could be read; says on stderr what a user should know. what: `image` ...

    Parts that the folder does not name are drawn from train, each class alike: 10 % val, 20 % test. fitted: whose
    classes are used. why: what is wrong with a file that could not be read. copies: the first file of which each kept
    one is a copy (N,); copies stay in one part. Raises DataError for fewer than two classes, an empty or unknown one,
    or too few files.
    """
    notes: list[tuple[str, list[str]]] = []  # a sentence, and the files that it is about
    if len(kept) < len(found):
        out = sorted(set(range(len(found))) - set(kept))
        names = [f"{found[i].name}{(why and i in why and f' ({why[i]})') or ''}" for i in out]
        notes.append((f"{len(out)} of {len(found)} files are no readable {what}s and left out", names))
    entries = [found[i] for i in kept]
    trained = [e for e in entries if (e.part or "train") == "train"]
    classes = fitted.classes if fitted else tuple(sorted({e.label for e in found if (e.part or "train") == "train"}))
    if len(classes) < 2:
        raise DataError(f"{place}: one class ({''.join(classes)}); give a folder for each of at least two classes")
    for label in sorted({e.label for e in found}):
        if label not in classes:
            known = described(classes)
            raise DataError(f"{place}: class {label!r} is not one of the training part ({known})")
        if not any(e.label == label for e in (entries if fitted else trained)):
            raise DataError(f"{place}: class {label!r} has no readable {what} to train on; add some, or remove it")
    y = np.array([classes.index(e.label) for e in entries])
    parts = {part: np.array([i for i, e in enumerate(entries) if (e.part or "train") == part]) for part in SHARES}
    missing = [part for part in ("test", "val") if not len(parts[part])]
    if missing and len(parts["train"]) < 3 * len(set(y)):
        raise DataError(f"{place}: {len(parts['train'])} readable {what}s are too few to split; give more")
    if drawing.folds and "test" not in missing:
        raise DataError(f"{place}: names its own test part; data.folds= is for folders of classes alone")
    first = np.arange(len(entries)) if copies is None else copies
    if missing:
        parts |= _drawn(entries, parts["train"], y, first, missing, drawing)
    known = Labelled(classes, y, parts)
    notes.append((_counts(known), []))
    for part, index in parts.items():
        if absent := [c for i, c in enumerate(classes) if i not in y[index]] if part != "train" else []:
            notes.append((f"{part} has no {what} of {described(absent)}", []))
    notes += _alike(known, entries, first, what)
    for line, names in notes:
        print("data     " + line + (f": {described(names)}" if names else ""), file=sys.stderr)
    full = tuple("\n  ".join([line, *names]) for line, names in notes)
    return replace(known, notes=full)


def _drawn(
    entries: Sequence[Entry],
    train: np.ndarray,
    y: np.ndarray,
    first: np.ndarray,
    missing: Sequence[str],
    drawing: Drawing,
) -> dict[str, np.ndarray]:
    """The files of the missing parts, and those left for train: of each class the share of SHARES, copies together.

    The files of a class stand in the order of a hash of seed and name, so that one more file moves few others.
    """
    index: dict[str, list[int]] = {part: [] for part in (*missing, "train")}
    spread = [len(set(y[first == i])) > 1 for i in first]  # a picture in two classes is left in train
    for label in sorted(set(y)):
        own = [int(i) for i in train if y[i] == label and not spread[i]]
        own.sort(key=lambda i: (sha256(f"{drawing.seed}/{entries[first[i]].name}".encode()).digest(), i))
        size = len(own)
        alone = np.bincount(first[own]).max(initial=0) * 2 > size  # half a class is one picture: no way to keep it so
        if drawing.folds:
            cuts = [_beside(own, first, len(own) * k // drawing.folds) for k in (drawing.fold, drawing.fold + 1)]
            index["test"] += own[cuts[0] : cuts[1]]
            own = own[: cuts[0]] + own[cuts[1] :]
        for part in [m for m in missing if not (drawing.folds and m == "test")]:
            n = min(max(round(SHARES[part] * size), 1), len(own) - 1)  # the last one is for training
            while not alone and 0 < n < len(own) and first[own[n]] == first[own[n - 1]]:
                n += 1
            index[part] += own[:n]
            own = own[n:]
        index["train"] += own
    index["train"] += [int(i) for i in train if spread[i]]
    return {part: np.array(sorted(i)) for part, i in index.items()}


def _beside(own: list[int], first: np.ndarray, cut: int) -> int:
    """A place to cut a sorted list of files, moved on until it parts no copies."""
    while 0 < cut < len(own) and first[own[cut]] == first[own[cut - 1]]:
        cut += 1
    return cut


def _counts(known: Labelled) -> str:
    """How many files of each class are in each part, in words."""
    counts = {p: np.bincount(known.y[i], minlength=len(known.classes)) for p, i in known.parts.items() if len(i)}
    sizes = ", ".join(f"{part} {c.sum():,}" for part, c in counts.items())
    if len(known.classes) > 12:
        low, high = counts["train"].min(), counts["train"].max()
        return f"{len(known.classes)} classes of {low:,} to {high:,} files in train; {sizes}"
    each = ", ".join(f"{c} {'/'.join(str(n[i]) for n in counts.values())}" for i, c in enumerate(known.classes))
    return f"{sizes}; {each}"


def _alike(known: Labelled, entries: Sequence[Entry], first: np.ndarray, what: str) -> list[tuple[str, list[str]]]:
    """What copies there are across parts and across classes, in words, and which."""
    part = np.full(len(entries), "train", dtype=object)
    for name, index in known.parts.items():
        part[index] = name
    twins = [(int(i), int(r)) for i, r in enumerate(first) if i != r]
    lines: list[tuple[str, list[str]]] = []
    for other, why in (
        ([(i, r) for i, r in twins if part[i] != part[r]], "lie on both sides of the split: the result will flatter"),
        ([(i, r) for i, r in twins if known.y[i] != known.y[r]], "carry different classes: one of each is wrong"),
    ):
        if other:
            names = [f"{entries[i].name} = {entries[r].name}" for i, r in other]
            lines.append((f"{len(other)} {what}s with a near-copy {why}", names))
    if twins and not lines:
        lines.append((f"{len(twins)} near-copies of other {what}s, kept on one side of the split", []))
    return lines


def described(names: Sequence[str], most: int = 5) -> str:
    """The first few of some names, for a message."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


_File = tuple[PurePosixPath, tuple[int, ...], Callable[[], IO[bytes]]]  # name, stamp, how to open it


def entries(place: Path, suffixes: tuple[str, ...]) -> list[Entry]:
    """Files of a folder or a zip with one of the suffixes, in the order of their names. Raises DataError for none."""
    everything, folders = _zipped(place) if place.is_file() else _listed(place)
    everything = [f for f in everything if not _hidden(f[0])]
    empty = [d for d in folders if not _hidden(d) and not any(d in name.parents for name, _, _ in everything)]
    if empty:
        raise DataError(f"{place / min(empty)}: an empty folder; add files of that class, or remove it")
    listed = [f for f in everything if f[0].suffix.lower() in suffixes]
    others = [str(name) for name, _, _ in everything if name.suffix.lower() not in suffixes and len(name.parts) > 1]
    if others:
        print(f"data     {len(others)} files of other kinds left out: {described(sorted(others))}", file=sys.stderr)
    listed = [f for f in listed if len(f[0].parts) > 1]  # a picture beside the folders belongs to no class
    tops = {name.parts[0].lower() for name, _, _ in listed}
    if len(tops) == 1 and all(len(name.parts) > 2 for name, _, _ in listed):  # a folder around it all
        listed = [(PurePosixPath(*name.parts[1:]), stamp, opener) for name, stamp, opener in listed]
        tops = {name.parts[0].lower() for name, _, _ in listed}
    parted = "train" in tops
    if not parted and (part := sorted(tops & set(PARTS))):
        raise DataError(f"{place}: {part[0]!r} without train/ beside it; give train/ too, or classes alone")
    if parted and (strange := sorted(tops - set(PARTS))):
        raise DataError(
            f"{place}: {strange[0]!r} stands beside train/; "
            f"expected train/ val/ test/ and nothing else, or classes alone"
        )
    depth = 3 if parted else 2
    found = [
        Entry(PARTS[name.parts[0].lower()] if parted else "", name.parts[depth - 2], str(name), stamp, opener)
        for name, stamp, opener in listed
        if len(name.parts) >= depth
    ]
    if not found:
        raise DataError(
            f"{place}: no such files in folders; expected CLASS/*{suffixes[0]} or train/CLASS/*{suffixes[0]} "
            f"(accepted are {', '.join(suffixes)})"
        )
    return sorted(found, key=lambda e: e.name)


def _hidden(name: PurePosixPath) -> bool:
    return any(part.startswith((".", "__MACOSX")) for part in name.parts)


def _listed(place: Path) -> tuple[list[_File], list[PurePosixPath]]:
    """Files and folders below a folder."""
    found, folders = list[_File](), list[PurePosixPath]()
    for path in place.rglob("*"):
        name = PurePosixPath(path.relative_to(place).as_posix())
        if path.is_file():
            facts = path.stat()
            found.append((name, (facts.st_size, facts.st_mtime_ns), partial(path.open, "rb")))
        elif path.is_dir():
            folders.append(name)
    return found, folders


def _zipped(place: Path) -> tuple[list[_File], list[PurePosixPath]]:
    """Files and folders of a zip; nothing is ever unpacked to a name in it."""
    try:
        archive = zipfile.ZipFile(place)
    except zipfile.BadZipFile as e:
        raise DataError(f"{place}: neither a folder nor a zip ({e})") from e
    members = [m for m in archive.infolist() if not m.is_dir()]
    if (total := sum(m.file_size for m in members)) > MAX_UNPACKED:
        raise DataError(f"{place}: {total / 1e9:.0f} GB unpacked, limit {MAX_UNPACKED / 1e9:.0f}; unpack it yourself")
    found: list[_File] = [(PurePosixPath(m.filename), (m.file_size, m.CRC), partial(archive.open, m)) for m in members]
    return found, [PurePosixPath(m.filename) for m in archive.infolist() if m.is_dir()]


class Balanced(Drawn):
    """Base of the sources that read a folder for each class, and can make up for unequal numbers of files."""

    balance: Balance = "none"

    @property
    def drawing(self) -> Drawing:
        """How the parts that the folder does not name are drawn."""
        return Drawing(self.split_seed, self.folds, self.fold)

    def balanced(self, spec: DataSpec, known: Labelled) -> DataSpec:
        """The spec with the weights of the classes, or the sampling of the training files set, as `balance` says."""
        self.notes = known.notes
        weights = known.balanced()
        if self.balance == "sample":
            self.sampling = torch.from_numpy(weights[known.y[known.parts["train"]]])
        return spec.replace(class_weights=tuple(weights.tolist())) if self.balance == "weight" else spec
