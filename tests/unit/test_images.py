"""Image sources: files of the real formats, written here; folders as people have them; changes to batches."""

import struct
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tests.formats import write_cifar, write_classes, write_idx, write_usps

from layerlab.contract import DataError, DataSpec, Mismatch
from layerlab.data import augment, folders, images, photos
from layerlab.data.batches import Batches, Pixels
from layerlab.data.image_folder import ImageFolder
from layerlab.data.photos import Photos
from layerlab.data.published import CIFAR10, CIFAR100, MNIST, FashionMNIST
from layerlab.data.torchvision_set import TorchvisionSet


@pytest.fixture(autouse=True)
def in_a_folder_of_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # data/cache is made where the command runs


# --- published files


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("kind", [MNIST, FashionMNIST])
def test_mnist_is_read_from_its_published_files(kind, zipped, tmp_path):
    arrays = write_idx(tmp_path, 60, 20, zipped)
    data = kind(path=str(tmp_path))
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 55, "val": 5, "test": 20}
    x, y = data.splits["test"].read(torch.arange(20), None)
    raw = torch.from_numpy(arrays["t10k-images-idx3-ubyte"])[:, None] / 255
    spec = data.spec
    torch.testing.assert_close(x * spec.std[0] + spec.mean[0], raw, atol=1e-5, rtol=0)
    assert y.tolist() == arrays["t10k-labels-idx1-ubyte"].tolist()
    train, _ = data.splits["train"].read(torch.arange(55), None)
    assert float(train.mean()) == pytest.approx(0, abs=1e-4)
    assert float(train.std()) == pytest.approx(1, abs=1e-3)


def test_mnist_missing_offline_says_which_files_to_put_where(tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"no train-images-idx3-ubyte\.gz in it; data=mnist needs .*t10k-labels"):
        MNIST(path=str(tmp_path / "empty")).spec  # noqa: B018
    write_idx(tmp_path, 5, 5)
    (tmp_path / "train-labels-idx1-ubyte.gz").write_bytes(b"\x1f\x8bcut")
    with pytest.raises(DataError, match=r"train-labels-idx1-ubyte\.gz: damaged"):
        MNIST(path=str(tmp_path)).spec  # noqa: B018


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("kind", [CIFAR10, CIFAR100])
def test_cifar_is_read_from_its_binary_version(kind, packed, tmp_path):
    labels = kind.label_bytes
    names = [n for part in kind.members for n in part]
    records = write_cifar(tmp_path, kind, 12, packed)
    data = kind(path=str(tmp_path))
    last = records[names[-1]]
    x, y = data.splits["test"].read(torch.arange(12), None)
    assert y.tolist() == last[:, labels - 1].tolist()
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (data.spec.mean, data.spec.std))
    torch.testing.assert_close(
        (x * std + mean) * 255, torch.from_numpy(last[:, labels:].reshape(-1, 3, 32, 32)).float(), atol=1e-2, rtol=0
    )
    if not packed:
        (tmp_path / names[0]).write_bytes(b"x" * 100)
        with pytest.raises(DataError, match="100 bytes are not whole records"):
            kind(path=str(tmp_path)).spec  # noqa: B018


def test_a_torchvision_set_is_read_from_its_own_files(tmp_path):
    write_usps(tmp_path, 60, 20)
    data = TorchvisionSet(name="USPS", path=str(tmp_path), size=16, channels=1)
    assert data.spec.shape == (1, 16, 16)
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 54, "val": 6, "test": 20}
    _, y = data.splits["test"].read(torch.arange(20), None)
    assert y.tolist() == [i % 10 for i in range(20)]
    again = TorchvisionSet(name="USPS", path=str(tmp_path), size=16, channels=1)
    assert again.fingerprint() == data.fingerprint()  # from data/cache


def test_an_unknown_or_missing_torchvision_set_is_refused_in_one_sentence(tmp_path):
    with pytest.raises(DataError, match=r"data\.name=SVNH: not among Caltech101, .*SVHN"):
        TorchvisionSet(name="SVNH")
    with pytest.raises(DataError, match=r"data\.name=KMNIST: cannot be read .* below data\.path=FOLDER"):
        TorchvisionSet(name="KMNIST", path=str(tmp_path)).spec  # noqa: B018


