"""What a new model starts from: its own pretrained weights, or stages of a finished run (`model.init_from=RUN`)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layerlab.build import suggest
from layerlab.contract import DataSpec, LayerlabError
from layerlab.models.base import Model
from layerlab.train import checkpoint
from layerlab.train.manifest import read_json

OPTIONS = ("init_from", "init_stages")  # keys of the model's node that are the run's, not the constructor's


def initialise(model: Model, config: dict[str, Any]) -> list[str]:
    """Give a new model its starting weights; what was taken, in lines for the log. Raises LayerlabError."""
    source, stages = (config["model"][name] for name in OPTIONS)
    if source is None:
        if stages != "all":
            raise LayerlabError("model.init_stages: without effect; give model.init_from=RUN too")
        return model.initialise()
    lines = model.initialise() if stages != "all" else []  # what the other stages start from
    return [*lines, _take_over(model, Path(source).expanduser(), stages)]


def _take_over(model: Model, folder: Path, wanted: str | list[str]) -> str:
    """Copy stages of the selected checkpoint of a run; a head of another size stays as it is, and is named."""
    results = read_json(folder / "results.json")
    saved = checkpoint.read(folder / results["checkpoints"][results["checkpoints"]["tested"]])
    theirs, mine, own = saved["state_dict"], model.state_dict(), _stages(model)
    stages = list(dict.fromkeys(own.values()))
    chosen = stages if wanted == "all" else [wanted] if isinstance(wanted, str) else wanted
    if unknown := [s for s in chosen if s not in stages]:
        raise LayerlabError(f"model.init_stages={unknown[0]}: no stage of the model; {suggest(unknown[0], stages)}")
    spec = DataSpec.coerce(saved["hyper_parameters"]["spec"])
    if model.spec.kind == "tokens" and spec.vocabulary != model.spec.vocabulary:
        raise LayerlabError(f"model.init_from={folder}: trained with another vocabulary; its ids mean other symbols")
    taken = {n: v for n, v in theirs.items() if own.get(n) in chosen}
    needed = {n: own[n] for n in mine if own.get(n) in chosen}
    classes = spec.classes != model.spec.classes and stages[-1] in chosen and wanted == "all"
    unfit = {s for n, s in needed.items() if n not in taken or taken[n].shape != mine[n].shape}
    if classes:
        unfit.add(stages[-1])  # its rows stand for other classes
    if unfit - {stages[-1]} or (unfit and wanted != "all"):
        name = next(n for n, s in needed.items() if n not in taken or taken[n].shape != mine[n].shape)
        there = tuple(taken[name].shape) if name in taken else "not there"
        raise LayerlabError(
            f"model.init_from={folder}: {name} is {there}, the model has {tuple(mine[name].shape)}; "
            f"give the run of the same model, or other stages in model.init_stages ({', '.join(stages)})"
        )
    model.load_state_dict(mine | {n: v for n, v in taken.items() if own[n] not in unfit})
    model.started = "run"
    left = f"; {', '.join(unfit)} answers something else there and is new" if unfit else ""
    return f"init     {len(chosen) - len(unfit)} of {len(stages)} stages from {folder}{left}"


def _stages(model: Model) -> dict[str, str]:
    """Stage of every entry of the state that belongs to one: parameters, and the buffers of its modules."""
    found = {name: stage for stage, named in model.stage_parameters().items() for name, _ in named}
    for stage, names in model.stage_modules().items():
        for name in names:
            found |= {f"{name}.{b}": stage for b, _ in model.get_submodule(name).named_buffers(recurse=False)}
    return {name: found[name] for name in model.state_dict() if name in found}
