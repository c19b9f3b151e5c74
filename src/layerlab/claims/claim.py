"""A claim: its yaml read and checked, and the runs that it asks for."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from types import NoneType
from typing import Any

import numpy as np
import yaml

from layerlab.build import ConfigError, config_dir, suggest
from layerlab.claims import grammar
from layerlab.claims.grammar import Table, Values

REQUIRED = ("says", "topic", "base", "measure", "expect", "control")
KINDS: dict[str, tuple[str, tuple[type, ...]]] = {  # of the keys of a claim
    **dict.fromkeys(("says", "scope", "concludes", "literature"), ("a text", (str,))),
    **dict.fromkeys(("base", "expect", "control", "limits", "needs", "skip", "changed"), ("a list", (list,))),
    **dict.fromkeys(("measure", "arms", "grid", "within", "rows", "plot"), ("names with values", (dict,))),
    "trains": ("true or false", (bool,)),
    "gate": ("true or false, or a list of overrides", (bool, list)),
    **dict.fromkeys(("topic", "first_seed"), ("a number", (int,))),
    "minutes": ("a number", (int, float)),
    "data": ("a list, or names with a list of overrides each", (list, dict)),
    "seeds": ("a number, or over: AXIS", (int, dict)),
}
TOLD = ("concludes", "literature", "changed", "plot", "gate")  # what a reader is told, or how CI runs it
LISTS_INSIDE = ("arms", "within", "data")  # each name of these holds a list
SEEDS, FULL_SEEDS, GATE_SEEDS = 5, 20, 3
FIRST_SEED = 700  # of a verdict, where the claim names no other; those below it were seen when thresholds were set
LISTS = ("expect", "control", "limits")
SHARES = ("test/acc",)  # of the scored examples
PARAMETERS = "parameters"  # of a model, trainable: the one figure that is not logged


@dataclass(frozen=True)
class Check:
    """A line of expect, control or limits. then: what a limit that holds says."""

    text: str
    then: str = ""


@dataclass(frozen=True)
class Cell:
    """One combination of a claim's axes and the overrides that make it."""

    labels: dict[str, str]
    overrides: tuple[str, ...]

    @property
    def name(self) -> str:
        """As a folder is called: arm=adam,zero=true."""
        return ",".join(f"{k}={v}" for k, v in self.labels.items()) or "all"


@dataclass(frozen=True)
class Source:
    """Where a metric comes from: `test/acc`, `train/loss@last`, `parameters`, or `measure.name(axis, ...)`.

    measure: "" for what the run logs. at: `last`, `first`, or "" for the final figure. inner: axes the measure gives.
    """

    measure: str
    name: str
    at: str
    inner: tuple[str, ...]

    @classmethod
    def parse(cls, text: str) -> Source:
        """Raises ValueError."""
        if text == PARAMETERS:
            return cls("", text, "", ())
        if found := re.fullmatch(r"(\w+/\w+)(?:@(first|last))?", text):
            return cls("", found[1], found[2] or "", ())
        if found := re.fullmatch(r"(\w+)\.(\w+)(?:\(([\w, ]+)\))?", text):
            return cls(found[1], found[2], "", tuple(a.strip() for a in found[3].split(",")) if found[3] else ())
        raise ValueError(f"measure: {text}: expected test/acc, train/loss@last, {PARAMETERS}, or measure.name(axis)")

    def __str__(self) -> str:
        inner = f"({', '.join(self.inner)})" if self.inner else ""
        return (f"{self.measure}." if self.measure else "") + self.name + (f"@{self.at}" if self.at else "") + inner

    def key(self, inner: dict[str, Any]) -> str:
        """Its name in the record of a run, for values of the axes that the measure gives."""
        told = ",".join(f"{a}={inner[a]}" for a in self.inner)
        return f"{self.measure}.{self.name}" + (f"({told})" if told else "") if self.measure else self.name


