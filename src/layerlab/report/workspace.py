"""The dashboard of a sweep in wandb, as code: curves with their seeds, parallel coordinates, importance, pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import wandb_workspaces.reports.v2 as panels
import wandb_workspaces.workspaces as workspaces

from layerlab.contract import REPEATS

FILE = "wandb-workspace.json"


def workspace(folder: Path, project: str, entity: str) -> workspaces.Workspace:
    """The workspace of the runs that a sweep in `folder` has logged. Raises OSError where it is no sweep's."""
    jobs = json.loads((folder / "sweep.json").read_text("utf-8"))["jobs"]
    ok = next((j for j in jobs if j["status"] == "ok"), None)
    monitor, figure = (ok["monitor"], f"test/{ok['monitor'].partition('/')[2]}") if ok else ("val/loss", "test/loss")
    varied = list(dict.fromkeys(o.partition("=")[0] for j in jobs for o in j["overrides"]))
    settings = [_config(k) for k in varied if k not in REPEATS]
    grouped: dict[str, Any] = {"groupby": settings[0]} if settings else {}
    if grouped:
        grouped |= {"groupby_aggfunc": "mean", "groupby_rangefunc": "stddev"}
    curves: list[Any] = [
        panels.LinePlot(title=name, x="epoch", y=[name], **grouped)
        for name in dict.fromkeys((monitor, "val/loss", "train/loss", "lr"))
    ]
    columns = [panels.ParallelCoordinatesPlotColumn(_config(k), display_name=k) for k in varied]
    columns.append(panels.ParallelCoordinatesPlotColumn(panels.SummaryMetric(figure), display_name=figure))
    compared: list[Any] = [
        panels.ParallelCoordinatesPlot(title=figure, columns=columns),
        panels.ParameterImportancePlot(with_respect_to=figure),
        panels.BarPlot(title=figure, metrics=[panels.SummaryMetric(figure)], **grouped),
        panels.ScatterPlot(title="what it cost", x=panels.SummaryMetric("_runtime"), y=panels.SummaryMetric(figure)),
    ]
    pictures = [
        panels.MediaBrowser(media_keys=["figures/sweep"]),
        panels.MediaBrowser(media_keys=["figures/confusion"]),
    ]
    return workspaces.Workspace(
        entity=entity,
        project=project,
        name=folder.name,
        sections=[
            workspaces.Section("Curves, mean over seeds", panels=curves, is_open=True),
            workspaces.Section("Settings", panels=compared, is_open=True),
            workspaces.Section("Pictures and tables", panels=pictures),
        ],
        runset_settings=workspaces.RunsetSettings(
            filters=[workspaces.Metric("Group") == folder.name],
            groupby=[workspaces.Config(s.name) for s in settings],
        ),
    )


def _config(key: str) -> panels.Config:
    """Where wandb keeps a value: that of a group, such as freeze, is its target."""
    return panels.Config(key if "." in key or key in REPEATS else f"{key}._target_")


def write(folder: Path, project: str, entity: str) -> Path:
    """The workspace as a file in the sweep's folder; no login, no network."""
    model = workspace(folder, project, entity)._to_model()  # the package has no public way to write one down
    file = folder / FILE
    file.write_text(json.dumps(json.loads(model.model_dump_json(by_alias=True, exclude_none=True)), indent=1) + "\n")
    return file


def push(folder: Path, project: str, entity: str) -> str:
    """Save the workspace on the server of those who are logged in; its address."""
    made = workspace(folder, project, entity).save()
    return made.url
