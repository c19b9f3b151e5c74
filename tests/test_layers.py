"""Who may import whom: docs/architecture.md, read from the source."""

import ast
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "layerlab"
STDLIB = set(sys.stdlib_module_names) | {"__future__"}
BASE = {"contract"}
CONFIG = {"contract", "signature", "build", "compose"}
MAY = {  # part -> (our own parts, libraries; None = any)
    "contract": (set(), set()),
    "signature": (set(), set()),
    "build": ({"contract", "signature"}, set()),
    "compose": ({"contract", "build"}, {"hydra", "omegaconf"}),
    "nn": (set(), {"torch"}),
    "tasks": (BASE, {"torch", "torchmetrics"}),
    "data": (BASE, None),
    "models": (BASE | {"nn"}, {"torch", "lightning"}),
    "train": (CONFIG | {"tasks", "models.base", "data.features", "data.batches", "nn.conv"}, None),
    "sweep": (CONFIG | {"signature", "train"}, None),
    "claims": (CONFIG | {"train", "sweep"}, {"numpy", "scipy", "yaml"}),
    "report": (BASE, {"plotly", "numpy", "scipy", "jinja2", "markupsafe", "yaml"}),
    "cli": (None, None),
    "__init__": ({"train", "build"}, set()),
}


def imports(file: Path):
    """Dotted names that a file imports, type-checking blocks included."""
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (a.name for a in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file}: relative import"
            yield node.module
            yield from (f"{node.module}.{a.name}" for a in node.names if node.module.startswith("layerlab"))


FILES = sorted(SOURCE.rglob("*.py"))


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(SOURCE)))
def test_a_file_imports_only_what_its_charter_allows(file):
    part = file.relative_to(SOURCE).parts[0].removesuffix(".py")
    ours, libraries = MAY[part]
    if file == SOURCE / "models" / "base.py":
        ours = ours | {"tasks"}
    if file == SOURCE / "models" / "ets.py":
        libraries = libraries | {"statsmodels", "numpy"}
    if file == SOURCE / "models" / "pretrained.py":
        libraries = libraries | {"timm", "huggingface_hub"}
    if file.parent == SOURCE / "claims" / "measures":
        ours, libraries = ours | {"nn", "models", "data", "contract"}, None
    if file == SOURCE / "report" / "workspace.py":
        libraries = {"wandb_workspaces"}
    if file == SOURCE / "nn" / "autograd.py":
        libraries = {"numpy"}
    for name in imports(file):
        top, *rest = name.split(".")
        if top == "layerlab":
            if ours is None or not rest or rest[0] == part:
                continue
            allowed = any(".".join(rest).startswith(o) or o.startswith(".".join(rest) + ".") for o in ours)
            assert allowed, f"{name} is not for {part}"
        elif top not in STDLIB:
            assert libraries is None or top in libraries, f"{top} is not for {part}"


def test_every_part_has_a_charter():
    parts = {f.relative_to(SOURCE).parts[0].removesuffix(".py") for f in FILES}
    assert parts == set(MAY)


@pytest.mark.parametrize("word", ["utils", "common", "helpers", "misc", "components"])
def test_no_drawer_for_odds_and_ends(word):
    assert not [f for f in SOURCE.rglob("*") if f.stem == word]


@pytest.mark.row(49)
@pytest.mark.parametrize(
    "call", ["weights_only=False", "allow_pickle=True", "pickle.load", "read_pickle", "joblib.load"]
)
def test_nothing_that_could_run_code_from_a_file(call):
    assert not [f for f in FILES if call in f.read_text("utf-8")]
