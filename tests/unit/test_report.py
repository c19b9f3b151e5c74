"""The pages: what is in them, that they load nothing, and that text of others stays text."""

import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

pytest.importorskip("plotly")

from layerlab.cli import main
from layerlab.report import collect, page, plots, tables

CHECK = {
    "left": {"mean": 0.42, "low": 0.35, "high": 0.49, "n": 5},
    "relation": ">=",
    "right": {"mean": 0.3, "low": 0.3, "high": 0.3, "n": 0},
    "difference": {"mean": 0.12, "low": 0.05, "high": 0.19, "n": 5},
    "answer": "yes",
}
RECORD = {
    "name": "wider_is_better",
    "says": "A wider net is <b>better</b> & faster.",
    "topic": 3,
    "verdict": "not decided",
    "why": "open: acc <= 1",
    "scope": "on digits, mlp, n=3",
    "checks": {
        "expect": [
            {"check": "acc(arm=wide) >= .3", "then": "", "found": [{"data": None, "answer": "yes", "links": [CHECK]}]}
        ]
    },
    "notes": [],
    "concludes": "</script><script>alert(1)</script>",
    "literature": "",
    "plot": {"kind": "bars", "y": "acc", "x": "arm", "colour": "depth"},
    "experiment": {"base": ["model=mlp"], "arms": {"wide": ["model.width=128"]}},
    "axes": {"data": ["digits", "moons"], "arm": ["narrow", "wide"], "depth": ["1", "2"], "seed": ["0", "1", "2"]},
    "dims": {"acc": ["data", "arm", "depth", "seed"]},
    "values": {"acc": np.arange(24.0).reshape(2, 2, 2, 3).tolist()},
    "runs": 24,
    "cpu_seconds": 12.5,
    "command": "layerlab claim name=wider_is_better",
    "written": "2026-01-01T00:00:00+0000",
    "first_seed": 0,
    "cpu_count": 2,
    "python": "3.11",
    "versions": {"torch": "2.15"},
    "git": None,
}


def recorded(logs: Path, **changes) -> None:
    place = logs / "claim" / RECORD["name"]
    place.mkdir(parents=True, exist_ok=True)
    (place / "quick.json").write_text(json.dumps(RECORD | changes))


class Elements(HTMLParser):
    """The elements of a page with their attributes; nothing of what stands in scripts."""

    def __init__(self, text: str):
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.found.append((tag, dict(attrs)))


def content(text: str) -> str:
    """The page without Plotly and its own script."""
    return text[: text.index("</main>")]


def figures(text: str) -> list[dict]:
    return [json.loads(s) for s in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL)]


def test_verdicts_come_first_and_what_others_wrote_stays_text(tmp_path):
    recorded(tmp_path)
    text = page.logs(tmp_path, "quick", None).read_text("utf-8")
    assert text.index('id="verdicts"') < text.index('id="wider_is_better"')
    assert "A wider net is &lt;b&gt;better&lt;/b&gt; &amp; faster." in text
    assert "<script>alert(1)" not in text
    assert "layerlab claim name=wider_is_better" in text
    assert ">not decided<" in text


def test_a_page_holds_everything_and_loads_nothing(tmp_path):
    recorded(tmp_path)
    text = page.logs(tmp_path, "quick", tmp_path / "page.html").read_text("utf-8")
    for _, attributes in Elements(text).found:
        for name in ("src", "href"):
            assert (attributes.get(name) or "#").startswith(("#", "data:"))
    assert text.count("plotly.js v") == 1  # once, whatever the number of figures
    assert "@import" not in text


def test_the_figure_of_a_claim_has_its_means_with_students_intervals():
    (figure,) = [json.loads(plots.claim(RECORD, {}))]
    bars = {(t["name"], t["xaxis"]): t for t in figure["data"]}
    assert set(bars) == {("1", "x"), ("2", "x"), ("1", "x2"), ("2", "x2")}  # colour by depth, a panel for each data set
    values = np.array(RECORD["values"]["acc"])
    assert bars["2", "x2"]["x"] == ["narrow", "wide"]
    assert bars["2", "x2"]["y"] == pytest.approx(values[1, :, 1].mean(1).tolist())
    low, _ = stats.t.interval(0.95, 2, values[1, 0, 1].mean(), stats.sem(values[1, 0, 1]))
    assert bars["2", "x2"]["error_y"]["array"][0] == pytest.approx(values[1, 0, 1].mean() - low)
    assert sum(t["showlegend"] for t in figure["data"]) == 2


def test_values_that_are_missing_or_infinite_leave_a_gap():
    values = np.array(RECORD["values"]["acc"]).tolist()
    values[0][0][0][0] = "inf"
    figure = json.loads(plots.claim(RECORD | {"values": {"acc": values}}, {}))
    first = next(t for t in figure["data"] if (t["name"], t["xaxis"]) == ("1", "x"))
    assert first["y"][0] is None
    assert first["y"][1] is not None


