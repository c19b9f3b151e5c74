"""Freeze strategies: what they promise of every parameter, buffer and learning rate."""

import shutil

import pytest
import timm
import torch
from tests.conftest import SPECS, batch
from torch import nn

import layerlab
from layerlab.contract import LayerlabError
from layerlab.models.cnn import CNN
from layerlab.models.lstm import LSTM
from layerlab.models.pretrained import Pretrained
from layerlab.train import freeze, optim, run, schedule
from layerlab.train.freeze import Facts, Freeze, State
from layerlab.train.trainer import SyncNorms

STRATEGIES = {
    "linear_probe": {},
    "lp_ft": {"phase": "finetune"},
    "none": {},
    "first_n": {"n": 2},
    "gradual": {},
    "discriminative": {},
    "layer_decay": {},
    "norm_only": {},
    "bias_only": {},
}
TINY = "test_efficientnet"  # of timm, for tests: 5 stages, batch norm, 0.4 M parameters
IMAGES = SPECS["image", "classify"]


def tiny():
    torch.manual_seed(0)
    return Pretrained(IMAGES, backbone=TINY, weights=None)


def facts(model, **more):
    names = (tuple(model.stage_parameters(fine)) for fine in (False, True))
    return Facts(*names, **{"started": "pretrained"} | more)


def applied(name, model, epochs=6, **more):
    known = facts(model, started="run" if name == "lp_ft" else "pretrained")  # the second run of lp_ft starts from one
    return Freeze(getattr(freeze, name)(known, **STRATEGIES[name], **more), model, epochs)


def step(model, frozen, epoch, optimizer, alone=True):
    """One optimizer step as both trainers make it."""
    frozen.enter(epoch, optimizer, torch.optim.lr_scheduler.LambdaLR(optimizer, lambda _: 1.0), alone)
    x, y = batch(IMAGES, 6)
    optimizer.zero_grad()
    nn.functional.cross_entropy(model(x), y).backward()
    for p in frozen.rest(epoch):
        p.grad = None
    optimizer.step()


@pytest.mark.parametrize("alone", [True, False])
@pytest.mark.parametrize("name", STRATEGIES)
def test_exactly_the_declared_parameters_change_and_no_buffer_of_a_frozen_stage(name, alone):
    model = tiny()
    model.train()
    frozen = applied(name, model)
    frozen.begin()
    optimizer = optim.adamw(frozen.groups(1e-2), weight_decay=0.1)
    for epoch in (0, 0, 2, 2):
        before = {n: v.clone() for n, v in model.state_dict().items()}
        parameters = dict(model.named_parameters())
        step(model, frozen, epoch, optimizer, alone)
        now, declared = model.state_dict(), {n for n, p in parameters.items() if p in frozen.trainable(epoch)}
        moved = {n for n in parameters if not torch.equal(before[n], now[n])}
        assert moved == declared
        states = frozen.policy.state(epoch)
        still = [s for s, state in states.items() if state.trainable == "none" or state.bn != "train"]
        kept = {id(model.get_submodule(m)) for s in still for m in frozen.modules[s]}
        for n, module in model.named_modules():
            if getattr(module, "running_mean", None) is not None:
                for b, _ in module.named_buffers(
                    recurse=False
                ):  # means, variances, and how many batches they have seen
                    assert torch.equal(before[f"{n}.{b}"], now[f"{n}.{b}"]) == (id(module) in kept), (n, b)


@pytest.mark.parametrize("name", STRATEGIES)
def test_every_parameter_that_ever_trains_is_in_exactly_one_group_and_no_other_in_any(name):
    model = tiny()
    frozen = applied(name, model)
    frozen.begin()
    found = [p for g in frozen.groups(1e-3) for p in g["params"]]
    assert len(found) == len(set(found))
    assert set(found) == frozen.ever == {p for p in model.parameters() if p.requires_grad}


