"""ETTh1: two years of a transformer station, hourly; the set that forecasters compare themselves on."""

import csv

import numpy as np

from layerlab.contract import Count, DataSpec
from layerlab.data import files
from layerlab.data.base import Data
from layerlab.data.batches import Split
from layerlab.data.windows import by_rows, windows

NAME = "ETTh1.csv"
URL = "https://raw.githubusercontent.com/zhouhaoyi/ETDataset/main/ETT-small/ETTh1.csv"
SHA256 = "f18de3ad269cef59bb07b5438d79bb3042d3be49bdeecf01c1cd6d29695ee066"
VAL, TEST, END = 8640, 11520, 14400  # rows: 12 + 4 + 4 months of 30 days; the rest is not used, as published


class ETTh1(Data):
    """Seven hourly channels, all of them targets, z-scored with the training rows; every test window, stride 1.

    path: a local copy; without it the file is downloaded once into data/. Its SHA-256 is checked either way.
    Source: Zhou et al. 2021, zhouhaoyi/ETDataset (CC BY-ND 4.0: used unmodified).
    """

    kind, tasks = "series", ("forecast",)

    def __init__(self, batch_size: Count = 64, path: str | None = None, lookback: Count = 336, horizon: Count = 96):
        super().__init__(batch_size)
        self.path, self.lookback, self.horizon = path, lookback, horizon

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        instead = "for a file of your own use data=csv data.path=... data.target=..."
        place = files.checked(self.path, name=NAME, url=URL, digest=SHA256, instead=instead)
        header, *rows = csv.reader(files.read_text(place).splitlines())
        values = np.array([row[1:] for row in rows[:END]], dtype=np.float64)  # (14400, 7)
        columns = header[1:]
        borders = by_rows(END, VAL, TEST, self.lookback, self.horizon, NAME)
        return windows(
            values,
            columns,
            columns,
            borders,
            lookback=self.lookback,
            horizon=self.horizon,
            season=24,
            name="etth1",
            fitted=self.fitted,
        )