def test_patches_of_a_photograph_never_come_from_two_sides_of_a_border():
    data = Photos(per_class=8, size=40)
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 128, "val": 32, "test": 64}
    assert data.spec.classes[0] == "astronaut"
    with Image.open(next(f for f in photos._files() if f.stem == "coins")) as image:
        coins = np.asarray(image.convert("L"))
    label = data.spec.classes.index("coins")
    for part, (low, high) in photos.RANGES.items():
        split = data.splits[part]
        patches = split.x[split.index[split.y[split.index] == label]][:, 0].numpy()
        windows = np.lib.stride_tricks.sliding_window_view(coins, (40, 40))
        for patch in patches:
            at = np.argwhere((windows[:, :, 0, 0] == patch[0, 0]) & (windows[:, :, 20, 20] == patch[20, 20]))
            columns = [c for r, c in at if np.array_equal(windows[r, c], patch)]
            assert columns
            assert all(round(low * coins.shape[1]) <= c <= round(high * coins.shape[1]) - 40 for c in columns)


# --- folders


def test_a_flat_folder_is_split_each_class_alike_and_the_same_every_time(tmp_path):
    write_classes(tmp_path / "photos")
    data = ImageFolder(path=str(tmp_path / "photos"), size=8)
    assert data.spec.classes == ("green", "red")
    counts = {k: torch.bincount(v.y[v.index]).tolist() for k, v in data.splits.items()}
    assert counts == {"train": [7, 7], "val": [1, 1], "test": [2, 2]}
    again = ImageFolder(path=str(tmp_path / "photos"), size=8)
    assert all(torch.equal(again.splits[k].index, v.index) for k, v in data.splits.items())
    other = ImageFolder(path=str(tmp_path / "photos"), size=8, split_seed=1)
    assert not torch.equal(other.splits["test"].index, data.splits["test"].index)
    x, y = data.splits["train"].read(torch.tensor([0]), None)
    rgb = x[0, :, 4, 4] * torch.tensor(data.spec.std) + torch.tensor(data.spec.mean)
    assert rgb.tolist() == pytest.approx([1, 0, 0] if y[0] == 1 else [0, 128 / 255, 0], abs=1e-3)


@pytest.mark.parametrize("zipped", [False, True])
def test_named_parts_are_kept_and_val_is_a_tenth_of_train_where_it_is_missing(tmp_path, zipped):
    write_classes(tmp_path / "photos" / "train", 20)
    write_classes(tmp_path / "photos" / "test", 5)
    place = tmp_path / "photos"
    if zipped:
        place = tmp_path / "photos.zip"
        with zipfile.ZipFile(place, "w") as z:
            for f in sorted((tmp_path / "photos").rglob("*.png")):
                z.write(f, f.relative_to(tmp_path))  # with the folder around it all
    data = ImageFolder(path=str(place), size=8)
    assert {k: len(v) for k, v in data.splits.items()} == {"train": 36, "val": 4, "test": 10}


def test_every_kind_of_file_becomes_rgb_upright_on_white(tmp_path):
    left_red = Image.new("RGB", (30, 30), "blue")
    left_red.paste("red", (0, 0, 15, 30))
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned clockwise: the left edge becomes the top
    left_red.save(tmp_path / "turned.jpg", exif=exif, quality=100)
    turned = images.decode(tmp_path / "turned.jpg", "", (3, 10, 10), Image.Resampling.BICUBIC)
    assert turned[0, 1, 5] > 200 > 60 > turned[0, 8, 5]
    cases = {
        "alpha.png": Image.new("RGBA", (20, 20), (0, 0, 0, 0)),
        "palette.gif": Image.new("RGB", (20, 20), "white").convert("P"),
        "gray.JPEG": Image.new("L", (20, 20), 255),
        "cmyk.jpg": Image.new("CMYK", (20, 20), (0, 0, 0, 0)),
        "deep.png": Image.fromarray(np.full((20, 20), 65535, np.uint16)),
    }
    for name, image in cases.items():
        image.save(tmp_path / name)
        white = images.decode(tmp_path / name, name, (3, 8, 8), Image.Resampling.BICUBIC)
        assert white.shape == (3, 8, 8), name
        assert white.min() >= 250, name
    assert images.decode(tmp_path / "gray.JPEG", "", (1, 8, 8), Image.Resampling.BICUBIC).shape == (1, 8, 8)