@pytest.mark.parametrize("name", ["linear_probe", "lp_ft", "norm_only", "bias_only"])
def test_a_frozen_backbone_answers_in_training_as_in_evaluation_whoever_shares_the_batch(name):
    model = tiny()
    frozen = applied(name, model)
    frozen.enter(0, optim.sgd(frozen.groups(1.0)), None, alone=True)
    x, _ = batch(IMAGES, 5)
    with torch.no_grad():
        trained = model.train().features(x)
        evaluated = model.eval().features(x)
        assert torch.equal(trained, evaluated)
        assert torch.allclose(model.train().features(x[:2]), trained[:2], atol=1e-6)


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_strategy_is_a_function_of_the_epoch(name):
    policy = applied(name, tiny()).policy
    tables = [policy.state(epoch) for epoch in range(8)]
    assert [policy.state(epoch) for epoch in (5, 1, 5, 0)] == [tables[5], tables[1], tables[5], tables[0]]


@pytest.mark.parametrize("plan", ["cosine", "onecycle", "plateau"])
@pytest.mark.parametrize("name", STRATEGIES)
def test_lrs_of_groups_stand_to_each_other_as_the_strategy_says(name, plan):
    model = tiny()
    frozen = applied(name, model)
    optimizer, node = optim.Recipe(optim.adamw, getattr(schedule, plan), frozen, 1e-2).build(12)
    for epoch in range(4):
        for _ in range(2):  # applied twice is applied once
            frozen.enter(epoch, optimizer, node["scheduler"], alone=True)
        states = frozen.policy.state(epoch)
        for _ in range(3):
            head = optimizer.param_groups[-1]["lr"]
            for g in optimizer.param_groups:
                share = states[g["name"].rpartition("/")[0]].lr / states["head"].lr
                assert g["lr"] == pytest.approx(head * share, rel=1e-9)
            optimizer.step()
            node["scheduler"].step(*([1.0] if plan == "plateau" else []))


@pytest.mark.parametrize("plan", ["cosine", "plateau"])
def test_a_multiple_may_change_with_the_epoch(plan):
    model = CNN(IMAGES)
    multiples = (1.0, 0.25, 0.25, 2.0)

    def state(epoch):
        return {s: State("all", multiples[epoch] if s == "stem" else 1.0, "train") for s in ("stem", "body", "head")}

    frozen = Freeze(freeze.Policy("own", state), model, 4)
    optimizer, node = optim.Recipe(optim.adamw, getattr(schedule, plan), frozen, 1e-2).build(8)
    for epoch, multiple in enumerate(multiples):
        frozen.enter(epoch, optimizer, node["scheduler"], alone=True)
        for _ in range(2):
            lrs = {g["name"]: g["lr"] for g in optimizer.param_groups}
            assert lrs["stem/decay"] == pytest.approx(lrs["head/decay"] * multiple)
            optimizer.step()
            node["scheduler"].step(*([1.0] if plan == "plateau" else []))


def test_layer_decay_gives_each_layer_its_own_real_lr():
    model = Pretrained(IMAGES, weights=None)
    groups = applied("layer_decay", model).groups(1.0)
    lrs = sorted({g["lr"] for g in groups})
    assert lrs == pytest.approx([0.75**i for i in range(17, -1, -1)])  # 18 layers of lite0, .0075 to 1
    assert [g["name"].split("/")[0] for g in groups if g["lr"] == 1.0] == ["head", "head"]


def test_stages_of_lite0_hold_the_shares_that_are_documented():
    stages = Pretrained(IMAGES, weights=None).stage_parameters()
    counts = {s: sum(p.numel() for _, p in named) for s, named in stages.items() if s != "head"}
    assert list(stages) == ["stem", *(f"stage{i}" for i in range(1, 8)), "head"]
    assert [round(100 * c / 4_652_008, 1) for c in counts.values()] == [0.0, 0.0, 0.3, 0.9, 4.3, 9.6, 35.5, 21.9]


