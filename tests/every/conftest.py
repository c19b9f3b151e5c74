"""Files and options that let every cell of the matrix run."""

from collections.abc import Callable
from pathlib import Path

import pytest

from layerlab.data.published import CIFAR10, CIFAR100
from tests import formats
from tests.conftest import SHARED
from tests.every.cells import DATA


@pytest.fixture(scope="session")
def files(tmp_path_factory) -> Path:
    """A folder with a file of each format that a data source reads."""
    place = tmp_path_factory.mktemp("data")
    (place / "text.txt").write_text("the cat sat on the mat. " * 400)
    formats.write_pairs(place / "pairs.tsv")
    formats.write_idx(place / "mnist", 120, 30)
    for kind in (CIFAR10, CIFAR100):
        formats.write_cifar(place / "cifar", kind, 40)
    formats.write_usps(place / "usps", 60, 20)
    formats.write_classes(place / "photos")
    formats.write_tones(place / "tones")
    formats.write_reviews(place / "reviews.csv")
    formats.write_load(place / "load.csv")
    return place


@pytest.fixture
def given(files) -> Callable[[str, str], list[str]]:
    """What a cell needs on the command line besides model and data; skips the test where its file is not there."""
    return lambda model, data: overrides(model, data, files)


def overrides(model: str, data: str, files: Path) -> list[str]:
    """The same, with the folder of the files."""
    if any("{shared}" in o for o in DATA[data][1]) and not SHARED.exists():
        pytest.skip("needs the developers' data")
    own = {"seasonal_naive": ["data.season=24"] if data == "csv" else [], "ngram": ["model.order=3"]}.get(model, [])
    if model == "ets":  # 20 ms a window and channel: short ones, and few in a batch
        own = ["model.points=24"] + (["data.lookback=2000"] if data == "etth1" else [])
    return [o.format(tmp=files, shared=SHARED) for o in DATA[data][1]] + own
