"""Signatures and class facts read from source with `ast`: importing a model would load torch, reading it takes 1 ms."""

from __future__ import annotations

import ast
import importlib.util
import math
import sys
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from types import NoneType
from typing import Any

UNKNOWN = object()  # an annotation or default that cannot be read without importing: accepted as it is


@dataclass
class Type:
    """A checked annotation: the Python types it admits, its choices (Literal) and its ranges (Annotated)."""

    types: tuple[type, ...] = ()
    choices: tuple[Any, ...] = ()
    ranges: tuple[str, ...] = ()
    items: Type | None = None  # list[...]: of each item

    def accepts(self, value: Any) -> bool:
        """Whether a plain config value fits."""
        if any(type(value) is type(c) and value == c for c in self.choices):
            return True
        if isinstance(value, list):
            return list in self.types and (self.items is None or all(map(self.items.accepts, value)))
        if isinstance(value, bool):
            return bool in self.types
        number = isinstance(value, int | float) and (type(value) in self.types or float in self.types)
        if number and not (isinstance(value, float) and float not in self.types):
            return math.isfinite(value) and all(_holds(value, r) for r in self.ranges)
        return type(value) in self.types

    def __str__(self) -> str:
        names = " or ".join("null" if t is NoneType else t.__name__ for t in self.types)
        names += " " + " and ".join(self.ranges) if self.ranges else ""
        choices = ", ".join(map(str, self.choices))
        return f"{names} or {choices}" if names and choices else names or f"one of {choices}"


def _holds(value: float, relation: str) -> bool:
    op, bound = relation.split()
    limit = float(bound)
    return {">": value > limit, ">=": value >= limit, "<": value < limit, "<=": value <= limit}[op]


@dataclass
class Target:
    """What can be known of a `_target_` without importing it."""

    path: str
    node: ast.ClassDef | ast.FunctionDef
    module: Module
    parameters: dict[str, tuple[Any, Any]] = field(default_factory=dict)  # name -> (Type | UNKNOWN, default | UNKNOWN)
    open: bool = False  # has **kwargs

    def facts(self) -> dict[str, Any]:
        """Class-level constants such as `accepts`, `tasks`, `kind`, also those of base classes."""
        return _facts(self.module, self.node)


def _facts(module: Module, node: ast.AST) -> dict[str, Any]:
    facts: dict[str, Any] = {}
    if not isinstance(node, ast.ClassDef):
        return facts
    for base in reversed(node.bases):
        if isinstance(base, ast.Name) and (found := module.find(base.id)):
            facts |= _facts(*found)
    for line in node.body:
        if not isinstance(line, ast.Assign | ast.AnnAssign):
            continue
        for name in line.targets if isinstance(line, ast.Assign) else [line.target]:
            for n, v in _pairs(name, line.value):
                if (value := _constant(v)) is not UNKNOWN:
                    facts[n] = value
    return facts


def _pairs(target: ast.expr, value: ast.expr | None) -> list[tuple[str, ast.expr]]:
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple):
        return [p for t, v in zip(target.elts, value.elts, strict=True) for p in _pairs(t, v)]
    return [(target.id, value)] if isinstance(target, ast.Name) and value is not None else []


def _constant(node: ast.expr) -> Any:
    try:
        return ast.literal_eval(node)
    except ValueError:
        return UNKNOWN


