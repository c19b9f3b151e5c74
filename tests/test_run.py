"""What a run promises, through the Python interface."""

import csv
import json
import math

import pytest
import torch

import layerlab
from layerlab.contract import DataError, LayerlabError, Mismatch
from layerlab.train.run import evaluate
from tests.conftest import SHARED


def rows_of(run):
    with (run.folder / "metrics.csv").open(newline="") as f:
        return list(csv.DictReader(f))


def test_answers_after_training_equal_those_of_the_loaded_run(train):
    run = train("model=cnn", "model.dropout=0.5", "trainer.max_epochs=1")
    x, _ = next(iter(run.data.batches("test")))
    first = run.predict(x[:8])
    assert run.predict(x[:8]) == first
    again = layerlab.load(run.folder)
    assert again.predict(x[:8]) == first
    assert again.metrics == run.metrics
    assert set(run.figures) == {"curves"}


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_lower_precision_trains_with_clipping_and_counts_right(precision, train):
    # 40 batches of 128 names: sums kept in bf16 would stop growing at some hundred symbols
    options = ("model=mlp", "model.width=16", "data=names", "trainer.max_epochs=1", "trainer.limit_train_batches=40")
    low, full = train(*options, f"trainer.precision={precision}"), train(*options)
    for name in ("train/nll", "train/acc"):
        figures = [next(float(r[name]) for r in rows_of(run) if r[name]) for run in (low, full)]
        assert figures[0] == pytest.approx(figures[1], rel=0.05), name
    assert low.metrics["test/nll"] == pytest.approx(full.metrics["test/nll"], rel=0.05)


def test_lr_and_loss_reach_the_log_at_the_step_they_belong_to(train):
    run = train(
        "model=mlp", "trainer.max_epochs=2", "trainer.log_every_n_steps=10", "schedule.warmup=0", "schedule.final=0"
    )
    found = {int(r["step"]): float(r["lr"]) for r in rows_of(run) if r["lr"]}
    assert sorted(found) == [9, 19, 29, 39, 49, 59, 69, 79]
    for step, lr in found.items():
        assert lr == pytest.approx(3e-3 * (1 + math.cos(math.pi * step / 80)) / 2, rel=1e-4)
    assert {r["step"] for r in rows_of(train("model=mlp")) if r["lr"]} == {str(s) for s in range(49, 400, 50)}


def test_the_figures_are_those_of_the_tested_checkpoint(train):
    run = train("model=mlp", "select=last", "trainer.max_epochs=8", "optimizer.lr=3e-2")
    last = [float(r["val/loss"]) for r in rows_of(run) if r["val/loss"]][-1]
    assert run.metrics["val/loss"] == pytest.approx(last, rel=1e-6)


def test_accumulation_counts_optimizer_steps(train):
    run = train("model=mlp", "trainer.max_epochs=2", "trainer.accumulate_grad_batches=3")
    assert run.results["steps"] == 2 * math.ceil(40 / 3)


@pytest.mark.row(50)
def test_the_same_seed_gives_the_same_run_and_zero_is_a_seed(train):
    options = ("model=mlp", "model.dropout=0.2", "trainer.max_epochs=1")
    a, b, c = (train(*options, f"seed={s}") for s in (0, 0, 1))
    same = [torch.equal(p, q) for p, q in zip(a.model.parameters(), b.model.parameters(), strict=True)]
    assert all(same)
    assert a.metrics == b.metrics != c.metrics


@pytest.mark.parametrize("debug", ["limit", "overfit", "profile"])
def test_debug_presets_run(debug, train):
    run = train("model=mlp", f"debug={debug}", *(["trainer.max_epochs=2"] if debug == "overfit" else []))
    assert math.isfinite(run.metrics["test/loss"])
    if debug == "profile":
        assert "run_training_epoch" in (run.folder / "profile" / "fit-fit.txt").read_text()


