"""A finished run as a file to deploy: ONNX or torch.export, with preprocessing and class names inside, checked."""

from __future__ import annotations

import importlib.util
import json
import logging
import tempfile
import warnings
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from layerlab.contract import DataSpec, LayerlabError
from layerlab.models.base import Model
from layerlab.tasks.classify import Classify

Format = Literal["onnx", "torch_export"]
TOLERANCE = 1e-4  # between the answers of the file and those of the run
CHECKED = 4  # examples that are compared


class Deployed(nn.Module):
    """The model as others call it: raw values in, answers in the data's own units out.

    pictures: uint8 (B, C, H, W); spectrograms, series and vectors: float, as in the data; tokens: ids. Out: logits
    (B, C) and their probabilities; forecasts and regressions in the units of the data.
    """

    mean: Tensor
    std: Tensor
    target_mean: Tensor
    target_std: Tensor

    def __init__(self, model: Model):
        super().__init__()
        self.model, self.spec = model, model.task.spec if model.task else model.spec
        spec = self.spec
        axes = (-1, 1, 1) if spec.kind == "image" else (-1,)
        self.register_buffer("mean", torch.tensor(spec.mean or (0.0,)).reshape(axes), persistent=False)
        self.register_buffer("std", torch.tensor(spec.std or (1.0,)).reshape(axes), persistent=False)
        mean, std = spec.target_mean, spec.target_std
        if spec.task == "forecast":
            at = [spec.channels.index(t) for t in spec.target]
            mean, std = ([v[i] for i in at] for v in (spec.mean, spec.std))
        self.register_buffer("target_mean", torch.tensor(mean or (0.0,)), persistent=False)
        self.register_buffer("target_std", torch.tensor(std or (1.0,)), persistent=False)

    def forward(self, x: Tensor) -> Any:
        if self.spec.kind != "tokens":
            x = x.float() / 255 if self.spec.pixels else x
            x = (x - self.mean) / self.std
        out = self.model.answer(x)
        if isinstance(self.model.task, Classify):
            return out, self.model.task.probabilities(out)
        return (out * self.target_std + self.target_mean,) if self.spec.kind != "tokens" else (out,)