@pytest.mark.parametrize("backbone", ["mobilenetv3_small_100", "convnext_atto"])
def test_the_head_is_the_classifier_and_nothing_else(backbone):
    stages = Pretrained(IMAGES, backbone=backbone, weights=None).stage_parameters()
    assert {n for n, _ in stages["head"]} == {"head.1.weight", "head.1.bias"}
    last = list(stages)[-2]
    assert any("conv_head" in n or "head.norm" in n for n, _ in stages[last])


def test_norm_only_of_lite0_trains_as_many_as_are_documented():
    model = Pretrained(IMAGES, weights=None)
    head = sum(p.numel() for p in model.head.parameters())
    for name, count in (("norm_only", 42_016), ("bias_only", 21_008)):
        found = sum(p.numel() for p in applied(name, model).ever)
        assert found == count + head, name


@pytest.mark.parametrize("name", ["none", "discriminative"])
@pytest.mark.parametrize(
    ("bn", "size", "mode", "affine"),
    [("auto", 32, True, True), ("auto", 8, False, True), ("frozen", 32, False, False), ("train", 8, True, True)],
)
def test_batch_norm_follows_the_flag_and_the_batch_size(name, bn, size, mode, affine):
    model = tiny()
    policy = getattr(freeze, name)(facts(model, batch_size=size), bn=bn)
    frozen = Freeze(policy, model, 2)
    frozen.enter(0, optim.sgd(frozen.groups(1.0)), None, alone=True)
    norms = [m for m in model.net.modules() if getattr(m, "running_mean", None) is not None]
    assert norms
    assert all(m.training == mode for m in norms)
    assert (norms[0].weight in frozen.ever) == affine


def test_a_model_without_pretrained_weights_trains_as_ever():
    model = CNN(IMAGES)
    own = Facts(tuple(model.stage_parameters()), tuple(model.stage_parameters()), started="random", batch_size=4)
    assert Freeze(freeze.auto(own), model, 3).trivial
    with pytest.raises(LayerlabError, match=r"freeze=linear_probe: the weights are random.*allow_random_features"):
        freeze.linear_probe(own)
    with pytest.raises(LayerlabError, match=r"freeze\.n=3: the stages are stem, body, head; give 1 to 2"):
        freeze.first_n(own, n=3)


def test_modules_without_parameters_go_with_the_stage_before_them():
    model = CNN(IMAGES, dropout=0.5)
    modules = model.stage_modules()
    modules = {stage: [model.get_submodule(n) for n in names] for stage, names in modules.items()}
    home = {type(m): stage for stage, ms in modules.items() for m in ms if isinstance(m, nn.Dropout)}
    assert set(home) == {nn.Dropout}
    leaves = [m for m in model.modules() if not list(m.children())]
    assert sorted(map(id, leaves)) == sorted(id(m) for ms in modules.values() for m in ms if m in leaves)


def test_it_serves_models_of_every_kind():
    model = LSTM(SPECS["tokens", "next_token"], dropout=0.2, depth=2)
    frozen = Freeze(freeze.first_n(facts(model), n=2), model, 2)
    frozen.begin()
    frozen.enter(0, optim.sgd(frozen.groups(1.0)), None, alone=True)
    assert not model.body.training
    assert model.head.training
    assert {n.split(".")[0] for n, p in model.named_parameters() if p.requires_grad} == {"head"}


# --- whole runs


