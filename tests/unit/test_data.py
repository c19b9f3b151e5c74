import platform
import random
import re

import numpy as np
import pytest
import torch
from tests.conftest import shared

from layerlab.cli import _with_folds
from layerlab.contract import IGNORE, UNKNOWN, DataError, decode
from layerlab.data.csv_series import CSVSeries
from layerlab.data.digits import Digits
from layerlab.data.makemore import Makemore
from layerlab.data.mnist1d import MNIST1D
from layerlab.data.names import Names
from layerlab.data.series import Series
from layerlab.data.split import by_hash, chronological, folded, stratified
from layerlab.data.stdlib_code import StdlibCode
from layerlab.data.table import Table
from layerlab.data.text import Text


def sizes(data):
    return {name: len(split) for name, split in data.splits.items()}


def test_digits_are_split_by_class_and_scaled_by_the_training_part():
    data = Digits()
    assert sizes(data) == {"train": 1257, "val": 180, "test": 360}
    x, y = data.splits["train"].x, data.splits["train"].y
    assert abs(float(x.mean())) < 1e-5
    assert abs(float(x.std(correction=0)) - 1) < 1e-5
    assert np.bincount(y).min() >= 120
    test = np.bincount(data.splits["test"].y)
    assert 34 <= test.min() <= test.max() <= 38


def test_the_split_does_not_depend_on_the_seed_of_the_run():
    a, b = Digits(), Digits()
    b.seed = 7
    assert a.fingerprint() == b.fingerprint() != Digits(split_seed=1).fingerprint()


def test_mnist1d_is_the_published_set_and_leaves_the_generators_alone():
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    expected = random.random(), np.random.rand(), torch.rand(1)
    random.seed(1)
    np.random.seed(1)
    torch.manual_seed(1)
    data = MNIST1D()
    assert sizes(data) == {"train": 3600, "val": 400, "test": 1000}
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected
    assert data.spec.shape == (40, 1)


@pytest.mark.parametrize(
    ("which", "counts", "longest"),
    [
        ("first", {"train": 4141, "val": 527, "test": 495}, 11),
        ("last", {"train": 71031, "val": 8946, "test": 8822}, 13),
    ],
)
def test_census_names_have_the_documented_split(which, counts, longest):
    data = Names(list=which)
    assert sizes(data) == counts
    assert data.spec.shape == (longest + 1,)
    assert data.spec.vocabulary == tuple(".abcdefghijklmnopqrstuvwxyz")


def test_a_name_reads_from_dot_to_dot():
    data = Names()
    x, y = data.splits["test"].x[0], data.splits["test"].y[0]
    word = decode(y[y != IGNORE].tolist(), data.spec.vocabulary)
    assert word.endswith(".")
    assert decode(x[: len(word)].tolist(), data.spec.vocabulary) == "." + word[:-1]
    assert by_hash(word[:-1]) == "test"


def test_makemore_has_the_test_set_of_its_protocol():
    path = shared("names.txt")
    data = Makemore(path=str(path))
    words = path.read_text().split()
    torch.manual_seed(3407)
    expected = [words[i] for i in torch.randperm(len(words))[-1000:]]
    y = data.splits["test"].y
    found = [decode(row[row != IGNORE].tolist(), data.spec.vocabulary)[:-1] for row in y]
    assert found == expected
    assert sizes(data) == {"train": 30033, "val": 1000, "test": 1000}


def test_makemore_refuses_another_file(tmp_path):
    (tmp_path / "names.txt").write_text("anna\nbob\n")
    with pytest.raises(DataError, match=r"not names\.txt .*use data=names data\.path="):
        Makemore(path=str(tmp_path / "names.txt")).spec  # noqa: B018


def test_own_words_of_any_alphabet(tmp_path):
    words = [f"{a}{b}ö" for a in "abcdefghij" for b in "klmnopqrst"]
    (tmp_path / "wörter liste.txt").write_text("\n".join(words + words[:5]), encoding="utf-8")
    data = Names(path=str(tmp_path / "wörter liste.txt"))
    assert sum(sizes(data).values()) == 100  # without the repeated five
    assert "ö" in data.spec.vocabulary
    (tmp_path / "bad.txt").write_text("a.b\n")
    with pytest.raises(DataError, match=r"'a\.b' contains '\.'"):
        Names(path=str(tmp_path / "bad.txt")).spec  # noqa: B018


