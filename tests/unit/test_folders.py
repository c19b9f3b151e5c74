"""Photos of one's own: squares of them, copies among them, and classes of unequal size."""

import io

import numpy as np
import pytest
import torch
from PIL import Image
from tests.formats import write_classes

from layerlab.contract import DataSpec, LayerlabError
from layerlab.data import copies, images
from layerlab.data.batches import Batches, Tensors
from layerlab.data.image_folder import ImageFolder
from layerlab.tasks.classify import Classify

RNG = np.random.default_rng(0)


def scene(side=64):
    """A picture with structure: smooth random colours."""
    rough = Image.fromarray(RNG.integers(0, 256, (6, 6, 3), dtype=np.uint8))
    return rough.resize((side, side), Image.Resampling.BICUBIC)


def tensor(picture):
    return torch.from_numpy(np.asarray(picture).transpose(2, 0, 1).copy())


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize(
    ("fit", "left", "centre"), [("crop", "green", "green"), ("squash", "red", "green"), ("pad", "red", "green")]
)
def test_a_wide_photo_becomes_a_square_in_three_ways(fit, left, centre):
    photo = Image.new("RGB", (90, 30), "green")
    photo.paste("red", (0, 0, 28, 30))
    photo.paste("blue", (62, 0, 90, 30))
    square = images.pixels(photo, (3, 30, 30), Image.Resampling.NEAREST, fit)
    colour = {"red": (255, 0, 0), "green": (0, 128, 0), "blue": (0, 0, 255)}
    assert tuple(square[:, 15, 1]) == colour[left]
    assert tuple(square[:, 15, 15]) == colour[centre]
    assert tuple(square[:, 1, 15]) == ((255, 255, 255) if fit == "pad" else colour["green"])


def test_near_copies_are_found_and_other_pictures_are_not():
    own = [scene() for _ in range(60)]

    def again(picture):
        place = io.BytesIO()
        picture.resize((48, 48)).save(place, "JPEG", quality=60)
        return Image.open(place).resize((64, 64))

    twins = [again(p) for p in own[:20]]
    first = copies.groups(torch.stack([tensor(p) for p in own + twins]))
    assert (first[:60] == np.arange(60)).all()
    assert (first[60:] == np.arange(20)).mean() >= 0.9


def test_plain_pictures_of_other_colours_are_no_copies():
    pictures = [Image.new("RGB", (32, 32), c) for c in ("red", "green", "blue", "red")]
    assert copies.groups(torch.stack([tensor(p) for p in pictures])).tolist() == [0, 1, 2, 0]


def test_copies_are_drawn_into_the_same_part(tmp_path):
    for label in "ab":
        (tmp_path / "p" / label).mkdir(parents=True)
        for i in range(30):
            picture = scene()
            for copy in range(3):
                picture.save(tmp_path / "p" / label / f"{i}-{copy}.png")
    data = ImageFolder(path=str(tmp_path / "p"), size=32)
    part = {}
    for name, split in data.splits.items():
        for i in split.index.tolist():
            part.setdefault(i // 3, set()).add(name)  # files stand in the order of their names
    assert all(len(names) == 1 for names in part.values())
    assert len(data.splits["test"]) == pytest.approx(36, abs=4)


@pytest.mark.row(38)
def test_copies_across_given_parts_and_across_classes_are_named(tmp_path, capsys):
    shared = scene()
    for part in ("train", "test"):
        for label in "ab":
            (tmp_path / "p" / part / label).mkdir(parents=True)
            for i in range(8):
                scene().save(tmp_path / "p" / part / label / f"{i}.png")
    shared.save(tmp_path / "p" / "train" / "a" / "x.png")
    shared.save(tmp_path / "p" / "test" / "a" / "y.png")
    shared.save(tmp_path / "p" / "test" / "b" / "z.png")
    ImageFolder(path=str(tmp_path / "p"), size=32).spec  # noqa: B018
    said = capsys.readouterr().err
    assert "1 images with a near-copy lie on both sides of the split" in said or "2 images with a near-copy lie" in said
    assert "train/a/x.png" in said
    assert "carry different classes" in said
    assert "train 15, val 2, test 18; a 8/1/9, b 7/1/9" in said


def test_a_class_of_one_picture_is_still_split(tmp_path):
    for label, colour in (("a", "red"), ("b", "blue")):
        (tmp_path / "p" / label).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (20, 20), colour).save(tmp_path / "p" / label / f"{i}.png")
    splits = ImageFolder(path=str(tmp_path / "p"), size=8).splits
    assert {name: len(s) for name, s in splits.items()} == {"train": 14, "val": 2, "test": 4}


