"""Every model x every data of a kind it reads; by default each model on each kind, and each data, once."""

import json
import math

import pytest

from layerlab.train.checkpoint import read
from tests.conftest import ROOT
from tests.every.cells import CELLS, DATA, kind_of, options, table

EXAMPLES = 256
QUICK = {(model, kind_of(data), DATA[data][0]): (model, data) for model, data in reversed(CELLS)}
QUICK = sorted({*QUICK.values(), *((m, d) for d, m in {d: m for m, d in CELLS}.items())})  # and every data once


@pytest.mark.parametrize(("model", "data"), QUICK, ids=[f"{m}-{d}" for m, d in QUICK])
def test_trains_and_leaves_its_record(model, data, given, train):
    batch_size = 32
    run = train(
        f"model={model}",
        f"data={data}",
        *given(model, data),
        f"data.batch_size={batch_size}",
        "trainer.max_epochs=1",
        f"trainer.limit_train_batches={EXAMPLES // batch_size}.0",
        "trainer.limit_val_batches=1",
        "trainer.limit_test_batches=1",
    )
    folder = run.folder
    assert json.loads((folder / "status.json").read_text())["status"] == "ok"
    results = json.loads((folder / "results.json").read_text())
    assert math.isfinite(results["metrics"]["test/loss"])
    assert (0 if run.model.closed_form else 1) <= results["steps"] <= EXAMPLES // batch_size
    assert read(folder / results["checkpoints"]["best"])["state_dict"].keys() == run.model.state_dict().keys()
    curves = () if run.model.closed_form else ("curves.png",)
    for name in ("manifest.json", "config.yaml", "metrics.csv", *curves):
        assert (folder / name).stat().st_size > 0, name


@pytest.mark.slow
@pytest.mark.parametrize(("model", "data"), CELLS, ids=[f"{m}-{d}" for m, d in CELLS])
def test_a_full_epoch(model, data, given, train):
    # two hundred steps at most: an epoch of data=code is 1,700
    if (model, data) == ("ets", "etth1"):
        pytest.skip("ets fits 19,495 windows: a quarter of an hour")
    run = train(
        f"model={model}",
        f"data={data}",
        *given(model, data),
        "trainer.max_epochs=1",
        "trainer.max_steps=200",
    )
    assert math.isfinite(run.metrics["test/loss"])


def test_the_matrix_covers_every_data_config_and_stands_in_the_readme():
    assert set(DATA) == set(options("data"))
    assert {m for m, _ in CELLS} == set(options("model"))
    assert table() in (ROOT / "README.md").read_text("utf-8"), "python -m tests.every.cells prints it"
