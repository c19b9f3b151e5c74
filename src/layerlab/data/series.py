"""Short real time series: in the wheels of statsmodels and vega_datasets."""

from importlib import import_module
from pathlib import Path
from typing import Literal

import numpy as np
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec
from layerlab.data.base import Data
from layerlab.data.batches import Split
from layerlab.data.windows import by_origins, latest, windows

SEASONS = {
    "co2": 12,
    "sunspots": 11,
    "elnino": 12,
    "seattle_weather": 52,
    "elec_equip": 12,
    "nile": 1,
    "unemployment": 4,
    "treasury_bills": 4,
    "inflation": 4,
    "investment": 4,
    "money": 4,
    "seattle_rain": 52,
}
QUARTERS = {  # columns of macrodata
    "unemployment": "unemp",
    "treasury_bills": "tbilrate",
    "inflation": "infl",
    "investment": "realinv",
    "money": "m1",
}
WEEKS = {"seattle_weather": "temp_max", "seattle_rain": "precipitation"}  # columns of vega's seattle_weather
SEASONLESS = 6  # steps ahead where there is no season


class Series(Data):
    """co2 (526 monthly means, Mauna Loa), sunspots (309 years), elnino (732 months),
    seattle_weather and seattle_rain (210 weekly means of the daily maximum and of the rain, need the extra `series`),
    elec_equip (257 months of orders of electrical equipment in the EU), nile (100 years), unemployment, treasury_bills,
    inflation, investment and money (M1; 203 quarters of the USA): forecast the next season.

    First 75 % train, z-scored with it; test = 7 rolling origins in the rest. horizon `auto`: the season, at most 12, or
    6 where there is none; lookback `auto`: 3 horizons, or the season where that is longer. Too small to rank networks
    finely.
    """

    kind, tasks = "series", ("forecast",)

    def __init__(
        self,
        batch_size: Count = 8,
        name: Literal[
            "co2",
            "sunspots",
            "elnino",
            "seattle_weather",
            "elec_equip",
            "nile",
            "unemployment",
            "treasury_bills",
            "inflation",
            "investment",
            "money",
            "seattle_rain",
        ] = "co2",
        lookback: Count | Literal["auto"] = "auto",
        horizon: Count | Literal["auto"] = "auto",
    ):
        super().__init__(batch_size)
        self.series, self.lookback, self.horizon = name, lookback, horizon

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        values, season = _load(self.series), SEASONS[self.series]
        n = len(values)
        auto = min(12, season) if season > 1 else SEASONLESS
        H = auto if self.horizon == "auto" else self.horizon
        L = min(max(3 * H, season), n // 4) if self.lookback == "auto" else self.lookback
        borders = by_origins(n, L, H)
        if not len(borders.starts["train"]) or n * 0.25 < H:
            raise DataError(
                f"data.name={self.series}: {n} values are too few for data.lookback={L} and data.horizon={H}; "
                f"make them smaller"
            )
        return windows(
            values[:, None],
            [self.series],
            [self.series],
            borders,
            lookback=L,
            horizon=H,
            season=season,
            name=self.series,
            fitted=self.fitted,
        )

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        """The last `lookback` values of the series, scaled as in training: (1, L, 1)."""
        if path is not None:
            return super().encode(path)
        return latest(_load(self.series)[:, None], self.spec, self.series), [self.series]


def _load(name: str) -> np.ndarray:
    if name in WEEKS:
        return _seattle(name)
    from statsmodels import datasets

    if name in QUARTERS:
        return datasets.macrodata.load_pandas().data[QUARTERS[name]].to_numpy()
    data = import_module(f"statsmodels.datasets.{name}").load_pandas().data
    if name == "nile":
        return data["volume"].to_numpy()
    if name == "elec_equip":
        return data.iloc[:, 0].to_numpy()
    if name == "co2":  # weekly; 5 months without a value, all before 1965
        return data["co2"].resample("MS").mean().interpolate().to_numpy()
    if name == "sunspots":
        return data["SUNACTIVITY"].to_numpy()
    return data.drop(columns="YEAR").to_numpy().reshape(-1).astype(float)  # (61 years, 12 months) -> (732,)


def _seattle(name: str) -> np.ndarray:
    """Weekly means of 1,461 days of 2012 to 2015, (210,), NOAA (public domain)."""
    try:
        from vega_datasets import local_data
    except ImportError as e:
        raise DataError(f"data.name={name}: needs vega_datasets; pip install 'layerlab[series]'") from e
    days = local_data.seattle_weather().set_index("date")[WEEKS[name]]
    return days.resample("W").mean().to_numpy(dtype=float)