def test_text_is_cut_in_order_and_its_vocabulary_is_of_the_training_part(tmp_path):
    text = "ab" * 500 + "z" * 40
    (tmp_path / "a.txt").write_text(text)
    data = Text(path=str(tmp_path / "a.txt"), context=16)
    assert data.spec.vocabulary[1:] == ("a", "b")
    parts, _ = data.parts()
    assert "".join(parts.values()) == text
    assert len(parts["test"]) == len(text) - int(len(text) * 0.9)
    assert int((data.splits["test"].ids == 0).sum()) == 40  # what it lacks is one symbol


def test_a_folder_of_texts_is_read_in_order_and_pictures_are_passed_over(tmp_path):
    (tmp_path / "b.txt").write_text("world " * 200)
    (tmp_path / "a.txt").write_text("hello " * 200)
    (tmp_path / "c.png").write_bytes(b"\x89PNG\xff\xfe")
    parts, _ = Text(path=str(tmp_path)).parts()
    assert "".join(parts.values()).startswith("hello hello")


@pytest.mark.parametrize(
    ("content", "text"),
    [(b"abc", "too few"), (b"\xff\xfe\x00" * 99, "not UTF-8 at byte 0"), (None, "no such file")],
)
def test_a_text_that_cannot_be_used_says_why(tmp_path, content, text):
    place = tmp_path / "x.txt"
    if content is not None:
        place.write_bytes(content)
    with pytest.raises(DataError, match=text):
        Text(path=str(place)).spec  # noqa: B018


@pytest.mark.skipif(platform.python_version() != "3.11.7", reason="the text of data=code depends on the Python version")
def test_code_has_the_documented_sizes():
    parts, _ = StdlibCode().parts()
    assert {k: len(v) for k, v in parts.items()} == {"train": 3498299, "val": 355192, "test": 544835}


@pytest.mark.parametrize(("name", "n", "season"), [("co2", 526, 12), ("sunspots", 309, 11), ("elnino", 732, 12)])
def test_series_follow_the_protocol(name, n, season):
    data = Series(name=name)
    spec, train = data.spec, data.splits["train"]
    assert len(train.values) == n
    assert (spec.season, spec.horizon, spec.shape) == (season, min(12, season), (3 * min(12, season), 1))
    cut = int(n * 0.75)
    assert abs(float(train.values[:cut].mean())) < 1e-5
    L, H = spec.shape[0], spec.horizon
    last_of_train = int(train.starts.max()) + L + H
    assert last_of_train <= int(data.splits["val"].starts.min())  # no value in common
    assert int(data.splits["val"].starts.max()) + L + H <= cut
    assert int(data.splits["test"].starts.min()) + L == cut
    assert 6 <= len(data.splits["test"]) <= 7


def rows(n, start=0):
    return "time,load,temp\n" + "".join(f"2024-01-01 {h // 60:02}:{h % 60:02},{h},{h % 7}\n" for h in range(start, n))


def test_a_csv_is_split_in_time_and_scaled_by_its_training_rows(tmp_path):
    place = tmp_path / "my load, 1 [x]=y.csv"
    place.write_text(rows(200))
    data = CSVSeries(path=str(place), target="load", time="time", columns=["temp"], lookback=10, horizon=5)
    spec = data.spec
    assert (spec.shape, spec.target, spec.channels, spec.out) == ((10, 2), ("load",), ("load", "temp"), 5)
    val, test = chronological(200)
    raw = np.arange(200.0)
    assert spec.mean[0] == pytest.approx(raw[:val].mean())
    for name, (first, last) in {"train": (10, val), "val": (val, test), "test": (test, 200)}.items():
        starts = data.splits[name].starts
        assert (int(starts.min()) + 10, int(starts.max()) + 15) == (first, last), name


@pytest.mark.row(35, 36)
@pytest.mark.parametrize(
    ("change", "options", "text"),
    [
        (("3,3\n", ",3\n"), {}, 'row 5 column "load": empty'),
        (("3,3\n", "x,3\n"), {}, "row 5 column \"load\": 'x' is not a finite number"),
        (("3,3\n", "inf,3\n"), {}, "row 5 column \"load\": 'inf' is not a finite number"),
        (("00:03,", "00:02,"), {}, "row 5 column \"time\": '2024-01-01 00:02' is there twice"),
        (("2024-01-01 00:03,3,3\n", ""), {}, "a gap between '2024-01-01 00:02' and '2024-01-01 00:04'"),
        (("2024-01-01 00:03,", "2023-01-01 00:03,"), {}, "comes after '2024-01-01 00:02'; sort the file"),
        (("2024-01-01 00:03,", "soon,"), {}, "'soon' is not a time"),
        (("temp", "load"), {}, "row 1: column 'load' stands there twice"),
        (None, {"target": "laod"}, "data.target='laod': no such column in p.csv; did you mean load?"),
        (None, {"time": "when"}, "data.time='when': no such column"),
        (None, {"lookback": 100, "horizon": 60}, "p.csv: needs at least"),
        (None, {"target": "flat"}, "no such column"),
    ],
)
def test_a_bad_csv_says_file_row_column_and_what_to_do(tmp_path, change, options, text):
    content = rows(200)
    place = tmp_path / "p.csv"
    place.write_text(content.replace(*change, 1) if change else content)
    with pytest.raises(DataError) as e:
        CSVSeries(**{"path": str(place), "target": "load", "time": "time", "horizon": 5} | options).spec  # noqa: B018
    assert text is None or text in str(e.value)
    assert "p.csv" in str(e.value) or str(e.value).startswith("data.")


