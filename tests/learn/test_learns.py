"""Truly trains: a batch by heart, and better than guessing. Slow: make test-all."""

import math

import pytest
import torch

from layerlab.build import ALLOWED, build, model_class
from layerlab.tasks import TASKS
from tests.conftest import SHARED, SPECS, batch
from tests.every.test_models import TRAINED

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(("name", "kind", "task"), TRAINED, ids=["-".join(c) for c in TRAINED])
def test_learns_a_batch_by_heart(name, kind, task):
    if name == "bigram":
        pytest.skip("one row per symbol: it cannot tell two places of the same symbol apart")
    torch.manual_seed(0)
    spec = SPECS[kind, task]
    options = {"patch": 1} if task == "forecast" else {}  # 12 steps are too few to cut
    task = next(t for t in TASKS.values() if t.name == task)(spec, **options)
    model = build({"_target_": model_class(name).path}, task.model_spec, allowed=ALLOWED)
    model.task = task
    x, y = batch(spec, 4)
    if spec.task == "next_token":
        x[:, 0] = torch.arange(4) + 1  # one start per answer, else there is no telling them apart
    optimizer = torch.optim.Adam(model.parameters(), 1e-2)
    first = None
    for _ in range(300):
        loss, _, _ = model.step((x, y))
        first = first or float(loss.detach())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    # a linear map cannot fit every batch, but four points in more dimensions it can
    assert float(loss.detach()) < 0.1 * first, (first, float(loss.detach()))


DIGITS = {"cnn": 0.97, "lstm": 0.95, "transformer": 0.93, "mlp": 0.96}


@pytest.mark.parametrize(("model", "bar"), DIGITS.items())
def test_reaches_the_stated_accuracy_on_digits(model, bar, train):
    found = [train(f"model={model}", f"seed={s}").metrics["test/acc"] for s in range(3)]
    assert sum(found) / 3 >= bar, found


@pytest.mark.parametrize("model", ["mlp", "rnn", "gru", "lstm", "transformer"])
def test_names_beat_the_counted_bigram(model, train):
    counted = train("model=ngram", "model.order=2", "data=names").metrics["test/nll"]
    assert train(f"model={model}", "data=names").metrics["test/nll"] < counted


def test_lstm_on_makemore_beats_the_four_gram(train):
    path = SHARED / "names.txt"
    if not path.exists():
        pytest.skip("needs names.txt of the developers' data")
    names = ("data=makemore", f"data.path={path}")
    counted = train("model=ngram", "model.order=4", *names).metrics["test/nll"]
    assert train("model=lstm", *names).metrics["test/nll"] < counted


@pytest.mark.parametrize("model", ["mlp", "lstm", "rnn", "gru", "cnn"])
@pytest.mark.parametrize("series", ["co2", "elnino"])
def test_forecasts_beat_the_mean_of_the_training_part(model, series, train):
    run = train(f"model={model}", "data=series", f"data.name={series}")
    targets = torch.cat([y for _, y in run.data.batches("test")])
    assert run.metrics["test/mse"] < float((targets**2).mean())  # z-scores: the mean is 0


@pytest.mark.parametrize(
    ("overrides", "metric", "better_than"),
    [
        (["data=table"], "test/acc", 0.9),
        (["data=table", "data.name=wine"], "test/acc", 0.9),
        (["data=table", "data.name=diabetes", "task=regress"], "test/r2", 0.2),
        (["data=table", "task.labels=binary"], "test/auroc", 0.95),
        (["data=mnist1d"], "test/acc", 0.5),
    ],
    ids=str,
)
def test_tables_and_signals(overrides, metric, better_than, train):
    value = train("model=mlp", *overrides).metrics[metric]
    assert math.isfinite(value)
    assert value > better_than


MEMORY = [  # experiment, least and most accuracy
    ("copy_rnn", 0.0, 0.2),
    ("copy_lstm", 0.95, 1.0),
    ("copy_lstm_chrono", 0.95, 1.0),
    ("copy_attention", 0.99, 1.0),
    ("recall_rnn", 0.0, 0.2),
    ("recall_lstm", 0.45, 1.0),
]


@pytest.mark.parametrize(("experiment", "least", "most"), MEMORY, ids=[m[0] for m in MEMORY])
def test_who_remembers_what_was_fifty_steps_ago(experiment, least, most, train):
    found = [train(f"experiment={experiment}", f"seed={s}").metrics["test/acc"] for s in range(3)]
    assert least <= sum(found) / 3 <= most, found


@pytest.mark.parametrize(
    ("overrides", "least"),
    [
        (["model=mlp", "data=xor"], 0.97),
        (["model=mlp", "data=moons"], 0.97),
        (["model=mlp", "model.depth=3", "data=spirals", "trainer.max_epochs=60"], 0.9),
        (["model=cnn", "data=photos", "data.size=32", "trainer.max_epochs=10"], 0.5),
    ],
    ids=lambda v: v[1] if isinstance(v, list) else "",
)
def test_boundaries_and_photographs(overrides, least, train):
    assert train(*overrides).metrics["test/acc"] >= least


def test_one_neuron_draws_no_boundary_around_opposite_corners(train):
    assert train("model=neuron", "data=xor").metrics["test/acc"] < 0.7


def test_the_sum_of_two_marked_numbers_is_learned_by_an_lstm_and_guessing_gives_a_sixth(train):
    options = ("data=adding", "data.steps=50", "model.width=64", "trainer.max_epochs=6", "optimizer.lr=2e-3")
    run = train("model=lstm", "model.forget_bias=chrono", *options)
    targets = torch.cat([y for _, y in run.data.batches("test")])
    assert float(((targets - 1) ** 2).mean()) == pytest.approx(1 / 6, rel=0.1)
    assert run.metrics["test/mse"] < 0.02


def test_debug_overfit_learns_two_batches(train):
    run = train("model=mlp", "debug=overfit")
    assert run.model.task.report(run.model.epoch_sums.tolist())["acc"] == 1.0
