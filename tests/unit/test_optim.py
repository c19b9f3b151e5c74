import pytest
import torch
from tests.conftest import SPECS
from torch import nn
from torch.optim import lr_scheduler

from layerlab.models.transformer import Transformer
from layerlab.train import optim, schedule
from layerlab.train.freeze import Facts, Freeze, Policy, State, none


def lrs(scheduler, optimizer, steps):
    found = []
    for _ in range(steps):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return found


def fresh(lr=0.1):
    return torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=lr)


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (
            lambda o: schedule.cosine(o, 50, warmup=0, final=0.1),
            lambda o: lr_scheduler.CosineAnnealingLR(o, 50, eta_min=0.01),
        ),
        (
            lambda o: schedule.onecycle(o, 50),
            lambda o: lr_scheduler.OneCycleLR(o, 0.1, total_steps=50, cycle_momentum=False, final_div_factor=1e4),
        ),
        (
            lambda o: schedule.step(o, 40, drops=3, gamma=0.5),
            lambda o: lr_scheduler.MultiStepLR(o, [10, 20, 30], gamma=0.5),
        ),
        (lambda o: schedule.constant(o, 40), lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
    ],
    ids=["cosine", "onecycle", "step", "constant"],
)
def test_schedules_equal_torchs(ours, theirs):
    a, b = fresh(), fresh()
    found = lrs(ours(a)["scheduler"], a, 40)
    expected = lrs(theirs(b), b, 40)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_warm_up_rises_linearly_in_steps_or_as_a_share():
    for warmup in (4, 0.1):
        o = fresh(1.0)
        found = lrs(schedule.cosine(o, 40, warmup=warmup, final=0.0)["scheduler"], o, 40)
        assert found[:5] == pytest.approx([0.2, 0.4, 0.6, 0.8, 1.0])
        assert found == sorted(found[:5]) + sorted(found[5:], reverse=True)


def test_plateau_lowers_lr_only_after_its_patience():
    o = fresh(1.0)
    node = schedule.plateau(o, 0, factor=0.5, patience=2)
    for loss in (1.0, 1.0, 1.0):
        node["scheduler"].step(loss)
    assert o.param_groups[0]["lr"] == 1.0
    node["scheduler"].step(1.0)
    assert o.param_groups[0]["lr"] == 0.5
    assert node["interval"] == "epoch"


def unfrozen(model):
    names = tuple(model.stage_parameters())
    return Freeze(none(Facts(names, names, started="random")), model, 1)


def test_weight_decay_is_for_matrices_and_every_parameter_is_in_one_group():
    model = Transformer(SPECS["tokens", "next_token"], width=8, heads=2)
    groups = unfrozen(model).groups(None)
    found = [p for g in groups for p in g["params"]]
    assert len(found) == len({id(p) for p in found}) == len(list(model.parameters()))
    for g in groups:
        decays = "weight_decay" not in g
        assert all((p.ndim >= 2) == decays for p in g["params"]), g["name"]
    optimizer = optim.adamw(groups, weight_decay=0.1)
    assert {g["weight_decay"] for g in optimizer.param_groups} == {0.0, 0.1}


def test_a_frozen_parameter_is_in_no_group():
    model = Transformer(SPECS["tokens", "next_token"], width=8, heads=2)
    states = {s: State("none" if s == "head" else "all", 1.0, "train") for s in model.stage_parameters()}
    frozen = Freeze(Policy("own", lambda epoch: states), model, 1)
    assert all(p is not model.head.weight for g in frozen.groups(1.0) for p in g["params"])


@pytest.mark.parametrize("name", ["sgd", "adam", "adamw", "rmsprop"])
def test_each_optimizer_steps_as_torchs_own_and_fused_where_there_is_one(name):
    torch.manual_seed(0)
    make = getattr(optim, name)
    w = nn.Parameter(torch.randn(4, 3))
    optimizer = make([{"params": [w]}])
    assert optimizer.defaults.get("fused", name == "rmsprop") is True
    v = nn.Parameter(w.detach().clone())
    options = {k: x for k, x in optimizer.defaults.items() if k not in ("fused", "foreach", "decoupled_weight_decay")}
    reference = type(optimizer)([{"params": [v]}], **options)
    for _ in range(5):
        w.grad = v.grad = torch.randn(4, 3)
        optimizer.step()
        reference.step()
    torch.testing.assert_close(w, v)