@pytest.fixture
def tuned(train, tmp_path, monkeypatch):
    """A run of a tiny backbone with weights from a file, in its own folder."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    torch.save(timm.create_model(TINY, num_classes=7).state_dict(), "weights.pth")
    base = ("model=pretrained", f"model.backbone={TINY}", "model.weights=weights.pth", "data=digits")
    return lambda *more: train(*base, "data.batch_size=64", "trainer.max_epochs=4", "select=last", *more)


def same(a, b):
    mine, theirs = a.state_dict(), b.state_dict()
    return [n for n in mine if not torch.equal(mine[n], theirs[n])]


FEW = "trainer.limit_train_batches=4"


@pytest.mark.parametrize("name", [n for n in STRATEGIES if n != "lp_ft"])
def test_both_training_paths_end_with_the_same_weights(name, tuned):
    more = [f"freeze.{k}={v}" for k, v in STRATEGIES[name].items()]
    more += ["freeze.cache=false"] if name == "linear_probe" else []
    plain, full = (
        tuned(f"freeze={name}", "trainer.max_epochs=2", "trainer.max_steps=24", *more, *t)
        for t in (["trainer=plain"], [])
    )
    assert same(plain.model, full.model) == []


@pytest.mark.parametrize("options", [["freeze=gradual"], ["freeze=lp_ft"]], ids=lambda o: o[0])
def test_a_run_resumed_at_any_epoch_ends_as_the_uninterrupted_one(options, tuned, tmp_path, monkeypatch):
    straight, kept = run._train, []

    def keeping(model, data, trainer, start=None):
        class Keep(run.callbacks.Callback):
            def on_validation_end(self, trainer, pl_module):
                saver = next(c for c in trainer.callbacks if isinstance(c, run.checkpoint.Checkpoints))
                place = tmp_path / f"kept{len(kept)}"
                shutil.copytree(saver.folder, place)
                kept.append((type(model).__name__, place, saver.last.name))

        trainer.callbacks.append(Keep())
        straight(model, data, trainer)

    short = (FEW, "trainer.max_epochs=3", *options, *(["freeze.probe_epochs=3"] if options == ["freeze=lp_ft"] else []))
    monkeypatch.setattr(run, "_train", keeping)
    whole = tuned(*short)
    lrs = [g["lr"] for g in whole.model.trainer.optimizers[0].param_groups]
    states = {n: p.requires_grad for n, p in whole.model.named_parameters()}
    assert len(kept) == (6 if options == ["freeze=lp_ft"] else 3)
    for learner, place, name in kept:

        def resumed(model, data, trainer, start=None, learner=learner, place=place, name=name):
            saver = next(c for c in trainer.callbacks if isinstance(c, run.checkpoint.Checkpoints))
            if begun := type(model).__name__ == learner:
                shutil.copytree(place, saver.folder)
            trainer.fit(model, datamodule=data, ckpt_path=saver.folder / name if begun else None)

        monkeypatch.setattr(run, "_train", resumed)
        again = tuned(*short)
        assert same(again.model, whole.model) == []
        assert [g["lr"] for g in again.model.trainer.optimizers[0].param_groups] == lrs
        assert {n: p.requires_grad for n, p in again.model.named_parameters()} == states


@pytest.mark.parametrize("more", [["trainer.precision=bf16-mixed"], ["trainer.accumulate_grad_batches=2"]])
def test_gradual_runs_in_mixed_precision_and_with_accumulation(more, tuned):
    found = tuned("freeze=gradual", FEW, "trainer.max_epochs=2", *more)
    assert found.results["parameters"] == sum(p.numel() for s in ("stage3", "head") for _, p in stage(found.model, s))


def stage(model, name):
    """Parameters of a stage; stage3 stands for the last of the backbone."""
    stages = model.stage_parameters()
    return stages[list(stages)[-2] if name == "stage3" else name]


def test_the_plan_is_printed_and_nothing_trained(tuned, monkeypatch):
    made = Freeze.table
    said = []
    monkeypatch.setattr(Freeze, "table", lambda *a: said.append(made(*a)) or said[-1])
    found = tuned("freeze=gradual", "debug=plan")
    assert found.metrics == {}
    lines = said[0].splitlines()
    assert lines[0].startswith("freeze   gradual (x1 = lr 0.003; - = frozen, kept in eval; bn = ")
    assert [line.split()[1] for line in lines[2:]] == ["0", "1", "2", "3"]
    assert lines[2].split()[-1] == "2,570"  # the head alone
    assert not found.folder or not (found.folder / "checkpoints").exists()


def test_norms_that_processes_share_are_frozen_like_any_and_keep_their_activation():
    model = tiny()
    frozen = applied("first_n", model)
    x, _ = batch(IMAGES, 4)
    before = model.eval()(x)
    SyncNorms().apply(model)
    torch.testing.assert_close(model.eval()(x), before)
    frozen.enter(0, optim.sgd(frozen.groups(1.0)), None, alone=True)
    model.train()
    synced = {n: m for n, m in model.named_modules() if isinstance(m, nn.SyncBatchNorm)}
    of = {n: stage for stage, names in frozen.modules.items() for n in names}
    assert synced
    assert all(m.training == (frozen.policy.state(0)[of[n]].trainable != "none") for n, m in synced.items())


def test_stages_of_the_probe_are_taken_over_whole(tuned):
    first = tuned("freeze=none", FEW, "trainer.max_epochs=1")
    more = (f"model.init_from={first.folder}", "model.init_stages=[stem]", "freeze=lp_ft", "freeze.probe_epochs=2")
    found = tuned(*more, FEW, "trainer.max_epochs=1", "optimizer.lr=1e-9")
    probe = layerlab.load(found.folder / "probe")
    assert torch.allclose(probe.model.head[1].weight, found.model.head[1].weight, rtol=1e-4)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["freeze=lp_ft", "freeze.phase=finetune"], r"phase=finetune: starts from a probe; give model\.init_from=RUN"),
        (["freeze=linear_probe", "freeze.cache_views=2"], r"cache_views: without effect; it needs images changed"),
        (["trainer.precision=bf16-true"], r"precision=bf16-true: a linear probe trains in 32 bits"),
    ],
)
def test_settings_that_cannot_be_kept_are_refused(options, words, tuned):
    with pytest.raises(LayerlabError, match=words):
        tuned(*options)


def test_a_model_of_ours_from_random_weights_needs_something_to_start_from(train):
    with pytest.raises(LayerlabError, match=r"freeze=lp_ft: the weights are random; give model\.weights or"):
        train("model=cnn", "freeze=lp_ft")
    with pytest.raises(LayerlabError, match="freeze=gradual: NGram is solved, not trained"):
        train("model=ngram", "data=names", "freeze=gradual")
    assert train("model=cnn", "freeze=scratch", "trainer.max_epochs=1", "trainer.limit_train_batches=2").metrics


def test_a_strategy_with_patience_ends_both_loops_alike(tuned):
    options = ("freeze=linear_probe", "trainer.max_epochs=1", "freeze.cache=false")
    first = tuned(*options)
    again = (f"model.init_from={first.folder}", "freeze=lp_ft", "freeze.phase=probe", "freeze.probe_epochs=14")
    steps = [
        tuned(*again, "optimizer.lr=1e-12", "trainer.max_epochs=auto", *t).results["steps"]
        for t in ([], ["trainer=plain"])
    ]
    assert steps[0] == steps[1] < 14 * 20


def test_scratch_and_pretrained_weights_exclude_each_other(tuned):
    with pytest.raises(LayerlabError, match="freeze=scratch: starts from random weights"):
        tuned("freeze=scratch")  # model.weights was typed


def test_the_second_run_of_lp_ft_starts_where_the_probe_ended(tuned):
    found = tuned("freeze=lp_ft", FEW, "trainer.max_epochs=1", "freeze.probe_epochs=2", "optimizer.lr=1e-9")
    probe = layerlab.load(found.folder / "probe")
    assert torch.allclose(probe.model.head[1].weight, found.model.head[1].weight, rtol=1e-4)
    assert same(probe.model.net, found.model.net) != []  # lr 1e-9 / 30, but everything trains
    assert (found.folder / "probe" / "manifest.json").is_file()
