"""The language of checks: `acc(arm=sgd, zero=false) - acc(arm=sgd, zero=true) >= .5`. Read with `ast`, never run.

check  = sum (REL sum)+        REL: < <= > >= ==;  a < b < c means a < b and b < c
sum    = numbers, metrics, + - * /, `METRIC(AXIS=VALUE, ...)`, and
function = max|min|mean|geomean|argmax|argmin|rank|slope|r2 (sum, over=AXIS or [AXIS, ...], log=true)
         | log10(sum) | count(check)
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from scipy.stats import rankdata

from layerlab.build import ConfigError, suggest
from layerlab.claims.verdict import Answer, Estimate, answer, both, estimate

DATA = "data"  # the one axis that a check may leave free: it is then judged on each
REL: dict[type[ast.cmpop], str] = {ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "=="}
HOLDS: dict[str, Callable[[Any, Any], Any]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "==": operator.eq,
}
ARITHMETIC: dict[type, Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
FUNCTIONS = ("max", "min", "mean", "geomean", "argmax", "argmin", "rank", "slope", "r2", "log10", "count")


@dataclass(frozen=True)
class Values:
    """Numbers with named axes. rows: scored rows behind each, where it is a share of them."""

    array: np.ndarray
    dims: tuple[str, ...] = ()
    rows: int | None = None


@dataclass(frozen=True)
class Table:
    """What the runs of a claim gave. axes: their values in order; unit: the last of them, which is resampled.

    partial: some cells are left out on purpose: functions over an axis pass them over. Else a missing value is missing.
    """

    axes: Mapping[str, Sequence[Any]]
    unit: str
    metrics: Mapping[str, Values]
    partial: bool = False


@dataclass(frozen=True)
class Link:
    """One relation of a check: both sides, and their difference paired by unit."""

    left: Estimate
    relation: str
    right: Estimate
    difference: Estimate
    answer: Answer


@dataclass(frozen=True)
class Judged:
    """A check on one data set (None where it has no such axis)."""

    data: str | None
    answer: Answer
    links: tuple[Link, ...]


class Refused(ConfigError):
    """A check that cannot be read, with the place in it."""


def parse(text: str) -> ast.Compare:
    """The tree of a check. Raises Refused with what is wrong and where."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as e:
        raise Refused(f"{text!r}: does not parse, at character {e.offset}: {e.msg}") from e
    if not isinstance(tree, ast.Compare):
        raise Refused(f"{text!r}: expected a comparison with < <= > >= or ==")
    return tree


def fixed(text: str, axis: str) -> set[str]:
    """The values that a check chooses of an axis, in lower case. Raises Refused."""
    values = [k.value for n in ast.walk(parse(text)) if isinstance(n, ast.Call) for k in n.keywords if k.arg == axis]
    return {named for v in values if (named := _named(v)) is not None}


def _named(node: ast.expr) -> str | None:
    """A name or a number as the value of an axis, in lower case; None for anything else."""
    if isinstance(node, ast.Name):
        return node.id.lower()
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub) and isinstance(node.operand, ast.Constant):
        return f"-{node.operand.value}"
    return str(node.value).lower() if isinstance(node, ast.Constant) else None


def judge(text: str, table: Table) -> list[Judged]:
    """What a check answers, on each data set it leaves free. Raises Refused."""
    tree = parse(text)
    sides = [_Reader(text, table).read(node) for node in (tree.left, *tree.comparators)]
    relations = [_relation(text, op) for op in tree.ops]
    free = {d for side in sides for d in side.dims} - {DATA, table.unit}
    if free:
        raise Refused(f"{text!r}: leaves {', '.join(sorted(free))} free; choose a value, or a function over it")
    plain = {n.func.id for n in ast.walk(tree) if isinstance(n, ast.Call) and isinstance(n.func, ast.Name)}
    if not any(table.unit in side.dims for side in sides) and not plain & {"count", "geomean"}:
        raise Refused(f"{text!r}: nothing in it varies by {table.unit}; there is no interval to judge by")
    split = any(DATA in side.dims for side in sides)
    found = []
    for i, name in enumerate(table.axes[DATA] if split else [None]):
        parts = [_at(side, DATA, i) for side in sides]
        links = tuple(_link(a, rel, b, table.unit) for a, rel, b in zip(parts, relations, parts[1:], strict=False))
        found.append(Judged(None if name is None else str(name), both([link.answer for link in links]), links))
    return found


def _relation(text: str, op: ast.cmpop) -> str:
    if type(op) not in REL:
        raise Refused(f"{text!r}: expected < <= > >= or ==, not {type(op).__name__}")
    return REL[type(op)]


