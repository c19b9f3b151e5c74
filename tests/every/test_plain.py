"""The loop written out and the Lightning path: the same weights, bit for bit."""

import csv

import pytest
import torch

import layerlab
from layerlab.build import model_class
from layerlab.contract import LayerlabError
from tests.every.cells import CELLS, DATA, options

TRAINED = [m for m in options("model") if model_class(m).facts()["stages"]]
KINDS = [("cnn", "digits"), ("lstm", "names"), ("nlinear", "series")]  # three data sets of three kinds, to the end


def first_data(model):
    return next(d for m, d in CELLS if m == model and not any("{shared}" in o for o in DATA[d][1]))


@pytest.mark.parametrize(
    ("model", "data", "steps"),
    [(m, first_data(m), 12) for m in TRAINED] + [(m, d, -1) for m, d in KINDS],
    ids=lambda v: str(v),
)
def test_the_weights_are_those_of_the_lightning_path_bit_for_bit(model, data, steps, given, train):
    options = [
        *given(model, data),
        f"model={model}",
        f"data={data}",
        f"trainer.max_steps={steps}",
        "trainer.max_epochs=2",
        "select=last",
    ]
    if "dropout" in model_class(model).parameters:
        options.append("model.dropout=0.2")
    plain, full = train(*options, "trainer=plain"), train(*options)
    assert plain.results["steps"] == full.results["steps"]
    mine, theirs = plain.model.state_dict(), full.model.state_dict()
    assert mine.keys() == theirs.keys()
    for name in mine:
        assert torch.equal(mine[name], theirs[name]), name
    tested = [{k: v for k, v in run.metrics.items() if k.startswith("test/")} for run in (plain, full)]
    assert tested[0] == tested[1]


def test_a_schedule_that_follows_validation_does_so_in_both(train):
    options = ("model=mlp", "schedule=plateau", "schedule.patience=1", "optimizer.lr=0.3", "trainer.max_epochs=8")
    rows = []
    for run in (train(*options, "trainer=plain"), train(*options)):
        with (run.folder / "metrics.csv").open(newline="") as f:
            rows.append({r["step"]: float(r["val/loss"]) for r in csv.DictReader(f) if r["val/loss"]})
    assert rows[0] == pytest.approx(rows[1], rel=1e-6)  # Lightning logs float32


def test_its_checkpoint_loads_as_any_other(train):
    run = train("model=lstm", "data=names", "trainer=plain", "trainer.max_epochs=1")
    assert layerlab.load(run.folder).predict("mar") == run.predict("mar")
    path = run.folder / run.results["checkpoints"]["best"]
    again = type(run.model).load_from_checkpoint(path, weights_only=True)
    assert again.task.name == "next_token"


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("callbacks=early_stopping", r"takes no callbacks \(early_stopping\)"),
        ("logger=wandb", "takes no logger=wandb"),
        ("logger=tensorboard", "takes no logger=tensorboard"),
        ("trainer.precision=16-mixed", r"trainer\.precision: not an option of Plain"),
        ("trainer.devices=2", r"trainer\.devices: not an option of Plain"),
        ("trainer.accumulate_grad_batches=2", r"trainer\.accumulate_grad_batches: not an option of Plain"),
    ],
)
def test_what_it_does_not_do_is_refused_by_name(override, words, train):
    with pytest.raises(LayerlabError, match=words):
        train("model=mlp", "trainer=plain", override)


def test_gradients_add_up_where_zero_grad_is_forgotten(train):
    options = ("model=neuron", "schedule=constant", "optimizer=sgd", "optimizer.momentum=0", "trainer=plain")

    def weight(*more):
        return train(*options, "trainer.max_steps=3", "trainer.gradient_clip_val=0", *more).model.head.weight.detach()

    start = weight("optimizer.lr=1e-12")
    moved = [float((weight("optimizer.lr=1e-3", f"trainer.zero_grad={z}") - start).norm()) for z in ("true", "false")]
    assert moved[1] / moved[0] == pytest.approx(2, rel=0.1)  # g1 + (g1 + g2) + (g1 + g2 + g3) against g1 + g2 + g3
