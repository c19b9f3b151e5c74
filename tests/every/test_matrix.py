"""Every model x every data of a kind it reads: trained for an epoch, tested, and its record complete."""

import itertools
import json
import math
from pathlib import Path

import pytest

from layerlab.train.checkpoint import read
from tests.conftest import ROOT, SHARED
from tests.every.cells import CELLS, DATA, options, table

EXAMPLES = 256


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    place = tmp_path_factory.mktemp("data")
    (place / "text.txt").write_text("the cat sat on the mat. " * 400)
    words = ["".join(w) for w in itertools.product("abcd", repeat=4)]
    (place / "pairs.tsv").write_text("".join(f"{w}\t{' '.join(reversed(w.upper()))}\n" for w in words))
    lines = [f"2024-01-{1 + i // 24:02} {i % 24:02}:00,{math.sin(i / 4) + i % 3}" for i in range(600)]
    (place / "load.csv").write_text("time,load\n" + "\n".join(lines) + "\n")
    return place


def overrides(model, data, files):
    if any("{shared}" in o for o in DATA[data][1]) and not SHARED.exists():
        pytest.skip("needs the developers' data")
    own = {"seasonal_naive": ["data.season=24"] if data == "csv" else [], "ngram": ["model.order=3"]}.get(model, [])
    if model == "ets":  # 20 ms a window and channel: short ones, and few in a batch
        own = ["model.points=24"] + (["data.lookback=2000"] if data == "etth1" else [])
    return [o.format(tmp=files, shared=SHARED) for o in DATA[data][1]] + own


@pytest.mark.parametrize(("model", "data"), CELLS, ids=[f"{m}-{d}" for m, d in CELLS])
def test_trains_and_leaves_its_record(model, data, files, train):
    batch_size = 32
    run = train(
        f"model={model}",
        f"data={data}",
        *overrides(model, data, files),
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
def test_a_full_epoch(model, data, files, train):
    # two hundred steps at most: an epoch of data=code is 1,700
    if (model, data) == ("ets", "etth1"):
        pytest.skip("ets fits 19,495 windows: a quarter of an hour")
    run = train(
        f"model={model}",
        f"data={data}",
        *overrides(model, data, files),
        "trainer.max_epochs=1",
        "trainer.max_steps=200",
    )
    assert math.isfinite(run.metrics["test/loss"])


def test_the_matrix_covers_every_data_config_and_stands_in_the_readme():
    assert set(DATA) == set(options("data"))
    assert {m for m, _ in CELLS} == set(options("model"))
    assert table() in (ROOT / "README.md").read_text("utf-8"), "python -m tests.every.cells prints it"