def _at(values: Values, axis: str, index: int) -> Values:
    if axis not in values.dims:
        return values
    place = values.dims.index(axis)
    dims = values.dims[:place] + values.dims[place + 1 :]
    return replace(values, array=values.array.take(index, place), dims=dims)


def _link(left: Values, relation: str, right: Values, unit: str) -> Link:
    if unit not in left.dims + right.dims:
        a, b = float(left.array), float(right.array)
        found = "open" if np.isnan([a, b]).any() else "yes" if HOLDS[relation](a, b) else "no"
        return Link(_plain(a), relation, _plain(b), _plain(a - b), found)
    a, b = np.broadcast_arrays(left.array, right.array)
    one, other = _side(left, a), _side(right, b)
    with np.errstate(invalid="ignore"):
        difference = estimate((a - b).tolist())
    if relation == "==":  # of exact quantities, unit by unit
        return Link(one, relation, other, difference, "open" if np.isnan(a - b).any() else _every(a, b))
    low, high = difference.low, difference.high
    for share, number in ((left, right), (right, left)):  # no narrower than Wilson's interval of the rows of a share
        if share.rows and not number.dims:
            low, high = min(low, one.low - other.high), max(high, one.high - other.low)
    return Link(one, relation, other, replace(difference, low=low, high=high), answer(low, high, relation))


def _every(a: np.ndarray, b: np.ndarray) -> Answer:
    return "yes" if bool((a == b).all()) else "no"


def _side(values: Values, array: np.ndarray) -> Estimate:
    if not values.dims:
        return _plain(float(values.array))
    return estimate(array.tolist(), values.rows and values.rows * len(array))


def _plain(value: float) -> Estimate:
    return Estimate(value, value, value, 0)


