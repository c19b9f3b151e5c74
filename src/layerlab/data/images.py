"""Image files into pixels: decoded once, at the size that is needed, and kept as uint8."""

from __future__ import annotations

import json
import os
import re
import sys
import warnings
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from hashlib import blake2b
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
import torch
from filelock import FileLock
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from layerlab.contract import DataError, DataSpec
from layerlab.data.batches import Pixels
from layerlab.data.files import BROKEN_ZIP

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MAX_PIXELS = 50_000_000  # read from the header, before anything is decoded
CHUNK = 512  # images decoded or summed at a time

Shape = tuple[int, int, int]
Fit = Literal["crop", "squash", "pad"]  # how a photo becomes a square: its middle | all of it, distorted | with margins


def find(path: Path) -> list[Path]:
    """The image files that a path names: itself, or those of a folder, sorted. Raises DataError where there is none."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give an image or a folder of images")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{path}: no images in it; accepted are {', '.join(SUFFIXES)}")
    return files


def read(
    path: Path | None, spec: DataSpec, resample: Image.Resampling = Image.Resampling.BICUBIC, fit: Fit = "crop"
) -> tuple[Tensor, list[str]]:
    """Images as the spec's data gives them: (N, C, H, W) standardised, and the file names.

    Of several files those that cannot be read are left out and named. Raises DataError where none can be read.
    """
    if path is None:
        raise DataError("input: missing; give input=PATH of an image or a folder of images")
    files = find(path)
    C, H, W = spec.shape
    pixels, names, wrong = [], [], []
    for f in files:
        try:
            pixels.append(decode(f, str(f), (C, H, W), resample, fit))
            names.append(str(f))
        except DataError as e:
            wrong.append(str(e))
    if not pixels:
        raise DataError(wrong[0])
    if wrong:
        print(f"input    {len(wrong)} of {len(files)} files left out: {'; '.join(wrong[:5])}", file=sys.stderr)
    return scaled(torch.from_numpy(np.stack(pixels)), spec), names


def scaled(pixels: Tensor, spec: DataSpec) -> Tensor:
    """uint8 (N, C, H, W) -> float, standardised as a spec says."""
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
    return (pixels / 255 - mean) / std


def decode(
    source: Path | IO[bytes], name: str, shape: Shape, resample: Image.Resampling, fit: Fit = "crop"
) -> np.ndarray:
    """One image, upright, on white where it is transparent, brought to the size of (C, H, W): uint8.

    Raises DataError naming the file where it is no image, damaged, or larger than MAX_PIXELS by its header.
    """
    C, H, W = shape
    try:
        with warnings.catch_warnings(), Image.open(source) as image:
            warnings.simplefilter("ignore")  # of odd metadata, a line for each file
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{name}: {image.width * image.height / 1e6:.0f} Mpx, limit 50; make it smaller")
            image.draft("RGB" if C == 3 else "L", (2 * W, 2 * H))  # a JPEG is decoded small at once
            return pixels(ImageOps.exif_transpose(image), (C, H, W), resample, fit)
    except Image.DecompressionBombError as e:  # by its header, before ours
        size = next((int(n) / 1e6 for n in re.findall(r"\d{8,}", str(e))), 0)
        raise DataError(f"{name}: {size:.0f} Mpx, limit 50; make it smaller") from e
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, *BROKEN_ZIP) as e:
        raise DataError(f"{name}: not a readable image ({e}); remove it") from e


def pixels(
    image: Image.Image, shape: Shape, resample: Image.Resampling = Image.Resampling.BICUBIC, fit: Fit = "crop"
) -> np.ndarray:
    """A picture as uint8 (C, H, W): cut to that aspect around its middle, distorted to it, or with white margins."""
    C, H, W = shape
    if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
        rgba = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
    if image.mode.startswith("I"):  # 16 bit: convert would cut it off at 255
        image = Image.fromarray((np.asarray(image, dtype=np.float32) / 257).round().clip(0, 255).astype(np.uint8))
    image = image.convert("L" if C == 1 else "RGB")
    if image.size != (W, H):
        if fit == "squash":
            image = image.resize((W, H), resample)
        elif fit == "pad":
            image = ImageOps.pad(image, (W, H), resample, "white")
        else:
            image = ImageOps.fit(image, (W, H), resample)
    array = np.asarray(image)
    return array[None] if C == 1 else array.transpose(2, 0, 1)  # (H, W) or (H, W, C) -> (C, H, W)


def cached(
    key: object, read: Callable[[int], np.ndarray | None], n: int, shape: Shape, folder: Path = Path("data", "cache")
) -> tuple[Tensor, list[int]]:
    """`read(i)` for i < n, decoded once into a file that is mapped into memory: uint8 (kept, C, H, W), and which.

    key: what the pixels depend on; the same key finds the same file. An image whose `read` gives None is left out. The
    list of what was kept is written last, so that a cut leaves nothing that is taken for whole.
    """
    name = blake2b(repr((key, n, shape)).encode(), digest_size=12).hexdigest()
    place, manifest = folder / f"{name}.npy", folder / f"{name}.json"
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):  # two runs at once decode once
        if not manifest.is_file():
            _decode_all(read, n, shape, place, manifest)
    kept = json.loads(manifest.read_text("utf-8"))
    mapped = np.lib.format.open_memmap(place, mode="c")  # c: a write would stay in memory
    return torch.from_numpy(mapped)[: len(kept)], kept


def _decode_all(read: Callable[[int], np.ndarray | None], n: int, shape: Shape, place: Path, manifest: Path) -> None:
    part = place.with_name(f".{place.stem}.{os.getpid()}")
    kept: list[int] = []
    try:
        target = np.lib.format.open_memmap(part, mode="w+", dtype=np.uint8, shape=(n, *shape))
        with ThreadPoolExecutor() as pool:
            for start in range(0, n, CHUNK):
                for i, image in enumerate(pool.map(read, range(start, min(start + CHUNK, n))), start):
                    if image is not None:
                        target[len(kept)] = image
                        kept.append(i)
        target.flush()
        part.replace(place)
        part.write_text(json.dumps(kept), encoding="utf-8")
        part.replace(manifest)
    finally:
        part.unlink(missing_ok=True)


def statistics(x: Tensor, index: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and std of each channel of uint8 images (N, C, H, W), in units of 255, over the images `index`."""
    total = square = torch.zeros(x.shape[1], dtype=torch.float64)
    for part in index.split(CHUNK):
        p = x[part].double() / 255
        total, square = total + p.sum((0, 2, 3)), square + (p**2).sum((0, 2, 3))
    n = len(index) * x.shape[2] * x.shape[3]
    mean = total / n
    std = (square / n - mean**2).clamp(min=0).sqrt()
    std = torch.where(std > 1e-8, std, torch.ones_like(std))
    return tuple(mean.tolist()), tuple(std.tolist())


def splits(
    x: Tensor, y: Tensor, parts: dict[str, np.ndarray], classes: Sequence[str], name: str, fitted: DataSpec | None
) -> tuple[DataSpec, dict[str, Any]]:
    """Spec and splits of uint8 images x (N, C, H, W) with class ids y (N,), standardised with `parts["train"]`."""
    index = {part: torch.from_numpy(np.asarray(i)) for part, i in parts.items()}
    mean, std = (fitted.mean, fitted.std) if fitted else statistics(x, index["train"])
    spec = DataSpec(
        kind="image",
        task="classify",
        shape=tuple(x.shape[1:]),
        out=len(classes),
        name=name,
        classes=tuple(classes),
        mean=mean,
        std=std,
        pixels=True,
    )
    return spec, {part: Pixels(x, y, i, mean, std) for part, i in index.items()}
