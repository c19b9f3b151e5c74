"""Yaml and Python say the same: every file, key, default and option."""

import ast
from pathlib import Path

import pytest
import yaml

from layerlab.build import config_dir, model_class
from layerlab.compose import compose
from layerlab.signature import UNKNOWN, read_target
from tests.every.cells import CELLS, options

GROUPS = sorted(d.name for d in config_dir().iterdir() if d.is_dir())
SOURCE = Path(__file__).parents[2] / "src" / "layerlab"
GIVEN = {  # arguments that the run passes, not the yaml
    "model": {"spec"},
    "task": {"spec"},
    "optimizer": {"parameters"},
    "freeze": {"facts"},
    "schedule": {"optimizer", "total"},
    "trainer": {"folder", "callbacks", "loggers"},
    "augment": {"spec"},
    "logger": {"folder", "name", "config", "keep", "run_id"},
}
FILES = {
    (group, option): yaml.safe_load((config_dir() / group / f"{option}.yaml").read_text("utf-8")) or {}
    for group in GROUPS
    for option in options(group)
}
NODES = [(*place, node) for place, node in FILES.items() if "_target_" in node]
NODES += [(group, option, node[option]) for (group, option), node in FILES.items() if group == "augment" and node]


def number(value):
    """YAML reads 5e-4 as text; Hydra and we read it as a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value


@pytest.mark.parametrize(("group", "option", "node"), NODES, ids=[f"{g}-{o}" for g, o, _ in NODES])
def test_each_key_is_an_argument_and_each_argument_a_key_with_the_same_default(group, option, node):
    target = read_target(node["_target_"])
    assert target is not None, node["_target_"]
    keys = {k for k in node if k not in ("_target_", "defaults")}
    arguments = {a: default for a, (_, default) in target.parameters.items() if a not in GIVEN.get(group, ())}
    if group == "logger":  # each option shows the arguments that concern it
        assert keys <= set(arguments)
        arguments = {a: d for a, d in arguments.items() if a in keys - {"wandb", "tensorboard"}}
        keys -= {"wandb", "tensorboard"}
    assert keys == set(arguments)
    for name, default in arguments.items():
        value = number(node[name])
        if default is not UNKNOWN:
            assert (list(default) if isinstance(default, tuple) else default) == value, f"{option}.{name}"
            assert type(value) is type(list(default) if isinstance(default, tuple) else default), f"{option}.{name}"


OPEN = {"preprocess"}  # checked by the model itself


@pytest.mark.parametrize(("group", "option", "node"), NODES, ids=[f"{g}-{o}" for g, o, _ in NODES])
def test_the_type_of_every_option_is_known_without_an_import(group, option, node):
    parameters = read_target(node["_target_"]).parameters
    given = set(node) - {"_target_", "defaults"} - OPEN
    if node["_target_"].startswith("layerlab."):
        assert not [k for k in given if k in parameters and parameters[k][0] is UNKNOWN]


@pytest.mark.parametrize("name", options("model"))
def test_a_model_yaml_has_its_file_and_its_class(name):
    node = yaml.safe_load((config_dir() / "model" / f"{name}.yaml").read_text("utf-8"))
    target = model_class(name)
    assert target is not None
    assert node["_target_"] == f"layerlab.models.{name}.{target.node.name}"
    assert target.node.name.lower() == name.replace("_", "")


def test_every_model_file_has_its_yaml():
    files = {f.stem for f in (SOURCE / "models").glob("*.py")} - {"__init__", "base"}
    assert files == set(options("model"))


# claims are no options of a run: tests/unit/test_claims.py composes each of them
@pytest.mark.parametrize("group", [g for g in GROUPS if g not in ("experiment", "debug", "claim")])
def test_every_option_composes_and_passes_its_own_check(group):
    data = {
        "next_token": "names",
        "forecast": "series",
        "regress": "table",
        "classify": "digits",
        "transduce": "spelling",
    }
    for option in options(group):
        extra = [f"model={next(m for m, d in CELLS if d == option)}"] if group == "data" else []
        if group == "model":
            extra = [f"data={next(d for m, d in CELLS if m == option)}"]
        if group == "task":
            extra = [f"data={data[option]}", f"model={'seq2seq' if option == 'transduce' else 'mlp'}"]
        if group == "freeze":
            extra = ["model=pretrained"]
        compose(f"{group}={option}", *extra)


@pytest.mark.parametrize("overlay", [f"debug={o}" for o in options("debug")])
def test_overlays_compose(overlay):
    compose(overlay)


@pytest.mark.parametrize("name", options("experiment"))
def test_every_experiment_composes_and_its_parts_can_be_set(name):
    found = compose(f"experiment={name}").config
    for part in found["augment"]:
        compose(f"experiment={name}", f"augment.{part}.{'p' if part != 'crop' else 'padding'}=1")


def test_experiments_come_before_debug_and_both_before_the_command_line():
    assert compose("debug=limit").config["trainer"]["max_epochs"] == 2
    assert compose("debug=limit", "trainer.max_epochs=5").config["trainer"]["max_epochs"] == 5
    assert compose("trainer.max_epochs=5", "debug=limit").config["trainer"]["max_epochs"] == 5


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda f: str(f.relative_to(SOURCE)))
def test_public_names_have_docstrings(file):
    tree = ast.parse(file.read_text("utf-8"))
    assert ast.get_docstring(tree), "the module says what it is for"
    for node in tree.body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
            assert ast.get_docstring(node), node.name
