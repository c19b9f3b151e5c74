"""A Hydra multirun from its overrides to its table: the grid, the ledger, the children, what came out."""

from __future__ import annotations

import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.core.utils import JobReturn, JobStatus
from omegaconf import DictConfig, open_dict

from layerlab.build import ConfigError
from layerlab.compose import Composed, Composer
from layerlab.contract import LayerlabError
from layerlab.sweep import table
from layerlab.sweep.launch import jobs_at_once
from layerlab.sweep.launch import launch as run_children
from layerlab.sweep.ledger import Job, Ledger, read_jobs

ASIDE = ("sweep.", "hydra.", "hydra/", "logs", "progress", "resume")  # say how a sweep runs, not what it is
FORKSERVER = "hydra_plugins.layerlab_plugins.Forkserver"


class Failed(LayerlabError):
    """Some jobs of a sweep failed; the others have finished."""

    exit_code, reason = 1, "failed"


def sweep(context: Any, task: Any, config: DictConfig, arguments: list[str]) -> list[JobReturn]:
    """Run every combination, then write and print what came out. Raises Failed where a job did."""
    overrides = OverridesParser.create(config_loader=context.config_loader).parse_overrides(arguments)
    jobs = [job for batch in BasicSweeper.split_arguments(overrides, None) for job in batch]
    if not jobs:
        empty = next(o for o in overrides if o.is_sweep_override() and not list(o.sweep_string_iterator()))
        raise ConfigError(f"{empty.input_line}: has no value; the grid is empty")
    varied = [o.get_key_element() for o in overrides if o.is_sweep_override()]
    with open_dict(config):
        config.hydra.sweep.dir = str(folder(config, jobs[0], varied))
    launcher: Any = Plugins.instance().instantiate_launcher(hydra_context=context, task_function=task, config=config)
    ours = config.hydra.launcher._target_ == FORKSERVER
    if ours:
        launcher.varied = varied
    returns = list(launcher.launch(jobs, initial_job_idx=0))
    place = Path(config.hydra.sweep.dir)
    if not ours:  # its jobs lie in folders of Hydra's
        _adopt(place, jobs, varied, returns)
    planned = [_of_keys(job, varied) for job in jobs]
    finish(place, config.sweep.control, [job for job in read_jobs(place) if job.overrides in planned], config.logger)
    return returns


def launch(
    loader: ConfigLoader, config: DictConfig, overrides: list[list[str]], varied: Sequence[str] = ()
) -> list[JobReturn]:
    """Run a batch of jobs in children; what has finished already is skipped.

    varied: the keys that make a job another than the others, where the sweeper tells them. Raises ConfigError before
    the first job starts.
    """
    composed = compose_all(Composer(loader, str(config.hydra.job.config_name)), overrides)
    for one in composed:
        refuse_several_devices(one.config)
    varied = varied or _differing(overrides)
    place = folder(config, overrides[0], list(varied))  # another's sweeper has not settled it
    for one in composed:  # the runs of a sweep stand together in wandb
        if one.config["logger"].get("wandb"):
            one.config["logger"] |= {"group": one.config["logger"]["group"] or place.name, "job_type": "sweep"}
    ledger = Ledger(place, _common(overrides[0], varied))
    try:
        at_once = jobs_at_once(config.sweep.jobs, composed[0].config)
        own = [_of_keys(job, varied) for job in overrides]
        jobs = run_children(composed, own, ledger, at_once, config.sweep.fail_fast)
    finally:
        ledger.close()
    return [_returned(job, c) for job, c in zip(jobs, composed, strict=True)]


def refuse_several_devices(config: dict[str, Any]) -> None:
    """Refuse a job of a sweep that would start ranks. Raises LayerlabError."""
    if (devices := config["trainer"].get("devices", 1)) != 1:
        raise LayerlabError(
            f"trainer.devices={devices}: every rank would run the whole sweep again; "
            f"sweep with trainer.devices=1, or start one run per setting"
        )


