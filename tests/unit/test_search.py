"""Search spaces as Hydra writes them; the sweep files of wandb, whose commands compose without a server."""

import itertools

import pytest
import yaml
from hydra.core.override_parser.overrides_parser import OverridesParser
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from tests.conftest import ROOT

from layerlab.build import ConfigError
from layerlab.compose import compose
from layerlab.sweep import search


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        ("lr=interval(1e-4,1e-1)", FloatDistribution(1e-4, 1e-1)),
        ("lr=tag(log,interval(1e-4,1e-1))", FloatDistribution(1e-4, 1e-1, log=True)),
        ("width=int(interval(8,64))", IntDistribution(8, 64)),
        ("width=range(8,65,8)", IntDistribution(8, 64, step=8)),
        ("act=relu,gelu", CategoricalDistribution(["relu", "gelu"])),
        ("act=choice(relu,gelu)", CategoricalDistribution(["relu", "gelu"])),
        ("x=range(0,1,0.25)", CategoricalDistribution(["0.0", "0.25", "0.5", "0.75"])),
    ],
)
def test_what_hydra_sweeps_over_is_what_optuna_searches(typed, expected):
    (override,) = OverridesParser.create().parse_overrides([typed])
    assert search.distribution(override) == expected


def test_what_cannot_be_searched_is_refused():
    (override,) = OverridesParser.create().parse_overrides(["x=glob(*)"])
    with pytest.raises(ConfigError, match=r"x=glob\(\*\): cannot be searched; give several values"):
        search.distribution(override)


@pytest.mark.parametrize("name", ["activations", "freeze"])
def test_the_commands_of_a_wandb_sweep_compose(name):
    """Every value of every parameter, in the form of ${args_no_hyphens}."""
    node = yaml.safe_load((ROOT / "sweeps" / f"{name}.yaml").read_text())
    assert node["command"][-1] == "${args_no_hyphens}"
    fixed = [c for c in node["command"] if "=" in c]
    assert "logger=wandb" in fixed
    assert node["metric"]["name"] == "val/acc"
    grid = {k: v["values"] for k, v in node["parameters"].items()}
    first = {k: v[0] for k, v in grid.items()}
    for key, value in [(k, v) for k, values in grid.items() for v in values]:
        chosen = first | {key: value}
        made = compose(*fixed, *(f"{k}={v}" for k, v in chosen.items()))
        assert made.config["logger"]["mode"] == "online"
    assert len(list(itertools.product(*grid.values()))) in (60, 30)