class Module:
    """The source of one module, parsed."""

    def __init__(self, name: str, file: Path):
        self.name, self.file = name, file
        self.is_package = file.name == "__init__.py"
        self.names: dict[str, ast.AST] = {}
        self.imports: dict[str, tuple[str, str]] = {}  # local name -> (module, name there)
        for node in ast.walk(tree := ast.parse(file.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom):
                source = self._absolute(node)
                self.imports |= {a.asname or a.name: (source, a.name) for a in node.names}
        for node in tree.body:
            if isinstance(node, ast.ClassDef | ast.FunctionDef):
                self.names[node.name] = node
            elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                self.names[node.targets[0].id] = node.value

    def _absolute(self, node: ast.ImportFrom) -> str:
        parts = self.name.split(".")
        keep = len(parts) - node.level + self.is_package
        return ".".join([*parts[:keep], *([node.module] if node.module else [])]) if node.level else node.module or ""

    def find(self, name: str, hops: int = 4) -> tuple[Module, ast.AST] | None:
        """Where `name` is defined, following `from x import name`; None where the source does not say."""
        if name in self.names:
            return self, self.names[name]
        if name in self.imports and hops:
            source, there = self.imports[name]
            if module := load_module(source):
                return module.find(there, hops - 1)
        return None


@cache
def load_module(name: str) -> Module | None:
    """Parsed source of a dotted module name, without importing it; None where there is no source file."""
    file = file_of(name)
    return Module(name, file) if file else None


@cache
def file_of(name: str) -> Path | None:
    """The source file of a dotted module name, without importing it; None where there is none."""
    top, *rest = name.split(".")
    if not top.isidentifier():
        return None
    loaded = sys.modules.get(top)
    origin = getattr(loaded, "__file__", None) if loaded else None
    if origin is None:
        spec = importlib.util.find_spec(top)  # top-level only: find_spec("torch.optim") would import torch
        origin = spec.origin if spec else None
    if not origin or not origin.endswith(".py"):
        return None
    if not rest:
        return Path(origin)
    place = Path(origin).parent.joinpath(*rest)
    for file in (place.with_suffix(".py"), place / "__init__.py"):
        if file.is_file():
            return file
    return None


@cache
def read_target(path: str) -> Target | None:
    """The class or function that a dotted path names; None where its source does not tell."""
    module_name, _, name = path.rpartition(".")
    module = load_module(module_name) if module_name else None
    found = module.find(name) if module else None
    if not found:
        return None
    home, node = found
    if isinstance(node, ast.ClassDef):
        target, function = Target(path, node, home), _init(home, node)
    elif isinstance(node, ast.FunctionDef):
        target, function = Target(path, node, home), (home, node)
    else:
        return None
    if function:
        _read_parameters(target, *function)
    return target


def _init(module: Module, node: ast.ClassDef) -> tuple[Module, ast.FunctionDef] | None:
    for line in node.body:
        if isinstance(line, ast.FunctionDef) and line.name == "__init__":
            return module, line
    for base in node.bases:
        if isinstance(base, ast.Name) and (found := module.find(base.id)) and isinstance(found[1], ast.ClassDef):
            return _init(found[0], found[1])
    return None


def _read_parameters(target: Target, module: Module, function: ast.FunctionDef) -> None:
    a = function.args
    positional = [*a.posonlyargs, *a.args]
    if isinstance(target.node, ast.ClassDef):
        positional = positional[1:]
    defaults = [None] * (len(positional) - len(a.defaults)) + list(a.defaults)
    for arg, default in [*zip(positional, defaults, strict=True), *zip(a.kwonlyargs, a.kw_defaults, strict=True)]:
        kind = read_type(module, arg.annotation) if arg.annotation else UNKNOWN
        target.parameters[arg.arg] = (kind, _constant(default) if default is not None else UNKNOWN)
    target.open = a.kwarg is not None


PLAIN = {"int": int, "float": float, "str": str, "bool": bool, "list": list, "dict": dict, "None": NoneType}


def read_type(module: Module, node: ast.AST) -> Any:
    """The Type that an annotation stands for; UNKNOWN where it names something that would have to be imported."""
    match node:
        case ast.Constant(value=None):
            return Type((NoneType,))
        case ast.Constant(value=str(text)):
            return read_type(module, ast.parse(text, mode="eval").body)
        case ast.Name(id=name) if name in PLAIN:
            return Type((PLAIN[name],))
        case ast.Name(id=name):
            found = module.find(name)
            return read_type(*found) if found and not isinstance(found[1], ast.ClassDef) else UNKNOWN
        case ast.BinOp(left=left, op=ast.BitOr(), right=right):
            return _union(read_type(module, left), read_type(module, right))
        case ast.Subscript(value=ast.Name(id="Literal"), slice=items):
            return Type(choices=tuple(_constant(i) for i in (items.elts if isinstance(items, ast.Tuple) else [items])))
        case ast.Subscript(value=ast.Name(id="Annotated"), slice=ast.Tuple(elts=[inner, *notes])):
            kind = read_type(module, inner)
            if kind is not UNKNOWN:
                kind.ranges = tuple(v for n in notes if isinstance(v := _constant(n), str))
            return kind
        case ast.Subscript(value=ast.Name(id="list" | "Sequence"), slice=inner):
            item = read_type(module, inner)
            return Type((list,), items=None if item is UNKNOWN else item)
        case ast.Subscript(value=ast.Name(id="dict")):
            return Type((dict,))
    return UNKNOWN


def _union(a: Any, b: Any) -> Any:
    if a is UNKNOWN or b is UNKNOWN:
        return UNKNOWN
    return Type(a.types + b.types, a.choices + b.choices, a.ranges + b.ranges, a.items or b.items)
