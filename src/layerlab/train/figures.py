"""Pictures of a run, as PNG in its folder: `figures=[confusion,filters]`, or `figures=all` for those that apply."""

from __future__ import annotations

import csv
import importlib.util
import textwrap
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerlab.contract import DataSpec, LayerlabError, decode
from layerlab.models.base import Model
from layerlab.nn import conv
from layerlab.tasks.transduce import words
from layerlab.train import scores

COLOURS = {"train": "#4269d0", "val": "#efb118"}
TRUTH, FORECAST = "#222222", "#4269d0"
MOST_CLASSES = 40  # names on the axes of a confusion matrix
EXAMPLES = 4  # of the test split, where a picture shows examples
MISTAKES = 24
LONG = 20  # letters of a class name that are shown
SHOWN_CLASSES = 20  # of which examples are shown
CAM_SIDE = 7  # of a map that still says where
TITLE = 90  # letters in a line over a page of examples
GRADIENT_EXAMPLES = 64
MOST_PARAMETERS = 120
BINS = 15  # of the confidence, as in the reported calibration error


@dataclass(frozen=True)
class Picture:
    """Which runs a picture is for, and how it is drawn: with the run's folder, model and data."""

    applies: Callable[[Model], bool]
    draw: Callable[[Path, Model, Any], Path]
    what: str  # in words, for the refusal


def chosen(names: str | list[str], model: Model) -> dict[str, Picture]:
    """The pictures that `figures=` asks for. Raises LayerlabError for an unknown name and one that does not apply."""
    possible = {name: p for name, p in PICTURES.items() if p.applies(model)}
    if names in ("all", "none"):
        return possible if names == "all" else {}
    found = {}
    for name in [names] if isinstance(names, str) else names:
        if name not in PICTURES:
            raise LayerlabError(f"figures={name}: unknown; choose from {', '.join(PICTURES)}, or all")
        if name not in possible:
            kind = type(model).__name__
            raise LayerlabError(
                f"figures={name}: shows {PICTURES[name].what}, which {kind} for {model.spec.task} has not; "
                f"these apply: {', '.join(possible) or 'none'}"
            )
        found[name] = possible[name]
    return found


def curves(folder: Path, title: str) -> Path | None:
    """Loss and the task's figure over the epochs, from metrics.csv -> curves.png; None where nothing was logged."""
    columns = _columns(folder / "metrics.csv")
    names = [n for n in ("loss", "acc", "mae") if any(f"{split}/{n}" in columns for split in COLOURS)]
    if not names:
        return None
    figure, grid = _figure(1, len(names), 4.5, 3.4)
    for axes, name in zip(grid[0], names, strict=True):
        for split, colour in COLOURS.items():
            if points := columns.get(f"{split}/{name}"):
                steps, values = zip(*points, strict=True)
                axes.plot(steps, values, color=colour, label=split, marker="." if len(steps) < 40 else None)
        axes.set_xlabel("optimizer step")
        axes.set_title(name)
        _plain(axes)
        axes.legend(frameon=False)
    return _saved(figure, folder / "curves.png", title)


def confusion(folder: Path, model: Any, data: Any) -> Path:
    """How often each class was taken for which, on the test split -> confusion.png."""
    counts = scores.counts(model)
    C = len(counts)
    shares = counts / counts.sum(1, keepdim=True).clamp(min=1)
    side = max(3.5, min(0.42 * C + 1.5, 14))
    figure, ((axes,),) = _figure(1, 1, side, side)
    _show(axes, shares, cmap="Blues", vmin=0, vmax=1)
    if C <= MOST_CLASSES:
        names = [_class(data, torch.tensor(i)) for i in range(C)]
        axes.set_xticks(range(C), names, rotation=90)
        axes.set_yticks(range(C), names)
        for i in range(C):
            for j in range(C):
                if counts[i, j]:
                    colour = "white" if shares[i, j] > 0.5 else "black"
                    axes.text(j, i, int(counts[i, j]), ha="center", va="center", fontsize=7, color=colour)
    axes.set_xlabel("answer")
    axes.set_ylabel("class")
    return _saved(figure, folder / "confusion.png", f"{data.spec.name}, test split: {counts.sum():,} examples")


