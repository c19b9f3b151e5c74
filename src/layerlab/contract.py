"""What data promises and models may assume. Standard library only: read before anything heavy is imported."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from hashlib import blake2b
from typing import Annotated, Any, Literal, Self

# Annotations that build.py checks before anything is imported: choices are Literal, ranges Annotated.
Positive = Annotated[float, "> 0"]
NonNegative = Annotated[float, ">= 0"]
Fraction = Annotated[float, ">= 0", "< 1"]
Count = Annotated[int, ">= 1"]
Size = Annotated[int, ">= 0"]

Kind = Literal["image", "tokens", "series", "vector"]
TaskName = Literal["classify", "regress", "next_token", "forecast", "transduce"]

KINDS: dict[str, tuple[str, ...]] = {  # kind -> axes of one example
    "image": ("C", "H", "W"),
    "tokens": ("T",),
    "series": ("T", "F"),
    "vector": ("F",),
}
TASKS = ("classify", "regress", "next_token", "forecast", "transduce")
REPEATS = ("seed", "data.split_seed", "data.fold")  # keys that repeat a setting and make no new one
IGNORE = -100  # a target that counts neither in the loss nor in a metric (torch's ignore_index)


class LayerlabError(Exception):
    """A refusal in one line, `<where>: <what is wrong>; <what to do>`; ends the command with `exit_code`."""

    exit_code = 2
    reason = "refused"  # what status.json says


class Mismatch(LayerlabError):
    """Model, data and task do not fit together, or a batch does not keep what its spec promises."""


class DataError(LayerlabError):
    """The data cannot be used as it is: names the file, row and column, and what to do."""


@dataclass(frozen=True, kw_only=True)
class DataSpec:
    """What every batch `(x, y)` of a data source looks like and means; the only thing a model knows about data.

    kind and shape describe x: image (B, C, H, W) float | tokens (B, T) int64 | series (B, T, F) float |
    vector (B, F) float; `shape` leaves out B. `out` is what a model has to return per prediction: the number
    of classes, the size of the vocabulary, the number of regression targets, or horizon x target channels.

    Raises Mismatch where the facts contradict each other.
    """

    kind: Kind
    task: TaskName
    shape: tuple[int, ...]
    out: int
    name: str = "data"
    classes: tuple[str, ...] = ()  # classify: name of each class
    class_weights: tuple[float, ...] = ()  # classify: weight of each class in the loss
    vocabulary: tuple[str, ...] = ()  # tokens: symbol of each id
    pad: int | None = None  # id that fills x beyond its end
    channels: tuple[str, ...] = ()  # series, vector: name of each of the F features
    target: tuple[str, ...] = ()  # forecast: the channels that are forecast; regress: name of each target
    horizon: int = 0  # forecast: steps ahead
    season: int = 0  # forecast: steps per period, 0 = none known
    naive_mae: tuple[float, ...] = ()  # forecast: error of the seasonal naive in the training rows, per target
    mean: tuple[float, ...] = ()  # per channel of x, already subtracted ...
    std: tuple[float, ...] = ()  # ... and divided by
    pixels: bool = False  # image: before that, x was uint8 / 255
    target_mean: tuple[float, ...] = ()  # regress: per target, already subtracted ...
    target_std: tuple[float, ...] = ()  # ... and divided by
    target_vocabulary: tuple[str, ...] = ()  # transduce: symbol of each output id
    target_shape: tuple[int, ...] = ()  # transduce: shape of y without B

    def __post_init__(self) -> None:
        for field in fields(self):  # a checkpoint and a json file bring lists
            if isinstance(value := getattr(self, field.name), list):
                object.__setattr__(self, field.name, tuple(value))
        if self.kind not in KINDS:
            raise Mismatch(f"spec.kind={self.kind!r}: expected one of {', '.join(KINDS)}")
        if self.task not in TASKS:
            raise Mismatch(f"spec.task={self.task!r}: expected one of {', '.join(TASKS)}")
        if len(self.shape) != len(KINDS[self.kind]) or not all(isinstance(n, int) and n > 0 for n in self.shape):
            raise Mismatch(f"spec.shape={self.shape}: {self.kind} needs ({', '.join(KINDS[self.kind])}), all positive")
        if not (isinstance(self.out, int) and self.out > 0):
            raise Mismatch(f"spec.out={self.out!r}: expected an int > 0")
        if self.kind == "tokens" and not self.vocabulary:
            raise Mismatch("spec.vocabulary: tokens need a vocabulary")
        if self.task == "forecast" and self.horizon < 1:
            raise Mismatch(f"spec.horizon={self.horizon}: forecast needs a horizon >= 1")
        if len(self.mean) != len(self.std) or not all(s > 0 and math.isfinite(s) for s in self.std):
            raise Mismatch(
                f"spec.mean and spec.std: expected equal lengths and std > 0, got {self.mean} and {self.std}"
            )
        missing = sorted(set(self.target) - set(self.channels))
        if missing and self.task == "forecast":
            raise Mismatch(f"spec.target: {missing} not among the channels {self.channels}")

    @property
    def steps(self) -> int:
        """Length of the longest sequence in x; 0 where x is no sequence."""
        return self.shape[0] if self.kind in ("tokens", "series") else 0

    def replace(self, **changes: Any) -> Self:
        """The same spec with some facts changed, validated again."""
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain numbers, strings and lists: what a checkpoint may hold under weights_only."""
        values = ((f.name, getattr(self, f.name)) for f in fields(self))
        return {name: list(v) if isinstance(v, tuple) else v for name, v in values}

    @classmethod
    def coerce(cls, spec: DataSpec | dict[str, Any]) -> DataSpec:
        """A DataSpec from itself or from its `to_dict()`."""
        return spec if isinstance(spec, DataSpec) else cls(**spec)


def key(*parts: object) -> int:
    """A 63-bit seed that depends on `parts` alone: the same in every process, version and on every machine.

    Every random draw of a run is keyed so, which is what lets a resumed run draw what the uninterrupted one drew.
    """
    text = "/".join(map(str, parts)).encode()
    return int.from_bytes(blake2b(text, digest_size=8).digest(), "little") >> 1


# --- symbols <-> ids

UNKNOWN = "\N{REPLACEMENT CHARACTER}"  # stands for every symbol that the training part does not have


def encode(text: str, vocabulary: tuple[str, ...], unknown: bool = False) -> list[int]:
    """Ids of the characters of a text; unknown=True maps what the vocabulary lacks to its UNKNOWN symbol.

    Raises DataError naming the character and the vocabulary.
    """
    ids = {symbol: i for i, symbol in enumerate(vocabulary)}
    if unknown:
        other = ids[UNKNOWN]
        return [ids.get(c, other) for c in text]
    for c in text:
        if c not in ids:
            known = "".join(s for s in vocabulary if s.isprintable() and s != UNKNOWN)
            raise DataError(f"{c!r}: not in the vocabulary ({known}, {len(known)} printable symbols); leave it out")
    return [ids[c] for c in text]


def decode(ids: list[int], vocabulary: tuple[str, ...]) -> str:
    """The characters of ids, joined."""
    return "".join(vocabulary[i] for i in ids)


def flat(node: dict[str, Any], where: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and values of a config."""
    for key, value in node.items():
        if isinstance(value, dict) and value:
            yield from flat(value, f"{where}{key}.")
        else:
            yield f"{where}{key}", value
