"""The language of checks, the verdict table, the yaml of a claim, and one claim from its yaml to its verdict."""

import itertools
import json
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import yaml
from scipy import stats

from layerlab.build import ConfigError
from layerlab.claims import grammar
from layerlab.claims.claim import FIRST_SEED, read
from layerlab.claims.grammar import Table, Values
from layerlab.claims.run import check, judged, resized, run
from layerlab.claims.verdict import answer, both, estimate, verdict
from layerlab.train.manifest import config_hash

# --- verdicts


@pytest.mark.parametrize(
    ("expect", "control", "limits", "word"),
    [  # the table of the rule, row by row
        ("yy", "y", "n", "supported"),
        ("yy", "y", "", "supported"),
        ("yy", "y", "o", "supported"),
        ("yy", "y", "y", "nuanced"),
        ("yn", "y", "n", "nuanced"),
        ("yn", "n", "n", "nuanced"),
        ("yy", "n", "n", "nuanced"),
        ("nn", "y", "y", "refuted"),
        ("nn", "n", "n", "not decided"),
        ("yo", "y", "n", "not decided"),
        ("yy", "o", "n", "not decided"),
        ("", "y", "", "not decided"),
        ("y", "", "", "not decided"),
    ],
)
def test_a_verdict_follows_the_table(expect, control, limits, word):
    full = {"y": "yes", "n": "no", "o": "open"}
    assert verdict(*([full[a] for a in listed] for listed in (expect, control, limits))) == word


def test_an_answer_needs_the_whole_interval():
    for relation in ("<", "<=", ">", ">="):
        sign = 1 if relation[0] == "<" else -1
        low, high = sorted((-2.0 * sign, -1.0 * sign))
        assert answer(low, high, relation) == "yes"
        assert answer(-high, -low, relation) == "no"
        assert answer(-1, 1, relation) == "open"
        assert answer(-math.inf, math.inf, relation) == "open"
        assert answer(math.nan, math.nan, relation) == "open"
    assert (answer(0, 0, "<"), answer(0, 0, "<="), answer(0, 0, "==")) == ("no", "yes", "yes")
    assert both(["yes", "open"]) == "open"
    assert both(["no", "open"]) == "no"


def test_an_interval_is_students_and_no_narrower_than_wilsons():
    values = [0.2, 0.5, 0.4, 0.6]
    low, high = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    found = estimate(values)
    assert (found.low, found.high) == pytest.approx((low, high))
    twenty = estimate([1.0] * 20, rows=20)  # 20 of 20 is not certainty
    assert twenty.low == pytest.approx(0.839, abs=1e-3)
    assert estimate([1.0] * 73, rows=73).low >= 0.95 > estimate([1.0] * 72, rows=72).low
    assert estimate([math.inf, 1.0, 2.0]).high == math.inf
    assert estimate([1.0]).low == -math.inf


# --- the language

AXES = {"data": ("a", "b"), "arm": ("sgd", "adam_1e_3"), "zero": ("true", "false"), "n": ("1", "10", "100")}
RNG = np.random.default_rng(0)
ACC = RNG.normal(size=(2, 2, 2, 3, 5))  # data, arm, zero, n, seed
TABLE = Table(
    AXES | {"seed": tuple(range(5))},
    "seed",
    {"acc": Values(ACC, ("data", "arm", "zero", "n", "seed")), "base": Values(ACC[0, 0, 0, 0], ("seed",))},
)


def left(text, data=0):
    """The mean of the left side of a check."""
    return grammar.judge(text, TABLE)[data].links[0].left.mean