class _Reader:
    """Turns a tree into values; whatever is not in the grammar is refused with its place."""

    def __init__(self, text: str, table: Table):
        self.text, self.table = text, table

    def fail(self, node: ast.AST, what: str) -> Refused:
        place = f" at character {node.col_offset + 1}" if isinstance(node, ast.expr) else ""
        return Refused(f"{self.text!r}{place}: {what}")

    def read(self, node: ast.expr) -> Values:
        if isinstance(node, ast.Constant) and isinstance(node.value, int | float) and not isinstance(node.value, bool):
            return Values(np.asarray(float(node.value)))
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            found = self.read(node.operand)
            return Values(-found.array, found.dims)
        if isinstance(node, ast.BinOp) and type(node.op) in ARITHMETIC:
            return self.pair(ARITHMETIC[type(node.op)], self.read(node.left), self.read(node.right))
        if isinstance(node, ast.Name):
            if node.id not in self.table.metrics:
                what = f"{node.id}: no such metric; {suggest(node.id, list(self.table.metrics))}"
                raise self.fail(node, f"{node.id}: a function; give it something" if node.id in FUNCTIONS else what)
            return self.table.metrics[node.id]
        if isinstance(node, ast.Call):
            if isinstance(node.func, ast.Name) and node.func.id not in self.table.metrics:
                return self.function(node, node.func.id)
            return self.select(node)
        raise self.fail(node, f"{type(node).__name__} is not part of the language")

    def pair(self, op: Callable[[Any, Any], Any], a: Values, b: Values) -> Values:
        """An operation with axes matched by name, the unit last."""
        dims = tuple(d for d in self.table.axes if d in a.dims + b.dims)

        def spread(v: Values) -> np.ndarray:
            array = np.transpose(v.array, [v.dims.index(d) for d in dims if d in v.dims])
            return array[tuple(slice(None) if d in v.dims else None for d in dims)]

        with np.errstate(divide="ignore", invalid="ignore"):
            return Values(op(spread(a), spread(b)), dims)

    def select(self, node: ast.Call) -> Values:
        """`metric(axis=value, ...)`: these axes fixed."""
        found = self.read(node.func)
        if node.args or not node.keywords:
            raise self.fail(node, "expected axis=value in the brackets")
        for keyword in node.keywords:
            axis = str(keyword.arg)
            if axis not in found.dims or axis == self.table.unit:
                known = [d for d in found.dims if d != self.table.unit]
                raise self.fail(keyword.value, f"{axis}: no axis of this; {suggest(axis, known)}")
            names = [str(v).lower() for v in self.table.axes[axis]]
            value = self.value(keyword.value)
            value = next((n for n in names if n == value or _number(n) == _number(value) is not None), value)
            if value not in names:
                raise self.fail(keyword.value, f"{axis}={value}: no such value; {suggest(value, names)}")
            found = _at(found, axis, names.index(value))
        return found

    def value(self, node: ast.expr) -> str:
        if (named := _named(node)) is None:
            raise self.fail(node, "expected a name or a number")
        return named

    def function(self, node: ast.Call, name: str) -> Values:
        if name not in FUNCTIONS:
            known = [*FUNCTIONS, *self.table.metrics]
            raise self.fail(node, f"{name}: no such metric or function; {suggest(name, known)}")
        if len(node.args) != 1:
            raise self.fail(node, f"{name}: expected one thing in the brackets")
        options = {k.arg: k.value for k in node.keywords}
        if name in ("count", "log10") and options:
            raise self.fail(node, f"{name}: takes nothing but what is in the brackets")
        if name == "count":
            return self.count(node.args[0])
        found = self.read(node.args[0])
        if name == "log10":
            with np.errstate(divide="ignore", invalid="ignore"):
                return Values(np.log10(found.array), found.dims)
        over = options.pop("over", None)
        log = options.pop("log", None) if name in ("slope", "r2") else None
        if over is None or options or (log is not None and self.value(log) not in ("true", "false")):
            raise self.fail(node, f"{name}: expected over=AXIS" + (", and log=true" if name in ("slope", "r2") else ""))
        axes = [self.value(n) for n in (over.elts if isinstance(over, ast.List) else [over])]
        for axis in axes:
            if axis not in found.dims:
                raise self.fail(over, f"over={axis}: no axis of this; {suggest(axis, list(found.dims))}")
        if name in ("argmax", "argmin", "rank", "slope", "r2") and len(axes) != 1:
            raise self.fail(over, f"{name}: over one axis")
        if len(set(axes)) < len(axes):
            raise self.fail(over, f"{name}: names an axis twice")
        if self.table.unit in axes and name != "geomean":
            raise self.fail(
                over, f"over={self.table.unit}: that is what is resampled; a check has its mean and interval"
            )
        return self.reduce(name, found, axes, log is not None and self.value(log) == "true", node)

    def count(self, node: ast.expr) -> Values:
        """Number of units for which a check holds: a plain number."""
        if not isinstance(node, ast.Compare):
            raise self.fail(node, "count: expected a comparison")
        sides = [self.read(n) for n in (node.left, *node.comparators)]
        held = missing = None
        for a, op, b in zip(sides, node.ops, sides[1:], strict=False):
            one = self.pair(HOLDS[_relation(self.text, op)], a, b)
            lost = self.pair(lambda x, y: np.isnan(x) | np.isnan(y), a, b)
            held = one if held is None else self.pair(operator.and_, held, one)
            missing = lost if missing is None else self.pair(operator.or_, missing, lost)
        assert held is not None
        assert missing is not None
        if self.table.unit not in held.dims:
            raise self.fail(node, f"count: nothing here varies by {self.table.unit}")
        counted = held.array.sum(-1).astype(float)
        return Values(np.where(missing.array.any(-1), np.nan, counted), held.dims[:-1])

    def reduce(self, name: str, found: Values, axes: list[str], log: bool, node: ast.Call) -> Values:
        places = tuple(found.dims.index(a) for a in axes)
        left = tuple(d for d in found.dims if d not in axes)
        array = found.array
        with np.errstate(divide="ignore", invalid="ignore"):
            if name == "rank":
                return Values(rankdata(array, axis=places[0]), found.dims)
            over_known = "nan" if self.table.partial else ""
            if name == "geomean":
                return Values(np.exp(getattr(np, f"{over_known}mean")(np.log(array), axis=places)), left)
            if name in ("max", "min", "mean"):
                rows = found.rows if name != "mean" else None
                return Values(getattr(np, f"{over_known}{name}")(array, axis=places), left, rows)
            along = self.numbers(axes[0], node)
            if name in ("argmax", "argmin"):
                worst = -np.inf if name == "argmax" else np.inf
                place = getattr(np, name)(np.where(np.isnan(array), worst, array), axis=places[0])
                lost = np.isnan(array).all(places[0]) if self.table.partial else np.isnan(array).any(places[0])
                return Values(np.where(lost, np.nan, along[place]), left)
            x = np.log10(along) if log else along
            y = np.moveaxis(array, places[0], -1)
            dx, dy = x - x.mean(), y - y.mean(-1, keepdims=True)
            slope = (dx * dy).sum(-1) / (dx**2).sum()
            if name == "slope":
                return Values(slope, left)
            rest = ((dy - slope[..., None] * dx) ** 2).sum(-1)
            return Values(1 - rest / (dy**2).sum(-1), left)

    def numbers(self, axis: str, node: ast.Call) -> np.ndarray:
        """The values of an axis, where they are numbers; else their places."""
        values = self.table.axes[axis]
        try:
            return np.asarray([float(v) for v in values])
        except ValueError:
            return np.arange(float(len(values)))


def _number(text: str) -> float | None:
    """What a name says as a number: 1e-3 and .001 are one value of an axis."""
    try:
        return float(text)
    except ValueError:
        return None
