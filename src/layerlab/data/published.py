"""MNIST and CIFAR from the files their authors publish, read without unpickling anything."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec
from layerlab.data import files, images
from layerlab.data.base import Data
from layerlab.data.batches import Split

VAL = 5000  # the last of the training part; fewer where that part is small: a twelfth


class Published(Data):
    """Base: a training and a test part as published; the last 5,000 of the training part are val.

    path: a folder with the published files; without it they are downloaded once into data/ and their MD5, as the
    publisher states it, is checked.
    """

    kind, tasks = "image", ("classify",)
    carved = True
    title: str
    labels: Sequence[str] = tuple("0123456789")

    def __init__(self, batch_size: Count = 128, path: str | None = None):
        super().__init__(batch_size)
        self.path = path

    @abstractmethod
    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        """uint8 images (N, C, H, W) and class ids (N,), of train and of test."""

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        x, y, x_test, y_test = self.arrays()
        for part, images_of, labels_of in (("train", x, y), ("test", x_test, y_test)):
            if len(images_of) != len(labels_of) or not len(labels_of) or int(labels_of.max()) >= len(self.labels):
                raise DataError(
                    f"data={self.title}: {len(images_of)} images and {len(labels_of)} labels of {part} do not belong "
                    f"together; give whole copies of one set"
                )
        n, both = len(x), np.concatenate([x, x_test])
        cut = n - min(VAL, max(n // 12, 1))
        parts = {"train": np.arange(cut), "val": np.arange(cut, n), "test": np.arange(n, len(both))}
        targets = torch.from_numpy(np.concatenate([y, y_test]).astype(np.int64))
        return images.splits(torch.from_numpy(both), targets, parts, self.labels, self.title, self.fitted)

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        return images.read(path, self.spec)

    def source(self, name: str, urls: Sequence[str], digest: str, expected: str) -> Path:
        """A published file: below data.path, also unpacked there, or downloaded.

        Raises DataError saying what to put where.
        """
        if not self.path:
            what = f"a folder that holds {expected}"
            return files.fetch(Path("data", self.title, name), [u + name for u in urls], digest, what)
        folder = files.existing(self.path, f"a folder that holds {expected}")
        found = [p for wanted in (name, name.removesuffix(".gz")) for p in sorted(folder.rglob(wanted))]
        own = [p for p in found if self.title in str(p.parent.relative_to(folder)).lower().split("/")]
        places = {p.parent for p in found}
        if len(places) > 1 and len({p.parent for p in own}) != 1:
            where = " and in ".join(sorted(map(str, places))[:2])
            raise DataError(f"data.path={self.path!r}: {name} stands in {where}; give one of them")
        if own or found:
            return (own or found)[0]
        raise DataError(f"data.path={self.path!r}: no {name} in it; data={self.title} needs {expected}")


class MNIST(Published):
    """70,000 gray images (1, 28, 28) of handwritten digits. Source: LeCun et al. 1998."""

    title = "mnist"
    mirrors = ("https://ossci-datasets.s3.amazonaws.com/mnist/",)
    digests = (
        "f68b3c2dcbeaaa9fbdd348bbdeb94873",
        "d53e105ee54ea40749a09fcbcd1e9432",
        "9fb629c4189551a2d022fa330f9573f3",
        "ec29112dd5afa0611ce80d1b7f02629c",
    )

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        names = [f"{p}-{w}-ubyte.gz" for p in ("train", "t10k") for w in ("images-idx3", "labels-idx1")]
        expected = ", ".join(names)
        found = [
            _idx(self.source(name, self.mirrors, digest, expected))
            for name, digest in zip(names, self.digests, strict=True)
        ]
        return found[0][:, None], found[1], found[2][:, None], found[3]


class FashionMNIST(MNIST):
    """70,000 gray images (1, 28, 28) of clothes in ten classes. Source: Xiao et al. 2017, arXiv 1708.07747 (MIT)."""

    title = "fashion_mnist"
    labels = (
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    )
    mirrors = ("http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",)
    digests = (
        "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
        "25c81989df183df01b3e8a0aad5dffbe",
        "bef4ecab320f06d8554ea6380940ec79",
        "bb300cfdad3c16e7a12a480ee83cd310",
    )


class CIFAR10(Published):
    """60,000 colour images (3, 32, 32) in ten classes, from the binary version. Source: Krizhevsky 2009."""

    title = "cifar10"
    labels = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    archive, digest = "cifar-10-binary.tar.gz", "c32a1d4ab5d03f1284b67883e8d87530"
    members: tuple[tuple[str, ...], tuple[str, ...]] = (
        tuple(f"data_batch_{i}.bin" for i in range(1, 6)),
        ("test_batch.bin",),
    )
    label_bytes = 1

    def arrays(self) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
        expected = f"{self.archive}, or its {', '.join(sum(self.members, ()))}"
        if self.path and (loose := sorted(Path(self.path).expanduser().rglob(self.members[0][0]))):
            found = {p.name: p.read_bytes() for p in loose[0].parent.glob("*.bin")}
        else:
            url = "https://www.cs.toronto.edu/~kriz/"
            place = self.source(self.archive, [url], self.digest, expected)
            try:
                with tarfile.open(place) as tar:
                    opened = ((Path(m.name).name, tar.extractfile(m)) for m in tar if m.name.endswith(".bin"))
                    found = {name: file.read() for name, file in opened if file}
            except (tarfile.TarError, EOFError, OSError, zlib.error) as e:
                raise DataError(f"{place}: damaged ({str(e).splitlines()[0]}); give a whole copy") from e
        parts: list[Any] = []
        for names in self.members:
            for name in names:
                if name not in found:
                    raise DataError(f"data={self.title}: {name} is missing; needs {expected}")
            images_of, labels_of = zip(*(_records(found[n], self.label_bytes, n) for n in names), strict=True)
            parts += [np.concatenate(images_of), np.concatenate(labels_of)]
        return parts[0], parts[1], parts[2], parts[3]


class CIFAR100(CIFAR10):
    """60,000 colour images (3, 32, 32) in a hundred classes, by number. Source: Krizhevsky 2009."""

    title = "cifar100"
    labels = tuple(str(i) for i in range(100))
    archive, digest = "cifar-100-binary.tar.gz", "03b5dce01913d631647c71ecec9e9cb8"
    members = (("train.bin",), ("test.bin",))
    label_bytes = 2  # coarse, then fine


def _idx(path: Path) -> np.ndarray:
    """An array in the IDX format of the MNIST page, gzipped or not. Raises DataError where it is none."""
    raw = path.read_bytes()
    try:
        raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    except (OSError, EOFError, zlib.error) as e:
        raise DataError(f"{path}: damaged ({e}); give a whole copy") from e
    shape = tuple(np.frombuffer(raw, ">i4", raw[3], 4)) if len(raw) > 16 and raw[:3] == b"\x00\x00\x08" else ()
    start = 4 + 4 * len(shape)
    if not shape or len(raw) - start != int(np.prod(shape)):
        raise DataError(f"{path}: not an IDX file of bytes ({len(raw)} bytes); give a whole copy")
    return np.frombuffer(raw, np.uint8, offset=start).reshape(shape)


def _records(raw: bytes, label_bytes: int, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, 3, 32, 32) and labels (N,) of the CIFAR binary format; the last label byte counts."""
    size = label_bytes + 3072
    if not raw or len(raw) % size:
        raise DataError(f"{name}: {len(raw)} bytes are not whole records of {size}; give a whole copy")
    records = np.frombuffer(raw, np.uint8).reshape(-1, size)
    return records[:, label_bytes:].reshape(-1, 3, 32, 32), records[:, label_bytes - 1]