def test_the_curves_of_a_claim_are_means_over_its_seeds(tmp_path):
    for arm, rate in (("slow", 1.0), ("fast", 2.0)):
        place = tmp_path / "claim" / RECORD["name"] / f"arm={arm},depth=1"
        place.mkdir(parents=True)
        for seed in range(2):
            rows = [{"step": 10 * i, "train/loss": rate * i + seed} for i in range(3)]
            (place / f"{seed}.json").write_text(json.dumps({"history": rows}))
    recorded(
        tmp_path,
        plot={"kind": "lines", "y": "train/loss", "colour": "arm"},
        axes={"arm": ["slow", "fast"], "depth": ["1"], "seed": ["0", "1"]},
    )
    (place / "1000.json").write_text(json.dumps({"history": [{"step": 0, "train/loss": 99.0}]}))  # of other seeds
    axes = {"arm": ["slow", "fast"], "depth": ["1"], "seed": ["0", "1"]}
    curves = collect.claim_curves(tmp_path, RECORD | {"axes": axes}, "train/loss")
    assert curves["arm=fast,depth=1"] == [(0, 0.5), (10, 2.5), (20, 4.5)]
    (figure,) = figures(page.logs(tmp_path, "quick", None).read_text("utf-8"))
    assert {t["name"] for t in figure["data"]} == {"arm slow", "arm fast"}


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.123"),
        (21482, "21,482"),
        (1234.5, "1,234"),
        ("inf", "∞"),
        (float("nan"), "-"),
        (3.0, "3"),
        ("text", "text"),
    ],
)
def test_numbers_are_short(value, shown):
    assert tables.number(value) == shown


