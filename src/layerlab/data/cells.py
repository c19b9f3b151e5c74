"""Reading a csv strictly: what is wrong is said with file, row and column. Row 1 is the header, as in a spreadsheet."""

from __future__ import annotations

import csv
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layerlab.contract import DataError
from layerlab.data import files

if TYPE_CHECKING:
    import pandas as pd

EMPTY = ("", "na", "nan", "null", "none", "n/a", "?")


def read(path: str) -> pd.DataFrame:
    """All cells as text, stripped. Raises DataError for a missing, empty, ragged or headerless file."""
    import pandas as pd

    place = files.existing(path, "a csv file with a header")
    header = files.read_text(place).split("\n", 1)[0]
    separator = max(",;\t", key=header.count)
    names = [n.strip() for n in next(csv.reader([header], delimiter=separator), [])]
    if twice := [n for n in names if names.count(n) > 1]:
        raise DataError(f"{place} row 1: column {twice[0]!r} stands there twice; rename one")
    try:
        frame = pd.read_csv(place, dtype=str, keep_default_na=False, sep=separator, encoding="utf-8-sig")
    except (pd.errors.ParserError, pd.errors.EmptyDataError) as e:
        raise DataError(f"{place}: not a csv ({str(e).strip()}); give one with a header and equally long rows") from e
    frame.columns = frame.columns.str.strip()
    for c in frame.columns:
        frame[c] = frame[c].fillna("").str.strip()
    if not len(frame):
        raise DataError(f"{place}: a header and no rows")
    return frame


def column(frame: pd.DataFrame, name: str, key: str, path: str) -> str:
    """The name, if the file has that column. Raises DataError with the nearest names."""
    if name in frame.columns:
        return name
    near = get_close_matches(name, frame.columns, 1)
    hint = f"did you mean {near[0]}?" if near else f"columns are {', '.join(frame.columns[:20])}"
    raise DataError(f"{key}={name!r}: no such column in {Path(path).name}; {hint}")


def numbers(frame: pd.DataFrame, name: str, path: str, fill: str | None) -> np.ndarray:
    """A column (N,) as float64; empty cells as `fill` says: interpolate | forward | mean; None refuses them.

    Raises DataError with file, row, column and what to do.
    """
    import pandas as pd

    cells = frame[name]
    empty = cells.str.lower().isin(EMPTY)
    values = pd.to_numeric(cells.where(~empty), errors="coerce")
    where = f"{Path(path).name} row"
    bad = ~empty & (values.isna() | np.isinf(values))
    if bad.any():
        i = int(np.flatnonzero(bad)[0])
        raise DataError(
            f'{where} {i + 2} column "{name}": {cells.iloc[i]!r} is not a finite number; correct it, remove the row, '
            f"or leave the column out"
        )
    if empty.any() and fill is None:
        i = int(np.flatnonzero(empty)[0])
        raise DataError(
            f'{where} {i + 2} column "{name}": empty ({int(empty.sum())} in this column); '
            f"set data.fill or remove the row"
        )
    if empty.any():
        if fill == "interpolate":
            values = values.interpolate(limit_direction="both")
        elif fill == "forward":
            values = values.ffill().bfill()
        else:
            values = values.fillna(values.mean())
        if values.isna().any():
            raise DataError(f'{Path(path).name} column "{name}": no value at all; leave the column out')
    return values.to_numpy(dtype=np.float64)


def is_numeric(frame: pd.DataFrame, name: str) -> bool:
    """Whether every cell that is not empty is a number."""
    import pandas as pd

    cells = frame[name]
    cells = cells[~cells.str.lower().isin(EMPTY)]
    return len(cells) > 0 and bool(pd.to_numeric(cells, errors="coerce").notna().all())


def check_times(frame: pd.DataFrame, name: str, path: str, gaps: bool) -> None:
    """Stamps must be readable, rise, and leave no step out; gaps=True accepts missing steps. Raises DataError."""
    import pandas as pd

    cells, file = frame[name], Path(path).name
    is_date = not is_numeric(frame, name)
    if is_date:
        times = pd.Series(pd.to_datetime(cells, errors="coerce", format="mixed", utc=True))
    else:
        times = pd.Series(pd.to_numeric(cells, errors="coerce"))
    if times.isna().any():
        i = int(np.flatnonzero(times.isna())[0])
        what = "empty" if not cells.iloc[i] else f"{cells.iloc[i]!r} is not a time"
        raise DataError(f'{file} row {i + 2} column "{name}": {what}; write it as 2024-01-31 or 2024-01-31 13:00')
    steps = np.diff(times.astype("int64" if is_date else float).to_numpy())
    if (steps == 0).any():
        i = int(np.flatnonzero(steps == 0)[0])
        raise DataError(
            f'{file} row {i + 3} column "{name}": {cells.iloc[i + 1]!r} is there twice; keep one row per time'
        )
    if (steps < 0).any():
        i = int(np.flatnonzero(steps < 0)[0])
        raise DataError(
            f'{file} row {i + 3} column "{name}": {cells.iloc[i + 1]!r} comes after {cells.iloc[i]!r}; '
            f"sort the file by time"
        )
    long = steps > 1.5 * np.median(steps)  # 1.5: months differ by a tenth
    if long.any() and not gaps:
        i = int(np.flatnonzero(long)[0])
        raise DataError(
            f'{file} row {i + 3} column "{name}": a gap between {cells.iloc[i]!r} and {cells.iloc[i + 1]!r} '
            f"({int(long.sum())} in all); add the missing rows, or accept it with data.gaps=true"
        )