def test_what_is_asked_for_cures_it(tmp_path):
    place = tmp_path / "p.csv"
    place.write_text(rows(200).replace("3,3\n", ",3\n", 1).replace("2024-01-01 01:00,60,4\n", ""))
    options = {"path": str(place), "target": "load", "time": "time", "horizon": 5}
    data = CSVSeries(**options, fill="interpolate", gaps=True)
    value = data.splits["train"].values[3, 0] * data.spec.std[0] + data.spec.mean[0]
    assert float(value) == pytest.approx(3.0, abs=1e-3)


@pytest.mark.parametrize("n", [5, 12, 22, 23])
def test_the_number_of_rows_it_asks_for_is_enough(tmp_path, n):
    def series(n):
        place = tmp_path / f"{n}.csv"
        place.write_text("y\n" + "".join(f"{i * i % 17}\n" for i in range(n)))
        return CSVSeries(path=str(place), target="y", lookback=6, horizon=3)

    with pytest.raises(DataError, match=r"needs at least \d+ rows") as e:
        series(n).spec  # noqa: B018
    need = int(re.search(r"at least (\d+) rows", str(e.value))[1])
    assert need > n
    assert min(sizes(series(need)).values()) >= 1


@pytest.mark.parametrize(
    ("name", "task", "out"), [("breast_cancer", "classify", 2), ("wine", "classify", 3), ("diabetes", "regress", 1)]
)
def test_embedded_tables(name, task, out):
    data = Table(name=name)
    assert (data.spec.task, data.spec.out) == (task, out)
    train = data.splits["train"]
    assert float(train.x.mean(0).abs().max()) < 1e-4
    if task == "regress":
        assert abs(float(train.y.std(correction=0)) - 1) < 1e-4


def table(tmp_path, text):
    place = tmp_path / "t.csv"
    place.write_text(text)
    return str(place)


def test_a_table_of_numbers_and_categories(tmp_path):
    lines = "".join(f"{i},{'red' if i % 3 else 'blue'},{'yes' if i % 2 else 'no'}\n" for i in range(60))
    path = table(tmp_path, "size,colour,bought\n" + lines)
    data = Table(path=path, target="bought")
    assert data.spec.channels == ("size", "colour=blue", "colour=red")
    assert data.spec.classes == ("no", "yes")
    new = tmp_path / "new.csv"
    new.write_text("colour,size\nblue,30\ngreen,30\n")
    x, names = data.encode(new)
    assert names == ["row 2", "row 3"]
    assert x[0, 1:].tolist() == [1.0, 0.0]
    assert x[1, 1:].tolist() == [0.0, 0.0]  # a colour that training never saw
    again = Table(path=path, target="bought")
    again.load_state_dict(data.state_dict())
    assert torch.equal(again.encode(new)[0], x)


def test_several_targets_of_zero_and_one_are_labels(tmp_path):
    lines = "".join(f"{i},{i % 2},{int(i > 20)}\n" for i in range(60))
    data = Table(path=table(tmp_path, "x,even,late\n" + lines), target=["even", "late"])
    assert (data.spec.task, data.spec.classes, data.spec.target) == ("classify", ("even", "late"), ("even", "late"))
    assert data.splits["train"].y.dtype == torch.float32


@pytest.mark.parametrize(
    ("text", "options", "error"),
    [
        ("a,y\n" + "1,u\n" * 20, {}, "one class only ('u')"),
        ("a,y\n" + "1,u\n,v\n" * 20, {}, 'row 3 column "a": empty'),
        ("a,y\n" + "1,u\n2,\n" * 20, {}, 'row 3 column "y": empty target'),
        ("a,y\n1,u\n2,v\n", {}, "2 rows are too few"),
        ("a,a\n1,2\n", {"target": "a"}, "column 'a' stands there twice"),
        ("a,y\n", {}, "a header and no rows"),
        ("", {}, "not a csv"),
        ("a,y\n1,2,3,4\n1\n", {}, None),
        ("a,y\n" + "1,u\n2,v\n" * 20, {"columns": ["y"]}, "'y' is the target"),
        ("a,y\n" + "1,u\n2,v\n" * 20, {"target": None}, "data.target=null"),
    ],
)
def test_a_bad_table_is_refused_with_the_place(tmp_path, text, options, error):
    with pytest.raises(DataError) as e:
        Table(**{"path": table(tmp_path, text), "target": "y"} | options).spec  # noqa: B018
    assert error is None or error in str(e.value)


