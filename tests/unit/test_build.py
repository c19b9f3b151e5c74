import pytest
import torch
from tests.conftest import SPECS

from layerlab.build import ConfigError, build, check, locate, models_for
from layerlab.contract import DataSpec
from layerlab.signature import UNKNOWN, read_target

LSTM = {"_target_": "layerlab.models.lstm.LSTM", "width": 8, "depth": 1, "forget_bias": 1.0, "dropout": 0.0, "patch": 0}


def refused(config, declared=None):
    with pytest.raises(ConfigError) as e:
        check(config, declared or config)
    return str(e.value)


@pytest.mark.parametrize(
    ("key", "value", "text"),
    [
        ("width", "wide", "model.width='wide': expected int >= 1, got str"),
        ("width", "16", "model.width='16': expected int >= 1, got str"),
        ("width", 0, "model.width=0: expected int >= 1"),
        ("width", 1.5, "model.width=1.5: expected int >= 1, got float"),
        ("width", True, "model.width=True: expected int >= 1, got bool"),
        ("width", None, "got null"),
        ("dropout", 1.0, "model.dropout=1.0: expected float >= 0 and < 1"),
        ("forget_bias", "chrone", "did you mean chrono?"),
        ("forget_bias", [1], "model.forget_bias=[1]"),
    ],
)
def test_values_are_checked_against_the_annotations_of_the_source(key, value, text):
    assert text in refused({"model": LSTM | {key: value}}, {"model": LSTM})


@pytest.mark.parametrize("value", ["torch", "chrono", 0, 5, 1.5])
def test_every_admitted_form_of_a_union_passes(value):
    check({"model": LSTM | {"forget_bias": value}}, {"model": LSTM})


@pytest.mark.row(30)
def test_a_float_where_text_is_expected_says_quote_it():
    node = {"_target_": "layerlab.data.names.Names", "path": float("nan")}
    assert "quote it" in refused({"data": node})


def test_unknown_keys_are_named_with_the_nearest_one():
    assert "model.widht: not an option of LSTM; did you mean model.width?" in refused(
        {"model": LSTM | {"widht": 3}}, {"model": LSTM}
    )
    assert "modle: unknown key; did you mean model?" in refused({"model": LSTM, "modle": 1}, {"model": LSTM})
    sgd = {"_target_": "layerlab.train.optim.adamw", "lr": 0.1}
    assert "optimizer=rmsprop, sgd have it" in refused({"optimizer": sgd | {"momentum": 0.9}}, {"optimizer": sgd})


def test_all_findings_come_at_once_and_the_list_is_cut():
    config = {"model": LSTM | {"width": "a", "depth": "b"}}
    assert len(refused(config, {"model": LSTM}).splitlines()) == 2
    many = {f"k{i}": 0 for i in range(30)}
    assert "... and 10 more" in refused(many | {"seed": 0}, {"seed": 0})


@pytest.mark.row(44)
@pytest.mark.parametrize(
    "target",
    ["torch.load", "os.system", "builtins.eval", "logging.os.system", "layerlab..os.system", "torchmetricsx.A", 3],
)
def test_a_target_outside_the_allow_list_is_refused_wherever_it_hides(target):
    assert "is not allowed; allowed prefixes" in refused({"model": {"_target_": target}})
    assert "is not allowed" in refused({"a": {"b": [{"_target_": target}]}})


@pytest.mark.row(44)
def test_a_prefix_is_not_enough_the_object_must_live_there():
    for path in ("torch.nn.functional.torch.load", "layerlab.train.manifest.subprocess.run"):
        with pytest.raises(ConfigError, match="cannot be imported"):
            locate(path)
    for path in ("layerlab.build.get_close_matches", "layerlab.train.manifest.os", "layerlab.train.run.build_nothing"):
        with pytest.raises(ConfigError, match=r"not allowed|cannot be imported"):
            locate(path)
    assert locate("torch.nn.Linear") is torch.nn.Linear


def test_the_users_own_prefix_is_accepted_in_the_one_declared_place():
    config = {"user": {"targets": ["mine"]}, "model": {"_target_": "mine.net.Net"}}
    check(config, config)
    assert "not allowed" in refused({"user": {"targets": []}, "model": {"_target_": "mine.net.Net"}})


def test_a_spec_reaches_the_model_as_the_dataclass_it_is():
    # hydra.utils.instantiate would turn it into a DictConfig (hydra #2364)
    model = build(LSTM, SPECS["tokens", "next_token"])
    assert type(model.spec) is DataSpec
    assert model.hparams["width"] == 8


def test_nested_nodes_are_built_first():
    node = {"_target_": "torch.nn.Sequential"}
    inner = {"_target_": "torch.nn.ReLU"}
    assert isinstance(build(node, build(inner))[0], torch.nn.ReLU)


def test_signatures_follow_imports_and_base_classes_without_importing():
    mlp = read_target("layerlab.models.mlp.MLP")
    assert mlp is not None
    assert "straight_through" in mlp.parameters["activation"][0].choices
    code = read_target("layerlab.data.stdlib_code.StdlibCode")
    assert code.facts()["kind"] == "tokens"  # of its base class
    assert read_target("torch.optim.AdamW").parameters["lr"][0] is UNKNOWN  # float | Tensor: not judged
    assert read_target("layerlab.models.lstm.LSTN") is None


def test_models_are_found_by_what_their_source_says():
    assert "cnn" not in models_for("tokens", "next_token")
    assert {"lstm", "transformer", "mlp"} <= set(models_for("tokens", "next_token"))
    assert models_for("vector", "regress") == ["mlp", "neuron"]


def test_a_mismatch_lists_what_fits_and_a_command_that_works():
    config = {
        "model": {"_target_": "layerlab.models.cnn.CNN"},
        "data": {"_target_": "layerlab.data.names.Names"},
        "task": {"_target_": "layerlab.tasks.next_token.NextToken"},
    }
    with pytest.raises(ConfigError) as e:
        check(config, config, {"model": "cnn", "data": "names", "task": "next_token"})
    text = str(e.value)
    assert text.startswith("model=cnn reads image, series, but data=names gives tokens.")
    assert "lstm" in text
    assert text.endswith("Try: python train.py model=lstm data=names")