@pytest.mark.parametrize(
    ("text", "array"),
    [
        ("acc(arm=sgd, zero=false, n=10)", ACC[0, 0, 1, 1]),
        ("-acc(arm=sgd, zero=false, n=10)", -ACC[0, 0, 1, 1]),
        ("acc(arm=sgd, zero=false, n=10) - acc(arm=adam_1e_3, zero=true, n=1)", ACC[0, 0, 1, 1] - ACC[0, 1, 0, 0]),
        ("(acc - base)(arm=sgd, zero=false, n=100)", ACC[0, 0, 1, 2] - ACC[0, 0, 0, 0]),
        ("acc(arm=sgd, zero=false, n=10) / 2 + base * 3", ACC[0, 0, 1, 1] / 2 + 3 * ACC[0, 0, 0, 0]),
        ("max(acc(arm=sgd, zero=true), over=n)", ACC[0, 0, 0].max(0)),
        ("mean(acc(arm=sgd), over=[n, zero])", ACC[0, 0].mean((0, 1))),
        ("geomean(acc(arm=sgd, zero=true) * acc(arm=sgd, zero=true), over=n)", stats.gmean(ACC[0, 0, 0] ** 2, 0)),
        ("argmax(acc(arm=sgd, zero=true), over=n)", np.array([1, 10, 100])[ACC[0, 0, 0].argmax(0)]),
        ("rank(acc(arm=sgd, zero=true), over=n)(n=10)", stats.rankdata(ACC[0, 0, 0], axis=0)[1]),
        ("slope(acc(arm=sgd, zero=true), over=n)", np.polyfit([1, 10, 100], ACC[0, 0, 0], 1)[0]),
        ("slope(acc(arm=sgd, zero=true), over=n, log=true)", np.polyfit([0, 1, 2], ACC[0, 0, 0], 1)[0]),
        ("log10(acc(arm=sgd, zero=true, n=1) * 0 + 100)", np.full(5, 2.0)),
        ("acc(data=b, arm=sgd, zero=true, n=1)", ACC[1, 0, 0, 0]),
    ],
)
def test_an_expression_is_what_numpy_says(text, array):
    assert left(f"{text} >= 0") == pytest.approx(array.mean())


def test_r2_is_the_square_of_pearsons_r():
    expected = np.mean([stats.pearsonr([1, 10, 100], y)[0] ** 2 for y in ACC[0, 0, 0].T])
    assert left("r2(acc(arm=sgd, zero=true), over=n) >= 0") == pytest.approx(expected)


def test_differences_are_paired_by_unit():
    noise = RNG.normal(size=5) * 100
    values = {m: Values(noise + shift + RNG.normal(size=5) * 0.01, ("seed",)) for m, shift in (("a", 1), ("b", 0))}
    (found,) = grammar.judge("a - b >= .5", Table({"seed": range(5)}, "seed", values))
    assert found.answer == "yes"
    (found,) = grammar.judge("a > b", Table({"seed": range(5)}, "seed", values))
    assert found.answer == "yes"  # though the intervals of a and b overlap


def test_a_check_without_a_data_set_is_judged_on_each():
    found = grammar.judge("max(acc, over=[arm, zero, n]) >= -100", TABLE)
    assert [(j.data, j.answer) for j in found] == [("a", "yes"), ("b", "yes")]
    assert len(grammar.judge("max(acc(data=a), over=[arm, zero, n]) >= -100", TABLE)) == 1


def test_count_is_a_plain_number():
    (found, _) = grammar.judge("count(acc(arm=sgd, zero=true, n=1) > 0) >= 2", TABLE)
    assert found.links[0].left.mean == (ACC[0, 0, 0, 0] > 0).sum()
    assert found.links[0].left.low == found.links[0].left.high
    infinite = Table({"seed": range(3)}, "seed", {"loss": Values(np.array([math.inf, 2.0, math.inf]), ("seed",))})
    assert grammar.judge("count(loss > 5) >= 2", infinite)[0].answer == "yes"
    assert grammar.judge("loss > 5", infinite)[0].answer == "open"


def test_a_missing_value_decides_nothing():
    lost = np.array([[0.9, 0.9, 0.9], [math.nan, 0.9, 0.9]])  # arm, seed
    axes = {"arm": ("a", "b"), "seed": range(3)}
    table = Table(axes, "seed", {"x": Values(lost, ("arm", "seed"))})
    for text in (
        "min(x, over=arm) >= .8",
        "max(x, over=arm) >= .8",
        "argmax(x, over=arm) >= 0",
        "count(x(arm=b) > 2) <= 0",
    ):
        assert grammar.judge(text, table)[0].answer == "open", text
    skipped = Table(axes, "seed", table.metrics, partial=True)  # what was left out on purpose is passed over
    assert grammar.judge("min(x, over=arm) >= .8", skipped)[0].answer == "yes"