def test_the_middle_is_cut_out_instead_of_squeezing(tmp_path):
    wide = Image.new("RGB", (90, 30), "blue")
    wide.paste("red", (30, 0, 60, 30))
    wide.save(tmp_path / "wide.png")
    cut = images.decode(tmp_path / "wide.png", "", (3, 10, 10), Image.Resampling.BICUBIC)
    assert (cut[0] > 200).all()


@pytest.mark.row(33)
def test_files_that_are_no_images_are_left_out_and_listed(tmp_path, capsys):
    write_classes(tmp_path / "photos")
    (tmp_path / "photos" / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\nnothing")
    whole = (tmp_path / "photos" / "red" / "0.png").read_bytes()
    (tmp_path / "photos" / "red" / "cut.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "photos" / "red" / ".hidden.png").write_bytes(b"")
    (tmp_path / "photos" / "red" / "notes.txt").write_text("no image")
    data = ImageFolder(path=str(tmp_path / "photos"), size=8)
    assert sum(len(v) for v in data.splits.values()) == 20
    said = capsys.readouterr().err
    assert "2 of 22 files are no readable images and left out: red/broken.png (not a readable image (" in said
    assert "red/cut.png" in said
    assert "1 files of other kinds left out: red/notes.txt" in said
    ImageFolder(path=str(tmp_path / "photos"), size=8).spec  # noqa: B018
    assert "red/cut.png" in capsys.readouterr().err  # said again when it comes from data/cache


@pytest.mark.row(34)
@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda p: write_classes(p, classes=("red",)), r"one class \(red\); give a folder for each"),
        (lambda p: p.mkdir(), r"no such files in folders; expected CLASS/\*\.png"),
        (lambda p: (write_classes(p), [f.write_bytes(b"") for f in (p / "red").iterdir()]), r"class 'red' has no read"),
        (
            lambda p: (write_classes(p), (p / "yellow").mkdir()),
            "yellow: an empty folder; add files of that class, or rem",
        ),
        (lambda p: write_classes(p, per_class=1), "2 readable images are too few to split"),
        (
            lambda p: (write_classes(p / "train"), write_classes(p / "test", 2, ("red", "blue"))),
            "class 'blue' is not one of the training part",
        ),
    ],
)
def test_folders_that_cannot_be_used_are_refused(make, words, tmp_path):
    make(tmp_path / "photos")
    with pytest.raises(DataError, match=words):
        ImageFolder(path=str(tmp_path / "photos"), size=8).spec  # noqa: B018


@pytest.mark.parametrize("names", [("train", "test"), ("Train", "Test")])
def test_a_stray_picture_or_a_capital_does_not_turn_parts_into_classes(names, tmp_path):
    for name in names:
        write_classes(tmp_path / "p" / name, 10)
    Image.new("RGB", (9, 9)).save(tmp_path / "p" / "preview.png")
    data = ImageFolder(path=str(tmp_path / "p"), size=8)
    assert data.spec.classes == ("green", "red")
    write_classes(tmp_path / "p" / "extra", 2)
    with pytest.raises(DataError, match="'extra' stands beside train/; expected train/ val/ test/"):
        ImageFolder(path=str(tmp_path / "p"), size=8).spec  # noqa: B018


def test_a_class_without_training_images_is_refused(tmp_path):
    write_classes(tmp_path / "p" / "train", 10)
    write_classes(tmp_path / "p" / "val", 2, ("blue",))
    with pytest.raises(DataError, match="class 'blue' is not one of the training part"):
        ImageFolder(path=str(tmp_path / "p"), size=8).spec  # noqa: B018


def test_one_file_less_moves_few_others_between_the_parts(tmp_path):
    write_classes(tmp_path / "p", 30)

    def drawn():
        found = folders.entries(tmp_path / "p", images.SUFFIXES)
        parts = folders.labelled(found, range(len(found)), tmp_path, "image", folders.Drawing(), None).parts
        return {part: {found[i].name for i in index} for part, index in parts.items()}

    before = drawn()
    (tmp_path / "p" / "red" / "3.png").unlink()
    after = drawn()
    assert len(before["train"] & after["test"]) <= 1
    assert len(before["test"] & after["train"]) <= 1


