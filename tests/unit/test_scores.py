"""Intervals, precision and recall, against statsmodels, scikit-learn and the binomial distribution."""

import csv
import json

import pytest
import torch
from scipy.stats import binom
from sklearn.metrics import precision_recall_fscore_support

from layerlab.train import scores


def matrix(seed=0, C=4, n=300):
    g = torch.Generator().manual_seed(seed)
    y = torch.randint(0, C, (n,), generator=g)
    said = torch.where(torch.rand(n, generator=g) < 0.7, y, torch.randint(0, C, (n,), generator=g))
    found = torch.zeros(C, C, dtype=torch.int64).index_put_((y, said), torch.tensor(1), accumulate=True)
    return found, y, said


def test_the_bootstrap_interval_of_the_accuracy_is_the_binomial_one():
    found, y, said = matrix()
    acc = float((y == said).float().mean())
    low, high = (binom.ppf(q, len(y), acc) / len(y) for q in (0.025, 0.975))
    mine = scores.intervals(found)["acc"]
    assert mine["low"] == pytest.approx(low, abs=0.01)
    assert mine["high"] == pytest.approx(high, abs=0.01)
    assert mine["n"] == 300


def test_intervals_of_averages_over_classes_hold_their_value():
    found, y, said = matrix()
    *_, f1, _ = precision_recall_fscore_support(y, said, average="macro", zero_division=0)
    recall = (found.diagonal() / found.sum(1)).mean()
    mine = scores.intervals(found)
    assert mine["f1"]["low"] < f1 < mine["f1"]["high"]
    assert mine["balanced_acc"]["low"] < recall < mine["balanced_acc"]["high"]
    assert 0.05 < mine["f1"]["high"] - mine["f1"]["low"] < 0.15


def test_an_interval_covers_the_truth_as_often_as_it_says():
    truth, n = 0.7, 80
    g = torch.Generator().manual_seed(0)
    hits = 0
    for _ in range(300):
        right = int((torch.rand(n, generator=g) < truth).sum())
        found = scores.intervals(torch.tensor([[right, n - right], [0, 0]]))["acc"]
        hits += found["wilson_low"] <= truth <= found["wilson_high"]
    assert hits / 300 == pytest.approx(0.95, abs=0.04)


def test_where_every_answer_is_right_the_interval_of_wilson_still_has_a_width():
    found = scores.intervals(torch.diag(torch.tensor([20, 20])))["acc"]
    assert found["low"] == found["high"] == 1
    assert found["wilson_low"] == pytest.approx(0.912, abs=0.002)


def test_a_thousand_classes_take_no_memory():
    found = scores.intervals(torch.diag(torch.full((1000,), 3)))
    assert set(found) == {"acc"}


def test_per_class_figures_are_those_of_scikit_learn(tmp_path):
    found, y, said = matrix()
    scores.per_class(found, tuple("abcd"), tmp_path / "c.csv")
    with (tmp_path / "c.csv").open(newline="") as f:
        rows = list(csv.DictReader(f))
    expected = precision_recall_fscore_support(y, said)
    for i, row in enumerate(rows):
        assert row["class"] == "abcd"[i]
        for name, values in zip(("precision", "recall", "f1", "examples"), expected, strict=True):
            assert float(row[name]) == pytest.approx(values[i], abs=1e-4)


def test_a_run_ends_with_its_interval_and_what_guessing_gives(train, capsys):
    run = train("model=mlp", "trainer.max_epochs=2")
    found = json.loads((run.folder / "results.json").read_text())
    interval = found["intervals"]["test/acc"]
    assert interval["low"] < found["metrics"]["test/acc"] < interval["high"]
    assert interval["n"] == len(run.data.splits["test"])
    counts = torch.bincount(run.data.splits["test"].y)
    assert found["majority"] == pytest.approx(float(counts.max() / counts.sum()))
    assert (run.folder / "per_class.csv").is_file()
    assert "95 % interval" in scores.line(found)
    assert "always the most frequent class" in scores.line(found)
