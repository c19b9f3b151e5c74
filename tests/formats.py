"""Small files of the real formats, written by the tests."""

import bz2
import gzip
import io
import itertools
import math
import tarfile
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import wavfile

from layerlab.data.published import CIFAR10

RNG = np.random.default_rng(0)


def write_idx(folder: Path, n: int, test: int, zipped: bool = True) -> dict[str, np.ndarray]:
    """MNIST's four files."""
    folder.mkdir(exist_ok=True, parents=True)
    arrays = {}
    for part, count in (("train", n), ("t10k", test)):
        arrays[f"{part}-images-idx3-ubyte"] = RNG.integers(0, 256, (count, 28, 28), dtype=np.uint8)
        arrays[f"{part}-labels-idx1-ubyte"] = RNG.integers(0, 10, count, dtype=np.uint8)
    for name, a in arrays.items():
        raw = bytes([0, 0, 8, a.ndim]) + np.array(a.shape, ">i4").tobytes() + a.tobytes()
        (folder / f"{name}{'.gz' * zipped}").write_bytes(gzip.compress(raw) if zipped else raw)
    return arrays


def write_cifar(folder: Path, kind: type[CIFAR10], n: int, packed: bool = True) -> dict[str, np.ndarray]:
    """The binary version of CIFAR, n images in each of its files."""
    folder.mkdir(exist_ok=True, parents=True)
    names = [name for part in kind.members for name in part]
    records = {name: RNG.integers(0, 10, (n, kind.label_bytes + 3072), dtype=np.uint8) for name in names}
    if not packed:
        for name, r in records.items():
            (folder / name).write_bytes(r.tobytes())
        return records
    with tarfile.open(folder / kind.archive, "w:gz") as tar:
        for name, r in records.items():
            member = tarfile.TarInfo(f"cifar/{name}")
            member.size = r.nbytes
            tar.addfile(member, io.BytesIO(r.tobytes()))
    return records


def write_usps(folder: Path, n: int, test: int) -> None:
    """USPS as torchvision reads it: libsvm, label 1..10, then pixel:value in -1..1."""
    folder.mkdir(exist_ok=True, parents=True)
    for name, count in (("usps.bz2", n), ("usps.t.bz2", test)):
        pixels = RNG.uniform(-1, 1, (count, 256))
        lines = [f"{1 + i % 10} " + " ".join(f"{j + 1}:{v:.3f}" for j, v in enumerate(p)) for i, p in enumerate(pixels)]
        (folder / name).write_bytes(bz2.compress("\n".join(lines).encode()))


def write_classes(folder: Path, per_class: int = 10, classes: tuple[str, ...] = ("red", "green")) -> None:
    """A folder of pictures for each class, named by their colour; each has a square of its own."""
    for label in classes:
        (folder / label).mkdir(parents=True)
        for i in range(per_class):
            image = Image.new("RGB", (40, 30), label)
            image.paste((20 * i % 256, 99, 99), (3 * i % 30, 2 * i % 20, 3 * i % 30 + 10, 2 * i % 20 + 10))
            image.save(folder / label / f"{i}.png")


def write_tones(folder: Path, per_class: int = 10, rate: int = 8000, hertz: tuple[int, ...] = (440, 1760)) -> None:
    """A folder of half-second tones for each pitch, 16 bit."""
    t = np.arange(rate // 2) / rate
    for f in hertz:
        (folder / str(f)).mkdir(parents=True)
        for i in range(per_class):
            tone = 0.5 * np.sin(2 * math.pi * f * t + i) + 0.01 * RNG.normal(size=len(t))
            wavfile.write(folder / str(f) / f"{i}.wav", rate, (tone * 32767).astype(np.int16))


def write_pairs(place: Path) -> None:
    """Words of four letters, spelled backwards in capitals."""
    words = ["".join(w) for w in itertools.product("abcd", repeat=4)]
    place.write_text("".join(f"{w}\t{' '.join(reversed(w.upper()))}\n" for w in words))


def write_reviews(place: Path, n: int = 60) -> None:
    """Texts with a label that one word decides."""
    words = ["It", "was", "a", "film,", "and", "we", "saw", "it."]
    rows = []
    for i in range(n):
        said = list(RNG.permutation(words))
        said.insert(int(RNG.integers(0, 8)), ("splendid", "dreadful")[i % 2])
        rows.append(f'"{" ".join(said)}",{("good", "bad")[i % 2]}')
    place.write_text("text,label\n" + "\n".join(rows) + "\n")


def write_load(place: Path) -> None:
    """600 hours of a load."""
    lines = [f"2024-01-{1 + i // 24:02} {i % 24:02}:00,{math.sin(i / 4) + i % 3}" for i in range(600)]
    place.write_text("time,load\n" + "\n".join(lines) + "\n")
