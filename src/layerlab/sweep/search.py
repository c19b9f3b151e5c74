"""A search instead of a grid: Optuna asks, jobs run as in any sweep, their objective is told."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import optuna
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, IntervalSweep, Override, RangeSweep
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn
from omegaconf import DictConfig, open_dict
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    distribution_to_json,
)
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import Trial, TrialState

from layerlab.build import ConfigError
from layerlab.compose import Composer
from layerlab.contract import LayerlabError
from layerlab.signature import read_target
from layerlab.sweep import engine
from layerlab.sweep import figure as pictures
from layerlab.sweep.launch import jobs_at_once
from layerlab.sweep.ledger import read_jobs

STUDY = "study.log"
SAMPLERS = {"tpe": optuna.samplers.TPESampler, "random": optuna.samplers.RandomSampler}


def search(
    context: Any, task: Any, config: DictConfig, arguments: list[str], trials: int, sampler: str, prune: bool
) -> list[JobReturn]:
    """Run so many trials, those of an earlier start of the same command among them; then the table, as of any sweep.

    Raises ConfigError for a space that cannot be searched, LayerlabError where the folder holds a study of another.
    """
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(arguments)
    space = {o.get_key_element(): distribution(o) for o in overrides if o.is_sweep_override()}
    if not space:
        raise ConfigError("hydra/sweeper=optuna: nothing to search; give a key several values or interval(low, high)")
    fixed = [f"{o.get_key_element()}={o.get_value_element_as_str()}" for o in overrides if not o.is_sweep_override()]
    first = Composer(context.config_loader, "train")([*fixed, *_typed({k: _any(d) for k, d in space.items()})])
    folder = engine.folder(config, fixed, list(space))
    with open_dict(config):
        config.hydra.sweep.dir = str(folder)
    study = _study(folder, space, _more(first.config), sampler, prune)
    launcher: Any = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    launcher.varied = list(space)
    returns: list[JobReturn] = []
    while (left := trials - _finished(study)) > 0:
        asked = [study.ask(space) for _ in range(min(left, jobs_at_once(config.sweep.jobs, first.config)))]
        jobs = [[*fixed, *_typed(t.params)] for t in asked]
        if prune:
            jobs = [[*job, f"sweep.trial={folder / STUDY}:{t._trial_id}"] for job, t in zip(jobs, asked, strict=True)]
        batch = launcher.launch(jobs, initial_job_idx=asked[0].number)
        _tell(study, asked, batch, folder)
        returns += batch
    _leave(study, folder, fixed)
    planned = [_typed(t.params) for t in study.trials]
    engine.finish(folder, None, [job for job in read_jobs(folder) if job.overrides in planned], config.logger)
    return returns


def distribution(override: Override) -> BaseDistribution:
    """Where a swept value lies: choice(...), range(a, b, step), interval(a, b), tag(log, interval(a, b)).

    Raises ConfigError.
    """
    value = override.value()
    if isinstance(value, IntervalSweep):
        assert value.start is not None
        assert value.end is not None
        if isinstance(value.start, int) and isinstance(value.end, int):
            return IntDistribution(value.start, value.end, log="log" in value.tags)
        return FloatDistribution(float(value.start), float(value.end), log="log" in value.tags)
    if isinstance(value, RangeSweep) and all(isinstance(v, int) for v in (value.start, value.stop, value.step)):
        values: list[Any] = list(override.sweep_iterator())
        return IntDistribution(min(values), max(values), step=abs(int(value.step)))
    if isinstance(value, ChoiceSweep | RangeSweep):
        return CategoricalDistribution([str(v) for v in override.sweep_string_iterator()])
    raise ConfigError(f"{override.input_line}: cannot be searched; give several values, range(...) or interval(...)")


def _study(folder: Path, space: dict[str, BaseDistribution], more: bool, sampler: str, prune: bool) -> optuna.Study:
    """The study in a folder, a new one where there is none."""
    folder.mkdir(parents=True, exist_ok=True)
    storage = JournalStorage(JournalFileBackend(str(folder / STUDY)))
    study = optuna.create_study(
        storage=storage,
        study_name="sweep",
        direction=StudyDirection.MAXIMIZE if more else StudyDirection.MINIMIZE,
        load_if_exists=True,
        pruner=optuna.pruners.MedianPruner() if prune else optuna.pruners.NopPruner(),
    )
    stated = {k: json.loads(distribution_to_json(d)) for k, d in space.items()}
    held = study.user_attrs.get("space")
    if held is not None and held != stated:
        changed = sorted(k for k in {*held, *stated} if held.get(k) != stated.get(k))
        raise LayerlabError(
            f"{folder}: holds a study of another search space ({', '.join(changed)}); give another hydra.sweep.dir="
        )
    study.set_user_attr("space", stated)
    # the seed follows from what is finished: the same one would ask for the same points again
    study.sampler = SAMPLERS[sampler](seed=_finished(study))
    for trial in study.get_trials(states=(TrialState.RUNNING,)):  # of a search that was killed
        study.tell(trial.number, state=TrialState.FAIL)
        study.enqueue_trial(trial.params)
    return study


def _tell(study: optuna.Study, asked: Sequence[Trial], returns: Sequence[JobReturn], folder: Path) -> None:
    """Tell the study what came out; a failed trial is one."""
    jobs = {tuple(job.overrides): job for job in read_jobs(folder)}
    for trial, returned in zip(asked, returns, strict=True):
        value = returned._return_value
        if value is None:
            study.tell(trial, state=TrialState.FAIL)
            continue
        pruned = jobs[tuple(_typed(trial.params))].pruned
        study.tell(trial, None if pruned else value, state=TrialState.PRUNED if pruned else TrialState.COMPLETE)


def _leave(study: optuna.Study, folder: Path, fixed: Sequence[str]) -> None:
    """best.yaml, which can be used as an experiment, and the importance of each key as a picture."""
    done = study.get_trials(states=(TrialState.COMPLETE,))
    if not done:
        return
    best: dict[str, Any] = {}
    defaults: list[Any] = []
    for override in (*fixed, *_typed(study.best_params)):
        key, _, value = override.partition("=")
        if "." not in key and key not in ("seed", "select", "record", "progress"):
            defaults.append({f"override /{key}": yaml.safe_load(value)})
            continue
        *path, last = key.split(".")
        node = best
        for part in path:
            node = node.setdefault(part, {})
        node[last] = yaml.safe_load(value)
    of = f"trial {study.best_trial.number} of {len(study.trials)}"
    head = f"# @package _global_\n# objective {study.best_value:.6f}, {of}\n"
    text = yaml.safe_dump(({"defaults": defaults} if defaults else {}) | best, sort_keys=False)
    (folder / "best.yaml").write_text(head + text, encoding="utf-8")
    chosen = " ".join(_typed(study.best_params))
    print(f"\nbest     {chosen}  {study.best_value:.4f}; {folder / 'best.yaml'} is an experiment")
    if len(done) > 3 and len({t.value for t in done}) > 1 and len(study.best_params) > 1:
        pictures.importance(optuna.importance.get_param_importances(study), folder / "importance.png")


def _typed(params: dict[str, Any]) -> list[str]:
    """Parameters as overrides."""
    return [f"{k}={v}" for k, v in params.items()]


def _any(d: BaseDistribution) -> Any:
    """Some value of a distribution, to compose and check a config with."""
    return d.choices[0] if isinstance(d, CategoricalDistribution) else d.low  # ty: ignore[missing-attribute]


def _more(config: dict[str, Any]) -> bool:
    """Whether more of the objective is better; by the task where no objective is named."""
    objective = config["objective"]
    if objective:
        return objective.rsplit("/", 1)[-1] in ("acc", "f1", "balanced_acc", "auroc", "exact")
    target = read_target(config["task"]["_target_"])
    return target is not None and target.facts().get("mode") == "max"


def _finished(study: optuna.Study) -> int:
    return len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)))