# --- classes of unequal size


def test_sampling_draws_every_class_as_often(tmp_path):
    write_classes(tmp_path / "p", 10, ("red",))
    write_classes(tmp_path / "p", 60, ("blue",))
    data = ImageFolder(path=str(tmp_path / "p"), size=8, balance="sample", batch_size=7)
    ys = torch.cat([y for e in range(20) for _, y in data.train_batches(lambda e=e: (e, 0))])
    assert float(ys.float().mean()) == pytest.approx(0.5, abs=0.05)
    assert len(ys) == 20 * len(data.splits["train"])
    assert data.spec.class_weights == ()


def test_a_sampled_order_is_keyed_and_disjoint_in_draws_over_ranks():
    split, weights = Tensors(torch.arange(40.0), torch.zeros(40)), torch.ones(40)
    make = lambda rank, world: Batches(split, 8, shuffle=True, sampling=weights, rank=rank, world=world)  # noqa: E731
    whole = make(0, 1).order(3)
    assert torch.equal(whole, make(0, 1).order(3))
    assert not torch.equal(whole, make(0, 1).order(4))
    assert torch.equal(torch.stack([make(r, 2).order(3) for r in (0, 1)], 1).flatten(), whole)


def test_weights_make_up_for_rare_classes_and_are_one_on_average(tmp_path):
    write_classes(tmp_path / "p", 10, ("red",))
    write_classes(tmp_path / "p", 60, ("blue",))
    data = ImageFolder(path=str(tmp_path / "p"), size=8, balance="weight")
    w, y = torch.tensor(data.spec.class_weights), data.splits["train"].y[data.splits["train"].index]
    n = torch.bincount(y)
    assert float((w[y]).mean()) == pytest.approx(1)
    assert float(w[0] * n[0]) == pytest.approx(float(w[1] * n[1]))


@pytest.mark.parametrize("labels", ["multiclass", "binary"])
def test_the_loss_is_weighted_and_the_nll_is_not(labels):
    spec = DataSpec(kind="vector", task="classify", shape=(2,), out=2, class_weights=(0.5, 3.0))
    task = Classify(spec, labels=labels)
    out, y = torch.randn(6, 1 if labels == "binary" else 2), torch.tensor([0, 1, 0, 0, 1, 0])
    p = task.probabilities(out)
    nll = -p[torch.arange(6), y].log()
    loss, sums = task.measure(out, y)
    assert float(loss) == pytest.approx(float((nll * torch.tensor([0.5, 3.0])[y]).mean()), rel=1e-5)
    assert task.report(sums.tolist())["nll"] == pytest.approx(float(nll.mean()), rel=1e-5)


def test_another_fit_for_new_images_is_refused(train, tmp_path):
    from layerlab.compose import compose_data
    from layerlab.train.run import evaluate

    write_classes(tmp_path / "p", 20)
    options = ("data=image_folder", f"data.path={tmp_path}/p", "data.size=8")
    run = train("model=mlp", *options, "data.fit=pad", "trainer.max_epochs=1")
    node = compose_data("image_folder", f"data.path={tmp_path}/p", "data.size=8")
    with pytest.raises(LayerlabError, match=r"data\.fit=squash: the run reads it as pad"):
        evaluate(str(run.folder), node)
