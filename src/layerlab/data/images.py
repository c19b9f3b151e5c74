"""New images from files, brought to the shape and scale that a spec states."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from layerlab.contract import DataError, DataSpec

SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff")
MAX_PIXELS = 50_000_000  # read from the header, before anything is decoded


def find(path: Path) -> list[Path]:
    """The image files that a path names: itself, or those of a folder, sorted. Raises DataError where there is none."""
    if not path.exists():
        raise DataError(f"{path}: no such file or folder; give an image or a folder of images")
    files = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    if not files:
        raise DataError(f"{path}: no images in it; accepted are {', '.join(SUFFIXES)}")
    return files


def read(path: Path | None, spec: DataSpec) -> tuple[Tensor, list[str]]:
    """Images as the spec's data gives them: (N, C, H, W) standardised, and the file names. Raises DataError."""
    if path is None:
        raise DataError("input: missing; give input=PATH of an image or a folder of images")
    files = find(path)
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
    return torch.stack([(_decode(f, spec.shape) - mean) / std for f in files]), [str(f) for f in files]


def _decode(file: Path, shape: tuple[int, ...]) -> Tensor:
    from PIL import Image, ImageOps, UnidentifiedImageError

    C, H, W = shape
    try:
        with Image.open(file) as image:
            if image.width * image.height > MAX_PIXELS:
                raise DataError(f"{file}: {image.width * image.height / 1e6:.0f} Mpx, limit 50; make it smaller")
            image = ImageOps.exif_transpose(image)
            if image.mode in ("RGBA", "LA", "PA") or "transparency" in image.info:
                rgba = image.convert("RGBA")
                image = Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba)
            if image.mode.startswith("I"):  # 16 bit: convert would cut it off at 255
                image = Image.fromarray(
                    (np.asarray(image, dtype=np.float32) / 257).round().clip(0, 255).astype(np.uint8)
                )
            image = image.convert("L" if C == 1 else "RGB").resize((W, H), Image.Resampling.BOX)
            pixels = torch.from_numpy(np.asarray(image, dtype=np.float32) / 255)
    except (UnidentifiedImageError, OSError, Image.DecompressionBombError) as e:
        raise DataError(f"{file}: not a readable image ({e}); remove it") from e
    return pixels[None] if C == 1 else pixels.permute(2, 0, 1)  # (H, W) or (H, W, C) -> (C, H, W)
