"""Your own time series: a csv, one row per time."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec, Size
from layerlab.data import cells
from layerlab.data.base import Data
from layerlab.data.batches import Split
from layerlab.data.split import chronological
from layerlab.data.windows import by_rows, latest, windows


class CSVSeries(Data):
    """Forecast `target` of a csv with a header from the last `lookback` rows; 70/10/20 in the order of time.

    path: the file; separator , ; or tab. target: one column or several. time: the column of stamps, checked, not used
    as a feature. columns: further columns to read; none by default. season: steps per period, 0 = none known.
    fill: what to do with empty cells, null refuses them. gaps: accept missing time steps. lookback `auto`: 3 horizons.
    """

    kind, tasks = "series", ("forecast",)

    def __init__(
        self,
        batch_size: Count = 32,
        path: str | None = None,
        target: str | list[str] | None = None,
        time: str | None = None,
        columns: Sequence[str] = (),
        lookback: Count | Literal["auto"] = "auto",
        horizon: Count = 12,
        season: Size = 0,
        fill: Literal["interpolate", "forward"] | None = None,
        gaps: bool = False,
    ):
        super().__init__(batch_size)
        if not path:
            raise DataError("data.path=null: data=csv needs a file; give data.path=load.csv data.target=COLUMN")
        if not target:
            raise DataError("data.target=null: which column is to be forecast? give data.target=COLUMN")
        self.path, self.time, self.season, self.fill, self.gaps = path, time, season, fill, gaps
        self.target = [target] if isinstance(target, str) else list(target)
        self.columns = list(dict.fromkeys([*self.target, *columns]))
        self.horizon = horizon
        self.lookback = 3 * horizon if lookback == "auto" else lookback

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        values = self._read(self.path)
        n = len(values)
        val, test = chronological(n)
        place = Path(self.path)
        borders = by_rows(n, val, test, self.lookback, self.horizon, place.name)
        return windows(
            values,
            self.columns,
            self.target,
            borders,
            lookback=self.lookback,
            horizon=self.horizon,
            season=self.season,
            name=place.stem,
            fitted=self.fitted,
        )

    def _read(self, path: str, key: str = "data.path") -> np.ndarray:
        frame = cells.read(path, key)
        if self.time:
            cells.check_times(frame, cells.column(frame, self.time, "data.time", path), path, self.gaps)
        names = [
            cells.column(frame, c, "data.target" if c in self.target else "data.columns", path) for c in self.columns
        ]
        return np.stack([cells.numbers(frame, c, path, self.fill) for c in names], 1)  # (N, F)

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        """The last `lookback` rows of a file, by default its own, scaled as in training: (1, L, F)."""
        place = path or Path(self.path)
        return latest(self._read(str(place), "input" if path else "data.path"), self.spec, place.name), [place.name]
