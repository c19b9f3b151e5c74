"""A run from config to record: fit, evaluate, predict."""

from __future__ import annotations

import logging
import os
import random
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from filelock import FileLock, Timeout
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import EarlyStopping

from layerlab.build import Config, allowed_prefixes, build, locate, suggest
from layerlab.compose import Composed
from layerlab.contract import IGNORE, DataError, DataSpec, LayerlabError, Mismatch
from layerlab.models.base import Model, trainable
from layerlab.tasks.base import Task
from layerlab.train import (
    callbacks,
    checkpoint,
    figures,
    forecast,
    guards,
    initial,
    optim,
    predict,
    probe,
    resume,
    scores,
)
from layerlab.train.export import CHECKED, Format, invented
from layerlab.train.export import export as write_export
from layerlab.train.freeze import Facts, Freeze, Policy, lp_ft, none, scratch
from layerlab.train.loggers import History, close, media
from layerlab.train.loop import Plain
from layerlab.train.manifest import Record, make_folder, read_config, read_json, redact
from layerlab.train.trainer import check_devices, found_accelerator
from layerlab.train.trainer import trainer as make_trainer


@dataclass
class Run:
    """A finished run: what `layerlab.train` and `layerlab.load` return."""

    folder: Path | None
    model: Model
    data: Any
    metrics: dict[str, float] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)

    @property
    def figures(self) -> dict[str, Path]:
        """The pictures of the run by name."""
        return {p.stem: p for p in sorted(self.folder.glob("*.png"))} if self.folder else {}

    def predict(self, source: Any = "", **options: Any) -> list[dict[str, Any]]:
        """Rows for new inputs: a path to images or a csv, a text prompt, or a batch x as the data gives it."""
        return predict.rows(self.model, self.data, source, **options)

    def draw(self, source: Any, place: Path) -> Path:
        """A picture of the answers to new inputs: a forecast with its interval, or where a decoder looked."""
        return predict.draw(self.model, self.data, source, place)


class Incomplete(LayerlabError):
    """Training ended before its time, and no rule of the config had asked for it."""

    exit_code, reason = 1, "incomplete"


def fit(composed: Composed, folder: str | None = None, curves: bool = True) -> Run:
    """Train, test the selected checkpoint, and leave the record. folder: where, instead of a new one under logs/.

    curves: whether curves.png is drawn, which costs more than many a short run. With resume= in the config it goes on
    with that run, in its folder. Raises LayerlabError where the run is refused or diverges, SystemExit(128 + signal)
    where one ends it; status.json says so before anything is raised.
    """
    if folder and int(os.environ.get("SLURM_RESTART_COUNT", "0")) and (Path(folder) / "manifest.json").is_file():
        composed.config["resume"] = folder  # Slurm has started the same job again
    cut = resume.find(composed) if composed.config["resume"] else None
    if cut:
        composed = resume.adopted(composed, cut)
        if (cut / "status.json").is_file() and read_json(cut / "status.json")["status"] == "ok":
            print(f"resume: {cut} has finished; nothing to do")
            return load(cut)
    return _recorded(composed, folder, cut, curves)


def _recorded(composed: Composed, folder: str | None, cut: Path | None, curves: bool = True) -> Run:
    """A run with its record. cut: the folder of the run that it goes on with."""
    config = composed.config
    light = config["record"] == "light"
    if light:
        _check_light(config)
    place = (cut or make_folder(composed, folder)) if _rank() == 0 else None
    record = Record(None if light else place, composed, place if light else None)
    record.curves = curves
    lock = FileLock(place / ".lock" if place and not light else os.devnull)
    try:
        if place and not light:
            lock.acquire(timeout=0)
    except Timeout as e:
        raise LayerlabError(f"resume={place}: still running; wait for it, or end it first") from e
    if cut:
        record.resume()
    else:
        record.begin()
    opened: list[Any] = []
    signals, ok = guards.Signals(), False
    try:
        with signals.installed(), checkpoint.in_memory() if light else nullcontext():
            if _two_runs(config):
                config["model"] |= {"init_from": str(_probe_first(composed, record)), "init_stages": "all"}
                record.configure()
            run = _fit(config, record, opened, signals, cut)
        ok = True
    except LayerlabError as e:
        record.curve(_kept(opened))
        record.status("failed", e.reason, str(e))
        if _rank():
            e.args = (f"rank {_rank()}: {e}",)
        raise
    except MisconfigurationException as e:  # what Lightning refuses before or while it sets a run up
        refusal = LayerlabError(f"trainer: {' '.join(str(e).split())}")
        record.status("failed", "refused", str(refusal))
        raise refusal from e
    except (KeyboardInterrupt, SystemExit) as e:
        ended = isinstance(e, SystemExit) and not signals.name  # something in the run called sys.exit
        record.status(*("failed", "exit") if ended else ("preempted", signals.name or "interrupted"), _said(e))
        raise
    except BaseException as e:
        record.status("failed", "exception", f"{type(e).__name__}: {e}")
        if _rank():
            print(f"rank {_rank()}: {type(e).__name__}: {e}", file=sys.stderr, flush=True)
        raise
    finally:
        close(opened, failed=not ok)
        lock.release()
    record.status("ok")
    if light and run.results.get("steps"):
        print(_table(run.results, record.row))
    return run


