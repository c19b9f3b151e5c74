"""The dashboard of a sweep in wandb, written without a login."""

import json
import warnings

import pytest

from layerlab.cli import main


@pytest.fixture
def sweep(tmp_path):
    jobs = [
        {"status": "ok", "monitor": "val/acc", "overrides": [f"model.depth={d}", f"freeze={f}", f"seed={s}"]}
        for d in (1, 2)
        for f in ("none", "first_n")
        for s in (0, 1)
    ]
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": jobs}))
    return tmp_path


def test_it_draws_what_was_varied_with_seeds_as_one(sweep, capsys):
    with warnings.catch_warnings():  # wandb-workspaces is written for pydantic 1
        warnings.simplefilter("ignore", DeprecationWarning)
        assert main(["report", "wandb", str(sweep), "project=p", "entity=e"]) == 0
    made = json.loads((sweep / "wandb-workspace.json").read_text())
    assert (made["entity"], made["project"]) == ("e", "p")
    spec = made["spec"]["section"]
    (runs,) = spec["runSets"]
    assert [f["value"] for f in runs["filters"]["filters"]] == [sweep.name]
    grouped = [g["name"] for g in runs["grouping"]]
    assert grouped == ["model.value.depth", "freeze.value._target_"]  # not the seed
    panels = [p for s in spec["panelBankConfig"]["sections"] for p in s["panels"]]
    kinds = [p["viewType"] for p in panels]
    assert {"Run History Line Plot", "Parallel Coordinates Plot", "Parameter Importance", "Media Browser"} <= set(kinds)
    coordinates = panels[kinds.index("Parallel Coordinates Plot")]["config"]["columns"]
    assert [c["displayName"] for c in coordinates] == ["model.depth", "freeze", "seed", "test/acc"]
    curve = panels[0]["config"]
    assert (curve["metrics"], curve["groupAgg"], curve["groupArea"]) == (["val/acc"], "mean", "stddev")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["wandb"], "report: expected wandb DIR"),
        (["wandb", ".", "pish=true"], "report: expected wandb DIR"),
        (["wandb", ".", "push=yes"], "push=yes: expected true or false"),
        (["wandb", ".", "push=true"], "push=true: give entity="),
        (["wandb", "nowhere"], "nowhere: no sweep in this folder"),
    ],
)
def test_wrong_use_is_refused(arguments, said, capsys):
    assert main(["report", *arguments]) == 2
    assert capsys.readouterr().err.startswith(said)