def reliability(folder: Path, model: Any, data: Any) -> Path:
    """How often the answers of a certain confidence are right, on the test split -> reliability.png."""
    out, y = model.outputs
    confidence, said = model.task.probabilities(out).max(1)
    right = (said == y.flatten()).float()
    which = (confidence * BINS).long().clamp(max=BINS - 1)
    n = torch.bincount(which, minlength=BINS)
    accuracy = torch.zeros(BINS).index_add_(0, which, right) / n.clamp(min=1)
    figure, grid = _figure(2, 1, 4.2, 2.4)
    for (axes,), height, label in zip(grid, (accuracy, n), ("accuracy", "examples"), strict=True):
        axes.bar([(i + 0.5) / BINS for i in range(BINS)], height.tolist(), width=0.9 / BINS, color=COLOURS["train"])
        axes.set_ylabel(label)
        axes.set_xlim(0, 1)
        _plain(axes)
    grid[0][0].plot([0, 1], [0, 1], color=TRUTH, linewidth=0.8)
    grid[1][0].set_xlabel("confidence")
    ece = model.task.metrics(out, y)["ece"]
    return _saved(figure, folder / "reliability.png", f"calibration error {ece:.3f}, {len(y):,} test examples")


def mistakes(folder: Path, model: Any, data: Any) -> Path:
    """The test images that were answered wrongly with the most confidence -> mistakes.png."""
    out, y = model.outputs
    confidence, said = model.task.probabilities(out).max(1)
    wrong = (said != y.flatten()).nonzero()[:, 0]
    order = wrong[confidence[wrong].argsort(descending=True)][:MISTAKES]
    titles = [f"{_class(data, said[i])} {confidence[i]:.2f}\nis {_class(data, y[i])}" for i in order]
    title = f"the {len(order):,} most certain of {len(wrong):,} mistakes in {len(y):,} test images"
    if not len(wrong):
        title = f"no mistake in {len(y):,} test images"
    return _tiles(folder / "mistakes.png", _photos(data, "test", order), title, 6, 1.5, titles)


def examples(folder: Path, model: Any, data: Any) -> Path:
    """What is in the data: training images of each class, and how many there are -> examples.png."""
    split = data.splits["train"]
    y = torch.cat([split.read(i, None)[1] for i in torch.arange(len(split)).split(1024)])
    images, titles = [], []
    for c in range(min(data.spec.out, SHOWN_CLASSES)):
        own = (y == c).nonzero()[:, 0]
        images += _photos(data, "train", own[:6]) + [None] * (6 - len(own[:6]))
        titles += [f"{_class(data, torch.tensor(c))}: {len(own):,}", *[""] * 5]
    sizes = ", ".join(f"{part} {len(s):,}" for part, s in data.splits.items())
    notes = [line.splitlines()[0] for line in data.notes] or [sizes]  # of a folder: with the counts of each class
    title = "\n".join(line for note in [data.spec.name, *notes] for line in textwrap.wrap(note, TITLE))
    return _tiles(folder / "examples.png", images, title, 6, 1.3, titles)