def export(model: Model, data: Any, examples: Tensor, format: Format, place: Path) -> tuple[Path, float]:
    """Write a model into a folder of its own; its file, and the largest difference between its answers and the run's.

    examples: x as the data gives it, at least two. Raises LayerlabError for a model that cannot be exported, and for
    a file that answers otherwise than the model.
    """
    if model.closed_form:
        raise LayerlabError(f"export: {type(model).__name__} is solved, not a network of torch; nothing to export")
    if model.spec.task == "transduce":
        raise LayerlabError("export: a transduction writes symbol by symbol, which is a loop and no graph")
    if format == "onnx" and (missing := [p for p in ("onnx", "onnxscript", "onnxruntime") if not _installed(p)]):
        raise LayerlabError(f"export: format=onnx needs {', '.join(missing)}; pip install 'layerlab[export]'")
    deployed = Deployed(model.cpu().float()).eval()
    x = raw(examples[:CHECKED], data.spec)
    if data.spec.kind == "tokens" and data.spec.pad is not None:  # a batch of words is cut to its longest
        x = nn.functional.pad(x, (0, data.spec.steps - x.shape[1]), value=data.spec.pad)
    with torch.no_grad():
        expected = deployed(x)
    facts = _facts(model, data, expected)
    place = place.expanduser().absolute()
    if place.is_file() or (place.is_dir() and any(place.iterdir()) and not (place / "meta.json").is_file()):
        raise LayerlabError(f"output={place}: holds other things; give a folder of its own, which may be new")
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=place, prefix=".export-") as name:
        part = Path(name)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of the exporter's own parts
            file = _onnx(deployed, x, facts, part) if format == "onnx" else _torch(deployed, x, facts, part)
            found = answers(file, x)
            one = answers(file, x[:1])  # another size of batch than the one it was traced with
        pairs = [*zip(found, expected, strict=True), *zip(one, (e[:1] for e in expected), strict=True)]
        off = max(float((a - b).abs().max()) for a, b in pairs)
        off = max(off, _off_the_run(model, x, data.spec, expected[0]))
        logits = len(expected) == 2
        scale = (
            1.0 if logits else max(1.0, float(expected[0].abs().max()))
        )  # answers in units of the data have any size
        if not off <= TOLERANCE * scale:
            raise LayerlabError(f"export: the {format} file answers otherwise than the run, by {off:.2g}; not written")
        (part / "meta.json").write_text(json.dumps(facts, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
        for written in (file, part / "meta.json"):
            written.replace(place / written.name)
    return place / file.name, off


def _off_the_run(model: Model, x: Tensor, spec: DataSpec, expected: Tensor) -> float:
    """By how much what is exported answers otherwise than the run's own path does, on the raw batch x.

    The run standardises in `data`; the file does it by itself.
    """
    if not isinstance(model.task, Classify):  # those answer in units of the data
        return 0.0
    if spec.mean:
        mean, std = (torch.tensor(v) for v in (spec.mean, spec.std))
        if spec.kind == "image":
            mean, std = mean.reshape(-1, 1, 1), std.reshape(-1, 1, 1)
        x = ((x.float() / 255 if spec.pixels else x) - mean) / std
    with torch.no_grad():
        return float((model.answer(x) - expected).abs().max())


def raw(x: Tensor, spec: DataSpec) -> Tensor:
    """What a standardised batch was before: the input of the exported file."""
    if not spec.mean:
        return x
    mean, std = (
        torch.tensor(v).reshape(-1, 1, 1) if spec.kind == "image" else torch.tensor(v) for v in (spec.mean, spec.std)
    )
    x = x.cpu() * std + mean
    return (x * 255).round().clamp(0, 255).to(torch.uint8) if spec.pixels else x


def invented(spec: DataSpec) -> Tensor:
    """A standardised batch of noise, to compare answers on where the data is not at hand."""
    generator = torch.Generator().manual_seed(0)
    if spec.kind == "tokens":
        return torch.randint(len(spec.vocabulary), (CHECKED, *spec.shape), generator=generator)
    return torch.randn(CHECKED, *spec.shape, generator=generator)


def answers(file: Path, x: Tensor) -> list[Tensor]:
    """What an exported file answers to a raw batch."""
    if file.suffix == ".onnx":
        import onnxruntime

        session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
        return [torch.from_numpy(v) for v in session.run(None, {session.get_inputs()[0].name: x.numpy()})]
    program = torch.export.load(str(file))
    with torch.no_grad():
        return list(program.module()(x))


def _installed(package: str) -> bool:
    return importlib.util.find_spec(package) is not None


def _facts(model: Model, data: Any, expected: tuple[Tensor, ...]) -> dict[str, Any]:
    """What a user of the file has to know, as plain values."""
    spec = model.task.spec if model.task else model.spec
    units = "uint8 pixels" if spec.pixels else "ids of the vocabulary" if spec.kind == "tokens" else "as in the data"
    outputs = ["logits", "probabilities"] if len(expected) == 2 else ["answer"]
    facts: dict[str, Any] = {
        "task": spec.task,
        "input": {"name": "x", "shape": ["batch", *spec.shape], "values": units, "kind": spec.kind},
        "outputs": {n: ["batch", *v.shape[1:]] for n, v in zip(outputs, expected, strict=True)},
        "classes": list(spec.classes),
        "mean": list(spec.mean),
        "std": list(spec.std),
        "preprocessing": "inside: give raw values",
    }
    if spec.kind == "image":
        facts["resize"] = {
            "size": list(spec.shape[1:]),
            "fit": getattr(data, "fit", "crop"),
            "interpolation": "bicubic",
        }
    if spec.kind == "tokens":
        facts["vocabulary"] = list(spec.vocabulary)
    return facts | {"channels": list(spec.channels), "target": list(spec.target)}


def _onnx(deployed: Deployed, x: Tensor, facts: dict[str, Any], place: Path) -> Path:
    import onnx

    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    file = place / "model.onnx"
    program = torch.onnx.export(
        deployed,
        (x,),
        dynamo=True,
        dynamic_shapes=({0: torch.export.Dim("batch")},),
        input_names=["x"],
        output_names=list(facts["outputs"]),
        verbose=False,
        external_data=False,
    )
    assert program is not None
    program.save(str(file), external_data=False)
    saved = onnx.load(str(file))
    onnx.helper.set_model_props(saved, {"layerlab": json.dumps(facts, ensure_ascii=False)})
    onnx.save(saved, str(file))
    return file


def _torch(deployed: Deployed, x: Tensor, facts: dict[str, Any], place: Path) -> Path:
    file = place / "model.pt2"
    program = torch.export.export(deployed, (x,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, str(file), extra_files={"layerlab.json": json.dumps(facts, ensure_ascii=False)})
    return file
