"""A table of numbers in time -> windows to forecast from."""

from dataclasses import dataclass

import numpy as np
import torch

from layerlab.contract import DataError, DataSpec
from layerlab.data.batches import SeriesWindows, Split


@dataclass(frozen=True)
class Borders:
    """First rows of val and test, and the window starts of each split."""

    train_rows: int  # the scaler is fitted on rows 0 .. train_rows
    starts: dict[str, np.ndarray]


def by_rows(n: int, val: int, test: int, lookback: int, horizon: int, where: str) -> Borders:
    """Every window, stride 1, whose targets lie in the split; it may look back over the border.

    Raises DataError where a split is too short for one window.
    """
    L, H = lookback, horizon
    ends = {"train": (L, val), "val": (val, test), "test": (test, n)}
    starts = {part: np.arange(a - L, b - L - H + 1) for part, (a, b) in ends.items()}
    if any(len(s) == 0 for s in starts.values()):
        need = next(m for m in range(n, 100 * (n + L + H)) if _fits(m, L, H))
        raise DataError(
            f"{where}: needs at least {need} rows for lookback {L} + horizon {H} in train, val and test, has {n}; "
            f"give more rows, or a smaller data.lookback or data.horizon"
        )
    return Borders(val, starts)


def _fits(n: int, lookback: int, horizon: int) -> bool:
    from layerlab.data.split import chronological

    val, test = chronological(n)
    return val >= lookback + horizon and test - val >= horizon and n - test >= horizon


def by_origins(n: int, lookback: int, horizon: int, origins: int = 7) -> Borders:
    """Short series: first 75 % train; test = up to `origins` windows evenly in the rest; val = the last 15 % of the
    training windows, with a gap of lookback + horizon - 1 so that no value is shared."""
    L, H = lookback, horizon
    train = int(n * 0.75)
    windows = train - L - H + 1
    val = max(windows * 15 // 100, 1)
    test = np.unique(np.linspace(train, n - H, origins).astype(int)) - L
    return Borders(
        train,
        {
            "train": np.arange(windows - val - (L + H - 1)),
            "val": np.arange(windows - val, windows),
            "test": test,
        },
    )


def windows(
    values: np.ndarray,
    columns: list[str],
    target: list[str],
    borders: Borders,
    *,
    lookback: int,
    horizon: int,
    season: int,
    name: str,
    fitted: DataSpec | None = None,
) -> tuple[DataSpec, dict[str, Split]]:
    """Spec and splits of values (N, F), z-scored with the training rows, or as `fitted` was."""
    train = values[: borders.train_rows]
    mean, std = train.mean(0), train.std(0)
    if fitted and fitted.channels == tuple(columns):
        mean, std = np.array(fitted.mean), np.array(fitted.std)
    if len(flat := [c for c, s in zip(columns, std, strict=True) if s == 0]):
        raise DataError(f"data={name}: column {flat[0]!r} is constant in the training rows; leave it out")
    x = torch.tensor((values - mean) / std, dtype=torch.float32)
    targets = [columns.index(t) for t in target]
    spec = DataSpec(
        kind="series",
        task="forecast",
        shape=(lookback, len(columns)),
        out=horizon * len(target),
        name=name,
        channels=tuple(columns),
        target=tuple(target),
        horizon=horizon,
        season=season,
        mean=tuple(mean.tolist()),
        std=tuple(std.tolist()),
        naive_mae=tuple(_naive_mae((train - mean) / std, season)[targets].tolist()),
    )
    return spec, {
        part: SeriesWindows(x, torch.from_numpy(s.copy()), lookback, horizon, targets)
        for part, s in borders.starts.items()
    }


def _naive_mae(train: np.ndarray, season: int) -> np.ndarray:
    """Mean absolute error of the seasonal naive forecast within the training rows (N, F) -> (F,): the unit of MASE."""
    m = season if 0 < season < len(train) else 1
    return np.abs(train[m:] - train[:-m]).mean(0)


def latest(values: np.ndarray, spec: DataSpec, where: str) -> torch.Tensor:
    """The last window of values (N, F) in the scale of a spec, to forecast what comes next: (1, L, F)."""
    L, _ = spec.shape
    if len(values) < L:
        raise DataError(f"{where}: needs at least {L} rows for lookback {L}, has {len(values)}")
    x = (values[-L:] - np.array(spec.mean)) / np.array(spec.std)
    return torch.tensor(x, dtype=torch.float32)[None]