def test_a_damaged_member_of_a_zip_is_left_out(tmp_path, capsys):
    write_classes(tmp_path / "p")
    with zipfile.ZipFile(tmp_path / "p.zip", "w") as z:
        for f in sorted((tmp_path / "p").rglob("*.png")):
            z.write(f, f.relative_to(tmp_path / "p"))
        at = z.getinfo("red/4.png").header_offset + 60
    raw = bytearray((tmp_path / "p.zip").read_bytes())
    raw[at] ^= 255
    (tmp_path / "p.zip").write_bytes(raw)
    assert sum(map(len, ImageFolder(path=str(tmp_path / "p.zip"), size=8).splits.values())) == 19
    assert "left out: red/4.png" in capsys.readouterr().err


def test_two_sets_under_one_folder_are_told_apart_by_its_name(tmp_path):
    for title in ("mnist", "fashion_mnist"):
        (tmp_path / title).mkdir()
    fashion = write_idx(tmp_path / "fashion_mnist", 30, 10)
    digits = write_idx(tmp_path / "mnist", 30, 10)
    for kind, arrays in ((MNIST, digits), (FashionMNIST, fashion)):
        split = kind(path=str(tmp_path)).splits["test"]
        assert torch.equal(split.x[split.index][:, 0], torch.from_numpy(arrays["t10k-images-idx3-ubyte"]))
    (tmp_path / "mnist").rename(tmp_path / "a")
    with pytest.raises(DataError, match=r"stands in .* and in .*; give one of them"):
        MNIST(path=str(tmp_path)).spec  # noqa: B018


def test_images_and_labels_that_do_not_belong_together_are_refused(tmp_path):
    write_idx(tmp_path, 30, 10)
    write_idx(tmp_path / "other", 40, 10)
    (tmp_path / "other" / "train-labels-idx1-ubyte.gz").replace(tmp_path / "train-labels-idx1-ubyte.gz")
    for f in (tmp_path / "other").iterdir():
        f.unlink()
    with pytest.raises(DataError, match="30 images and 40 labels of train do not belong together"):
        MNIST(path=str(tmp_path)).spec  # noqa: B018


@pytest.mark.row(46)
def test_a_bomb_is_refused_by_its_header(tmp_path, monkeypatch):
    for side, size in ((9000, 81), (15_000, 225)):
        head = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
        chunk = b"IHDR" + head
        png = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
        (tmp_path / "big.png").write_bytes(
            png + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT"))
        )
        with pytest.raises(DataError, match=rf"big.png: {size} Mpx, limit 50; make it smaller"):
            images.decode(tmp_path / "big.png", "big.png", (3, 8, 8), Image.Resampling.BICUBIC)
    with zipfile.ZipFile(tmp_path / "a.zip", "w", zipfile.ZIP_DEFLATED) as z:
        z.writestr("red/a.png", b"0" * 1000)
    monkeypatch.setattr("layerlab.data.folders.MAX_UNPACKED", 100)
    with pytest.raises(DataError, match="unpacked, limit"):
        ImageFolder(path=str(tmp_path / "a.zip")).spec  # noqa: B018


def test_a_cut_while_decoding_leaves_nothing_that_is_taken_for_whole(tmp_path):
    def read(i):
        if i == 3:
            raise KeyboardInterrupt
        return np.full((1, 2, 2), i, np.uint8)

    with pytest.raises(KeyboardInterrupt):
        images.cached("key", read, 5, (1, 2, 2))
    assert not [p for p in Path("data/cache").iterdir() if p.suffix != ".lock"]
    x, kept = images.cached("key", lambda i: None if i == 3 else np.full((1, 2, 2), i, np.uint8), 5, (1, 2, 2))
    assert kept == [0, 1, 2, 4]
    assert x[:, 0, 0, 0].tolist() == kept


# --- changes of training batches

SPEC = DataSpec(
    kind="image", task="classify", shape=(3, 12, 10), out=4, mean=(0.4, 0.5, 0.6), std=(0.2, 0.25, 0.3), name="made"
)


