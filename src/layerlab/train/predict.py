"""Answers to new inputs, as rows for a csv: what was fitted in training is used, and nothing else."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from layerlab.contract import UNKNOWN, LayerlabError, decode, encode
from layerlab.models.base import Model
from layerlab.tasks.classify import Classify
from layerlab.tasks.next_token import sample
from layerlab.tasks.transduce import words
from layerlab.train import figures

Rows = list[dict[str, Any]]


def rows(
    model: Model,
    data: Any,
    source: Any = "",
    *,
    samples: int = 5,
    length: int = 300,
    temperature: float = 1.0,
    seed: int = 0,
) -> Rows:
    """One dict per image, table row, forecast step or sample.

    source: a path (images, csv), a prompt (language models), or a tensor x as the data gives it. samples, length (in
    symbols), temperature and seed are for sampling. Raises LayerlabError for an input that cannot be read.
    """
    spec = data.spec
    model.eval()
    if spec.task == "next_token":
        if isinstance(source, Tensor):
            raise LayerlabError("predict: a language model continues a text; give the beginning as a string")
        return _samples(model, spec, str(source), samples, length, temperature, seed)
    x, names = _inputs(data, source)
    if spec.task == "transduce":
        return _answers(model, spec, x, names)
    with torch.no_grad():
        out = torch.cat([model.answer(part) for part in x.split(256)])
    if isinstance(model.task, Classify):
        return _classes(model.task, out, names)
    if spec.task == "forecast":
        return _forecast(spec, out, names, model.task)
    mean, std = torch.tensor(spec.target_mean), torch.tensor(spec.target_std)
    values = (out.cpu() * std + mean).tolist()
    return [{"input": n} | dict(zip(spec.target, v, strict=True)) for n, v in zip(names, values, strict=True)]


def draw(model: Model, data: Any, source: Any, place: Path) -> Path:
    """A forecast with its interval, or where a decoder looked for each word, as a picture.

    Raises LayerlabError for a task that has none.
    """
    spec = data.spec
    if spec.task not in ("forecast", "transduce"):
        raise LayerlabError(f"plot: there is none for {spec.task}; forecasts and transductions have one")
    x, _ = _inputs(data, source)
    place.parent.mkdir(parents=True, exist_ok=True)
    x = x.to(model.device)
    if spec.task == "forecast":
        return figures.draw_forecast(place, model, x, spec)
    return figures.draw_alignment(place, model, x, spec)


def _inputs(data: Any, source: Any) -> tuple[Tensor, list[str]]:
    """x as the data gives it, and a name for each row."""
    if isinstance(source, Tensor):
        check_ids(data.spec, source)
        return source, [str(i) for i in range(len(source))]
    if hasattr(data, "encode_text") and not _named(source):
        return data.encode_text(source)
    return data.encode(Path(source).expanduser() if source else None)


def check_ids(spec: Any, x: Tensor) -> None:
    """Refuse ids beyond the vocabulary."""
    if spec.kind == "tokens" and x.numel() and not 0 <= int(x.min()) <= int(x.max()) < len(spec.vocabulary):
        raise LayerlabError(
            f"input: ids {int(x.min())}..{int(x.max())}, the vocabulary has {len(spec.vocabulary)}; encode with it"
        )


def _named(source: str) -> bool:
    """Whether a text is the name of a file. Raises LayerlabError where it looks like one that is not there."""
    try:
        found = Path(source).expanduser().is_file()
    except (OSError, ValueError, RuntimeError):  # too long for a name, or not one
        return False
    if not found and " " not in source and ("/" in source or source.lower().endswith((".csv", ".tsv", ".txt"))):
        raise LayerlabError(f"input={source!r}: no such file; give a text, or a file that is there")
    return found


def _answers(model: Model, spec: Any, x: Tensor, names: list[str]) -> Rows:
    said = [decode_symbols(words(ids), spec.target_vocabulary) for ids in model.generate(x).tolist()]
    return [{"input": name, "output": answer} for name, answer in zip(names, said, strict=True)]


def decode_symbols(ids: list[int], vocabulary: tuple[str, ...]) -> str:
    """Symbols of ids with blanks between them."""
    return " ".join(vocabulary[i] for i in ids)


def _classes(task: Classify, out: Tensor, names: list[str]) -> Rows:
    classes = task.spec.classes or tuple(str(i) for i in range(task.spec.out))
    found = []
    for name, p in zip(names, task.probabilities(out).tolist(), strict=True):
        if task.labels == "multilabel":
            answer = " ".join(c for c, v in zip(classes, p, strict=True) if v > 0.5)
        else:
            answer = classes[p.index(max(p))]
        found.append(
            {"input": name, "class": answer} | {f"p_{c}": round(v, 6) for c, v in zip(classes, p, strict=True)}
        )
    return found


def _forecast(spec: Any, out: Tensor, names: list[str], task: Any) -> Rows:
    at = [spec.channels.index(t) for t in spec.target]
    mean, std = (torch.tensor(v)[at] for v in (spec.mean, spec.std))
    columns = {t: out[..., k] for k, t in enumerate(spec.target)}
    if task.half_width is not None:
        for k, t in enumerate(spec.target):
            half = task.half_width[:, k]
            columns |= {f"{t}_low": out[..., k] - half, f"{t}_high": out[..., k] + half}
    scale = {f"{t}{end}": (mean[k], std[k]) for k, t in enumerate(spec.target) for end in ("", "_low", "_high")}
    values = {c: (v.cpu() * scale[c][1] + scale[c][0]).tolist() for c, v in columns.items()}  # (N, H), as in the file
    return [
        {"input": name, "step": i + 1} | {c: v[n][i] for c, v in values.items()}
        for n, name in enumerate(names)
        for i in range(spec.horizon)
    ]


def _samples(model: Model, spec: Any, prompt: str, n: int, length: int, temperature: float, seed: int) -> Rows:
    words = spec.pad is not None  # words end; a text goes on
    if words:
        start = spec.vocabulary[spec.pad] + prompt
    else:
        start = prompt or "\n" if "\n" in spec.vocabulary else prompt or spec.vocabulary[1]
    ids = torch.tensor(encode(start, spec.vocabulary, unknown=UNKNOWN in spec.vocabulary)).repeat(n, 1)
    longest = min(length, spec.steps + 20) if words else length
    if words and len(start) > spec.steps:
        raise LayerlabError(f"input={prompt!r}: longer than any word of the training data ({spec.steps - 1} letters)")
    out = sample(
        model,
        ids,
        context=spec.steps,
        length=max(longest - len(start), 1) if words else longest,
        temperature=temperature,
        stop=spec.pad,
        generator=torch.Generator().manual_seed(seed),
    )
    end = spec.vocabulary[spec.pad] if words else ""
    texts = [decode(row.tolist(), spec.vocabulary) for row in out]
    if words:
        texts = [t[1:].split(end)[0] for t in texts]
    return [{"sample": i + 1, "text": t} for i, t in enumerate(texts)]


def write_csv(found: Rows, place: Path) -> None:
    """Rows to a csv with a header."""
    place.parent.mkdir(parents=True, exist_ok=True)
    with place.open("w", newline="", encoding="utf-8") as f:
        writer = csv.DictWriter(f, fieldnames=list(found[0]))
        writer.writeheader()
        writer.writerows(found)