def test_early_stopping_stops(train):
    run = train("model=mlp", "callbacks=early_stopping", "callbacks.early_stopping.patience=1", "optimizer.lr=0.1")
    assert run.results["epochs"] < 10


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["schedule=plateau", "schedule.monitor=val/foo"], "schedule.monitor=val/foo: never logged by task=classify"),
        (["callbacks=early_stopping", "callbacks.early_stopping.monitor=val/lss"], "did you mean val/loss?"),
        (["objective=val/f1"], "objective=val/f1: never logged"),
        (["schedule=plateau", "trainer.check_val_every_n_epoch=2"], "needs a validation in every epoch"),
        (["task.labels=multilabel"], "has one class per example"),
        (["trainer.max_time=1h"], "trainer.max_time='1h': expected DD:HH:MM:SS"),
        (["trainer.val_check_interval=100"], "trainer.val_check_interval=100: an epoch has 40 batches"),
        (["trainer.strategy=fsdp"], "trainer.strategy=fsdp: needs GPUs"),
        (["trainer.devices=[0]"], "trainer.devices=[0]: needs GPUs"),
        (["trainer.limit_test_batches=0"], "trainer.limit_test_batches=0: expected float > 0"),
        (["logger=null"], "logger=null: choose one of csv, tensorboard, wandb"),
        (["select=Best"], "select='Best': expected one of best, last"),
        (["seed=99999999999999999999"], "<= 4294967295"),
        (["data=csv", "data.path=.", "data.target=x"], "a folder; give a csv file"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_what_cannot_work_is_refused_before_the_first_batch(overrides, text, train):
    with pytest.raises(LayerlabError) as e:
        train("model=mlp", *overrides)
    assert text in str(e.value)
    assert e.value.exit_code == 2


def test_a_folder_that_holds_a_run_is_not_used_again(train, tmp_path):
    from layerlab.compose import compose
    from layerlab.train.run import fit

    options = compose("model=mlp", "trainer.max_epochs=1", "progress=none")
    fit(options, str(tmp_path / "mine"))
    with pytest.raises(LayerlabError, match="holds a run already"):
        fit(options, str(tmp_path / "mine"))
    assert json.loads((tmp_path / "mine" / "status.json").read_text())["status"] == "ok"


def test_a_failure_is_recorded(train, tmp_path):
    with pytest.raises(LayerlabError):
        train("model=cnn", "model.depth=7")
    status = next(tmp_path.rglob("status.json"))
    assert json.loads(status.read_text()) | {"pid": 0} == {
        "status": "failed",
        "reason": "refused",
        "error": "model.depth=7: halves 8 x 8 to nothing; at most 3",
        "pid": 0,
    }


def table(place, n, scale=1.0, start=0):
    lines = [
        f"{scale * ((i * 37) % 61)},{'red' if i % 3 else 'blue'},{'yes' if (i * 37) % 61 > 30 else 'no'}"
        for i in range(start, n)
    ]
    place.write_text("size,colour,bought\n" + "\n".join(lines) + "\n")
    return str(place)


def test_other_rows_are_scored_with_the_encoding_of_the_run(train, tmp_path):
    path = table(tmp_path / "a.csv", 200)
    run = train("model=mlp", "data=table", f"data.path={path}", "data.target=bought", "trainer.max_epochs=20")
    assert evaluate(str(run.folder)) == {k: v for k, v in run.metrics.items() if k.startswith("test/")}
    assert set(evaluate(str(run.folder), split="val")) == {
        k.replace("test/", "val/") for k in evaluate(str(run.folder))
    }
    node = {"_target_": "layerlab.data.table.Table", "target": "bought"}
    same = evaluate(str(run.folder), node | {"path": table(tmp_path / "b.csv", 400, start=200)})
    assert same["test/b/acc"] > 0.9
    scaled = evaluate(str(run.folder), node | {"path": table(tmp_path / "c.csv", 400, scale=100.0)})
    assert scaled["test/c/acc"] < 0.7  # another unit is another size to the scaler of the run
    with pytest.raises(Mismatch, match="would put training rows into the test part"):
        evaluate(str(run.folder), node | {"path": path, "split_seed": 1})
    (tmp_path / "d.csv").write_text((tmp_path / "a.csv").read_text().replace("yes", "maybe"))
    with pytest.raises(DataError, match="'maybe' is none of the classes no, yes"):
        evaluate(str(run.folder), node | {"path": str(tmp_path / "d.csv")})


def series(place, n, level=0.0):
    place.write_text("y\n" + "".join(f"{level + math.sin(i / 3)}\n" for i in range(n)))
    return str(place)


def test_another_series_is_scored_in_the_scale_of_the_run(train, tmp_path):
    options = ("model=mlp", "data=csv", "data.target=y", "task.normalise=none", "trainer.max_epochs=2")
    run = train(*options, f"data.path={series(tmp_path / 'a.csv', 400)}")
    node = {"_target_": "layerlab.data.csv_series.CSVSeries", "target": "y"}
    near = evaluate(str(run.folder), node | {"path": series(tmp_path / "b.csv", 300)})["test/b/mse"]
    far = evaluate(str(run.folder), node | {"path": series(tmp_path / "c.csv", 300, level=50.0)})["test/c/mse"]
    assert near < 2 * run.metrics["test/mse"]
    assert far > 100 * near
    rows = run.predict(torch.zeros(3, 36, 1))
    assert [(r["input"], r["step"]) for r in rows] == [(str(i), s) for i in range(3) for s in range(1, 13)]


def test_mase_is_the_error_in_units_of_the_seasonal_naive(train):
    run = train("model=seasonal_naive", "data=series")
    spec = run.data.spec
    values = run.data.splits["train"].values[: int(526 * 0.75), 0]
    unit = float((values[12:] - values[:-12]).abs().mean())
    assert spec.naive_mae[0] == pytest.approx(unit, rel=1e-4)
    assert run.metrics["test/mase"] == pytest.approx(run.metrics["test/mae"] / unit, rel=1e-4)


def test_labels_of_a_table_end_to_end(train, tmp_path):
    lines = "".join(f"{i % 40},{int(i % 40 > 20)},{i % 2}\n" for i in range(200))
    (tmp_path / "l.csv").write_text("x,late,odd\n" + lines)
    options = ("model=mlp", "data=table", f"data.path={tmp_path / 'l.csv'}", "data.target=[late,odd]")
    with pytest.raises(Mismatch, match=r"use task\.labels=multilabel"):
        train(*options)
    run = train(*options, "task.labels=multilabel", "trainer.max_epochs=5")
    assert run.metrics["test/acc"] > 0.6
    assert set(run.predict(torch.zeros(1, 1))[0]) == {"input", "class", "p_late", "p_odd"}


def test_a_run_is_read_from_another_folder(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    series(tmp_path / "rel.csv", 300)
    run = train("model=mlp", "data=csv", "data.path=rel.csv", "data.target=y", "trainer.max_epochs=1")
    monkeypatch.chdir("/")
    assert evaluate(str(run.folder))["test/mse"] == run.metrics["test/mse"]


@pytest.mark.skipif(not SHARED.exists(), reason="needs the developers' data")
def test_makemores_names_are_scored_by_a_run_on_the_census(train):
    run = train("model=mlp", "data=names", "trainer.max_epochs=1")
    node = {"_target_": "layerlab.data.makemore.Makemore", "path": str(SHARED / "names.txt")}
    with pytest.raises(DataError, match="the run knows up to 11"):
        evaluate(str(run.folder), node)


@pytest.mark.parametrize("precision", ["64-true", "bf16-true"])
def test_other_precisions_end_with_intervals_pictures_and_answers(precision, train):
    run = train(
        "model=lstm", "data=series", f"trainer.precision={precision}", "trainer.max_epochs=1", "figures=forecast"
    )
    assert 0 <= run.metrics["test/coverage"] <= 1
    assert len(run.predict()) == 12


def test_data_of_another_form_is_refused_before_it_is_read(train):
    run = train("model=mlp", "trainer.max_epochs=1")
    with pytest.raises(Mismatch, match="XOR gives vector for classify, the run was trained with image for classify"):
        evaluate(str(run.folder), {"_target_": "layerlab.data.points.XOR"})
    with pytest.raises(Mismatch, match="Names gives tokens for next_token"):
        evaluate(str(run.folder), {"_target_": "layerlab.data.names.Names"})


def test_an_interval_belongs_to_the_checkpoint_it_was_fitted_with(train):
    run = train("model=nlinear", "data=series", "trainer.max_epochs=3", "optimizer.lr=0.5", "schedule=constant")
    names = run.results["checkpoints"]
    assert layerlab.load(run.folder).model.task.half_width is not None
    if names["best"] != names["last"]:
        assert layerlab.load(run.folder, "last").model.task.half_width is None


def test_options_without_effect_are_refused(train):
    for overrides, words in (
        (["model=lstm", "model.ablate=forget", "model.forget_bias=5"], "has no effect on a gate that is fixed"),
        (["model=mlp", "model.depth=0", "model.norm=batch"], r"model\.depth=0 has none"),
        (["trainer.max_steps=0"], r"trainer\.max_steps=0: expected"),
    ):
        with pytest.raises(LayerlabError, match=words):
            train(*overrides)