def test_a_share_is_judged_alike_on_either_side():
    table = Table({"seed": range(3)}, "seed", {"x": Values(np.ones(3), ("seed",), rows=6)})
    assert grammar.judge("x >= .9", table)[0].answer == grammar.judge(".9 <= x", table)[0].answer == "open"


def test_an_axis_of_numbers_takes_them_however_they_are_spelt():
    table = Table({"lr": ("1e-3", "1e-2"), "seed": range(3)}, "seed", {"x": Values(np.eye(3)[:2], ("lr", "seed"))})
    assert grammar.judge("x(lr=.001) >= -9", table) == grammar.judge("x(lr=1e-3) >= -9", table)


def test_a_chain_holds_where_every_link_does():
    one = Table({"seed": range(3)}, "seed", {"x": Values(np.array([0.1, 0.11, 0.12]), ("seed",))})
    assert grammar.judge("-.5 <= x <= .5", one)[0].answer == "yes"
    assert grammar.judge("-.5 <= x <= .05", one)[0].answer == "no"
    assert grammar.judge("-.5 <= x <= .11", one)[0].answer == "open"


def test_equality_is_exact_unit_by_unit():
    one = Table({"seed": range(3)}, "seed", {"x": Values(np.array([0.0, 0.0, 1e-12]), ("seed",))})
    assert grammar.judge("x == 0", one)[0].answer == "no"
    assert grammar.judge("x * 0 == 0", one)[0].answer == "yes"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("acc(arm=sgd", "does not parse"),
        ("acc(arm=sgd)", "expected a comparison"),
        ("acc(arm=sgd, zero=true) >= 0", "leaves n free"),
        ("accc(arm=sgd) >= 0", "at character 1: accc: no such metric or function; did you mean acc?"),
        ("max(accc, over=n) >= 0", "at character 5: accc: no such metric; did you mean acc?"),
        ("acc(arms=sgd) >= 0", "arms: no axis of this; did you mean arm?"),
        ("acc(arm=sgdd) >= 0", "arm=sgdd: no such value; did you mean sgd?"),
        ("acc(arm=sgd, arm=sgd) >= 0", "arm: no axis of this; known: data, n, zero"),
        ("acc(seed=1) >= 0", "seed: no axis of this"),
        ("max(acc) >= 0", "max: expected over=AXIS"),
        ("max(acc, over=m) >= 0", "over=m: no axis of this"),
        ("slope(acc, over=[n, arm]) >= 0", "slope: over one axis"),
        ("count(acc) >= 0", "count: expected a comparison"),
        ("count(2 > 1) >= 0", "nothing here varies by seed"),
        ("acc(sgd) >= 0", "expected axis=value"),
        ("acc.real >= 0", "Attribute is not part of the language"),
        ("__import__('os') >= 0", "no such metric or function"),
        ("[x for x in acc] >= 0", "ListComp is not part of the language"),
        ("acc != 0", "expected < <= > >= or ==, not NotEq"),
        ("acc >= True", "Constant is not part of the language"),
        ("max >= 0", "max: a function"),
        ("max(acc, over=[n, n]) >= 0", "names an axis twice"),
        ("mean(base, over=seed) >= 0", "that is what is resampled"),
        ("1 <= 2", "nothing in it varies by seed"),
        ("count(acc > 0, over=n) >= 0", "takes nothing but"),
        ("max(acc, over=n, log=true) >= 0", "max: expected over=AXIS"),
        ("acc ** 2 >= 0", "BinOp is not part of the language"),
    ],
)
def test_what_is_not_in_the_language_is_refused_with_its_place(text, said):
    with pytest.raises(ConfigError) as e:
        grammar.judge(text, TABLE)
    assert said in str(e.value)
    assert repr(text)[1:-1] in str(e.value)


# --- the yaml

SMALL = {
    "says": "wider is better",
    "topic": 0,
    "base": ["model=mlp", "data=digits", "trainer.max_epochs=1", "data.split_seed=${seed}"],
    "arms": {"narrow": ["model.width=2"], "wide": ["model.width=64"]},
    "measure": {"acc": "test/acc", "dead": "dead_units.dead"},
    "seeds": 3,
    "expect": ["acc(arm=wide) - acc(arm=narrow) >= .05"],
    "control": ["acc(arm=narrow) <= .9"],
}


