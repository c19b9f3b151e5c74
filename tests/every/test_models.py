"""Every model on every kind of data it takes: shapes, gradients, stages, round trip."""

import pytest
import torch

from layerlab.build import ALLOWED, build, model_class
from layerlab.models.base import Model
from layerlab.signature import Type
from layerlab.tasks import Forecast
from layerlab.train.checkpoint import read, write
from tests.conftest import SPECS, batch
from tests.every.cells import options

CASES = [
    (name, kind, task)
    for name in options("model")
    for kind, task in SPECS
    if kind in model_class(name).facts()["accepts"] and task in model_class(name).facts()["tasks"]
]


TRAINED = [c for c in CASES if model_class(c[0]).facts()["stages"]]  # the others are solved, and have no parameters


def make(name, kind, task):
    """A model with default options, on the spec that it would get in a run."""
    torch.manual_seed(0)
    spec = SPECS[kind, task]
    if model_class(name).facts()["raw_window"]:
        spec = Forecast(spec.replace(season=4)).raw_window().model_spec
    return build({"_target_": model_class(name).path}, spec, allowed=ALLOWED)


@pytest.fixture
def model(request):
    model = make(*request.param)
    if model.closed_form:
        model.solve([core_batch(model.spec)], [core_batch(model.spec)])
    return model


def core_batch(spec):
    """A batch as the network inside the task's wrapper sees it."""
    x, y = batch(spec)
    return x, torch.randn(len(x), spec.out) if spec.task == "forecast" else y


each = pytest.mark.parametrize("model", CASES, indirect=True, ids=["-".join(c) for c in CASES])
each_trained = pytest.mark.parametrize("model", TRAINED, indirect=True, ids=["-".join(c) for c in TRAINED])


@each
def test_the_answer_has_the_shape_that_the_spec_states(model):
    x, _ = batch(model.spec)
    steps = {"next_token": model.spec.shape, "transduce": model.spec.target_shape}.get(model.spec.task, ())
    assert model(x).shape == (4, *steps, model.spec.out)


@each_trained
def test_every_parameter_gets_a_gradient_and_stands_in_one_stage(model):
    x, _ = batch(model.spec)
    out = model(x)
    (out * torch.randn_like(out)).sum().backward()
    assert [n for n, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    stages = model.stage_parameters()
    assert sum(map(len, stages.values())) == len(list(model.parameters()))
    assert list(stages)[-1] == "head"
    assert {n for n, _ in stages["head"]} == {f"head.{n}" for n, _ in model.head.named_parameters()}


@each_trained
def test_forward_is_the_head_of_the_features(model):
    if type(model).forward is not Model.forward:
        pytest.skip("defines forward itself")
    x, _ = batch(model.spec)
    model.eval()
    assert torch.equal(model.head(model.features(x)), model(x))


@each
def test_a_checkpoint_makes_the_same_model_again(model, tmp_path):
    state = {"state_dict": model.state_dict(), "hyper_parameters": dict(model.hparams)}
    write(state, tmp_path / "a.ckpt")
    saved = read(tmp_path / "a.ckpt")
    again = type(model)(**saved["hyper_parameters"])
    again.load_state_dict(saved["state_dict"])
    x, _ = batch(model.spec)
    assert torch.equal(again.eval()(x), model.eval()(x))


@each
def test_examples_do_not_see_each_other(model):
    model.eval()
    x, _ = batch(model.spec)
    torch.testing.assert_close(model(x)[:1], model(x[:1]), rtol=1e-4, atol=1e-5)


CHOICES = [  # every choice that a model's options name, on the first kind of data it reads
    (name, key, choice, *next((k, t) for n, k, t in CASES if n == name))
    for name in options("model")
    for key, (kind, default) in model_class(name).parameters.items()
    for choice in (kind.choices if isinstance(kind, Type) else ())
    if choice != default
]


@pytest.mark.parametrize(
    ("name", "key", "choice", "kind", "task"), CHOICES, ids=[f"{c[0]}-{c[1]}-{c[2]}" for c in CHOICES]
)
def test_every_choice_makes_a_model_that_answers(name, key, choice, kind, task):
    spec = SPECS[kind, task]
    model = build({"_target_": model_class(name).path, key: choice}, spec, allowed=ALLOWED)
    x, _ = batch(spec)
    if not model.closed_form:
        assert model(x).shape[-1] == spec.out
        model.stage_parameters()
