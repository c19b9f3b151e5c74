"""Figures of a report, as the JSON that Plotly draws. Colours of text and lines come from the page."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from plotly.subplots import make_subplots
from scipy.special import stdtrit

from layerlab.report.collect import Points

COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#d55e00", "#56b4e9", "#8c8c00", "#7a7a7a")  # Okabe & Ito 2008
SPLITS = {"train": "#0072b2", "val": "#e69f00", "test": "#009e73"}
GREY = "#8a8a8a"  # seen on light and on dark
HEIGHT = 340
POINTS = 60  # of units, above which single ones are not drawn

Figure = str  # JSON


def half_width(values: np.ndarray) -> float | None:
    """Half of the 95 % t-interval of the mean; None for one value, or where one is not finite."""
    n = len(values)
    if n < 2 or not np.isfinite(values).all():
        return None
    return float(stdtrit(n - 1, 0.975) * values.std(ddof=1) / math.sqrt(n))


# --- claims


def claim(record: dict[str, Any], curves: dict[str, Points]) -> Figure | None:
    """The figure that a claim asks for: its metrics along an axis, or the mean curves of its cells."""
    asked = record.get("plot") or {}
    metrics = asked.get("y")
    if curves:
        return _cells(record, asked, curves)
    names = [m for m in ([metrics] if isinstance(metrics, str) else metrics or []) if m in record["values"]]
    if not names:
        return None
    panels = [_panels(record, asked, name) for name in names]
    if not any(panels):
        return None  # no finite value
    titles = list(dict.fromkeys(title for found in panels for title, _, _ in found))
    columns = len(titles) if len(titles) <= 4 else 3
    figure = _grid(titles, columns, asked, record, names)
    labels = list(dict.fromkeys(label for found in panels for _, label, _ in found))
    shown: set[str] = set()
    for name, found in zip(names, panels, strict=True):
        for title, label, series in found:
            row, column = divmod(titles.index(title), columns)
            text = " ".join(t for t in (label, name if len(names) > 1 else "") if t)
            colour = COLOURS[(labels.index(label) * len(names) + names.index(name)) % len(COLOURS)]
            for trace in _traces(asked.get("kind", "bars"), series, text or name, colour, text not in shown):
                figure.add_trace(trace, row=row + 1, col=column + 1)
            shown.add(text)
    figure.update_layout(showlegend=len(shown) > 1, barmode="group")
    return _plain(figure)


def _grid(titles: list[str], columns: int, asked: dict[str, Any], record: dict[str, Any], names: list[str]) -> Any:
    rows = -(-len(titles) // columns)
    shown = titles if len(titles) > 1 else None
    figure = make_subplots(rows, columns, subplot_titles=shown, shared_yaxes=True, horizontal_spacing=0.04)
    figure.update_layout(height=HEIGHT + 260 * (rows - 1))
    x = asked.get("x", "")
    figure.update_xaxes(title_text=x, row=rows)
    figure.update_yaxes(title_text=", ".join(names), col=1)
    if "y" in asked.get("log", ""):
        figure.update_yaxes(type="log")
    numbers = _numbers(record["axes"].get(x, []))
    if "x" in asked.get("log", "") and numbers:
        figure.update_xaxes(type="log")
    elif asked.get("kind") != "lines" or not numbers:
        figure.update_xaxes(type="category")
    return figure


def _panels(record: dict[str, Any], asked: dict[str, Any], name: str) -> list[tuple[str, str, dict[str, np.ndarray]]]:
    """(title of the panel, label of the colour, units by the value of the x axis) of a metric."""
    array, dims = np.array(record["values"][name], dtype=float), record["dims"][name]
    axes = record["axes"]
    unit = next(a for a in reversed(axes))  # it stands last
    x, colour = asked.get("x"), asked.get("colour")
    facets = [a for a in dict.fromkeys((asked.get("facet"), "data")) if a in dims and a not in (x, colour)]
    others = [a for a in dims if a not in (*facets, x, unit)]
    if colour in others:
        others.insert(0, others.pop(others.index(colour)))
    found = []
    for title in itertools.product(*(axes[a] for a in facets)):
        for label in itertools.product(*(axes[a] for a in others)):
            chosen = dict(zip((*facets, *others), (*title, *label), strict=True))
            series = {}
            for value in axes[x] if x in dims else [""]:
                where = chosen | ({x: value} if x in dims else {})
                index = tuple(axes[d].index(where[d]) if d in where else slice(None) for d in dims)
                series[value] = np.atleast_1d(array[index])
            if any(np.isfinite(v).any() for v in series.values()):
                told = " ".join(v if a == colour else f"{a} {v}" for a, v in zip(others, label, strict=True))
                above = " ".join(v if a == "data" else f"{a} {v}" for a, v in zip(facets, title, strict=True))
                found.append((above, told, series))
    return found


def _traces(kind: str, series: dict[str, np.ndarray], label: str, colour: str, legend: bool) -> list[Any]:
    """The means of the units with their 95 % t-intervals."""
    names = list(series)
    x = [float(n) for n in names] if kind == "lines" and _numbers(names) else names
    means = [float(v.mean()) if np.isfinite(v).all() else None for v in series.values()]
    error = {
        "type": "data",
        "array": [half_width(v) for v in series.values()],
        "thickness": 1.2,
        "width": 3,
        "color": GREY,
    }
    common = {"x": x, "y": means, "name": label, "legendgroup": label, "showlegend": legend, "error_y": error}
    if kind == "lines":
        return [go.Scatter(**common, mode="lines+markers", line={"color": colour}, marker={"size": 6})]
    return [go.Bar(**common, marker={"color": colour}, offsetgroup=label)]


def _cells(record: dict[str, Any], asked: dict[str, Any], curves: dict[str, Points]) -> Figure:
    """The curves of a claim's cells, which are named arm=adam,zero=true."""
    cells = {name: dict(part.split("=", 1) for part in name.split(",") if "=" in part) for name in curves}
    colour = asked.get("colour", "")
    label = {n: c.get(colour, n) for n, c in cells.items()}
    title = {n: " ".join(v for k, v in c.items() if k != colour) for n, c in cells.items()}
    titles, labels = (list(dict.fromkeys(found.values())) for found in (title, label))
    columns = min(len(titles), 4)
    rows = -(-len(titles) // columns)
    figure = make_subplots(rows, columns, subplot_titles=titles, horizontal_spacing=0.05, shared_yaxes=True)
    for n, (name, points) in enumerate(curves.items()):
        row, column = divmod(titles.index(title[name]), columns)
        steps, values = zip(*points, strict=True)
        text = f"{colour} {label[name]}".strip()
        line = {"color": COLOURS[labels.index(label[name]) % len(COLOURS)]}
        first = label[name] not in [label[o] for o in list(curves)[:n]]
        trace = go.Scatter(x=steps, y=values, name=text, legendgroup=text, showlegend=first, line=line)
        figure.add_trace(trace, row=row + 1, col=column + 1)
    if "y" in asked.get("log", ""):
        figure.update_yaxes(type="log")
    figure.update_xaxes(title_text="optimizer step", row=rows)
    figure.update_yaxes(title_text=str(asked["y"]), col=1)
    figure.update_layout(height=HEIGHT + 220 * (rows - 1))
    return _plain(figure)


# --- runs and sweeps


def curves(found: dict[str, dict[str, Points]]) -> Figure | None:
    """The curves of runs by name: loss and the task's figures, train and val in the colours of their split.

    Of several runs each has a colour of its own, train dashed.
    """
    logged = {name for run in found.values() for name in run}
    figures = [f for f in ("loss", "acc", "nll", "mae", "mse") if f"val/{f}" in logged or f"train/{f}" in logged]
    figures = [f for f in figures if not (f == "nll" and "loss" in figures)][:3] + (
        ["lr"] if any(len(run.get("lr", ())) > 1 for run in found.values()) else []
    )
    if not figures:
        return None
    made = make_subplots(1, len(figures), subplot_titles=figures, horizontal_spacing=0.06)
    shown: set[str] = set()
    for i, (run, columns) in enumerate(found.items()):
        for j, name in enumerate(figures):
            for split in ("train", "val") if name != "lr" else ("",):
                points = columns.get(f"{split}/{name}" if split else name)
                if not points:
                    continue
                steps, values = zip(*points, strict=True)
                label = (split or "lr") if len(found) == 1 else f"{run} {split}".strip()
                colour = SPLITS.get(split, COLOURS[3]) if len(found) == 1 else COLOURS[i % len(COLOURS)]
                line = {"color": colour, "dash": "dot" if len(found) > 1 and split == "train" else "solid"}
                mode = "lines+markers" if len(points) < 40 else "lines"
                trace = go.Scatter(
                    x=steps,
                    y=values,
                    mode=mode,
                    name=label,
                    legendgroup=label,
                    line=line,
                    showlegend=label not in shown and bool(split or len(found) > 1),
                )
                made.add_trace(trace, row=1, col=j + 1)
                shown.add(label)
    made.update_xaxes(title_text="optimizer step")
    made.update_layout(height=HEIGHT)
    return _plain(made)


def sweep(statistics: dict[str, Any]) -> list[Figure]:
    """The settings of a sweep with points, means and intervals; two factors also as a heat map, more in parallel."""
    settings = statistics.get("settings", [])
    if not settings:
        return []
    names = [s["name"] or "as given" for s in settings]
    made = go.Figure()
    for name, s in zip(names, settings, strict=True):
        if len(s["values"]) <= POINTS:
            values = list(s["values"].values())
            made.add_scatter(
                x=values,
                y=[name] * len(values),
                mode="markers",
                text=list(s["values"]),
                marker={"color": GREY, "size": 6, "opacity": 0.6},
                showlegend=False,
                name="run",
            )
    halves = [s["half_width_95"] for s in settings]
    made.add_scatter(
        x=[s["mean"] for s in settings],
        y=names,
        mode="markers",
        error_x={"type": "data", "array": halves},
        marker={"color": COLOURS[0], "size": 9},
        name="mean, 95 %",
        showlegend=False,
    )
    made.update_yaxes(autorange="reversed", automargin=True)
    made.update_xaxes(title_text=statistics["figure"])
    made.update_layout(height=120 + 26 * len(settings))
    return [_plain(made), *_factors(statistics)]


def _factors(statistics: dict[str, Any]) -> list[Figure]:
    settings = statistics["settings"]
    values: dict[str, list[str]] = {}
    rows = [dict(o.partition("=")[::2] for o in s["overrides"]) for s in settings]
    for row in rows:
        for key, value in row.items():
            if value not in values.setdefault(key, []):
                values[key].append(value)
    factors = {k: sorted(v, key=_order) for k, v in values.items() if len(v) > 1}
    means = [s["mean"] for s in settings]
    if len(factors) == 2 and len(settings) == math.prod(len(v) for v in factors.values()):
        (a, across), (b, down) = factors.items()
        table = {(r[a], r[b]): m for r, m in zip(rows, means, strict=True)}
        z = [[table[x, y] for x in across] for y in down]
        made = go.Figure(
            go.Heatmap(
                x=across,
                y=down,
                z=z,
                colorscale="Viridis",
                texttemplate="%{z:.3f}",
                colorbar={"title": {"text": statistics["figure"]}},
            )
        )
        made.update_xaxes(title_text=a, type="category")
        made.update_yaxes(title_text=b, type="category")
        made.update_layout(height=HEIGHT)
        return [_plain(made)]
    if len(factors) < 2:
        return []
    dimensions: list[dict[str, Any]] = [
        {
            "label": key,
            "values": [there.index(r[key]) if key in r else 0 for r in rows],
            "tickvals": list(range(len(there))),
            "ticktext": there,
        }
        for key, there in factors.items()
    ]
    dimensions.append({"label": statistics["figure"], "values": means})
    made = go.Figure(
        go.Parcoords(line={"color": means, "colorscale": "Viridis", "showscale": True}, dimensions=dimensions)
    )
    made.update_layout(height=HEIGHT + 40)
    return [_plain(made)]


def _order(text: str) -> tuple[int, float, str]:
    return (0, float(text), "") if _numbers([text]) else (1, 0.0, text)


def _numbers(values: Sequence[str]) -> bool:
    try:
        return bool(values) and all(math.isfinite(float(v)) for v in values)
    except ValueError:
        return False


def _plain(figure: Any) -> Figure:
    """As JSON, without Plotly's own theme: the page brings one, light or dark."""
    figure.update_layout(
        template=None,
        margin={"l": 60, "r": 20, "t": 64, "b": 50},
        legend={"orientation": "h", "yref": "container", "y": 1, "yanchor": "top"},
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
    )
    return figure.to_json()
