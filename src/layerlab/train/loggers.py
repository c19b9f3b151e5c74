"""Where metrics go besides metrics.csv, which is always written."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from layerlab.contract import LayerlabError

INIT_TIMEOUT_S = 10

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
) -> list[Any]:
    """Lightning loggers for a run folder: metrics.csv always, wandb and TensorBoard where asked for.

    config: what wandb shows as the run's config, without secrets. mode: of wandb; offline never asks for a login and
    never needs a network. Raises LayerlabError where a package is missing.
    """
    from lightning.pytorch.loggers import CSVLogger

    if not (csv or wandb or tensorboard):
        raise LayerlabError("logger.csv=false: metrics.csv is always written; leave it true")
    found: list[Any] = [CSVLogger(folder, name="", version="")]
    if wandb:
        found.append(_wandb(folder, name, config, project, entity, group, job_type, list(tags), mode))
    if tensorboard:
        found.append(_tensorboard(folder))
    return found


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
) -> Any:
    for variable, value in QUIET.items():
        os.environ.setdefault(variable, value)
    import wandb
    from lightning.pytorch.loggers import WandbLogger

    def make(offline: bool) -> Any:
        logger = WandbLogger(
            name=name,
            save_dir=str(folder),
            offline=offline,
            project=project,
            entity=entity,
            group=group,
            job_type=job_type,
            tags=tags,
            config=config,
            save_code=False,
            settings=wandb.Settings(init_timeout=INIT_TIMEOUT_S, mode="offline" if offline else "online"),
        )
        logger.experiment  # noqa: B018  (starts the run now, where a failure can be answered)
        return logger

    if mode == "offline":
        return make(offline=True)
    try:
        return make(offline=False)
    except wandb.Error as e:  # a logger never stops a run
        print(f"logger.mode=online: {str(e).splitlines()[0]} Going on offline, see wandb sync", file=sys.stderr)
        wandb.teardown()  # it remembers the mode of its first start
        return make(offline=True)


def close(loggers: list[Any], failed: bool) -> None:
    """Write what is left, and end wandb's run: the next run of this process must not go on with it."""
    for logger in loggers:
        logger.finalize("failed" if failed else "success")
        if type(logger).__name__ == "WandbLogger":
            logger.experiment.finish(exit_code=int(failed))


def _tensorboard(folder: Path) -> Any:
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="", version="tensorboard")
    except ModuleNotFoundError as e:
        raise LayerlabError('logger=tensorboard: not installed; pip install "layerlab[tensorboard]"') from e