def saliency(folder: Path, model: Any, data: Any) -> Path:
    """Where in an image its answer comes from, for images of the test split -> saliency.png.

    Grad-CAM on the last convolution with maps of 7 x 7 or more (Selvaraju et al. 2017); for a net without, integrated
    gradients (Sundararajan et al. 2017), by captum.
    """
    from captum.attr import IntegratedGradients, LayerAttribution, LayerGradCam

    index = torch.linspace(0, len(data.splits["test"]) - 1, min(6, len(data.splits["test"]))).long()
    x, y = data.splits["test"].read(index, None)
    x = x.to(model.device).requires_grad_()
    with torch.no_grad():
        said = model.task.probabilities(model(x)).argmax(1)
    target = None if model.task.labels == "binary" else said
    maps = conv.feature_maps(model, x[:1].detach())
    layers = [model.get_submodule(name) for name, m in maps.items() if min(m.shape[2:]) >= CAM_SIDE]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # captum's, of hooks and of inputs that it sets to require gradients
        if len(layers) > 1:
            how, found = "Grad-CAM", LayerGradCam(model, layers[-1]).attribute(x, target=target, relu_attributions=True)
            found = LayerAttribution.interpolate(found, x.shape[2:], "bilinear")
        else:
            how, found = "integrated gradients", IntegratedGradients(model).attribute(x, target=target, n_steps=32)
            found = found.abs()
    heat = found.detach().sum(1).cpu()  # (B, C, H, W) -> (B, H, W)
    figure, grid = _figure(2, len(x), 1.6, 1.7)
    for column, (image, h) in enumerate(zip(_photos(data, "test", index), heat, strict=True)):
        for axes in grid[:, column]:
            axes.set_axis_off()
            _show(axes, image, cmap="gray")
        _show(grid[1][column], h, cmap="inferno", alpha=0.55)
        words = f"{_class(data, said[column])}\nis {_class(data, y[column])}"
        grid[0][column].set_title(words, fontsize=7)
    return _saved(figure, folder / "saliency.png", f"{how}: where the answer comes from")


def filters(folder: Path, model: Any, data: Any) -> Path:
    """Weights of the first convolution, one square per filter -> filters.png."""
    name, w = next(iter(model.filters().items()))  # (filters, C, h, w)
    images = w.permute(0, 2, 3, 1) if w.shape[1] == 3 else w.mean(1, keepdim=True).permute(0, 2, 3, 1)
    return _tiles(folder / "filters.png", [_unit(i) for i in images.cpu()], f"{name}: {len(w)} filters")


def feature_maps(folder: Path, model: Any, data: Any) -> Path:
    """What each convolution makes of one test image: up to 16 maps a row -> feature_maps.png."""
    x, _ = _examples(model, data)
    maps = list(model.feature_maps(_core(model, x[:1])).items())
    rows = maps if len(maps) <= 8 else [maps[round(i * (len(maps) - 1) / 7)] for i in range(8)]
    figure, grid = _figure(len(rows), 17, 0.75, 0.85)
    image = _unit(x[0].permute(1, 2, 0).cpu()) if x.ndim == 4 else x[0].T.cpu()
    for i, (axes, (name, m)) in enumerate(zip(grid, rows, strict=True)):
        _show(axes[0], image if i == 0 else torch.ones(1, 1, 3), cmap="gray", aspect="auto" if x.ndim == 3 else None)
        axes[1].set_title(f"{name} {tuple(m.shape[1:])}", fontsize=7, loc="left")
        for j in range(16):
            if j < m.shape[1]:
                _show(axes[j + 1], m[0, j], cmap="viridis", aspect="auto" if m.shape[2] == 1 else None)
        for a in axes:
            a.set_axis_off()
    return _saved(figure, folder / "feature_maps.png", "one test image, and what each convolution makes of it")


def attention(folder: Path, model: Any, data: Any) -> Path:
    """Which step looks at which, for the first example of the test split, one square per layer and head."""
    x, _ = _examples(model, data)
    layers = model.attention(_core(model, x[:1]))
    figure, grid = _figure(len(layers), layers[0].shape[1], 2.6, 2.8)
    labels = _symbols(x[0], data.spec)
    for i, (row, weights) in enumerate(zip(grid, layers, strict=True)):
        for h, axes in enumerate(row):
            _show(axes, weights[0, h], cmap="Blues", vmin=0)
            axes.set_title(f"layer {i + 1}, head {h + 1}", fontsize=8)
            _ticks(axes, labels, labels)
    return _saved(figure, folder / "attention.png", "each row looks at the columns")