def written(folder, **changes):
    file = folder / "wider.yaml"
    file.write_text(yaml.safe_dump({k: v for k, v in (SMALL | changes).items() if v is not None}))
    return str(file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"says": None}, "claim wider: says: missing"),
        ({"expct": ["a"]}, "claim wider: expct: unknown key; did you mean expect?"),
        ({"expect": ["acc(arm=wide) >= "]}, "claim wider: expect: 'acc(arm=wide) >= ': does not parse"),
        ({"expect": ["acc >= .5"]}, "leaves arm free"),
        ({"expect": ["see the picture"]}, "claim wider: expect: 'see the picture': does not parse"),
        ({"measure": {"acc": "accuracy"}}, "accuracy: expected test/acc"),
        ({"measure": {"acc": "dead_units.dead(lag)"}}, "measure.acc: lag: no axis under `within`"),
        ({"measure": {"acc": "deaf_units.dead"}}, "measure.acc: deaf_units: no such measure; did you mean dead_units?"),
        ({"measure": {"acc": "dead_units.deaf"}}, "dead_units does not give deaf; did you mean dead?"),
        ({"grid": {"act": "relu"}}, "grid.act: expected key=value"),
        ({"skip": ["deep=1"]}, "skip: deep=1: known: arm"),
        ({"arms": {"narrow": ["model.widht=2"], "wide": []}}, "arm=narrow: model.widht: not an option of MLP"),
        ({"arms": {"narrow": ["model.width=2"], "wide": ["debug=limit"]}}, "but no arm says so"),
        ({"seeds": {"over": "sentence"}}, "seeds.over=sentence: no axis"),
        ({"expect": ["acc(arm=wide) >= .5", "acc(arm=wide) = 1"]}, "does not parse"),
        ({"grid": {"seed": "model.depth=1,2"}}, "seed: the name of another axis"),
        ({"skip": ["arm=nope"]}, "skip: arm=nope"),
        ({"rows": {"accc": 20}}, "rows.accc: 20: expected a metric"),
        ({"rows": {"acc": -5}}, "rows.acc: -5"),
        ({"within": {"lag": []}}, "within.lag: empty"),
        ({"seeds": {"over": ["a"]}}, "expected a number, or over: AXIS"),
        ({"needs": ["no.such"]}, "needs: no.such: expected the name of a package"),
        ({"expect": ["acc(arm=wide) >= " + "9" * 400]}, "claim wider: expect:"),
        ({"seeds": 0}, "seeds: 0: expected 1 or more"),
        ({"seeds": "five"}, "seeds: 'five': expected a number, or over: AXIS"),
        ({"seeds": {"n": 3}}, "expected a number, or over: AXIS"),
        ({"measure": "test/acc"}, "measure: 'test/acc': expected names with values"),
        ({"expect": "acc >= .5"}, "expect: 'acc >= .5': expected a list"),
        ({"base": "model=mlp"}, "base: 'model=mlp': expected a list"),
        ({"arms": {"wide": "model.width=64"}}, "arms.wide: 'model.width=64': expected a list"),
        ({"within": {"lag": 3}}, "within.lag: 3: expected a list"),
        ({"topic": "three"}, "topic: 'three': expected a number"),
        ({"gate": "maybe"}, "gate: 'maybe': expected true or false, or a list of overrides"),
        ({"limits": [{"when": "acc(arm=wide) > 1"}]}, "expected a check, or when: and then:"),
    ],
)
def test_a_claim_that_is_wrong_is_refused_before_the_first_run(tmp_path, changes, said):
    with pytest.raises(ConfigError) as e:
        check(read(written(tmp_path, **changes)))
    assert said in str(e.value)


def test_a_claim_that_is_not_there_is_told_with_the_nearest():
    with pytest.raises(ConfigError, match="no such claim; did you mean relu_dying"):
        read("relu_dyin")