@dataclass(frozen=True)
class Claim:
    """A sentence, the runs that test it, and what is checked in them.

    axes: of the runs (data, arm, and the keys of the grid), then `within`, those that a measure gives by itself.
    unit: what is resampled; `seed`, or one of these axes.
    """

    name: str
    says: str
    topic: int
    base: tuple[str, ...]
    data: dict[str, tuple[str, ...]]
    arms: dict[str, tuple[str, ...]]
    grid: dict[str, tuple[str, tuple[str, ...]]]  # axis -> (key, values)
    within: dict[str, tuple[Any, ...]]
    metrics: dict[str, Source]
    rows: dict[str, int]
    unit: str
    seeds: int
    told_units: int | None
    trains: bool
    checks: dict[str, tuple[Check, ...]]
    notes: tuple[str, ...]
    skip: tuple[dict[str, str], ...]
    minutes: float
    needs: tuple[str, ...]
    gate: bool
    first_seed: int = FIRST_SEED
    shorter: tuple[str, ...] = ()  # overrides with which its runs, on the first data set alone, are short enough for CI
    last: tuple[str, ...] = ()  # overrides after those of the axes
    plot: dict[str, Any] = field(default_factory=dict)
    scope: str = ""  # what it speaks of, where neither data nor model says it
    concludes: str = ""
    literature: str = ""
    changed: tuple[str, ...] = ()  # what its thresholds were before, and why they are not

    @property
    def every_axis(self) -> dict[str, tuple[Any, ...]]:
        """The axes of the runs, then those of the measures, with their values."""
        found: dict[str, tuple[Any, ...]] = {}
        if self.data:
            found["data"] = tuple(self.data)
        if self.arms:
            found["arm"] = tuple(self.arms)
        return found | {axis: values for axis, (_, values) in self.grid.items()} | self.within

    @property
    def axes(self) -> dict[str, tuple[Any, ...]]:
        """Every axis but the unit, with its values."""
        return {k: v for k, v in self.every_axis.items() if k != self.unit}

    @property
    def cells(self) -> list[Cell]:
        """The combinations that are run."""
        sides: list[list[tuple[str, str, tuple[str, ...]]]] = []
        if self.data:
            sides.append([("data", name, (f"data={name}", *o)) for name, o in self.data.items()])
        if self.arms:
            sides.append([("arm", name, o) for name, o in self.arms.items()])
        for axis, (key, values) in self.grid.items():
            sides.append([(axis, value, (f"{key}={value}",)) for value in values])
        found = []
        for combination in itertools.product(*sides):
            labels = {axis: value for axis, value, _ in combination}
            if not any(all(labels.get(k) == v for k, v in out.items()) for out in self.skip):
                found.append(Cell(labels, (*self.base, *(o for _, _, own in combination for o in own), *self.last)))
        return found

    @property
    def units(self) -> tuple[Any, ...]:
        """The values of the unit."""
        return self.every_axis.get(self.unit) or tuple(range(self.seeds))

    @property
    def experiment(self) -> dict[str, Any]:
        """What it is made of, as the yaml says it, for a reader of the record."""
        return {
            "base": list(self.base),
            "data": {name: list(o) for name, o in self.data.items()},
            "arms": {name: list(o) for name, o in self.arms.items()},
            "grid": {axis: f"{key}={','.join(values)}" for axis, (key, values) in self.grid.items()},
            "within": {axis: list(map(str, values)) for axis, values in self.within.items()},
            "measure": {metric: str(source) for metric, source in self.metrics.items()},
        }

    def dims(self, metric: str) -> tuple[str, ...]:
        """Axes of a metric: those of the runs, those its measure gives, and the unit last."""
        inner = self.metrics[metric].inner
        own = [a for a in self.axes if a not in self.within]
        unit = [self.unit] if self.unit not in self.within or self.unit in inner else []
        return (*own, *(a for a in inner if a != self.unit), *unit)

    def shape(self, metric: str) -> tuple[int, ...]:
        """How many values each of these axes has."""
        sizes = {axis: len(values) for axis, values in self.axes.items()} | {self.unit: len(self.units)}
        return tuple(sizes[d] for d in self.dims(metric))

    def table(self, values: dict[str, np.ndarray], scored: int | None = None) -> Table:
        """The language's view of numbers, an array for each metric in the order of `dims`.

        scored: test examples of a run, of which an accuracy is a share; `rows` says it of other metrics.
        """
        shares = {m: scored for m, source in self.metrics.items() if source.name in SHARES} | self.rows
        metrics = {m: Values(v, self.dims(m), shares.get(m)) for m, v in values.items()}
        return Table(self.axes | {self.unit: self.units}, self.unit, metrics, partial=bool(self.skip))


def folder() -> Path:
    """Where the claims of the repository are."""
    return config_dir() / "claim"


def names() -> list[str]:
    """The claims there are."""
    return sorted(p.stem for p in folder().glob("*.yaml"))


