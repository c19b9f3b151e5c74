"""Where metrics go besides metrics.csv, which is always written."""

from __future__ import annotations

import csv as reader
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any, Literal

from lightning.pytorch.loggers import CSVLogger
from lightning.pytorch.loggers.logger import Logger

from layerlab.contract import LayerlabError

INIT_TIMEOUT_S = 10
FINISH_TIMEOUT_S = 60  # for what is not uploaded yet at the end; without one a network that was cut holds a run forever

# wandb records the machine, the git remote, the console and the packages unless told not to
QUIET = {
    "WANDB_SILENT": "true",
    "WANDB_DISABLE_GIT": "true",
    "WANDB_DISABLE_CODE": "true",
    "WANDB__DISABLE_STATS": "true",
    "WANDB__DISABLE_MACHINE_INFO": "true",
    "WANDB_CONSOLE": "off",
    "WANDB__SAVE_REQUIREMENTS": "false",
    "WANDB_ERROR_REPORTING": "false",
}


def loggers(
    *,
    folder: Path,
    name: str,
    config: dict[str, Any],
    csv: bool = True,
    wandb: bool = False,
    tensorboard: bool = False,
    project: str = "layerlab",
    entity: str | None = None,
    group: str | None = None,
    job_type: str = "train",
    tags: Sequence[str] = (),
    mode: Literal["offline", "online"] = "offline",
    keep: int | None = None,
    run_id: str | None = None,
) -> list[Any]:
    """Lightning loggers for a run folder: metrics.csv always, wandb and TensorBoard where asked for.

    config: what wandb shows as the run's config, without secrets. mode: of wandb; offline never asks for a login and
    never needs a network. keep, run_id: of a run that goes on: rows of metrics.csv that its checkpoint knows of, and
    wandb's id. Raises LayerlabError where a package is missing.
    """
    if not (csv or wandb or tensorboard):
        raise LayerlabError("logger.csv=false: metrics.csv is always written; leave it true")
    rows = _logged(folder / "metrics.csv", keep)
    found: list[Any] = [CSVLogger(folder, name="", version="")]
    if rows:
        found[0].experiment.metrics += rows
        found[0].save()
    if wandb:
        found.append(guard(_wandb(folder, name, config, project, entity, group, job_type, list(tags), mode, run_id)))
    if tensorboard:
        found.append(guard(_tensorboard(folder)))
    return found


def _logged(file: Path, keep: int | None) -> list[dict[str, Any]]:
    """The first rows of metrics.csv: the logger would begin it anew."""
    if not keep or not file.is_file():
        return []
    with file.open(newline="", encoding="utf-8") as f:
        return [{k: v for k, v in row.items() if v} for row in islice(reader.DictReader(f), keep)]


def _wandb(
    folder: Path,
    name: str,
    config: dict[str, Any],
    project: str,
    entity: str | None,
    group: str | None,
    job_type: str,
    tags: list[str],
    mode: str,
    run_id: str | None,
) -> Any:
    _quiet()
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    def make(offline: bool) -> Any:
        logger = WandbLogger(
            name=name,
            id=run_id,
            resume="allow",
            save_dir=str(folder),
            offline=offline,
            project=project,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=tags,
            config=config,
            settings=_settings(offline),
        )
        logger.experiment  # noqa: B018  (starts the run now, where a failure can be answered)
        return logger

    if mode == "offline":
        return make(offline=True)
    try:
        return make(offline=False)
    except (wandb.Error, OSError) as e:  # a logger never stops a run
        print(f"logger.mode=online: {str(e).splitlines()[0]} Going on offline, see wandb sync", file=sys.stderr)
        wandb.teardown()  # it remembers the mode of its first start
        return make(offline=True)


def _quiet() -> None:
    """QUIET, where the user has not said otherwise."""
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)