def test_a_claim_of_ones_own_runs_is_judged_and_runs_nothing_twice(tmp_path):
    claim = read(written(tmp_path))
    record = run(claim, tmp_path / "logs")
    assert record["verdict"] == "supported"
    assert record["scope"] == "on digits, mlp, n=3"
    assert {job["status"] for job in json.loads((tmp_path / "logs" / "wider" / "sweep.json").read_text())["jobs"]} == {
        "ok"
    }
    rows = {p: p.stat().st_mtime_ns for p in (tmp_path / "logs" / "wider").glob("*/*.json")}
    assert len(rows) == 6
    again = run(claim, tmp_path / "logs")
    assert {p: p.stat().st_mtime_ns for p in rows} == rows
    assert again["values"] == record["values"]
    kept = json.loads((tmp_path / "logs" / "wider" / "quick.json").read_text())
    in_order = [
        json.loads((tmp_path / "logs" / "wider" / cell.name / f"{seed}.json").read_text())
        for cell, seed in itertools.product(claim.cells, range(FIRST_SEED, FIRST_SEED + 3))
    ]
    assert json.loads(json.dumps(judged(claim, in_order)))["checks"] == kept["checks"]  # from the records alone


def test_a_claim_that_was_edited_is_run_anew(tmp_path):
    run(read(written(tmp_path)), tmp_path / "logs")
    row = tmp_path / "logs" / "wider" / "arm=wide" / f"{FIRST_SEED}.json"
    before = row.read_text()
    run(read(written(tmp_path, base=[*SMALL["base"], "model.dropout=0.5"])), tmp_path / "logs")
    assert json.loads(row.read_text())["config_hash"] != json.loads(before)["config_hash"]


def test_a_row_that_other_code_measured_is_no_row_of_this_claim(tmp_path, monkeypatch):
    claim = read(written(tmp_path))
    before = check(claim)[0][0].config
    monkeypatch.setattr("layerlab.claims.run._source", lambda target: "other")
    assert config_hash(check(claim)[0][0].config) != config_hash(before)


def test_claims_of_one_call_share_runs_and_a_diverged_one_is_not_repeated(tmp_path):
    claim = read(written(tmp_path))
    known: dict[str, dict] = {}
    run(claim, tmp_path / "logs", known=known)
    twin = replace(claim, name="twin")
    assert run(twin, tmp_path / "logs", known=known)["verdict"] == "supported"
    assert not (tmp_path / "logs" / "twin" / "sweep.json").exists()  # nothing was launched
    row = tmp_path / "logs" / "wider" / "arm=wide" / f"{FIRST_SEED}.json"
    diverged = json.loads(row.read_text()) | {"status": "failed", "reason": "diverged"}
    row.write_text(json.dumps(diverged))
    run(claim, tmp_path / "logs")
    assert json.loads(row.read_text()) == diverged


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        (
            {"measure": {"acc": "test/akk", "dead": "dead_units.dead"}},
            "measure.acc: test/akk: never logged here; did you mean test/acc",
        ),
        ({"plot": {"y": "acc", "x": "arms"}}, "plot.x: arms: no axis; did you mean arm"),
        ({"plot": {"y": "akk"}}, "plot.y: akk: neither a metric nor a logged figure"),
        ({"measure": {"acc": "test/acc", "dead": "reach.glog"}}, "measure.dead: expected reach.glog(lag)"),
        ({"seeds": {"over": "armm"}}, "seeds.over=armm: no axis; did you mean arm"),
    ],
)
def test_what_no_run_gives_is_refused_with_its_place(tmp_path, changes, said):
    with pytest.raises(ConfigError) as e:
        check(read(written(tmp_path, **changes)))
    assert said in str(e.value)


def test_the_seeds_are_those_of_the_claim_or_those_that_are_asked_for(tmp_path):
    claim = read(written(tmp_path, first_seed=7))
    assert [place.rpartition("/")[2] for _, place in check(claim)][:3] == ["7.json", "8.json", "9.json"]
    assert check(claim, "quick", 0)[0][1].endswith("/0.json")