def statements() -> list[dict[str, Any]]:
    """Every statement of the text: its line, its words, and the claim or test it has, or why it has none."""
    return yaml.safe_load(Path(__file__).with_name("statements.yaml").read_text("utf-8"))


def yaml_hash(name: str) -> str:
    """Eight digits that stand for what decides a claim of the repository; "" for one of the user's own."""
    file = folder() / f"{name}.yaml"
    if not file.is_file():
        return ""
    deciding = {k: v for k, v in yaml.safe_load(file.read_text("utf-8")).items() if k not in TOLD}
    return blake2b(json.dumps(deciding, sort_keys=True).encode(), digest_size=4).hexdigest()


def read(name: str) -> Claim:
    """A claim by its name, or from a file of the user's own. Raises ConfigError with everything that is wrong."""
    file = Path(name).expanduser() if name.endswith((".yaml", ".yml")) else folder() / f"{name}.yaml"
    if not file.is_file():
        raise ConfigError(f"name={name}: no such claim; {suggest(name, names())}, all, or a yaml file of your own")
    try:
        node = yaml.safe_load(file.read_text("utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as e:
        raise ConfigError(f"{file}: does not parse: {' '.join(str(e).split())}") from e
    where = f"claim {file.stem}"
    if not isinstance(node, dict):
        raise ConfigError(f"{where}: expected keys such as {', '.join(REQUIRED)}")
    if wrong := list(_misshapen(node)):
        raise ConfigError(*(f"{where}: {finding}" for finding in wrong))
    try:
        claim = _made(file.stem, node)
    except (TypeError, ValueError, AttributeError, KeyError) as e:
        raise ConfigError(f"{where}: {e}") from e
    if findings := list(_findings(claim)):
        raise ConfigError(*(f"{where}: {finding}" for finding in findings))
    return claim


def _misshapen(node: dict[str, Any]) -> Iterator[str]:
    """Keys that are unknown, missing, or hold something of another kind."""
    for key, value in node.items():
        if key not in KINDS:
            yield f"{key}: unknown key; {suggest(str(key), list(KINDS))}"
            continue
        expected, kinds = KINDS[key]
        if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
            yield f"{key}: {value!r}: expected {expected}"
        elif key in LISTS_INSIDE and isinstance(value, dict):
            empty = (list,) if key == "within" else (list, NoneType)
            yield from (f"{key}.{n}: {v!r}: expected a list" for n, v in value.items() if not isinstance(v, empty))
    yield from (f"{key}: missing" for key in REQUIRED if node.get(key) in (None, "", [], {}))
    seeds = node.get("seeds", SEEDS)
    if isinstance(seeds, int) and seeds < 1:
        yield f"seeds: {seeds}: expected 1 or more; 3 decide something"
    if isinstance(seeds, dict) and not (set(seeds) <= {"over", "n"} and isinstance(seeds.get("over"), str)):
        yield f"seeds: {seeds}: expected a number, or over: AXIS"


def _made(name: str, node: dict[str, Any]) -> Claim:
    data = node.get("data") or {}
    seeds = node.get("seeds", SEEDS)
    checks = {kind: tuple(_check(line, kind) for line in node.get(kind) or ()) for kind in LISTS}
    grid: dict[str, tuple[str, tuple[str, ...]]] = {}
    for axis, swept in (node.get("grid") or {}).items():
        key, equals, values = str(swept).partition("=")
        if not equals:
            raise ValueError(f"grid.{axis}: expected key=value,value,..., got {swept}")
        grid[axis] = key, tuple(values.split(","))
    return Claim(
        name=name,
        says=" ".join(str(node["says"]).split()),
        topic=int(node["topic"]),
        base=tuple(map(str, node["base"])),
        data=dict.fromkeys(data, ()) if isinstance(data, list) else {d: tuple(o or ()) for d, o in data.items()},
        arms={str(a): tuple(o or ()) for a, o in (node.get("arms") or {}).items()},
        grid=grid,
        within={a: tuple(v) for a, v in (node.get("within") or {}).items()},
        metrics={m: Source.parse(str(s)) for m, s in node["measure"].items()},
        rows={m: int(n) for m, n in (node.get("rows") or {}).items()},
        unit=seeds["over"] if isinstance(seeds, dict) else "seed",
        seeds=1 if isinstance(seeds, dict) else int(seeds),
        told_units=seeds.get("n") if isinstance(seeds, dict) else None,
        trains=bool(node.get("trains", True)),
        checks={k: tuple(c for c in found if isinstance(c, Check)) for k, found in checks.items()},
        notes=tuple(c for found in checks.values() for c in found if isinstance(c, str)),
        skip=tuple(dict(p.split("=", 1) for p in str(s).split()) for s in node.get("skip") or ()),
        minutes=float(node.get("minutes", 5)),
        needs=tuple(node.get("needs") or ()),
        gate=bool(node.get("gate", False)),
        first_seed=int(node.get("first_seed", FIRST_SEED)),
        shorter=tuple(node["gate"]) if isinstance(node.get("gate"), list) else (),
        plot=node.get("plot") or {},
        scope=str(node.get("scope", "")),
        concludes=" ".join(str(node.get("concludes", "")).split()),
        literature=" ".join(str(node.get("literature", "")).split()),
        changed=tuple(map(str, node.get("changed") or ())),
    )


def _check(node: Any, kind: str) -> Check | str:
    """A check; under limits a plain note, where nothing is compared."""
    if isinstance(node, dict) and set(node) == {"when", "then"}:
        return Check(str(node["when"]), str(node["then"]))
    if isinstance(node, str) and (kind != "limits" or any(r in node for r in ("<", ">", "="))):
        return Check(node)
    if isinstance(node, str):
        return node
    if isinstance(node, dict) and len(node) == 1 and "when" not in node:  # `numbers above: digits`
        return ": ".join(map(str, *node.items()))
    raise ValueError(f"{node}: expected a check, or when: and then:")


def _findings(claim: Claim) -> Iterator[str]:
    """What is wrong with a claim that could be read, before anything runs."""
    for kind in ("expect", "control"):
        if not claim.checks[kind]:
            yield f"{kind}: needs a check; a claim is judged by its effect and by its control"
    if claim.unit != "seed" and claim.unit not in claim.every_axis:
        yield f"seeds.over={claim.unit}: no axis; {suggest(claim.unit, list(claim.every_axis))}"
        return
    if claim.told_units not in (None, len(claim.units)):
        yield f"seeds: n is {claim.told_units}, {claim.unit} has {len(claim.units)} values"
    ran = {axis: list(map(str, values)) for axis, values in claim.every_axis.items() if axis not in claim.within}
    for axis, value in (pair for out in claim.skip for pair in out.items()):
        if value not in ran.get(axis, ()):
            yield f"skip: {axis}={value}: {suggest(axis, list(ran)) if axis not in ran else suggest(value, ran[axis])}"
    own = [*(["data"] if claim.data else []), *(["arm"] if claim.arms else []), "seed"]
    for axis in (*claim.grid, *claim.within):
        if axis in own or (axis in claim.grid and axis in claim.within):
            yield f"{axis}: the name of another axis; give this one its own"
    for metric, n in claim.rows.items():
        if metric not in claim.metrics or n < 1:
            yield f"rows.{metric}: {n}: expected a metric of `measure`, and how many scored rows it is a share of"
    for axis, values in claim.within.items():
        if not values:
            yield f"within.{axis}: empty; give its values"
    yield from (f"needs: {n}: expected the name of a package" for n in claim.needs if not str(n).isidentifier())
    if any(not values for values in claim.within.values()):
        return
    for metric, source in claim.metrics.items():
        if lost := [a for a in source.inner if a not in claim.within]:
            yield f"measure.{metric}: {lost[0]}: no axis under `within`; {suggest(lost[0], list(claim.within))}"
            return
    for key in ("x", "colour", "facet"):
        if (axis := claim.plot.get(key)) and axis not in claim.axes:
            yield f"plot.{key}: {axis}: no axis; {suggest(str(axis), list(claim.axes))}"
    asked = claim.plot.get("y", [])
    for metric in [asked] if isinstance(asked, str) else asked:
        if metric not in claim.metrics and "/" not in metric:
            yield f"plot.y: {metric}: neither a metric nor a logged figure; {suggest(metric, list(claim.metrics))}"
    invented = claim.table({m: np.ones(claim.shape(m)) for m in claim.metrics})
    for kind, checks in claim.checks.items():
        for check in checks:
            try:
                grammar.judge(check.text, invented)
            except (ConfigError, ValueError, OverflowError, RecursionError) as e:
                yield f"{kind}: {e if isinstance(e, ConfigError) else f'{check.text[:60]!r}: {e}'}"
