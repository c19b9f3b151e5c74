"""The cache of frozen features: the same numbers as without it, and never those of something else."""

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import layerlab
from layerlab.train import probe

TINY = "test_efficientnet"


@pytest.fixture
def probed(train, tmp_path, monkeypatch):
    """A probe of a tiny backbone with weights from a file; what was printed comes with it."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(1)
    save_file(timm.create_model(TINY).state_dict(), "w.safetensors")
    base = ("model=pretrained", f"model.backbone={TINY}", "model.weights=w.safetensors", "data=digits")
    base += ("data.batch_size=128", "freeze=linear_probe", "trainer.max_epochs=3")
    return lambda *more: train(*base, *more)


def files(tmp_path):
    return sorted((tmp_path / "data" / "cache").glob("features-*.safetensors"))


def weights(run):
    return {n: v for n, v in run.model.state_dict().items() if n.startswith("head")}


def test_a_cached_probe_ends_as_an_uncached_one(probed):
    cached, bare = probed(), probed("freeze.cache=false")
    assert cached.metrics["test/acc"] == pytest.approx(bare.metrics["test/acc"], abs=0.01)
    assert cached.metrics["val/loss"] == pytest.approx(bare.metrics["val/loss"], rel=1e-5)
    for name, value in weights(bare).items():
        torch.testing.assert_close(weights(cached)[name], value, rtol=1e-5, atol=1e-5)


def test_the_backbone_is_bit_for_bit_what_it_was(probed):
    run = probed("freeze.cache=false")
    net = timm.create_model(TINY)
    net.load_state_dict(load_file("w.safetensors"))
    net.reset_classifier(0)
    now = run.model.net.state_dict()
    assert all(torch.equal(v, now[n]) for n, v in net.state_dict().items())


def test_the_file_is_found_again_and_only_by_the_same_weights_data_and_size(probed, tmp_path):
    first = probed()
    assert len(files(tmp_path)) == 1
    stamp = files(tmp_path)[0].stat().st_mtime_ns
    again = probed("seed=0")
    assert files(tmp_path)[0].stat().st_mtime_ns == stamp
    assert all(torch.equal(v, weights(first)[n]) for n, v in weights(again).items())
    probed("model.preprocess.mean=0.4")
    assert len(files(tmp_path)) == 2
    torch.manual_seed(2)
    save_file(timm.create_model(TINY).state_dict(), "w.safetensors")
    probed()
    assert len(files(tmp_path)) == 3
    probed("data.split_seed=3")
    assert len(files(tmp_path)) == 4
    probed("model.head=mlp")  # another option of the model
    assert len(files(tmp_path)) == 5


def test_a_damaged_file_is_computed_anew(probed, tmp_path):
    first = probed()
    (file,) = files(tmp_path)
    whole = file.read_bytes()
    for damage in (whole[:-100], whole[:-100] + bytes(100), b""):
        file.write_bytes(damage)
        again = probed()
        assert all(torch.equal(v, weights(first)[n]) for n, v in weights(again).items())
        assert file.read_bytes() == whole


@pytest.mark.parametrize(
    ("more", "words"),
    [
        ([], "features of 1,437 examples computed"),
        (["freeze.cache=false"], "cache    not used: freeze.cache=false"),
        (["augment=flip"], "not used: training images are augmented, and freeze.cache_views=0"),
        (["augment=mixup", "freeze.cache_views=2"], "not used: mixup and cutmix mix images of one batch"),
        (["augment=flip", "freeze.cache_views=2"], "features of 1,437 examples computed"),
    ],
)
def test_what_the_cache_did_is_said(more, words, probed, monkeypatch):
    said = []
    made = probe.probe
    monkeypatch.setattr(probe, "probe", lambda *a: said.extend((found := made(*a))[2]) or found)
    probed(*more)
    assert any(words in line for line in said), said


def test_each_epoch_reads_its_own_view(probed, tmp_path):
    probed("augment=flip", "freeze.cache_views=3")
    found = load_file(files(tmp_path)[0])
    n = len(found["train.y"])
    assert len(found["train.x"]) == 3 * n
    views = found["train.x"].reshape(3, n, -1)
    assert not torch.equal(views[0], views[1])
    same = (views[0] == views[1]).all(1).float().mean()  # both flipped, or neither
    assert 0.3 < float(same) < 0.7


def test_a_finished_probe_is_a_whole_model(probed):
    run = probed()
    again = layerlab.load(run.folder)
    x, _ = run.data.splits["test"].read(torch.arange(8), None)
    with torch.no_grad():
        torch.testing.assert_close(again.model(x), run.model(x))
    assert type(again.model).__name__ == "Pretrained"
    assert run.results["parameters"] == sum(p.numel() for p in run.model.head.parameters())


def test_the_mlp_head_takes_the_standardisation_into_its_first_layer(probed):
    cached, bare = probed("model.head=mlp"), probed("model.head=mlp", "freeze.cache=false")
    for name, value in weights(bare).items():
        torch.testing.assert_close(weights(cached)[name].float(), value.float(), rtol=1e-2, atol=1e-3)


def test_features_of_random_weights_are_a_control_that_must_be_asked_for(probed):
    run = probed("model.weights=null", "freeze.allow_random_features=true")
    norm = run.model.net.bn1
    seen = []
    hook = norm.register_forward_pre_hook(lambda _m, args: seen.append(args[0]))
    x, _ = run.data.splits["train"].read(torch.arange(512), None)
    with torch.no_grad():
        run.model.features(x)
    hook.remove()
    torch.testing.assert_close(norm.running_var, seen[0].var((0, 2, 3)), rtol=0.3, atol=1e-4)  # 128 examples of it


def test_a_feature_that_is_constant_in_training_does_not_decide_alone(probed, monkeypatch):
    extract = probe._extract

    def flat(*arguments):
        found = extract(*arguments)
        found["train.x"][:, 0] = torch.randn(len(found["train.x"])) * 1e-7
        return found

    monkeypatch.setattr(probe, "_extract", flat)
    monkeypatch.setattr(probe.Probe, "whole", lambda self, model: kept.append(self.std) or model.state_dict())
    monkeypatch.setattr(probe, "TOLERANCE", 1e9)
    kept: list = []
    probed()
    assert float(kept[0][0]) == pytest.approx(0.1 * float(kept[0].median()), rel=1e-3)


def test_cached_logits_that_the_model_does_not_repeat_end_the_run(probed, monkeypatch):
    whole = probe.Probe.whole
    monkeypatch.setattr(
        probe.Probe, "whole", lambda s, m: {k: v + (k == "head.1.bias") for k, v in whole(s, m).items()}
    )
    with pytest.raises(RuntimeError, match="cached features give other logits"):
        probed()


def test_it_serves_our_own_models_too(train, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    first = train("model=cnn", "data=digits", "trainer.max_epochs=2")
    more = (f"model.init_from={first.folder}", "freeze=linear_probe", "trainer.max_epochs=2")
    run = train("model=cnn", "data=digits", *more)
    assert len(files(tmp_path)) == 1
    kept = layerlab.load(first.folder).model.state_dict()
    now = run.model.state_dict()
    assert all(torch.equal(v, now[n]) for n, v in kept.items() if not n.startswith("head"))
    assert run.metrics["val/acc"] >= first.metrics["val/acc"] - 0.03