def first_wandb_run(folder: str) -> None:
    """Make an empty offline run and end all that belongs to it, its process too: what wandb loads for it stays."""
    _quiet()
    import wandb

    run = wandb.init(dir=folder, settings=_settings(offline=True))
    run.log({"table": wandb.Table(columns=["a"], data=[[0]])})
    run.finish()
    wandb.teardown()


def _settings(offline: bool) -> Any:
    import wandb

    return wandb.Settings(
        mode="offline" if offline else "online",
        save_code=False,
        init_timeout=INIT_TIMEOUT_S,
        finish_timeout=FINISH_TIMEOUT_S,
        finish_timeout_raises=True,
    )


class History(Logger):
    """What is logged, in memory: the curves in the row of a run with record=light."""

    name = version = None

    def __init__(self) -> None:
        super().__init__()
        self.rows: list[dict[str, float]] = []

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self.rows.append({"step": step, **metrics} if step is not None else dict(metrics))

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """The row has the overrides."""


def guard(logger: Any) -> Any:
    """The same logger, whose failures cost one line and nothing else: training goes on, metrics.csv has everything."""
    told = False

    def safe(method: Any) -> Any:
        def call(*args: Any, **kwargs: Any) -> Any:
            nonlocal told
            try:
                return method(*args, **kwargs)
            except Exception as e:
                if not told:
                    name = type(logger).__name__.removesuffix("Logger").lower()
                    print(f"logger={name}: {type(e).__name__}: {e}; going on without it", file=sys.stderr)
                told = True

        return call

    for name in ("log_metrics", "log_hyperparams", "log_graph", "save", "finalize", "after_save_checkpoint"):
        setattr(logger, name, safe(getattr(logger, name)))
    return logger


def media(loggers: list[Any], folder: Path) -> None:
    """The pictures and tables of a finished run, for those loggers that show them."""
    for logger in loggers:
        if type(logger).__name__ != "WandbLogger":
            continue
        with suppress(Exception):  # a logger never stops a run
            import wandb

            found: dict[str, Any] = {f"figures/{p.stem}": wandb.Image(str(p)) for p in sorted(folder.glob("*.png"))}
            for file in sorted(folder.glob("*.csv")):
                if file.name != "metrics.csv":
                    found[f"tables/{file.stem}"] = _wandb_table(file)
            if found:
                logger.experiment.log(found)


def summarise(folder: Path, project: str, entity: str | None, group: str, mode: str, best: dict[str, Any]) -> None:
    """What many runs say together, as one run of wandb beside theirs: the table, the picture, the best setting."""
    _quiet()
    with suppress(Exception):  # a logger never stops a sweep
        import wandb

        run = wandb.init(
            dir=str(folder),
            project=project,
            entity=entity,
            group=group,
            job_type="summary",
            name=f"{group}-summary",
            settings=_settings(mode == "offline"),
        )
        run.log(
            {
                "tables/sweep": _wandb_table(folder / "sweep.csv"),
                "figures/sweep": wandb.Image(str(folder / "sweep.png")),
            }
        )
        run.summary.update(best)
        run.finish()


def _wandb_table(file: Path) -> Any:
    import wandb

    with file.open(newline="", encoding="utf-8") as f:
        rows: list[Any] = list(reader.reader(f))
    return wandb.Table(columns=rows[0], data=rows[1:])


def close(loggers: list[Any], failed: bool) -> None:
    """Write what is left, and end wandb's run: the next run of this process must not go on with it."""
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        if type(logger).__name__ == "WandbLogger":
            try:
                logger.experiment.finish(exit_code=int(failed))
            except Exception as e:  # what was logged lies in its folder
                where = Path(logger.experiment.dir).parent
                print(f"logger=wandb: {type(e).__name__}, not all is uploaded; wandb sync {where}", file=sys.stderr)


def _tensorboard(folder: Path) -> Any:
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="", version="tensorboard")
    except ModuleNotFoundError as e:
        raise LayerlabError('logger=tensorboard: not installed; pip install "layerlab[tensorboard]"') from e