def _said(e: BaseException) -> str:
    return f"ended by sys.exit({e.code})" if isinstance(e, SystemExit) else type(e).__name__


def _check_light(config: Config) -> None:
    """Refuse what a run that leaves one row cannot keep."""
    asked = {
        "resume": config["resume"],
        "figures": config["figures"],
        "trainer.profiler": config["trainer"].get("profiler"),
    }
    asked |= {f"logger={k}": config["logger"].get(k) for k in ("wandb", "tensorboard")}
    for name, value in asked.items():
        if value:
            raise LayerlabError(f"{name}: record=light leaves one row and nothing else; use record=full")
    if _two_runs(config):
        raise LayerlabError("freeze=lp_ft: is two runs, the second starts from a file of the first; use record=full")


def _two_runs(config: Config) -> bool:
    """Whether a run of its own trains the head first (freeze=lp_ft)."""
    two = config["freeze"]["_target_"] == f"{lp_ft.__module__}.{lp_ft.__name__}" and config["freeze"]["phase"] == "both"
    return two and not (config["check_only"] or config["plan_only"])


def _probe_first(composed: Composed, record: Record) -> Path:
    """The linear probe from whose weights this run starts, in its folder `probe`; one that has finished is kept."""
    if composed.config["trainer"].get("devices", 1) != 1:
        raise LayerlabError(
            "freeze=lp_ft: two runs, each with its own processes; start freeze.phase=probe, then freeze.phase=finetune "
            "model.init_from=RUN of the first"
        )
    assert record.folder
    place = record.folder / "probe"
    if not (place / "status.json").is_file() or read_json(place / "status.json")["status"] != "ok":
        config = deepcopy(composed.config)
        config["freeze"]["phase"] = "probe"
        config["trainer"]["max_epochs"] = "auto"
        begun = (place / "manifest.json").is_file()
        _recorded(replace(composed, config=config), str(place), place if begun else None)
    composed.config["freeze"]["phase"] = "finetune"
    return place


def _rank() -> int:
    return int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", "0")))