def test_an_interval_is_held_against_the_number_on_either_side():
    assert tables.effect(CHECK) == "0.42 [0.35, 0.49]"
    turned = CHECK | {"left": CHECK["right"], "right": CHECK["left"], "relation": "<="}
    assert tables.measured(turned) == tables.measured(CHECK)
    both = CHECK | {"right": CHECK["left"]}
    assert tables.measured(both) == (CHECK["difference"], 0.0, ">=")
    assert "asked &gt;= 0.3: yes" in tables.interval(CHECK, "yes")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A folder with two runs and a sweep, as their files lie there."""
    place = tmp_path_factory.mktemp("report")
    for name, width in (("narrow", 8), ("wide", 64)):
        folder = place / "logs" / "mlp-digits" / name
        folder.mkdir(parents=True)
        config = f"model:\n  width: {width}\n  note: null\ndata:\n  name: digits\n"
        (folder / "config.yaml").write_text(config)
        facts = {"command": ["train.py", "model=mlp"], "started": "2026-01-01T00:00:00", "seed": 0}
        facts |= {"config_hash": "abcd1234", "platform": "Linux", "cpu_count": 2, "python": "3.11"}
        facts |= {"versions": {"torch": "2.15", "timm": None}, "git": None}
        facts |= {"data": {"name": "digits", "fingerprint": "ff", "examples": {"train": 1257}}}
        (folder / "manifest.json").write_text(json.dumps(facts))
        (folder / "status.json").write_text(json.dumps({"status": "ok", "error": None}))
        results = {"metrics": {"test/acc": 0.9 + width / 1000}, "monitor": "val/acc", "steps": 80, "parameters": 1234}
        results |= {"cpu_seconds": {"fit": 1.0}, "intervals": {"test/acc": {"low": 0.88, "high": 0.93}}}
        (folder / "results.json").write_text(json.dumps(results))
        (folder / "metrics.csv").write_text("epoch,step,train/loss,val/loss\n0,39,.9,\n0,39,,.8\n1,79,.5,\n1,79,,.6\n")
        (folder / "per_class.csv").write_text("class,examples,precision\ncat,36,.9\n")
        (folder / "confusion.png").write_bytes(b"\x89PNG")
    return place


def test_a_run_shows_its_results_curves_pictures_and_where_it_came_from(finished):
    text = page.one(finished / "logs" / "mlp-digits" / "wide", None).read_text("utf-8")
    for words in ("test/acc", "0.964", "0.88 to 0.93", "1,234", "train.py model=mlp", "abcd1234", "torch 2.15", "cat"):
        assert words in text
    assert "timm" not in content(text)
    assert 'src="data:image/png;base64,iVBORw==' in text
    (figure,) = figures(text)
    lines = {t["name"]: t["y"] for t in figure["data"]}
    assert lines == {"train": [0.9, 0.5], "val": [0.8, 0.6]}


def test_runs_side_by_side_show_what_differs_and_nothing_else(finished, tmp_path):
    runs = [finished / "logs" / "mlp-digits" / n for n in ("narrow", "wide")]
    assert collect.differences([collect.run(r) for r in runs]) == [("model.width", [8, 64])]
    text = page.compare(runs, tmp_path / "both.html").read_text("utf-8")
    assert "model.width" in text
    assert "data.name" not in content(text)


def test_a_sweep_of_two_factors_is_a_heat_map_and_of_three_parallel_axes():
    def settings(*keys):
        import itertools

        for i, values in enumerate(itertools.product((1, 2), repeat=len(keys))):
            overrides = [f"{k}={v}" for k, v in zip(keys, values, strict=True)]
            yield {
                "name": " ".join(overrides),
                "overrides": overrides,
                "values": {"seed=0": float(i), "seed=1": i + 1.0},
                "mean": i + 0.5,
                "half_width_95": 0.1,
            }

    kinds = []
    for keys in (("a",), ("a", "b"), ("a", "b", "c")):
        made = [json.loads(f) for f in plots.sweep({"figure": "test/acc", "settings": list(settings(*keys))})]
        kinds.append([f["data"][0]["type"] for f in made])
    assert kinds == [["scatter"], ["scatter", "heatmap"], ["scatter", "parcoords"]]
    heat = json.loads(plots.sweep({"figure": "test/acc", "settings": list(settings("a", "b"))})[1])
    assert heat["data"][0]["z"] == [[0.5, 2.5], [1.5, 3.5]]  # a across, b down


def test_the_verb_writes_every_page_without_torch(finished, monkeypatch, capsys):
    monkeypatch.chdir(finished)
    recorded(finished / "logs")
    both = "run=logs/mlp-digits/narrow,logs/mlp-digits/wide"
    for arguments in ((), ("run=logs/mlp-digits/wide",), (both,), ("output=sub/page.html",)):
        assert main(["report", *arguments]) == 0
        file = Path(capsys.readouterr().out.split()[-1])
        assert file.is_file()
    code = "import sys; from layerlab.cli import main; main(['report']); "
    code += "assert not {'torch', 'lightning'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("run=nowhere",), "neither a run (manifest.json) nor a sweep"),
        (("logs=nowhere",), "nothing to report"),
        (("rnu=x",), "rnu"),
        (("wandb",), "expected wandb DIR"),
        (("run=" + ",".join("abcdefghijklm"),), "13 runs"),
    ],
)
def test_what_cannot_be_reported_is_said(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main(["report", *arguments]) == 2
    assert words in capsys.readouterr().err


def test_a_record_of_an_earlier_version_is_shown(tmp_path):
    old = {k: v for k, v in RECORD.items() if k not in ("experiment", "literature", "git")}
    place = tmp_path / "claim" / "old"
    place.mkdir(parents=True)
    (place / "quick.json").write_text(json.dumps(old))
    (tmp_path / "claim" / "damaged").mkdir()
    (tmp_path / "claim" / "damaged" / "quick.json").write_text("{")
    assert "wider_is_better" in page.logs(tmp_path, "quick", None).read_text("utf-8")


def test_a_claim_whose_runs_failed_and_a_run_that_has_just_begun_have_pages_too(tmp_path):
    recorded(tmp_path, values={"acc": np.full((2, 2, 2, 3), np.nan).tolist()}, why="3 of 24 runs failed")
    text = content(page.logs(tmp_path, "quick", None).read_text("utf-8"))
    assert "3 of 24 runs failed" in text
    assert "figure-" not in text
    assert 'class="conclusion"' not in text  # nothing was decided
    begun = tmp_path / "run"
    begun.mkdir()
    (begun / "manifest.json").write_text("{}")
    (begun / "metrics.csv").write_text("step,val/loss\n1,.5\n2,.")
    (begun / "config.yaml").write_text("")
    assert "no status" in page.one(begun, None).read_text("utf-8")
    sweep = tmp_path / "sweep"
    sweep.mkdir()
    (sweep / "sweep.json").write_text("{")
    assert "No job has finished" in page.one(sweep, None).read_text("utf-8")


def test_rows_of_light_runs_are_listed(tmp_path):
    (tmp_path / "mlp-digits").mkdir()
    row = {"config_hash": "ab", "status": "ok", "monitor": "val/acc", "metrics": {"test/acc": 0.975}}
    (tmp_path / "mlp-digits" / "light.json").write_text(json.dumps(row))
    text = content(page.logs(tmp_path, "quick", None).read_text("utf-8"))
    assert "light.json" in text
    assert "0.975" in text


def test_single_runs_are_not_said_to_be_compared(tmp_path):
    settings = [
        {"name": f"a={i}", "overrides": [f"a={i}"], "values": {"": i}, "mean": i, "half_width_95": None}
        | {"bootstrap_95": None, "parameters": 1, "cpu_s": 1.0}
        for i in range(3)
    ]
    facts = {"figure": "test/acc", "settings": settings, "comparisons": [], "control": "", "best": "a=2"}
    (tmp_path / "statistics.json").write_text(json.dumps(facts | {"not_distinguishable_from_the_best": ["a=1"]}))
    (tmp_path / "sweep.json").write_text(json.dumps({"jobs": [], "common": []}))
    assert "t-test" not in content(page.one(tmp_path, None).read_text("utf-8"))