def batch_of(n=16):
    pixels = torch.randint(0, 256, (n, 3, 12, 10), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    return images.scaled(pixels, SPEC), torch.arange(n) % 4


def test_flip_mirrors_each_image_or_leaves_it():
    torch.manual_seed(0)
    x, y = batch_of(200)
    turned, same = augment.flip(SPEC, p=0.3)((x, y))
    assert torch.equal(same, y)
    mirrored = [torch.equal(a, b.flip(2)) for a, b in zip(turned, x, strict=True)]
    untouched = [torch.equal(a, b) for a, b in zip(turned, x, strict=True)]
    assert all(a != b for a, b in zip(mirrored, untouched, strict=True))
    assert 40 <= sum(mirrored) <= 80


@pytest.mark.parametrize("fill", ["black", "reflect"])
def test_crop_moves_each_image_by_itself(fill):
    torch.manual_seed(0)
    x, y = batch_of(50)
    moved, _ = augment.crop(SPEC, padding=2, fill=fill)((x, y))
    black = images.scaled(torch.zeros(1, 3, 1, 1, dtype=torch.uint8), SPEC)
    if fill == "black":
        padded = black.expand(50, 3, 16, 14).clone()
        padded[:, :, 2:14, 2:12] = x
    else:
        padded = torch.nn.functional.pad(x, (2, 2, 2, 2), mode="reflect")
    found = set()
    for before, after in zip(padded, moved, strict=True):
        at = [(i, j) for i in range(5) for j in range(5) if torch.allclose(before[:, i : i + 12, j : j + 10], after)]
        assert at
        found.add(at[0])
    assert len(found) > 10


def test_mixup_and_cutmix_turn_labels_into_shares():
    torch.manual_seed(0)
    x, y = batch_of()
    for change in (augment.mixup(SPEC), augment.cutmix(SPEC)):
        mixed, shares = change((x, y))
        assert mixed.shape == x.shape
        torch.testing.assert_close(shares.sum(1), torch.ones(16))
        assert shares.shape == (16, 4)


def test_randaugment_and_erase_keep_shape_and_range():
    torch.manual_seed(0)
    x, y = batch_of()
    black, white = (images.scaled(torch.full((1, 3, 1, 1), v, dtype=torch.uint8), SPEC) for v in (0, 255))
    for change in (augment.randaugment(SPEC), augment.erase(SPEC, p=1.0)):
        changed, _ = change((x, y))
        assert changed.shape == x.shape
        assert not torch.equal(changed, x)
        assert bool(((changed >= black - 1e-4) & (changed <= white + 1e-4)).all())


def test_changes_are_drawn_by_seed_epoch_and_batch_and_leave_the_stream_alone():
    pixels = torch.randint(0, 256, (40, 3, 12, 10), dtype=torch.uint8)
    split = Pixels(pixels, torch.arange(40) % 4, torch.arange(40), SPEC.mean, SPEC.std)

    def epoch(n, start=0):
        change = augment.flip(SPEC)
        batches = Batches(split, 8, shuffle=True, seed=3, place=lambda: (n, start), change=change)
        return [x for x, _ in batches]

    torch.manual_seed(1)
    before = torch.get_rng_state()
    first = epoch(0)
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(a, b) for a, b in zip(first[3:], epoch(0, 3), strict=True))  # as after a resume
    assert not all(torch.equal(a, b) for a, b in zip(first, epoch(1), strict=True))


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data=names", "model=lstm", "augment=flip"], "augment=flip: changes images, but data=names gives tokens"),
        (["augment=[mixup,cutmix]"], "both turn labels into shares"),
        (["augment=crop", "augment.crop.padding=8", "augment.crop.fill=reflect"], "reflects at most 7 pixels of 8 x 8"),
    ],
)
def test_changes_without_effect_are_refused(overrides, words, train):
    with pytest.raises(Mismatch, match=words):
        train(*overrides)


def test_mixed_labels_train_and_averaged_weights_are_what_is_tested(train):
    run = train("augment=[crop,flip,mixup]", "augment.crop.padding=1", "callbacks=ema", "trainer.max_epochs=8")
    assert run.metrics["test/acc"] > 0.8
    kept = torch.load(run.folder / run.results["checkpoints"]["last"], weights_only=True)
    for name, value in run.model.named_parameters():
        average, current = kept["state_dict"][name], kept["current_model_state"][name]
        assert not torch.equal(average, current), name
        if run.results["checkpoints"]["best"] == run.results["checkpoints"]["last"]:
            assert torch.equal(value.detach(), average), name
