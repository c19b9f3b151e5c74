"""Pictures: drawn where they apply, refused where they do not."""

import numpy as np
import pytest
from PIL import Image
from tests.formats import write_pairs

import layerlab
from layerlab.contract import LayerlabError
from layerlab.train.figures import PICTURES

RUNS = [
    (
        ["model=cnn", "trainer.max_epochs=1"],
        {"confusion", "reliability", "examples", "mistakes", "saliency", "filters", "feature_maps", "gradients"},
    ),
    (
        [
            "model=transformer",
            "model.patch=2",
            "data=photos",
            "data.per_class=4",
            "data.size=16",
            "trainer.max_steps=5",
        ],
        {"confusion", "reliability", "examples", "mistakes", "saliency", "attention", "gradients"},
    ),
    (
        ["model=resnet", "model.depth=8", "data=mnist1d", "trainer.max_steps=5"],
        {"confusion", "reliability", "filters", "feature_maps", "gradients"},
    ),
    (["model=transformer", "data=names", "trainer.max_steps=5"], {"attention", "samples", "gradients"}),
    (["model=attention", "data=series", "trainer.max_steps=5"], {"attention", "forecast", "gradients"}),
    (["model=cnn", "data=series", "trainer.max_steps=5"], {"filters", "feature_maps", "forecast", "gradients"}),
    (["model=lstm", "data=code", "trainer.max_steps=5", "data.context=16"], {"samples", "gates", "gradients"}),
    (["model=ngram", "data=names"], {"samples"}),
    (["model=seasonal_naive", "data=series"], {"forecast"}),
    (["model=mlp", "data=table", "data.name=diabetes", "task=regress", "trainer.max_steps=5"], {"gradients"}),
    (
        ["model=gru", "data=recall", "data.blanks=4", "trainer.max_steps=5"],
        {"confusion", "reliability", "gates", "gradients"},
    ),
]


def pixels(place):
    with Image.open(place) as image:
        return np.asarray(image.convert("L"))


@pytest.mark.parametrize(("overrides", "expected"), RUNS, ids=[r[0][0] for r in RUNS])
def test_all_draws_what_applies_and_none_of_it_is_blank(overrides, expected, train):
    run = train(*overrides, "figures=all")
    assert set(run.figures) - {"curves"} == expected
    for name in expected:
        assert len(np.unique(pixels(run.figures[name]))) > 10, name


def test_what_does_not_apply_is_refused_before_the_first_batch(train):
    with pytest.raises(LayerlabError, match=r"figures=filters: shows the filters .* apply: confusion"):
        train("model=lstm", "figures=[filters]")
    with pytest.raises(LayerlabError, match=f"figures=filter: unknown; choose from {', '.join(PICTURES)}, or all"):
        train("figures=filter")


def test_a_forecast_comes_with_its_interval_and_a_plot_again_after_loading(train, tmp_path):
    run = train("model=nlinear", "data=series", "trainer.max_epochs=3", "figures=forecast")
    rows = run.predict()
    assert len(rows) == 12
    assert all(r["co2_low"] < r["co2"] < r["co2_high"] for r in rows)
    again = layerlab.load(run.folder)
    assert again.predict() == rows
    again.draw("", tmp_path / "f.png")
    assert pixels(tmp_path / "f.png").shape[1] > 300
    assert 0 <= run.metrics["test/coverage"] <= 1


def test_a_transduction_shows_where_it_looked(train, tmp_path):
    write_pairs(tmp_path / "pairs.tsv")
    run = train("model=seq2seq", "data=spelling", f"data.path={tmp_path / 'pairs.tsv'}", "trainer.max_epochs=40")
    assert run.metrics["test/exact"] > 0.9  # four letters backwards
    assert run.predict("abcd dcba") == [{"input": "abcd", "output": "D C B A"}, {"input": "dcba", "output": "A B C D"}]
    run.draw("abcd dcba", tmp_path / "a.png")
    looks = run.model.alignment(run.data.encode_text("abcd")[0])[0, :4, :4]
    assert looks.argmax(1).tolist() == [3, 2, 1, 0]


def test_there_is_no_plot_of_a_class(train, tmp_path):
    run = train("model=mlp", "trainer.max_epochs=1")
    with pytest.raises(LayerlabError, match="plot: there is none for classify"):
        run.draw("x.png", tmp_path / "p.png")
