"""One self-contained HTML page: Plotly embedded once, pictures in it, nothing loaded from anywhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from layerlab.contract import LayerlabError, flat
from layerlab.report import collect, plots, tables

FILE = "report.html"
VERDICTS = ("supported", "nuanced", "refuted", "not decided")
COMPARED = 8  # runs side by side


def logs(folder: Path, size: str, place: Path | None) -> Path:
    """The page of a folder of logs: verdicts first, each claim, then its sweeps and runs. Raises LayerlabError."""
    records = collect.claims(folder, size)
    runs, sweeps = collect.overview(folder)
    if not records and not runs and not sweeps:
        raise LayerlabError(f"logs={folder}: nothing to report; run layerlab claim name=all, or python train.py, first")
    for record in records:
        asked = str(record["plot"].get("y", ""))
        curves = collect.claim_curves(folder, record, asked) if "/" in asked else {}
        record["figure"] = plots.claim(record, curves)
    counts = Counter(r["verdict"] for r in records)
    told = [(v, counts[v]) for v in VERDICTS if counts[v]]
    title = f"{len(records)} claims" if records else f"{len(runs)} runs"
    return _write(
        "logs.html", place or folder / FILE, title=title, records=records, counts=told, runs=runs, sweeps=sweeps
    )


def one(folder: Path, place: Path | None) -> Path:
    """The page of a run or of a sweep. Raises LayerlabError where the folder is neither."""
    return sweep(folder, place) if collect.is_sweep(folder) else run(folder, place)


def run(folder: Path, place: Path | None) -> Path:
    """The page of a run. Raises LayerlabError."""
    found = collect.run(folder)
    pictures = {k: v for k, v in found.pictures.items() if k != "curves"}  # that one is drawn anew
    figure = plots.curves({found.name: found.curves})
    config = list(flat(found.config))
    return _write(
        "run.html",
        place or found.folder / FILE,
        title=found.name,
        run=found,
        figures=[figure] if figure else [],
        pictures=pictures,
        config=config,
    )


def sweep(folder: Path, place: Path | None) -> Path:
    """The page of a sweep."""
    found = collect.sweep(folder)
    figures = plots.sweep(found.statistics)
    counts = Counter(job["status"] for job in found.ledger["jobs"])
    pictures = {k: v for k, v in found.pictures.items() if k != "sweep"}
    return _write(
        "sweep.html",
        place or found.folder / FILE,
        title=found.folder.name,
        sweep=found,
        figures=figures,
        counts=counts,
        pictures=pictures,
    )


def compare(folders: Sequence[Path], place: Path | None) -> Path:
    """The page of several runs: what differs in their configs, and what came out. Raises LayerlabError."""
    if len(folders) > COMPARED:
        raise LayerlabError(
            f"run: {len(folders)} runs; at most {COMPARED} are put side by side, a sweep has its own page"
        )
    runs = [collect.run(folder) for folder in folders]
    names = [r.name for r in runs]
    if len(set(names)) < len(names):
        names = [str(r.folder) for r in runs]
    figure = plots.curves(dict(zip(names, (r.curves for r in runs), strict=True)))
    metrics = list(dict.fromkeys(m for r in runs for m in r.results.get("metrics", {})))
    return _write(
        "compare.html",
        place or Path(FILE),
        title=f"{len(runs)} runs",
        runs=runs,
        names=names,
        figures=[figure] if figure else [],
        metrics=metrics,
        differing=collect.differences(runs),
    )


@cache
def _environment() -> Environment:
    made: Any = Environment(
        loader=PackageLoader("layerlab.report"),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    made.filters |= {"number": tables.number, "effect": tables.effect, "json": _script}
    made.globals |= {"interval": tables.interval}
    return made


def _script(text: str) -> str:
    """JSON as it may stand in a script element."""
    return text.replace("<", "\\u003c")


def _write(template: str, place: Path, **values: Any) -> Path:
    """The page as a file, whole or not at all."""
    made = time.strftime("%Y-%m-%d %H:%M")
    page = _environment().get_template(template).render(plotly=get_plotlyjs(), made=made, **values)
    place = place.expanduser()
    place.parent.mkdir(parents=True, exist_ok=True)
    part = place.with_name(f".{place.name}.part")
    part.write_text(page, encoding="utf-8")
    part.replace(place)
    return place