def test_an_axis_of_the_runs_may_be_what_is_resampled(tmp_path):
    changes = {"grid": {"depth": "model.depth=1,2,3"}, "seeds": {"over": "depth", "n": 3}}
    claim = read(written(tmp_path, **changes))
    assert (claim.units, claim.seeds, len(claim.cells)) == (("1", "2", "3"), 1, 6)
    assert claim.dims("acc") == ("arm", "depth")


def test_a_size_scales_seeds_and_budget_but_not_what_is_counted(tmp_path):
    plain = read(written(tmp_path, seeds=5))
    full = resized(plain, "full")
    assert (full.seeds, full.minutes) == (20, 4 * plain.minutes)
    assert resized(plain, "gate").seeds == 3
    counted = read(written(tmp_path, seeds=5, control=["count(acc(arm=narrow) < .9) >= 5"]))
    assert resized(counted, "gate").seeds == resized(counted, "full").seeds == 5
    own, other = "acc(arm=wide) >= .2", "acc(arm=wide, data = 'mnist1d') >= .1"
    gate = {"data": ["digits", "mnist1d"], "gate": ["trainer.max_epochs=1"]}
    shorter = read(written(tmp_path, **gate, control=[own, other]))
    assert [c.text for c in resized(shorter, "gate").checks["control"]] == [own]
    assert resized(shorter, "gate").notes == (f"not in the gate: {other}",)
    with pytest.raises(ConfigError, match="gate: no check is left for digits alone"):
        resized(read(written(tmp_path, **gate, control=[other])), "gate")
    assert [c.overrides[-1] for c in resized(shorter, "gate").cells] == ["trainer.max_epochs=1"] * 2
    assert (list(resized(shorter, "gate").data), list(resized(shorter, "quick").data)) == (
        ["digits"],
        ["digits", "mnist1d"],
    )
    with pytest.raises(ConfigError, match="size=fulll: expected one of quick, full, gate"):
        resized(plain, "fulll")


def test_the_example_of_the_page_can_be_read(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "claims.md").read_text("utf-8")
    file = tmp_path / "example.yaml"
    file.write_text(page.split("```yaml")[1].split("```")[0])
    check(read(str(file)))


def rows_of(claim, acc, **facts):
    row = {"status": "ok", "cpu_seconds": {"total": 1.0}, "metrics": {"test/acc": acc, "dead_units.dead": 0.0}}
    return [row | facts for _ in itertools.product(claim.cells, range(claim.seeds))]


def test_an_accuracy_is_no_surer_than_the_examples_it_is_a_share_of(tmp_path):
    claim = read(written(tmp_path))
    for scored, word in ((None, "yes"), (10_000, "yes"), (10, "open")):
        found = judged(claim, rows_of(claim, 0.8, **({"scored": scored} if scored else {})))
        assert found["checks"]["control"][0]["found"][0]["answer"] == word


def test_what_decides_nothing_says_why(tmp_path):
    claim = read(written(tmp_path))
    assert "runs failed" in judged(claim, rows_of(claim, 0.5, status="failed", reason="exception", error="x"))["why"]
    assert "no value of acc (test/acc)" in judged(claim, rows_of(claim, math.nan))["why"]
    assert "needs 3" in judged(read(written(tmp_path, seeds=2)), rows_of(read(written(tmp_path, seeds=2)), 0.5))["why"]
    assert "the budget is 0.05" in judged(read(written(tmp_path, minutes=0.05)), rows_of(claim, 0.5))["why"]
    assert judged(claim, [], "needs minilm")["verdict"] == "not decided"


def test_a_run_that_diverged_is_an_outcome(tmp_path):
    claim = read(
        written(
            tmp_path,
            measure={"loss": "train/loss@last"},
            expect=["count(loss(arm=wide) > 5) >= 3"],
            control=["loss(arm=narrow) <= 1"],
        )
    )
    rows = [
        {"status": "failed", "reason": "diverged", "cpu_seconds": {}}
        if cell.labels["arm"] == "wide"
        else {"status": "ok", "history": [{"train/loss": 2.0}, {"train/loss": 0.5}], "metrics": {}}
        for cell, _ in itertools.product(claim.cells, range(FIRST_SEED, FIRST_SEED + 3))
    ]
    assert judged(claim, rows)["verdict"] == "supported"