def gates(folder: Path, model: Any, data: Any) -> Path:
    """What goes on in the last recurrent layer for a test example: units from top to bottom, time to the right."""
    x, _ = _examples(model, data)
    found = model.inside(_core(model, x[:1]))[-1]
    figure, grid = _figure(len(found), 1, 7, 1.6)
    labels = _symbols(x[0], data.spec)
    for (axes,), (name, values) in zip(grid, found.items(), strict=True):
        signed = name in ("hidden", "cell", "candidate")
        options = {"cmap": "RdBu_r", "vmin": -1, "vmax": 1} if signed else {"cmap": "Blues", "vmin": 0, "vmax": 1}
        _show(axes, values[0].T, aspect="auto", interpolation="nearest", **options)  # (T, width) -> (width, T)
        axes.set_ylabel(name, fontsize=8)
        _ticks(axes, labels, [])
    return _saved(figure, folder / "gates.png", "units of the last layer over time; gates from 0 to 1, states -1 to 1")


def gradients(folder: Path, model: Any, data: Any) -> Path:
    """How large the gradient of the loss is in each parameter, on the first training examples -> gradients.png."""
    split = data.splits["train"]
    x, y = (v.to(model.device) for v in split.read(torch.arange(min(GRADIENT_EXAMPLES, len(split))), None))
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    with torch.enable_grad(), torch.backends.cudnn.flags(enabled=False):  # its recurrent nets have no backward in eval
        found = torch.autograd.grad(model.step((x, y))[0], [p for _, p in named], allow_unused=True)
    sizes = {n: float(g.square().mean().sqrt()) for (n, _), g in zip(named, found, strict=True) if g is not None}
    rows = [(n, v) for n, v in sizes.items() if v > 0][-MOST_PARAMETERS:]  # the scale has no 0
    figure, ((axes,),) = _figure(1, 1, 6, 0.8 + 0.16 * len(rows))
    axes.plot([v for _, v in rows], range(len(rows)), "o", color=FORECAST, markersize=4)
    axes.set_yticks(range(len(rows)), [n for n, _ in rows], fontsize=7)
    axes.set_xscale("log")
    axes.invert_yaxis()
    axes.grid(axis="y", linewidth=0.3)
    _plain(axes)
    return _saved(figure, folder / "gradients.png", "root mean square of the gradient, input above, output below")


def alignment(folder: Path, model: Any, data: Any) -> Path:
    """Where the decoder looked for each symbol it wrote, for examples of the test split -> alignment.png."""
    x, _ = _examples(model, data)
    return draw_alignment(folder / "alignment.png", model, x, data.spec)


def draw_alignment(place: Path, model: Any, x: Tensor, spec: DataSpec) -> Path:
    """One square per word of x (B, T): letters from left to right, what was written from top to bottom."""
    looks, said = model.alignment(x), model.generate(x)
    figure, grid = _figure(1, len(x), 2.8, 3.0)
    for axes, look, ids, word in zip(grid[0], looks.cpu(), said.tolist(), x, strict=True):
        letters, answer = _symbols(word, spec), [spec.target_vocabulary[i] for i in words(ids)]
        _show(axes, look[: max(len(answer), 1), : len(letters)], cmap="Blues", vmin=0, vmax=1)
        _ticks(axes, letters, answer)
    return _saved(figure, place, "what was written (rows) from which letters (columns)")


def forecast(folder: Path, model: Any, data: Any) -> Path:
    """Forecasts against what came, for windows spread over the test split -> forecast.png."""
    split = data.splits["test"]
    at = torch.linspace(0, len(split) - 1, min(EXAMPLES, len(split))).long()
    x, y = (v.to(model.device) for v in split.read(at, None))
    return draw_forecast(folder / "forecast.png", model, x, data.spec, y)