def _fit(config: Config, record: Record, opened: list[Any], signals: guards.Signals, cut: Path | None) -> Run:
    _quiet()
    folder, light = record.folder, record.row is not None
    if config["trainer"]["_target_"] == f"{Plain.__module__}.{Plain.__name__}":
        _check_plain(config)
    wanted = {k: config["trainer"].get(k, v) for k, v in (("devices", 1), ("strategy", "auto"))}
    check_devices(found_accelerator(config["trainer"].get("accelerator", "auto")), **wanted)
    if cut:
        resume.exact(config)
    seed_everything(config["seed"])
    if config["freeze"]["_target_"] == f"{scratch.__module__}.{scratch.__name__}" and "weights" in config["model"]:
        typed = any(o.startswith("model.weights=") for o in record.composed.overrides)
        config["model"]["weights"] = config["model"]["weights"] if typed else None  # typed: the strategy refuses it
    data, task, model = assemble(config)
    if folder and data.notes:
        (folder / "data.txt").write_text("\n".join(data.notes) + "\n", encoding="utf-8")
    make = partial(build, allowed=allowed_prefixes(config))
    say = print if folder else _say_nothing
    for line in initial.initialise(model, config):
        say(line)
    policy, frozen, lr = _strategy(config, model, data, record.composed.choices, make, say)
    if config["plan_only"]:
        return Run(folder, model, data)
    if config["data"].get("path") and not cut and not _rank() and (same := data.shared_with_training()):
        first = ", ".join(map(str, same[:3]))
        sizes = f"{len(same)} of {len(data.splits['test'])} test examples"
        print(f"data     {sizes} equal a training example ({first} ...): the result may flatter", file=sys.stderr)
    fingerprint = data.fingerprint()
    if cut:
        resume.check_data(read_json(cut / "manifest.json"), fingerprint)
    elif folder:
        resume.warn_of_other_data(folder, record.hash, fingerprint)
    record.add(
        data={
            "name": data.spec.name,
            "fingerprint": fingerprint,
            "examples": {k: len(v) for k, v in data.splits.items()},
        },
        init={"from": config["model"]["init_from"], "stages": config["model"]["init_stages"]},
        preprocess=model.preprocessing,
        freeze={"policy": policy.name, "lr": lr, "epochs": config["trainer"]["max_epochs"]},
        parameters=trainable(model.parameters()),
    )
    data.augment = _augment(config, data.spec, make)
    place = (folder or Path(os.devnull)) / "checkpoints"
    saver = checkpoint.Checkpoints(place, task.monitor, task.mode, writes=light or folder is not None)
    probed = policy.probe and frozen.head_only and probe.fits(model)
    if model.started == "pretrained" and not policy.probe:
        say(f"cache    not used: freeze={policy.name} trains the backbone")
    if policy.probe and not probed:
        say(f"cache    not used: {type(model).__name__} for {model.spec.task} is not a head on one vector of features")
    saver.run = {"config_hash": record.hash, "data": fingerprint, "versions": record.facts.get("versions")}
    if folder:
        checkpoint.refuse_full_disk(model, folder)
    hooks = [
        callbacks.SameConfig(record.hash),
        *_hooks(config, task, policy, None if frozen.trivial or probed else frozen, make),
    ]
    if probed:
        hooks.append(callbacks.ProbeFigures(len(model.stage_parameters()) - 1))
    pruning = callbacks.Pruning(config["sweep"]["trial"], task.monitor) if config["sweep"]["trial"] else None
    hooks += [pruning] if pruning else []
    signals.saver, signals.finite = saver, guards.Finite(saver)
    hooks += [signals.finite, saver, signals]  # at the end: what is saved holds what the others found
    start = resume.newest(cut, main=folder is not None) if cut else None
    saver.last = start
    name = record.composed.name
    if folder:
        rows = checkpoint.read(start)["callbacks"]["Checkpoints"]["rows"] if start else None
        known: dict[str, Any] = {"keep": rows, "run_id": record.facts.get("wandb_id")}
        opened += make(config["logger"], folder=folder, name=name, config=redact(config), **known)
    elif light:
        opened.append(History())
    bar = callbacks.progress(config["progress"])
    made = make(config["trainer"], folder=folder, callbacks=hooks + ([bar] if bar else []), loggers=opened)
    plain = made if isinstance(made, Plain) else None
    trainer: Trainer = plain.lightning if plain else made
    if cut and folder:
        resume.check_devices(record.facts, trainer.world_size)
        say(f"resume   {cut}, " + (f"from {start.name}" if start else "from the beginning: it has no checkpoint yet"))
    record.add(
        wandb_id=next((str(x.version) for x in opened if type(x).__name__ == "WandbLogger"), None),
        device=str(trainer.strategy.root_device),
        devices=trainer.world_size,
        precision=str(trainer.precision),
        threads=torch.get_num_threads(),
        deterministic=config["trainer"].get("deterministic", False),
    )
    if probed and str(trainer.precision) in ("bf16-true", "64-true"):
        raise LayerlabError(
            f"trainer.precision={trainer.precision}: a linear probe trains in 32 bits; use 32 or bf16-mixed"
        )
    check_batch(model, data)
    _check_names(config, task)
    batches = -(-len(data.splits["train"]) // (data.batch_size * trainer.world_size))
    if (interval := config["trainer"].get("val_check_interval", 1.0)) > max(batches, 1):
        raise LayerlabError(
            f"trainer.val_check_interval={interval}: an epoch has {batches} batches; give a share below 1"
        )
    pictures = figures.chosen(config["figures"], model)
    if config["check_only"]:
        recipe = optim.Recipe(partial(make, config["optimizer"]), partial(make, config["schedule"]), frozen, lr)
        cached = probed and probe.why_not(policy, config["augment"]) is None
        device = trainer.strategy.root_device
        expected = forecast.forecast(model, data, recipe, device, config["trainer"], cached)
        record.write("forecast.json", expected.facts())
        print(_plan(model, data, trainer, folder, str(expected)))
        if folder and "examples" in pictures:
            print(f"check  drawn: {pictures['examples'].draw(folder, model, data)}")
        return Run(folder, model, data)

    if config["measure_only"]:
        return _measured(config, record, model, data, task, make)
    began, cpu = time.time(), time.process_time()
    learner, source = model, data  # what is trained, on what: with a frozen backbone the head alone, on its features
    if probed:
        learner, source, lines = probe.probe(model, data, policy, config["augment"], trainer.strategy.root_device)
        frozen = Freeze(none(Facts(("head",), ("head",), "run")), learner, config["trainer"]["max_epochs"])
        for line in lines:
            say(line)
    learner.recipe = optim.Recipe(partial(make, config["optimizer"]), partial(make, config["schedule"]), frozen, lr)
    steps = epochs = 0
    if model.closed_form:
        _solve(model, data, task, trainer, saver)
    elif plain:
        done = plain.fit(learner, task, source, learner.recipe, saver, config["seed"], policy.patience)
        steps, epochs = done.steps, done.number
    else:
        _train(learner, source, trainer, start)
        steps, epochs = trainer.global_step, trainer.current_epoch
        if steps < (planned := int(trainer.estimated_stepping_batches)) and not trainer.should_stop:
            raise Incomplete(f"run: {steps} of {planned} planned steps trained; resume={folder} goes on")
    seconds, cpu_seconds = time.time() - began, time.process_time() - cpu
    chosen = trainer.strategy.broadcast(saver.best if config["select"] == "best" else saver.last)
    assert chosen is not None  # on_train_end has saved one
    saved = {"best": saver.best, "last": saver.last}
    validated = saver.validated.get(chosen, {})
    if isinstance(learner, probe.Probe):
        if trainer.is_global_zero:
            whole = partial(
                probe.complete, learner, source, model=model, data=data, device=trainer.strategy.root_device
            )
            saved = {which: whole(path) for which, path in saved.items() if path}
        saved = trainer.strategy.broadcast(saved)
        chosen = saved[config["select"]] or chosen
    model.load_state_dict(checkpoint.read(chosen)["state_dict"])
    _calibrate(model, task, data, trainer, record, str(_relative(chosen, folder)))
    metrics = trainer.test(model, datamodule=data, verbose=False)[0]
    model.eval()  # what answers from here on is a finished model
    if any(p.dtype != torch.float32 for p in model.parameters()):
        model.float()  # bf16-true and 64-true; new inputs come as float32
    results = {
        "metrics": {k: float(v) for k, v in {**validated, **metrics}.items()} | _measures(config, model, data, make),
        "monitor": task.monitor,
        "mode": task.mode,
        "checkpoints": {which: _relative(path, folder) for which, path in saved.items()} | {"tested": config["select"]},
        "steps": steps,
        "epochs": epochs,
        "images_seen" if data.spec.kind == "image" else "examples_seen": len(data.splits["train"]) * max(epochs, 1),
        "scored": len(data.splits["test"]),
        "parameters": trainable(model.parameters()),
        "pruned": bool(pruning and pruning.pruned),
        **_costs(record, seconds, cpu_seconds),
    }
    _write(results, record, model, data, trainer, pictures)
    return Run(folder, model, data, results["metrics"], results)


def _costs(record: Record, fit_s: float, fit_cpu_s: float) -> dict[str, dict[str, float]]:
    """Wall and CPU seconds of training, of the run, and of its process."""
    return {
        "seconds": {"fit": round(fit_s, 3), "total": round(time.time() - record.started, 3)},
        "cpu_seconds": {
            "fit": round(fit_cpu_s, 3),
            "run": round(time.process_time() - record.cpu_started, 3),
            "total": round(time.process_time(), 3),
        },
    }


def _measures(config: Config, model: Model, data: Any, make: Any) -> dict[str, float]:
    """What the measures of a claim find in the model: <measure>.<name> -> number."""
    # a measure may change the model: each gets its own
    found = {name: make(node, deepcopy(model), data) for name, node in config["measures"].items()}
    return {f"{name}.{key}": float(value) for name, values in found.items() for key, value in values.items()}


def _measured(config: Config, record: Record, model: Model, data: Any, task: Task, make: Any) -> Run:
    """A run that trains nothing: its measures of the model as it starts."""
    results = {
        "metrics": _measures(config, model, data, make),
        "monitor": task.monitor,
        "mode": task.mode,
        "parameters": trainable(model.parameters()),
        **_costs(record, 0.0, 0.0),
    }
    record.results(results)
    return Run(record.folder, model, data, results["metrics"], results)


def _write(
    results: dict[str, Any],
    record: Record,
    model: Any,
    data: Any,
    trainer: Trainer,
    pictures: dict[str, figures.Picture],
) -> None:
    """Leave results.json, per_class.csv and the pictures, and print the closing lines."""
    folder = record.folder
    if scores.apply(model) and model.outputs[1].numel():
        found = scores.counts(model)
        results["intervals"] = {f"test/{name}": v for name, v in scores.intervals(found).items()}
        results["majority"] = scores.majority(found)
        if folder:
            scores.per_class(found, model.task.spec.classes, folder / "per_class.csv")
    record.curve(_kept(trainer.loggers))
    record.results(results)
    if folder:
        for logger in trainer.loggers:
            logger.save()
        if record.curves:
            figures.curves(folder, f"{record.composed.name}, seed {record.composed.config['seed']}")
        for picture in pictures.values():
            picture.draw(folder, model, data)
        media(trainer.loggers, folder)
        print(_table(results, folder))
        if format := record.composed.config["export"]:
            file, off = write_export(model, data, _first_of_test(data), format, folder / "export" / format)
            print(f"export   {file}, answers differ from those of the run by {off:.1e} at most")


def _kept(loggers: list[Any]) -> list[dict[str, float]] | None:
    """What was logged by step, where a logger keeps it in memory."""
    return next((x.rows for x in loggers if isinstance(x, History)), None)


def _strategy(
    config: Config, model: Model, data: Any, choices: dict[str, Any], make: Any, say: Callable[[str], None]
) -> tuple[Policy, Freeze, float | None]:
    """The freeze strategy of a run, applied to its model, and the lr; fills in what `auto` means by it, and says it."""
    policy = make(config["freeze"], _facts(model, data, config))
    if model.closed_form and choices.get("freeze", "auto") != "auto":
        raise LayerlabError(f"freeze={policy.name}: {type(model).__name__} is solved, not trained; leave freeze=auto")
    if config["trainer"]["max_epochs"] == "auto":
        config["trainer"]["max_epochs"] = policy.epochs
    lr = config["optimizer"].get("lr")
    first = policy.before.lr if policy.before and lr == "auto" else lr
    if lr == "auto":
        lr = config["optimizer"]["lr"] = policy.lr
    frozen = Freeze(policy, model, config["trainer"]["max_epochs"])
    frozen.begin()
    if config["plan_only"] and policy.before:
        say(Freeze(policy.before, model, policy.before.epochs).table(first))
    if config["plan_only"] or not frozen.trivial:
        say(frozen.table(lr))
    if closed := frozen.never():
        say(f"freeze   {', '.join(closed)} never train: the run is shorter than the strategy")
    return policy, frozen, lr


def _hooks(config: Config, task: Task, policy: Policy, frozen: Freeze | None, make: Any) -> Iterator[Callback]:
    """What happens between the steps, in the order in which it has to. frozen: a strategy that is applied by epochs."""
    yield callbacks.Keyed(config["seed"])
    yield from (make(c) for c in config["callbacks"].values())
    if policy.patience and "early_stopping" not in config["callbacks"]:
        yield EarlyStopping(task.monitor, mode=task.mode, patience=policy.patience, check_on_train_epoch_end=False)
    if frozen:
        yield callbacks.Freezing(frozen)
    if monitor := config["schedule"].get("monitor"):
        yield callbacks.Plateau(monitor)


def _facts(model: Model, data: Any, config: Config) -> Facts:
    """What a freeze strategy may know of this run."""
    return Facts(
        stages=tuple(model.stage_parameters()),
        layers=tuple(model.stage_parameters(fine=True)),
        started=model.started,
        batch_size=data.batch_size,
        pixels=data.spec.shape[-1] if data.spec.kind == "image" else 0,
    )


def _say_nothing(line: str) -> None:
    """Ranks other than 0 print nothing."""


def _calibrate(model: Model, task: Task, data: Any, trainer: Trainer, record: Record, chosen: str) -> None:
    """Fit to val what the task says of the errors of the finished model, over the batches that validation read."""
    model.eval()
    device, plugin = trainer.strategy.root_device, trainer.precision_plugin
    model.to(device)
    batches = islice(data.batches("val"), int(sum(trainer.num_val_batches)) or None)
    with torch.no_grad(), plugin.forward_context():
        found = task.calibrate((model.answer(plugin.convert_input(x.to(device))), y.to(device)) for x, y in batches)
    if found:
        record.write("calibration.json", {"checkpoint": chosen} | found)
    elif share := task.options.get("interval"):
        print(f"task.interval={share}: val has too few windows for it; forecasts carry no interval", file=sys.stderr)


def _augment(config: Config, spec: DataSpec, make: Any) -> list[Any]:
    """The changes of the training batches. Raises Mismatch where the data is not of images with a class each."""
    chosen = config["augment"]
    if chosen and spec.kind != "image":
        raise Mismatch(f"augment={next(iter(chosen))}: changes images, but data={spec.name} gives {spec.kind}")
    if {"mixup", "cutmix"} <= set(chosen):
        raise Mismatch("augment=[mixup,cutmix]: both turn labels into shares; take one of them")
    for name in set(chosen) & {"mixup", "cutmix"}:
        if spec.task != "classify" or config["task"].get("labels", "multiclass") != "multiclass":
            raise Mismatch(f"augment={name}: mixes classes; it needs task=classify with task.labels=multiclass")
    return [make(node, spec) for node in chosen.values()]


def _train(model: Model, data: Any, trainer: Trainer, start: Path | None = None) -> None:
    """Train, from a checkpoint where one is given."""
    trainer.fit(model, datamodule=data, ckpt_path=start)


def _solve(model: Model, data: Any, task: Task, trainer: Trainer, saver: checkpoint.Checkpoints) -> None:
    """What fit is to a trained model: solved, validated, saved."""
    published = ("train", "val") if data.carved else ("train",)
    train = (task.core_batch(*b) for split in published for b in data.batches(split))
    val = (task.core_batch(*b) for b in data.batches("val"))
    with torch.no_grad():
        model.solve(train, val)
    trainer.validate(model, datamodule=data, verbose=False)
    saver.save(trainer)


def assemble(config: Config) -> tuple[Any, Task, Model]:
    """Data, task and model of a config, fitted to each other; the weights drawn with the seed of the config."""
    make = partial(build, allowed=allowed_prefixes(config))
    architecture = locate(config["model"]["_target_"], allowed_prefixes(config))
    architecture.refuse(config["model"])
    data = make(config["data"])
    data.seed = config["seed"]
    data.prepare_data()
    task = make(config["task"], data.spec)
    if architecture.raw_window:
        task = task.raw_window()
    seed_everything(config["seed"])  # again: what loading drew must not move the weights
    try:
        model = make({k: v for k, v in config["model"].items() if k not in initial.OPTIONS}, task.model_spec)
    except ValueError as e:
        raise Mismatch(str(e)) from e
    model.task = task
    model.stage_parameters()  # every parameter in one stage, or a refusal
    return data, task, model


def seed_everything(seed: int) -> None:
    """Seed Python, NumPy and torch; 0 is a seed like any other."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def check_batch(model: Model, data: Any) -> None:
    """Compare the first batch of every split with the spec, and the model's answer with the task. Raises Mismatch."""
    spec = data.spec
    for name, split in data.splits.items():
        x, y = split.read(torch.arange(min(2, len(split))), None)
        where = f"data={spec.name}, first batch of {name}"
        dtype = torch.int64 if spec.kind == "tokens" else torch.float32
        fits = x.shape[2:] == spec.shape[1:] and x.shape[1] <= spec.shape[0]  # a batch of words is cut to its longest
        if not fits or (spec.kind != "tokens" and x.shape[1] != spec.shape[0]):
            raise Mismatch(f"{where}: x has shape {tuple(x.shape[1:])}, the spec says {spec.shape}")
        if x.dtype != dtype:
            raise Mismatch(f"{where}: x is {x.dtype}, expected {dtype}")
        if spec.kind != "tokens" and not torch.isfinite(x).all():
            raise Mismatch(f"{where}: x holds values that are not finite; clean the data")
        _check_labels(spec, name, getattr(split, "y", y))
    if model.closed_form:  # it has no answer before it is solved
        return
    x, y = data.splits["train"].read(torch.arange(min(2, len(data.splits["train"]))), None)
    was = model.training
    model.eval()
    with torch.no_grad():
        model.step((x, y))
    model.train(was)


def _check_labels(spec: DataSpec, part: str, y: torch.Tensor) -> None:
    """Refuse class ids beyond the outputs, and tell of outputs that no example of train has. y: of the whole split."""
    if y.dtype != torch.int64 or not (real := y[y != IGNORE]).numel():
        return
    low, high = int(real.min()), int(real.max())
    if not 0 <= low <= high < spec.out:
        raise Mismatch(
            f"data={spec.name}, {part}: labels {low}..{high} need {high + 1} outputs, the model has {spec.out}; "
            f"mend the labels, or the classes that the data names"
        )
    if part == "train" and spec.task == "classify" and spec.out <= 1000 and len(spec.target) < 2:
        empty = sorted(set(range(spec.out)) - set(real.unique().tolist()))
        if empty:
            named = [spec.classes[i] if spec.classes else str(i) for i in empty]
            print(
                f"data={spec.name}: the model has {spec.out} outputs, train has no example of {', '.join(named[:5])}",
                file=sys.stderr,
            )


def _check_plain(config: Config) -> None:
    """Refuse what the plain loop does not do, by name."""
    beyond = {"callbacks": config["callbacks"], "resume": config["resume"]} | {
        f"logger={k}": config["logger"].get(k) for k in ("wandb", "tensorboard")
    }
    for name, value in beyond.items():
        if value:
            what = f"callbacks ({', '.join(value)})" if name == "callbacks" else name
            raise LayerlabError(f"trainer=plain: the plain loop takes no {what}; leave it out, or use trainer=default")


def _check_names(config: Config, task: Task) -> None:
    """Refuse a monitored figure that is never logged, before the first batch instead of after the first epoch."""
    logged = [f"{split}/{name}" for split in ("val", "train") for name in task.figures()]
    named = {"schedule.monitor": config["schedule"].get("monitor"), "objective": config["objective"]}
    named |= {f"callbacks.{k}.monitor": v.get("monitor") for k, v in config["callbacks"].items()}
    for key, name in named.items():
        if name and name not in logged and not (key == "objective" and name.startswith("test/")):
            raise LayerlabError(f"{key}={name}: never logged by task={task.name}; {suggest(name, logged)}")
    if str(named["schedule.monitor"]).startswith("train/"):
        raise LayerlabError("schedule.monitor: follows validation; give one of its figures, such as val/loss")
    if named["schedule.monitor"] and config["trainer"].get("check_val_every_n_epoch", 1) > 1:
        raise LayerlabError(
            "schedule.monitor: needs a validation in every epoch; set trainer.check_val_every_n_epoch=1"
        )


def _relative(path: Path | None, folder: Path | None) -> str | None:
    return str(path.relative_to(folder)) if path and folder else None


def _plan(model: Model, data: Any, trainer: Trainer, folder: Path | None, forecast: str) -> str:
    sizes = ", ".join(f"{k} {len(v):,}" for k, v in data.splits.items())
    device = trainer.strategy.root_device
    return (
        f"check  data {data.spec.name}: {sizes}; x {data.spec.kind} {data.spec.shape}, out {model.spec.out}\n"
        f"check  model {type(model).__name__}: {trainable(model.parameters()):,} parameters on {device}\n"
        f"check  {forecast}\n"
        f"check  one batch went through; nothing was trained, {folder} holds the manifest"
    )


def _table(results: dict[str, Any], folder: Path | None) -> str:
    """The closing lines of a run: what came out, what it cost, where it lies."""
    m = results["metrics"]
    names = sorted({k.split("/", 1)[1] for k in m if "/" in k})
    head = f"{'':8}" + "".join(f"{n:>13}" for n in names)
    rows = [
        f"{split:8}" + "".join(f"{m[f'{split}/{n}']:>13.4f}" if f"{split}/{n}" in m else f"{'':>13}" for n in names)
        for split in ("val", "test")
        if any(k.startswith(f"{split}/") for k in m)
    ]
    cost = (
        f"{results['steps']:,} steps, {results['parameters']:,} parameters, "
        f"{results['cpu_seconds']['fit']:.1f} CPU s training, {results['cpu_seconds']['total']:.1f} in all"
    )
    place = folder.relative_to(Path.cwd()) if folder and folder.is_relative_to(Path.cwd()) else folder
    said = [scores.line(results)] if "intervals" in results else []
    return "\n".join(["", head, *rows, "", *said, cost, f"run      {place}"])


def _quiet() -> None:
    for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # our loaders are iterables over tensors; Lightning's advice on workers and samplers is for others
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*number of training batches.*smaller than the logging interval.*")
    # every rank evaluates the whole split (data/base.py): there is nothing to synchronise
    warnings.filterwarnings("ignore", message="It is recommended to use .*sync_dist=True.*")
    warnings.filterwarnings("ignore", message="Experiment logs directory .* exists and is not empty.*")
    warnings.filterwarnings("ignore", message=".*isinstance.treespec, LeafSpec.. is deprecated.*")  # Lightning's own
    warnings.filterwarnings("ignore", message="GPU available but not used.*")  # trainer=cpu was asked for
    # torch compacts the weights of recurrent layers in 16 and 32 bits, not in bfloat16
    warnings.filterwarnings("ignore", message="RNN module weights are not part of single contiguous chunk.*")
    # Lightning wraps a model for DDP in a stream of its own
    warnings.filterwarnings("ignore", message="The AccumulateGrad node's stream does not match.*")


# --- finished runs


def load(folder: str | Path, which: str = "best") -> Run:
    """A finished run, its model and its data as fitted then, from the run's own files.

    which: best | last, or the name of a file in checkpoints/. Raises LayerlabError.
    """
    place = Path(folder).expanduser()
    config, results = read_config(place), read_json(place / "results.json")
    if Path(which).name != which:
        raise LayerlabError(f"checkpoint={which}: give best, last, or the name of a file in checkpoints/")
    file = results.get("checkpoints", {}).get(which) or f"checkpoints/{which}"
    saved = checkpoint.read(place / file)
    if config["data"]["_target_"].rsplit(".", 1)[-1] not in saved:
        raise LayerlabError(f"{place / file}: belongs to another run than config.yaml; give the folder of one run")
    allowed = allowed_prefixes(config)
    data = build(config["data"], allowed=allowed)
    data.seed = config["seed"]
    data.load_state_dict(saved[type(data).__qualname__])
    cls = locate(config["model"]["_target_"], allowed)
    options = {k: v for k, v in saved["hyper_parameters"].items() if k != "spec"}
    model = cls(DataSpec.coerce(saved["hyper_parameters"]["spec"]), **options)
    model.on_load_checkpoint(saved)
    model.task = model.task or build(config["task"], DataSpec.coerce(saved["task"]["spec"]), allowed=allowed)
    model.load_state_dict(saved["state_dict"])
    calibration = read_json(place / "calibration.json") if (place / "calibration.json").is_file() else {}
    if calibration.get("checkpoint") == file:  # that of another checkpoint says nothing of this one
        model.task.restore_calibration(calibration)
    model.eval()
    torch.set_num_threads(config["trainer"]["threads"])
    return Run(place, model, data, results.get("metrics", {}), results)


def evaluate(
    folder: str, node: Config | None = None, which: str = "best", split: Literal["train", "val", "test"] = "test"
) -> dict[str, float]:
    """Metrics of a run's checkpoint on a split of its own data, or of the data that `node` builds; kept in eval.json.

    Those of other data carry its name: test/<data>/acc.

    Other data is read with the scaler, vocabulary and encoding that the run was trained with. Raises LayerlabError.
    """
    _quiet()
    place = Path(folder).expanduser()
    run = load(place, which)
    config = read_config(place)
    data = build(node or config["data"], allowed=allowed_prefixes(config))
    data.seed = config["seed"]
    if node:
        spec, name = run.data.spec, node["_target_"].rsplit(".", 1)[-1]
        if type(data).kind != spec.kind or spec.task not in type(data).tasks:
            raise Mismatch(
                f"data: {name} gives {type(data).kind} for {', '.join(type(data).tasks)}, the run was trained with "
                f"{spec.kind} for {spec.task}; give data of the same form"
            )
        for key in ("split_seed", *type(data).encoding):
            if key in node and node[key] != config["data"].get(key, node[key]):
                why = "would put training rows into the test part" if key == "split_seed" else "the run reads it as "
                why += "" if key == "split_seed" else str(config["data"][key])
                raise Mismatch(f"data.{key}={node[key]}: {why}; start a new run")
        data.take_over(run.data.state_dict())
    mine, theirs = run.data.spec, data.spec
    for fact in ("kind", "task", "shape", "out", "classes", "vocabulary", "channels", "target", "mean", "std"):
        if (a := getattr(mine, fact)) != (b := getattr(theirs, fact)):
            raise Mismatch(
                f"data: {fact} is {_short(b)}, the run was trained with {_short(a)}; give data of the same form"
            )
    keys = ("accelerator", "precision", "threads", "limit_test_batches")
    options = {k: config["trainer"][k] for k in keys if k in config["trainer"]}
    trainer = make_trainer(folder=None, callbacks=[], loggers=[], **options)
    found = trainer.test(run.model, dataloaders=data.batches(split), verbose=False)[0]
    part = f"{split}/{theirs.name}/" if node else f"{split}/"
    metrics = {name.replace("test/", part): value for name, value in found.items()}
    result: dict[str, Any] = {"checkpoint": which, "split": split, "data": node or config["data"], "metrics": metrics}
    if scores.apply(run.model) and run.model.outputs[1].numel():
        found = scores.counts(run.model)
        result |= {"intervals": {f"{part}{n}": v for n, v in scores.intervals(found).items()}}
        result |= {"majority": scores.majority(found)}
    Record(place, Composed(config, {})).write("eval.json", result)
    return metrics


def export(folder: str, format: Format = "onnx", output: str | None = None, which: str = "best") -> tuple[Path, float]:
    """A run's checkpoint as a file to deploy, and by how much its answers differ from the run's. Raises LayerlabError.

    output: the folder it is written into, by default export/<format> of the run.
    """
    _quiet()
    run = load(folder, which)
    place = Path(output).expanduser() if output else Path(folder).expanduser() / "export" / format
    config = read_config(Path(folder).expanduser())
    data = build(config["data"], allowed=allowed_prefixes(config))
    data.take_over(run.data.state_dict())
    try:
        x = _first_of_test(data)
    except DataError as e:  # the photos may lie elsewhere by now
        print(f"export   answers are compared on noise, for the data cannot be read ({e})", file=sys.stderr)
        x = invented(run.data.spec)
    return write_export(run.model, run.data, x, format, place)


def _first_of_test(data: Any) -> torch.Tensor:
    """The x on which an exported file is compared with the run."""
    split = data.splits["test"]
    return split.read(torch.arange(min(CHECKED, len(split))), None)[0]


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) < 60 else text[:57] + "..."
