"""Statistics of a sweep against scipy and a hand computation; many configs composed as Hydra composes each."""

import json

import numpy as np
import pytest
from hydra.core.global_hydra import GlobalHydra
from hydra.initialize import initialize_config_dir
from hydra.types import RunMode
from omegaconf import OmegaConf
from scipy.stats import sem, t, ttest_rel

from layerlab.build import config_dir
from layerlab.compose import Composer
from layerlab.contract import LayerlabError
from layerlab.sweep import stats, table
from layerlab.sweep.ledger import Job

FIGURES = {"a": [0.90, 0.92, 0.91, 0.95], "b": [0.91, 0.94, 0.92, 0.97], "c": [0.70, 0.71, 0.69, 0.74]}


def jobs(figures=FIGURES, keys=("model.x",)):
    found = []
    for name, values in figures.items():
        for seed, value in enumerate(values):
            overrides = [f"{k}={v}" for k, v in zip(keys, name.split(","), strict=True)]
            found.append(
                Job(
                    len(found),
                    [*overrides, f"seed={seed}"],
                    "",
                    "",
                    "ok",
                    metrics={"test/acc": value},
                    monitor="val/acc",
                )
            )
            found[-1].mode = "max"
    return found


def test_intervals_are_those_of_scipy():
    _, more, found = stats.settings(jobs())
    assert more
    for s in found:
        values = list(s.values.values())
        low, high = t.interval(0.95, 3, np.mean(values), sem(values))
        assert s.half_width == pytest.approx((high - low) / 2)
        assert s.bootstrap[0] <= s.mean <= s.bootstrap[1]
        assert s.bootstrap == stats.bootstrap(values)  # the same for the same values
    assert stats.half_width([1.0]) is None
    assert stats.bootstrap([1.0]) is None


def test_differences_are_paired_by_seed_and_corrected_for_their_number():
    _, _, found = stats.settings(jobs())
    b, c = stats.compare(found, found[0])
    for one, name in ((b, "b"), (c, "c")):
        assert one.p == pytest.approx(ttest_rel(FIGURES[name], FIGURES["a"]).pvalue)
        d = np.subtract(FIGURES[name], FIGURES["a"])
        assert one.difference == pytest.approx(d.mean())
        assert one.effect == pytest.approx(d.mean() / d.std(ddof=1))
    small, large = sorted([b, c], key=lambda x: x.p)
    assert small.p_holm == pytest.approx(min(2 * small.p, 1))  # Holm 1979: the smallest times their number
    assert large.p_holm == pytest.approx(max(large.p, small.p_holm))


def test_pairs_that_differ_alike_or_not_at_all_are_no_division_by_zero():
    _, _, found = stats.settings(jobs({"a": [0.5, 0.7], "b": [0.5, 0.7], "c": [0.6, 0.8]}))
    same, shifted = stats.compare(found, found[0])
    assert (same.p, same.effect) == (1.0, 0.0)
    assert shifted.difference == pytest.approx(0.1)
    assert (shifted.p, shifted.effect) == (0.5, None)  # the sign test of two pairs


def test_a_setting_that_is_surely_worse_is_distinguishable_from_the_best():
    _, more, found = stats.settings(jobs())
    assert stats.best_first(found, more)[0].name == "model.x=b"
    assert "model.x=c" not in stats.not_distinguishable(found, more)


def test_the_control_is_named_or_the_first():
    _, _, found = stats.settings(jobs())
    assert stats.chosen_control(found, None).name == "model.x=a"
    assert stats.chosen_control(found, "model.x=c").name == "model.x=c"
    with pytest.raises(LayerlabError, match=r"sweep.control=model.x=d: not one of the settings"):
        stats.chosen_control(found, "model.x=d")


@pytest.mark.parametrize("factors", [1, 2, 3])
def test_a_sweep_leaves_table_statistics_and_picture(factors, tmp_path):
    keys = ("model.x", "model.y", "model.z")[:factors]
    values = {",".join([a, b, c][:factors]): [0.1, 0.2] for a in "ab" for b in "cd" for c in "ef"}
    text = table.leave(jobs(values, keys), tmp_path, None)
    assert "not distinguishable from it" in text
    facts = json.loads((tmp_path / "statistics.json").read_text())
    assert len(facts["settings"]) == 2**factors
    assert len(facts["comparisons"]) == 2**factors - 1
    assert (tmp_path / "sweep.png").stat().st_size > 5_000
    assert len((tmp_path / "sweep.csv").read_text().splitlines()) == 1 + 2**factors


GRID = [
    ["model=mlp", "model.width=8", "seed=1"],
    ["model=mlp", "model.width=16", "seed=1"],
    ["model=mlp", "trainer.max_epochs=3", "experiment=digits_mlp"],
    ["augment=[crop,flip]", "augment.crop.padding=2", "seed=0"],
    ["experiment=freeze_sweep", "freeze=lp_ft", "freeze.head=0.2"],
    ["experiment=freeze_sweep", "freeze=gradual", "debug=limit", "data.batch_size=7"],
    ["model=pretrained", "model.weights=null", "figures=[confusion,filters]", "trainer.precision='bf16-mixed'"],
    ["model=mlp", "trainer.max_time='00:00:01:00'", "user.paths=[]", "trainer.detect_anomaly=true"],
    ["model=mlp", "logger=[csv,wandb]", "data.train_size=500", "objective=null"],
]


def test_configs_of_a_grid_are_those_that_hydra_composes():
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        composer = Composer(loader, "train")
        for overrides in GRID:
            full = loader.load_configuration("train", overrides, RunMode.RUN)
            own = OmegaConf.masked_copy(full, [k for k in full if k != "hydra"])
            mine = composer(overrides)
            assert mine.config == OmegaConf.to_container(own, resolve=True)
            assert mine.choices["model"] == full.hydra.runtime.choices["model"]
        assert not any(base.refers for base in composer._bases.values())  # values are set in plain ones
