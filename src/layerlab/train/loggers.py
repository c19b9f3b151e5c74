"""Where metrics go besides metrics.csv, which is always written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from layerlab.contract import LayerlabError

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
    from lightning.pytorch.loggers import WandbLogger

    return WandbLogger(
        name=name,
        save_dir=str(folder),
        offline=mode == "offline",
        project=project,
        entity=entity,
        group=group,
        job_type=job_type,
        tags=tags,
        config=config,
        save_code=False,
    )


def _tensorboard(folder: Path) -> Any:
    try:
        from lightning.pytorch.loggers import TensorBoardLogger

        return TensorBoardLogger(folder, name="", version="tensorboard")
    except ModuleNotFoundError as e:
        raise LayerlabError('logger=tensorboard: not installed; pip install "layerlab[tensorboard]"') from e
