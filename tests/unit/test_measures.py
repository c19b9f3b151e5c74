"""The measures of claims against what is known without them."""

import importlib
import math
from pathlib import Path

import pytest

import layerlab.claims.measures as measures
from layerlab.compose import compose
from layerlab.train.run import assemble

NAMES = sorted(p.stem for p in Path(measures.__file__).parent.glob("[!_]*.py"))
OPTIONS = {
    "dot_products": {"d": [8, 512], "scale": ["true", "false"]},
    "loop_orders": {"order": ["zflbs", "fzlbs", "flbzs"]},
    "reach": {"lag": [1, 50]},
}
MODELS = {"reach": ("model=rnn", "data=copy_task", "model.width=32")}


def measured(name, *overrides):
    data, _, model = assemble(compose(*(overrides or MODELS.get(name, ("model=mlp", "model.width=16")))).config)
    return getattr(importlib.import_module(f"layerlab.claims.measures.{name}"), name)(
        model, data, **OPTIONS.get(name, {})
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_gives_what_it_says_in_numbers(name):
    found = measured(name)
    module = importlib.import_module(f"layerlab.claims.measures.{name}")
    assert {k.partition("(")[0] for k in found} == set(module.GIVES)
    assert all(isinstance(v, float) and math.isfinite(v) for v in found.values())


def test_unscaled_scores_have_the_deviation_of_a_sum_of_d_products():
    found = measured("dot_products")
    assert found["std(d=512,scale=false)"] == pytest.approx(512**0.5, rel=0.05)
    assert found["std(d=8,scale=true)"] == pytest.approx(1, rel=0.1)
    assert found["entropy(d=512,scale=false)"] < found["entropy(d=512,scale=true)"] < 1


def test_units_with_a_large_negative_bias_are_dead_and_with_a_positive_one_alive():
    assert measured("dead_units", "model=mlp", "model.init_bias=-50.0")["dead"] == 1
    assert measured("dead_units", "model=mlp", "model.depth=1", "model.init_bias=50.0")["dead"] == 0


def test_linear_layers_are_one_map_and_bent_ones_are_not():
    assert measured("collapse", "model=mlp", "model.activation=identity", "model.depth=4")["error"] < 1e-12
    assert measured("collapse", "model=mlp", "model.activation=relu")["error"] > 1e-3


def test_three_places_of_zero_grad_are_one_and_the_fourth_learns_nothing():
    found = measured("loop_orders")
    assert found["moved(order=zflbs)"] == found["moved(order=fzlbs)"] == 0
    assert found["moved(order=flbzs)"] > 0
    assert found["acc(order=zflbs)"] > 0.7 > 0.3 > found["acc(order=flbzs)"]


def test_gradients_add_up():
    found = measured("accumulation")
    assert found["sum_error"] < 1e-12
    assert found["batch_error"] < 1e-12
    assert found["one_error"] > 0.1


def test_backpropagation_agrees_with_differences_and_a_wrong_one_does_not():
    found = measured("gradient_check")
    assert found["median_rel"] < 1e-6
    assert found["wrong_rel"] > 0.01


def test_the_ratio_of_one_hidden_layer_is_one_and_of_sigmoids_small():
    assert measured("gradient_ratio", "model=mlp", "model.depth=1")["glog"] == 0
    deep = measured("gradient_ratio", "model=mlp", "model.depth=8", "model.activation=sigmoid", "model.width=64")
    assert deep["glog"] < -4


def test_an_identity_with_relu_keeps_the_gradient_and_the_default_loses_it():
    kept = measured("reach", "model=rnn", "data=copy_task", "model.init=identity", "model.activation=relu")
    lost = measured("reach", "model=rnn", "data=copy_task", "model.width=64")
    assert kept["glog(lag=50)"] > -1
    assert lost["glog(lag=50)"] < -8
