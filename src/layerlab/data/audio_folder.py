"""Your own sounds: a folder of wav files for each class, seen as spectrograms."""

from __future__ import annotations

import struct
import warnings
from pathlib import Path
from typing import IO, Annotated

import numpy as np
import torch
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec, Positive, Size
from layerlab.data import files, folders
from layerlab.data.base import standardise
from layerlab.data.batches import Split, Tensors
from layerlab.data.files import BROKEN_ZIP
from layerlab.data.folders import Balance

WINDOW_S, HOP_S = 0.025, 0.010  # of a frame: Davis & Mermelstein 1980, and most since
FLOOR = 1e-6  # of the power, before the logarithm
SUFFIXES = (".wav",)


class AudioFolder(folders.Balanced):
    """CLASS/*.wav, or train/ val/ test/ of such folders, also in a zip: log-mel images (1, mels, frames), a class each.

    Sounds become mono at `rate` Hz, and as long as `seconds`: cut around the middle, or filled with silence at the end.
    frames = 1 + seconds / 10 ms. Missing parts are drawn as in data=image_folder. path: a folder or a zip.
    """

    kind, tasks = "image", ("classify",)
    encoding = ("rate", "mels", "seconds")

    def __init__(
        self,
        batch_size: Count = 32,
        path: str | None = None,
        seconds: Positive = 1.0,
        rate: Annotated[int, ">= 1000"] = 16_000,
        mels: Count = 40,
        balance: Balance = "none",
        split_seed: Size = 0,
        folds: Size = 0,
        fold: Size = 0,
    ):
        super().__init__(batch_size, split_seed, folds, fold)
        self.balance = balance
        self.path, self.seconds, self.rate, self.mels = path, seconds, rate, mels

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        if not self.path:
            raise DataError("data.path=null: data=audio_folder needs a folder of wav files for each class; give one")
        place = files.existing(self.path, "a folder with a folder of wav files for each class, or a zip of one")
        found = folders.entries(place, SUFFIXES)
        images, kept = [], []
        for i, entry in enumerate(found):
            try:
                with entry.open() as file:
                    images.append(self._image(file, entry.name))
                kept.append(i)
            except DataError:
                continue  # listed by `labelled`
        known = folders.labelled(found, kept, place, "sound", self.drawing, self.fitted)
        x, y = torch.stack(images), torch.from_numpy(known.y)
        x, mean, std = standardise(x, x[torch.from_numpy(known.parts["train"])], (0, 2, 3), self.fitted)
        spec = DataSpec(
            kind="image",
            task="classify",
            shape=tuple(x.shape[1:]),
            out=len(known.classes),
            name=place.stem,
            classes=known.classes,
            mean=mean,
            std=std,
        )
        return self.balanced(spec, known), {part: Tensors(x[i], y[i]) for part, i in known.parts.items()}

    def _image(self, source: Path | IO[bytes], name: str) -> Tensor:
        return log_mel(fitted(read_wav(source, name, self.rate), round(self.seconds * self.rate)), self.rate, self.mels)

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        """Spectrograms of a wav file or of all in a folder, and their names."""
        if path is None or not path.exists():
            raise DataError(f"input={path}: no such file or folder; give a wav file or a folder of them")
        sounds = [path] if path.is_file() else sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        if not sounds:
            raise DataError(f"input={path}: no wav files in it")
        x = torch.stack([self._image(p, str(p)) for p in sounds])
        return (x - self.spec.mean[0]) / self.spec.std[0], [str(p) for p in sounds]


def read_wav(source: Path | IO[bytes], name: str, rate: int) -> Tensor:
    """Samples (N,) in [-1, 1], mono, at `rate` Hz. Raises DataError where the file is no wav."""
    from math import gcd

    from scipy.io import wavfile
    from scipy.signal import resample_poly

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", wavfile.WavFileWarning)  # cut inside its samples
            warnings.filterwarnings("ignore", message="Chunk .non-data. not understood")
            found, samples = wavfile.read(source)
    except (ValueError, EOFError, OSError, struct.error, wavfile.WavFileWarning, *BROKEN_ZIP) as e:
        raise DataError(f"{name}: not a readable wav ({e}); remove it") from e
    x = samples.astype(np.float64)
    if samples.dtype == np.uint8:  # 8 bit wav is unsigned
        x = (x - 128) / 128
    elif np.issubdtype(samples.dtype, np.integer):
        x = x / np.iinfo(samples.dtype).max
    x = x.mean(1) if x.ndim == 2 else x
    if not len(x):
        raise DataError(f"{name}: no sound in it; remove it")
    if found != rate:
        shared = gcd(found, rate)
        x = resample_poly(x, rate // shared, found // shared)
    return torch.from_numpy(np.ascontiguousarray(x)).float()


def fitted(x: Tensor, n: int) -> Tensor:
    """n samples: cut around the middle, or filled with zeros at the end."""
    start = max((len(x) - n) // 2, 0)
    x = x[start : start + n]
    return torch.nn.functional.pad(x, (0, n - len(x)))


def log_mel(x: Tensor, rate: int, mels: int) -> Tensor:
    """Log power in `mels` bands over time, low ones at the bottom: samples (N,) -> (1, mels, 1 + N / hop)."""
    size, hop = round(WINDOW_S * rate), round(HOP_S * rate)
    fft = 1 << (size - 1).bit_length()
    window = torch.hann_window(size)
    power = torch.stft(x, fft, hop, size, window, center=True, pad_mode="constant", return_complex=True).abs() ** 2
    return (mel_bands(rate, fft, mels) @ power).clamp(min=FLOOR).log().flip(0)[None]  # (mels, bins) (bins, frames)


def mel_bands(rate: int, fft: int, mels: int) -> Tensor:
    """Triangles that are evenly wide in mel, 2595 log10(1 + f / 700): (mels, fft / 2 + 1).

    Source: O'Shaughnessy 1987.
    """
    top = 2595 * np.log10(1 + rate / 2 / 700)
    edges = 700 * (10 ** (np.linspace(0, top, mels + 2) / 2595) - 1)  # Hz
    f = np.linspace(0, rate / 2, fft // 2 + 1)
    rising = (f - edges[:-2, None]) / (edges[1:-1] - edges[:-2])[:, None]
    falling = (edges[2:, None] - f) / (edges[2:] - edges[1:-1])[:, None]
    return torch.from_numpy(np.clip(np.minimum(rising, falling), 0, None)).float()