def test_empty_numbers_take_the_mean_of_the_training_rows(tmp_path):
    lines = "".join(f"{'' if i % 10 == 0 else i},{i % 2}\n" for i in range(100))
    data = Table(path=table(tmp_path, "a,y\n" + lines), target="y", fill="mean")
    zeros = sum(int((split.x.abs() < 1e-6).sum()) for split in data.splits.values())
    assert zeros >= 10  # z-score of the mean is 0


def test_stratified_keeps_shares_and_covers_everything():
    y = np.array([0] * 90 + [1] * 10)
    parts = stratified(y, 0)
    assert sorted(np.concatenate(list(parts.values())).tolist()) == list(range(100))
    assert {k: int(y[v].sum()) for k, v in parts.items()} == {"train": 7, "val": 1, "test": 2}


def test_a_mapped_text_gives_the_batches_of_one_in_memory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("layerlab.data.mapped.PIECE", 100)
    text = "".join(f"line {i} \N{GREEK SMALL LETTER ALPHA}\n" for i in range(400)) + "z\u4e2d" * 200
    (tmp_path / "t.txt").write_bytes(text.replace("\n", "\r\n").encode())
    ours, whole = (Text(path="t.txt", context=16, mapped=m) for m in (True, False))
    assert ours.spec == whole.spec
    assert UNKNOWN in ours.spec.vocabulary
    for part in ("train", "val", "test"):
        index = torch.arange(len(whole.splits[part]))
        for a, b in zip(ours.splits[part].read(index, None), whole.splits[part].read(index, None), strict=True):
            assert torch.equal(a, b)
    assert ours.splits["train"].ids.dtype == torch.uint16  # two bytes an id, in the file
    again = Text(path="t.txt", context=16, mapped=True)
    assert again.fingerprint() == ours.fingerprint()
    (tmp_path / "t.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="not UTF-8"):
        Text(path="t.txt", mapped=True).spec  # noqa: B018


@pytest.mark.parametrize("make", [Digits, lambda **o: Table(name="wine", **o)])
def test_every_example_is_in_the_test_part_of_one_fold(make):
    seen = []
    for fold in range(4):
        splits = make(folds=4, fold=fold).splits
        assert sum(len(s) for s in splits.values()) == sum(len(s) for s in make().splits.values())
        assert splits["train"].y.unique().tolist() == splits["test"].y.unique().tolist()
        seen.append(len(splits["test"]))
    assert sum(seen) == sum(len(s) for s in make().splits.values())
    assert max(seen) - min(seen) <= 4


def test_folds_are_one_key_and_wrong_ones_are_refused():
    with pytest.raises(DataError, match=r"data.folds=4, data.fold=4: give two folds or more"):
        Digits(folds=4, fold=4)
    with pytest.raises(DataError, match=r"data.fold=1: without effect; give data.folds= too"):
        Digits(fold=1)
    y = np.arange(60) % 3
    parts = [folded(y, 0, 5, k)["test"] for k in range(5)]
    assert sorted(np.concatenate(parts).tolist()) == list(range(60))
    assert _with_folds(["data.folds=3", "seed=1"]) == ["-m", "data.folds=3", "seed=1", "data.fold=range(3)"]
    assert _with_folds(["data.folds=3", "data.fold=1"]) == ["data.folds=3", "data.fold=1"]


def test_mnist1d_is_drawn_once_and_a_damaged_file_is_drawn_anew(tmp_path, monkeypatch):
    from layerlab.data import mnist1d

    drawn = mnist1d._drawn(42)
    made = []
    monkeypatch.setattr(mnist1d, "_drawn", lambda seed: made.append(seed) or drawn)
    first = mnist1d.generated(42, tmp_path)
    second = mnist1d.generated(42, tmp_path)
    assert made == [42]
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:-1000])
    third = mnist1d.generated(42, tmp_path)
    assert made == [42, 42]
    for name in mnist1d.PARTS:
        assert (first[name] == second[name]).all()
        assert (first[name] == third[name]).all()
