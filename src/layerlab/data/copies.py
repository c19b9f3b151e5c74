"""Copies and near-copies among images: on both sides of a split they make the test part say what the memory holds."""

from __future__ import annotations

from collections import defaultdict

import numpy as np
from torch import Tensor
from torch.nn import functional as F

CHUNK = 512
BITS = 4  # of 64 in which the difference hashes of near-copies may differ
APART = 8.0  # root mean square distance of their thumbnails, of 255
NEIGHBOURS = 32  # images of one bucket that each is compared with


def groups(x: Tensor) -> np.ndarray:
    """Of each image the first one that it is a copy or near-copy of, itself where there is none: uint8 -> (N,).

    x: (N, C, H, W). Candidates share 13 of the 64 bits of a difference hash (N. Krawetz 2013: is a pixel brighter than
    its neighbour, at 8 x 9), and are compared by that hash and by their thumbnails of 16 x 16.
    """
    thumbs, hashes = _thumbnails(x)
    first = np.arange(len(x))
    bands = np.array_split(np.arange(64), BITS + 1)  # BITS differences leave one band untouched
    for band in bands:
        buckets: dict[bytes, list[int]] = defaultdict(list)
        for i, key in enumerate(np.packbits(hashes[:, band], axis=1)):
            buckets[key.tobytes()].append(i)
        for bucket in buckets.values():
            if len(bucket) > 1:
                _join(np.array(bucket), thumbs, hashes, first)
    return np.array([_root(first, i) for i in range(len(first))])


def _thumbnails(x: Tensor) -> tuple[np.ndarray, np.ndarray]:
    """Thumbnails (N, C x 256) and difference hashes (N, 64) of bits."""
    thumbs, hashes = [], []
    for part in x.split(CHUNK):
        thumbs.append(F.adaptive_avg_pool2d(part.float(), 16).flatten(1).numpy())
        small = F.adaptive_avg_pool2d(part.float().mean(1), (8, 9))  # (n, H, W) -> (n, 8, 9)
        hashes.append((small[:, :, 1:] > small[:, :, :-1]).flatten(1).numpy())
    return np.concatenate(thumbs), np.concatenate(hashes)


def _join(bucket: np.ndarray, thumbs: np.ndarray, hashes: np.ndarray, first: np.ndarray) -> None:
    bucket = bucket[np.argsort(thumbs[bucket].mean(1), kind="stable")]  # near-copies are about as bright
    for step in range(1, min(len(bucket), NEIGHBOURS + 1)):
        a, b = bucket[:-step], bucket[step:]
        alike = (hashes[a] != hashes[b]).sum(1) <= BITS
        alike &= np.sqrt(((thumbs[a] - thumbs[b]) ** 2).mean(1)) <= APART
        for i, j in zip(a[alike], b[alike], strict=True):
            low, high = sorted((_root(first, i), _root(first, j)))
            first[high] = low


def _root(first: np.ndarray, i: int) -> int:
    while first[i] != i:
        i = first[i]
    return int(i)