def draw_forecast(place: Path, model: Any, x: Tensor, spec: DataSpec, y: Tensor | None = None) -> Path:
    """The window, the forecast with its interval, and what came where it is known, in the units of the data."""
    targets = [spec.channels.index(t) for t in spec.target][:EXAMPLES]
    mean, std = (torch.tensor(v) for v in (spec.mean, spec.std))
    with torch.no_grad():
        out = model.answer(x).cpu()  # (B, H, targets)
    figure, grid = _figure(len(targets), len(x), 4.2, 2.4)
    L, H = spec.shape[0], spec.horizon
    seen, ahead = range(max(L - 3 * H, 0) - L + 1, 1), range(1, H + 1)
    for k, row in enumerate(grid):
        c = targets[k]
        for b, axes in enumerate(row):
            past = (x[b, -len(seen) :, c].cpu() * std[c] + mean[c]).tolist()
            axes.plot(seen, past, color=TRUTH, linewidth=1)
            if y is not None:
                axes.plot(ahead, (y[b, :, k].cpu() * std[c] + mean[c]).tolist(), color=TRUTH, linewidth=1, label="came")
            centre = out[b, :, k] * std[c] + mean[c]
            axes.plot(ahead, centre.tolist(), color=FORECAST, label="forecast")
            if model.task.half_width is not None:
                half = model.task.half_width[:, k] * std[c]
                axes.fill_between(ahead, (centre - half).tolist(), (centre + half).tolist(), color=FORECAST, alpha=0.2)
            axes.axvline(0.5, color="gray", linewidth=0.5)
            axes.set_title(spec.target[k], fontsize=8)
            _plain(axes)
    grid[0][0].legend(frameon=False, fontsize=7)
    band = f", band: {model.task.interval:.0%} interval" if model.task.half_width is not None else ""
    return _saved(figure, place, f"steps after the window{band}")


def samples(folder: Path, model: Any, data: Any) -> Path:
    """What the model writes by itself, twenty times, seed 0 -> samples.png."""
    from layerlab.train.predict import rows

    texts = [r["text"] for r in rows(model, data, "", samples=20 if data.spec.pad is not None else 2)]
    figure, ((axes,),) = _figure(1, 1, 7, 4.5)
    axes.set_axis_off()
    half = (len(texts) + 1) // 2
    for i, part in enumerate((texts[:half], texts[half:])):
        lines = [cut for t in part for row in t.split("\n") for cut in textwrap.wrap(row, 60) or [""]]
        shown = "\n".join(line.replace("$", r"\$") for line in lines[:40])
        axes.text(0.5 * i, 1, shown, va="top", family="monospace", fontsize=9 if len(texts) > 2 else 6)
    return _saved(figure, folder / "samples.png", f"sampled from {type(model).__name__} on {data.spec.name}")


def _has(name: str) -> Callable[[Model], bool]:
    return lambda model: callable(getattr(model, name, None))


def _of_images(model: Model) -> bool:
    return scores.apply(model) and model.spec.kind == "image"


PICTURES = {
    "confusion": Picture(scores.apply, confusion, "which class is taken for which"),
    "reliability": Picture(scores.apply, reliability, "whether confidence can be believed"),
    "examples": Picture(_of_images, examples, "images of each class"),
    "mistakes": Picture(_of_images, mistakes, "the most certain mistakes"),
    "saliency": Picture(
        lambda m: _of_images(m) and importlib.util.find_spec("captum") is not None,
        saliency,
        "where an answer comes from (by captum: pip install 'layerlab[explain]')",
    ),
    "filters": Picture(_has("filters"), filters, "the filters of a convolution"),
    "feature_maps": Picture(_has("feature_maps"), feature_maps, "the feature maps of convolutions"),
    "attention": Picture(_has("attention"), attention, "which step looks at which"),
    "alignment": Picture(_has("alignment"), alignment, "where a decoder looks"),
    "gates": Picture(_has("inside"), gates, "gates and states over time"),
    "gradients": Picture(
        lambda m: not m.closed_form and m.spec.task != "transduce", gradients, "gradients of parameters"
    ),
    "forecast": Picture(lambda m: m.spec.task == "forecast", forecast, "forecasts against what came"),
    "samples": Picture(lambda m: m.spec.task == "next_token", samples, "what a language model writes"),
}


# --- inside


def _figure(rows: int, columns: int, width: float, height: float) -> tuple[Any, Any]:
    """A figure, and its axes as rows of columns. width, height: of each, in inches."""
    # the object interface: pyplot would pick a window system, and keep every figure of a sweep
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width * columns, height * rows), layout="constrained")
    FigureCanvasAgg(figure)
    return figure, figure.subplots(rows, columns, squeeze=False)


