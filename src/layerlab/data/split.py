"""How a set is cut into train, val and test: fixed, documented, the same everywhere."""

from collections.abc import Iterable
from hashlib import sha256

import numpy as np

SHARES = {"train": 0.7, "val": 0.1, "test": 0.2}


def by_hash(item: str) -> str:
    """`test` for one item in ten, `val` for one, else `train`; depends on the item alone, so additions move nothing."""
    return {0: "test", 1: "val"}.get(int(sha256(item.encode()).hexdigest(), 16) % 10, "train")


def hashed(items: Iterable[str]) -> dict[str, list[str]]:
    """Items by split, in their order."""
    parts: dict[str, list[str]] = {"train": [], "val": [], "test": []}
    for item in items:
        parts[by_hash(item)].append(item)
    return parts


def shares(y: np.ndarray, share: float, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Indices of the rest, and of `share` of the examples, drawn with `seed`; each class of y (N,) gives its share."""
    from sklearn.model_selection import train_test_split

    least = min(len(y) * share, len(y) * (1 - share))
    enough = np.bincount(y).min(initial=2, where=np.bincount(y) > 0) >= 2 and least >= len(set(y))
    rest, own = train_test_split(np.arange(len(y)), test_size=share, random_state=seed, stratify=y if enough else None)
    return np.sort(rest), np.sort(own)


def stratified(y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Indices of a 70/10/20 split drawn with `seed`; each class keeps its share where labels (N,) are given as ints."""
    from sklearn.model_selection import train_test_split

    index = np.arange(len(y))
    classes = y if y.ndim == 1 and np.issubdtype(y.dtype, np.integer) and np.bincount(y).min(initial=9) >= 5 else None
    rest, test = train_test_split(index, test_size=SHARES["test"], random_state=seed, stratify=classes)
    share = SHARES["val"] / (SHARES["train"] + SHARES["val"])
    left = None if classes is None else classes[rest]
    train, val = train_test_split(rest, test_size=share, random_state=seed, stratify=left)
    return {"train": train, "val": val, "test": test}


def folded(y: np.ndarray, seed: int, folds: int, fold: int) -> dict[str, np.ndarray]:
    """Indices of one fold of a k-fold split drawn with `seed`: its examples are test, an eighth of the others val.

    Every example is in test in exactly one fold. Classes keep their shares as in `stratified`.
    """
    from sklearn.model_selection import KFold, StratifiedKFold, train_test_split

    classes = (
        y if y.ndim == 1 and np.issubdtype(y.dtype, np.integer) and np.bincount(y).min(initial=9) >= folds else None
    )
    kind = KFold if classes is None else StratifiedKFold
    cut = kind(folds, shuffle=True, random_state=seed).split(np.zeros(len(y)), classes)
    rest, test = list(cut)[fold]
    left = None if classes is None or np.bincount(classes[rest]).min(initial=2) < 2 else classes[rest]
    share = SHARES["val"] / (SHARES["train"] + SHARES["val"])
    train, val = train_test_split(rest, test_size=share, random_state=seed, stratify=left)
    return {"train": train, "val": val, "test": test}


def chronological(n: int) -> tuple[int, int]:
    """First row of val and of test: 70/10/20 in the order of time."""
    return n * 7 // 10, n * 8 // 10  # SHARES in whole numbers: .7 + .1 is less than .8


def characters(n: int) -> dict[str, tuple[int, int]]:
    """First and last + 1 of each part of a text of n characters: 90 % train, but for their last 5 %, val; 10 % test."""
    test = int(n * 0.9)
    val = int(test * 0.95)
    return {"train": (0, val), "val": (val, test), "test": (test, n)}
