"""Reading a csv strictly: what is wrong is said with file, row and column. Row 1 is the header, as in a spreadsheet."""

from __future__ import annotations

import csv
import io
from difflib import get_close_matches
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from layerlab.contract import DataError
from layerlab.data import files

if TYPE_CHECKING:
    import pandas as pd

EMPTY = ("", "na", "nan", "null", "none", "n/a", "?")


def read(path: str, key: str = "data.path") -> pd.DataFrame:
    """All cells as text, stripped; the index is the row in the file. key: the option that named the file.

    Raises DataError for a missing, empty or headerless file and for a row that is longer or shorter than the header.
    """
    import pandas as pd

    place = files.existing(path, "a csv file with a header", key, folder=False)
    text = files.read_text(place)
    separator = max(",;\t", key=text.split("\n", 1)[0].count)
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=separator)
    header = [name.strip() for name in next(reader, [])]
    if not any(header):
        raise DataError(f"{place}: not a csv; give one with a header in row 1")
    if twice := [name for name in header if header.count(name) > 1]:
        raise DataError(f"{place.name} row 1: column {twice[0]!r} stands there twice; rename one")
    rows, index = [], []
    for row in reader:
        if not row:
            continue  # a blank line
        if len(row) != len(header):
            raise DataError(f"{place.name} row {reader.line_num}: {len(row)} cells, the header has {len(header)}")
        rows.append([cell.strip() for cell in row])
        index.append(reader.line_num)
    if not rows:
        raise DataError(f"{place}: a header and no rows")
    return pd.DataFrame(rows, columns=header, index=index, dtype=str)


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
            f'{where} {frame.index[i]} column "{name}": {cells.iloc[i]!r} is not a finite number; '
            f"correct it, remove the row, or leave the column out"
        )
    if empty.any() and fill is None:
        i = int(np.flatnonzero(empty)[0])
        raise DataError(
            f'{where} {frame.index[i]} column "{name}": empty '
            f"({int(empty.sum())} in this column); "
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
        raise DataError(
            f'{file} row {frame.index[i]} column "{name}": {what}; write it as 2024-01-31 or 2024-01-31 13:00'
        )
    steps = np.diff(times.astype("int64" if is_date else float).to_numpy())
    if (steps == 0).any():
        i = int(np.flatnonzero(steps == 0)[0])
        raise DataError(
            f'{file} row {frame.index[i + 1]} column "{name}": {cells.iloc[i + 1]!r} is there twice; '
            f"keep one row per time"
        )
    if (steps < 0).any():
        i = int(np.flatnonzero(steps < 0)[0])
        raise DataError(
            f'{file} row {frame.index[i + 1]} column "{name}": {cells.iloc[i + 1]!r} comes after {cells.iloc[i]!r}; '
            f"sort the file by time"
        )
    long = steps > 1.5 * np.median(steps)  # 1.5: months differ by a tenth
    if long.any() and not gaps:
        i = int(np.flatnonzero(long)[0])
        raise DataError(
            f'{file} row {frame.index[i + 1]} column "{name}": '
            f"a gap between {cells.iloc[i]!r} and {cells.iloc[i + 1]!r} "
            f"({int(long.sum())} in all); add the missing rows, or accept it with data.gaps=true"
        )