def _returned(job: Job, composed: Composed) -> JobReturn:
    """What a sweeper learns of a job: its objective, None where it failed."""
    objective = composed.config["objective"] or job.monitor
    return JobReturn(overrides=composed.overrides, status=JobStatus.COMPLETED, _return_value=job.metrics.get(objective))


def _of_keys(overrides: Sequence[str], keys: Sequence[str]) -> list[str]:
    return [o for o in overrides if o.partition("=")[0] in keys]


def _differing(overrides: Sequence[Sequence[str]]) -> list[str]:
    """The keys whose values are not the same in all jobs."""
    alike = set.intersection(*(set(job) for job in overrides))
    return list(dict.fromkeys(o.partition("=")[0] for job in overrides for o in job if o not in alike))


def _common(overrides: Sequence[str], varied: Sequence[str]) -> list[str]:
    """What all jobs share, and what makes a sweep another one."""
    return [o for o in overrides if not o.startswith(ASIDE) and o.partition("=")[0] not in varied]


def folder(config: DictConfig, job: list[str], varied: list[str]) -> Path:
    """hydra.sweep.dir; `auto`: logs/sweeps/<name>-<hash of what is common and of what is varied>.

    The same command finds its folder again, and so does one with more values of the same keys.
    """
    if config.hydra.sweep.dir != "auto":
        return Path(config.hydra.sweep.dir).expanduser()
    common = _common(job, varied)
    chosen = dict(o.split("=", 1) for o in common if o.split("=")[0] in ("experiment", "model", "data"))
    name = chosen.get("experiment") or "-".join(v for k, v in chosen.items()) or "sweep"
    digest = blake2b("\n".join([*sorted(common), *sorted(varied)]).encode(), digest_size=4).hexdigest()
    return Path(config.logs).expanduser() / "sweeps" / f"{name}-{digest}"


def _adopt(folder: Path, jobs: Sequence[list[str]], varied: list[str], returns: Sequence[JobReturn]) -> None:
    """A ledger of jobs that another launcher ran, from their folders."""
    ledger = Ledger(folder, _common(jobs[0], varied))
    ledger.jobs = []
    for number, (overrides, returned) in enumerate(zip(jobs, returns, strict=True)):
        job = Job(number, _of_keys(overrides, varied), "", str(number), status="running")
        ledger.look(job)
        if job.status != "ok":
            job.status, job.error = "failed", str(getattr(returned, "_return_value", "")) or "left no result"
        ledger.jobs.append(job)
    ledger.write()
    ledger.close()


def compose_all(composer: Composer, overrides: Sequence[list[str]]) -> list[Composed]:
    """The checked configs of a whole grid. Raises ConfigError with what is wrong in any of them, each said once."""
    composed: list[Composed] = []
    findings: dict[str, None] = {}
    for one in overrides:
        try:
            composed.append(composer(one))
        except ConfigError as e:
            findings |= dict.fromkeys(str(e).splitlines())
    if findings:
        raise ConfigError(*findings)
    return composed


def finish(folder: Path, control: str | None, jobs: list[Job], logger: Any = None) -> None:
    """Write and print the table of finished jobs, and log it where they were logged: the node of their logger.

    Raises Failed with every job that did not finish.
    """
    done = [job for job in jobs if job.status == "ok"]
    if len(done) > 1:
        print("\n" + table.leave(done, folder, control))
        if logger and logger.get("wandb"):
            from layerlab.train.loggers import summarise  # here: it brings Lightning

            facts = json.loads((folder / "statistics.json").read_text("utf-8"))
            best = {"best": facts["best"], "best/mean": facts["settings"][0]["mean"], "figure": facts["figure"]}
            summarise(folder, logger.project, logger.entity, logger.group or folder.name, logger.mode, best)
    if failed := [job for job in jobs if job.status != "ok"]:
        told = [f"{j.name}: {j.error or j.status}" for j in failed]
        told.append(f"{len(failed)} of {len(jobs)} jobs failed; the same command tries them again")
        raise Failed("\n".join(told))