def _saved(figure: Any, place: Path, title: str) -> Path:
    figure.suptitle(title, fontsize=10)
    figure.savefig(place, dpi=130)
    return place


def _show(axes: Any, image: Tensor, **options: Any) -> None:
    axes.imshow(image.cpu().numpy(), **options)


def _plain(axes: Any) -> None:
    axes.spines[["top", "right"]].set_visible(False)
    axes.grid(alpha=0.25)


def _ticks(axes: Any, columns: list[str], rows: list[str]) -> None:
    if columns and max(len(columns), len(rows)) <= 40:
        axes.set_xticks(range(len(columns)), columns, fontsize=7)
        axes.set_yticks(range(len(rows)), rows, fontsize=7)


def _tiles(
    place: Path,
    images: list[Tensor | None],
    title: str,
    most: int = 16,
    side: float = 0.7,
    titles: list[str] | None = None,
) -> Path:
    """Images in rows of `most`, each `side` inches wide, with a title each where they have one."""
    columns = max(min(len(images), most), round(4.5 / side))  # room for the title
    figure, grid = _figure(max(-(-len(images) // columns), 1), columns, side, side * (1.25 if titles else 1.07))
    for axes in grid.flat:
        axes.set_axis_off()
    for axes, image, text in zip(grid.flat, images, titles or [""] * len(images), strict=False):
        if image is not None:
            _show(axes, image, cmap="gray")
        axes.set_title(text, fontsize=7)
    return _saved(figure, place, title)


def _photos(data: Any, split: str, index: Tensor) -> list[Any]:
    """Images of a split as they were before they were standardised: (H, W, 3), or (H, W) for gray, in 0..1."""
    if not len(index):
        return []
    x, _ = data.splits[split].read(index, None)
    if data.spec.mean:
        mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (data.spec.mean, data.spec.std))
        x = x.cpu() * std + mean
    images = x.cpu().permute(0, 2, 3, 1)  # (B, C, H, W) -> (B, H, W, C)
    if not data.spec.pixels:  # a spectrogram
        return [_unit(i) for i in images]
    return [i if i.shape[-1] == 3 else i[..., 0] for i in images.clamp(0, 1)]


def _class(data: Any, i: Tensor) -> str:
    name = data.spec.classes[int(i)] if data.spec.classes else str(int(i))
    return (name if len(name) <= LONG else f"{name[: LONG - 1]}…").replace("$", r"\$")


def _unit(image: Tensor) -> Tensor:
    """(H, W, C) stretched to 0..1; one channel as (H, W)."""
    low, high = image.min(), image.max()
    image = (image - low) / (high - low).clamp(min=1e-8)
    return image[..., 0] if image.shape[-1] != 3 else image


def _examples(model: Model, data: Any) -> tuple[Tensor, Tensor]:
    split = data.splits["test"]
    x, y = split.read(torch.arange(min(EXAMPLES, len(split))), None)
    return x.to(model.device), y


def _core(model: Any, x: Tensor) -> Tensor:
    """What the network inside the task's wrapper reads of x."""
    if model.spec.task != "forecast":
        return x
    y = torch.zeros(len(x), model.task.spec.horizon, len(model.task.spec.target), device=x.device)
    return model.task.core_batch(x, y)[0][:1]


def _symbols(ids: Tensor, spec: DataSpec) -> list[str]:
    """The symbols of one example, without padding; nothing where it is no text."""
    if spec.kind != "tokens":
        return []
    kept = [i for n, i in enumerate(ids.tolist()) if n == 0 or i != spec.pad]
    return [decode([i], spec.vocabulary).replace("\n", "\\n") for i in kept]


def _columns(file: Path) -> dict[str, list[tuple[int, float]]]:
    """metric -> (step, value) of the rows that have it."""
    found: dict[str, list[tuple[int, float]]] = {}
    if file.is_file():
        with file.open(newline="", encoding="utf-8") as f:
            for row in csv.DictReader(f):
                for name, value in row.items():
                    if value and name != "step":
                        found.setdefault(name, []).append((int(row["step"]), float(value)))
    return found
