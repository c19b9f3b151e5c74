"""A search that is stored, goes on, prunes, and records what failed."""

import json

import optuna
import pytest
import yaml
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState

from tests.faults.test_sweeps import FAULTY
from tests.test_cli import cli

SEARCH = ("-m", "hydra/sweeper=optuna", "model=mlp", "trainer.max_epochs=2", "record=light", "hydra.sweep.dir=s")
SPACE = ("optimizer.lr=tag(log,interval(1e-3,1e-1))", "model.depth=1,2")


def trials(folder):
    storage = JournalStorage(JournalFileBackend(str(folder / "s" / "study.log")))
    return optuna.load_study(study_name="sweep", storage=storage).trials


@pytest.mark.slow
def test_a_search_goes_on_without_repeating_points_and_leaves_an_experiment(tmp_path):
    done = cli(*SEARCH, *SPACE, "hydra.sweeper.trials=4", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    first = trials(tmp_path)
    assert [t.state for t in first] == [TrialState.COMPLETE] * 4
    done = cli(*SEARCH, *SPACE, "hydra.sweeper.trials=6", cwd=tmp_path)
    found = trials(tmp_path)
    assert len(found) == 6
    assert [t.params for t in found[:4]] == [t.params for t in first]
    assert len({tuple(t.params.items()) for t in found}) == 6
    rows = json.loads((tmp_path / "s" / "sweep.json").read_text())["jobs"]
    values = {r["metrics"]["val/acc"] for r in rows}
    best = max(found, key=lambda t: t.value)
    assert best.value == max(values)
    node = yaml.safe_load((tmp_path / "s" / "best.yaml").read_text())
    assert node["optimizer"]["lr"] == best.params["optimizer.lr"]
    (tmp_path / "conf" / "experiment").mkdir(parents=True)
    (tmp_path / "conf" / "experiment" / "best.yaml").write_text((tmp_path / "s" / "best.yaml").read_text())
    again = cli("--config-dir", "conf", "experiment=best", "logs=row", cwd=tmp_path)
    assert again.returncode == 0, again.stderr
    (row,) = (tmp_path / "row").rglob("*.json")
    assert json.loads(row.read_text())["metrics"]["val/acc"] == best.value
    other = cli(*SEARCH, "optimizer.lr=interval(1e-3,1e-2)", SPACE[1], "hydra.sweeper.trials=7", cwd=tmp_path)
    assert other.returncode == 2
    assert "holds a study of another search space (optimizer.lr); give another hydra.sweep.dir=" in other.stderr


@pytest.mark.slow
def test_a_failed_trial_is_told_as_failed_and_passed_over(tmp_path):
    options = (*FAULTY, *SEARCH[1:], "callbacks.fault.how=raise,none", "hydra.sweeper.trials=4")
    done = cli("-m", *options, "hydra.sweeper.sampler=random", "model.width=8,16,32", cwd=tmp_path)
    states = [t.state for t in trials(tmp_path)]
    assert len(states) == 4
    assert {t.state for t in trials(tmp_path) if t.params["callbacks.fault.how"] == "raise"} <= {TrialState.FAIL}
    assert done.returncode == int(TrialState.FAIL in states), done.stderr
