"""Config -> objects. What is wrong with a config is said here, before anything heavy is imported."""

from __future__ import annotations

import importlib
import inspect
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from layerlab.contract import LayerlabError
from layerlab.signature import UNKNOWN, Type, file_of, read_target

ALLOWED = ("layerlab.", "torch.optim.", "torch.nn.", "lightning.pytorch.", "torchmetrics.")
SHOWN = 20  # findings printed at once

PLAIN = {  # keys that no target takes and whose type says too little
    "seed": Type((int,), ranges=(">= 0", "<= 4294967295")),
    "model.init_from": Type((str, type(None))),
    "model.init_stages": Type((str, list), items=Type((str,))),
    "resume": Type((str, type(None))),
    "objective": Type((str, type(None))),
    "select": Type(choices=("best", "last")),
    "progress": Type(choices=("auto", "bar", "lines", "none")),
    "sweep.jobs": Type((int,), choices=("auto",), ranges=(">= 1",)),
    "first_seed": Type((int,), choices=("auto",), ranges=(">= 0",)),
    "sweep.control": Type((str, type(None))),
    "sweep.trial": Type((str, type(None))),
    "record": Type(choices=("full", "light")),
    "figures": Type((str, list), items=Type((str,))),
    "export": Type(types=(type(None),), choices=("onnx", "torch_export")),
    "format": Type(choices=("onnx", "torch_export")),
    "split": Type(choices=("test", "val", "train")),
    "samples": Type((int,), ranges=(">= 1",)),
    "length": Type((int,), ranges=(">= 1",)),
    "temperature": Type((float,), ranges=(">= 0",)),
}

Config = dict[str, Any]


class ConfigError(LayerlabError):
    """One finding or several about a config, a line each."""

    def __init__(self, *findings: str):
        more = [f"... and {len(findings) - SHOWN} more"] if len(findings) > SHOWN else []
        super().__init__("\n".join([*findings[:SHOWN], *more]))


def check(config: Config, declared: Config, choices: dict[str, Any] | None = None) -> None:
    """Compare a composed config with what the yaml files declare and what the targets take.

    declared: the same groups composed without overrides and overlays: its keys are the keys there are, and the type
    of a plain default is the type its value must have. choices: the option of each group, for the texts.
    Raises ConfigError with every finding.
    """
    allowed = allowed_prefixes(config)
    findings = [*_unknown_keys(config, declared, ()), *_targets(config, allowed)]
    findings += _plain_types(config, declared, ())
    findings = findings or [*_fit(config, choices or {})]
    if findings:
        raise ConfigError(*dict.fromkeys(findings))


def allowed_prefixes(config: Config) -> tuple[str, ...]:
    """Where a `_target_` may lie: ours, and what the user adds in the one declared place, user.targets."""
    own = config.get("user", {}).get("targets") or []
    return (*ALLOWED, *(t if t.endswith(".") else f"{t}." for t in own))


_trusted: set[str] = set()  # folders and targets that the user has named in this process


def trust(paths: Iterable[str] = (), targets: Iterable[str] = ()) -> None:
    """Make folders importable, and let configs name targets in them: user.paths and user.targets as typed."""
    for path in (str(Path(p).expanduser().absolute()) for p in paths):
        _trusted.add(path)
        if path not in sys.path:
            sys.path.append(path)  # at the end: nothing of theirs may stand in for torch or layerlab
    _trusted.update(targets)


def refuse_untrusted(config: Config, place: str) -> None:
    """Refuse a config from a file that names code which the user has not named himself. Raises ConfigError.

    A folder can come from anybody: what it may run is said by who reads it, never by the folder.
    """
    own = config.get("user") or {}
    if set(own.get("paths") or []) | set(own.get("targets") or []) <= _trusted:
        if refused := [*_outside(config, allowed_prefixes(config))]:
            raise ConfigError(*refused)
        return
    again = " ".join(f"user.{k}=[{','.join(own[k])}]" for k in ("paths", "targets") if own.get(k))
    raise ConfigError(f"{place}: was made with code that is not layerlab's; if you know it, add {again}")


def _nodes(node: Any, where: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Config]]:
    """Every dict in a config with its place, the inner ones first."""
    pairs = enumerate(node) if isinstance(node, list) else node.items() if isinstance(node, dict) else ()
    for key, value in pairs:
        yield from _nodes(value, (*where, str(key)))
    if isinstance(node, dict):
        yield where, node


def _outside(config: Config, allowed: tuple[str, ...]) -> Iterator[str]:
    """Targets that may not be named, anywhere in a config."""
    for where, node in _nodes(config):
        if "_target_" in node and not permitted(node["_target_"], allowed):
            yield _not_allowed(".".join([*where, "_target_"]), node["_target_"], allowed)


def permitted(path: Any, allowed: tuple[str, ...]) -> bool:
    """Whether a `_target_` has an allowed prefix and names a module there is, not one that another has imported."""
    if not isinstance(path, str) or not path.startswith(allowed) or ".." in path:
        return False
    module = path.rpartition(".")[0]
    return not path.startswith(ALLOWED) or file_of(module) is not None


def _not_allowed(name: str, path: Any, allowed: tuple[str, ...]) -> str:
    return f"{name}: {path} is not allowed; allowed prefixes: {', '.join(allowed)}; add your own in user.targets"


def suggest(word: str, known: list[str]) -> str:
    """`did you mean X?`, or the known words."""
    near = get_close_matches(word, known, 1, 0.5)
    return f"did you mean {near[0]}?" if near else f"known: {', '.join(sorted(known))}"


def _unknown_keys(config: Config, declared: Config, where: tuple[str, ...]) -> Iterator[str]:
    for key, value in config.items():
        if key in declared:
            inner = declared[key]
            if isinstance(value, dict) and isinstance(inner, dict):
                yield from _unknown_keys(value, inner, (*where, key))
            continue
        yield unknown_key(where, str(key), declared)


def unknown_key(where: tuple[str, ...], key: str, declared: Mapping[Any, Any], groups: Iterable[str] = ()) -> str:
    """The text for a key that a node does not have: the nearest one, or the options of its group that have it."""
    name = ".".join([*where, key])
    known = list(dict.fromkeys([*(str(k) for k in declared if not str(k).startswith("_")), *groups]))
    target = declared.get("_target_") if where else None
    what = f"not an option of {target.rsplit('.', 1)[-1]}" if isinstance(target, str) else "unknown key"
    if near := get_close_matches(key, known, 1, 0.6):
        return f"{name}: {what}; did you mean {'.'.join([*where, near[0]])}?"
    if len(where) == 1 and (options := _options_with(where[0], key)):
        return f"{name}: {what}; {where[0]}={', '.join(options)} {'has' if len(options) == 1 else 'have'} it"
    return f"{name}: {what}; known: {', '.join(sorted(known)) or 'none'}"


def _options_with(group: str, key: str) -> list[str]:
    """Options of a group whose yaml has `key`."""
    files = sorted((config_dir() / group).glob("*.yaml"))
    return [f.stem for f in files if re.search(rf"^{re.escape(key)}:", f.read_text(encoding="utf-8"), re.MULTILINE)]


def config_dir() -> Path:
    """The folder of our configs: beside the sources in a checkout, inside the package in a wheel."""
    inside = Path(__file__).parent / "configs"
    return inside if inside.is_dir() else Path(__file__).parents[2] / "configs"


def _targets(config: Config, allowed: tuple[str, ...]) -> Iterator[str]:
    """What is wrong with the targets of a config and with what they are given."""
    for where, node in _nodes(config):
        if odd := [key for key in node if not isinstance(key, str)]:  # on, off, yes and no are booleans to YAML
            yield f"{'.'.join(where)}: the key {odd[0]!r} is not text; rename it, or quote it in the yaml"
        elif "_target_" in node:
            yield from _target(where, node, allowed)


def _target(where: tuple[str, ...], node: Config, allowed: tuple[str, ...]) -> Iterator[str]:
    name = ".".join([*where, "_target_"])
    path = node["_target_"]
    if not permitted(path, allowed):
        yield _not_allowed(name, path, allowed)
        return
    target = read_target(path)
    if target is None:
        if path.startswith("layerlab."):
            yield f"{name}: {path} does not exist"
        return
    for key, value in node.items():
        if key.startswith("_"):
            continue
        option = ".".join([*where, key])
        if option in PLAIN:
            yield from _mistyped(option, value, PLAIN[option])
            continue
        if key not in target.parameters:
            if not target.open:
                yield unknown_key(where, key, dict.fromkeys(target.parameters) | {"_target_": path})
            continue
        kind, _ = target.parameters[key]
        if kind is not UNKNOWN and not isinstance(value, dict):
            yield from _mistyped(option, value, kind)


def _mistyped(option: str, value: Any, kind: Type) -> Iterator[str]:
    if kind.accepts(value):
        return
    if isinstance(value, list) and list in kind.types and kind.items:
        for item in value:
            yield from _mistyped(option, item, kind.items)
        return
    words = [c for c in kind.choices if isinstance(c, str)]
    near = get_close_matches(str(value), words, 1, 0.5) if words else []
    got = f", got {'null' if value is None else type(value).__name__}"
    if isinstance(value, float) and str in kind.types:
        hint = f", got {type(value).__name__} {value}; quote it"
    elif near:
        hint = f"; did you mean {near[0]}?"
    else:
        hint = "" if words and isinstance(value, str) and not kind.types else got
    yield f"{option}={value!r}: expected {kind}{hint}"


def _plain_types(config: Config, declared: Config, where: tuple[str, ...]) -> Iterator[str]:
    """Keys that no `_target_` takes: the yaml's default says the type."""
    if "_target_" in declared:
        return
    for key, default in declared.items():
        value, name = config.get(key), ".".join([*where, str(key)])
        if isinstance(default, dict) and isinstance(value, dict):
            yield from _plain_types(value, default, (*where, str(key)))
        elif name in PLAIN:
            yield from _mistyped(name, value, PLAIN[name])
        elif default is not None and not isinstance(default, dict):
            yield from _mistyped(name, value, Type((type(default),)))


def _fit(config: Config, choices: dict[str, Any]) -> Iterator[str]:
    """Whether model, data and task fit, as far as their class facts tell; the models say the rest when built."""
    facts: list[dict[str, Any]] = []
    for part in ("model", "data", "task"):
        target = read_target(config.get(part, {}).get("_target_", ""))
        if target is None:
            return
        facts.append(target.facts())
    model, data, task = facts
    kind, offers, name = str(data.get("kind")), data.get("tasks", ()), str(task.get("name"))
    names = {n: config[n]["_target_"].rsplit(".", 1)[-1] for n in ("model", "data", "task")} | choices
    if name not in offers and offers:
        offered = ", ".join(offers)
        yield f"task={names['task']}: data={names['data']} offers {offered}; leave task out, or choose one of these"
        return
    accepts, serves = model.get("accepts"), model.get("tasks")
    if accepts and kind not in accepts:
        yield (
            f"model={names['model']} reads {', '.join(accepts)}, but data={names['data']} gives {kind}. "
            + _alternatives(kind, name, names["data"])
        )
    elif serves and name not in serves:
        yield (
            f"model={names['model']} serves {', '.join(serves)}, but data={names['data']} asks for {name}. "
            + _alternatives(kind, name, names["data"])
        )


def _alternatives(kind: str, task: str, data: str) -> str:
    fitting = models_for(kind, task)
    best = next((m for m in ("cnn", "lstm", "mlp") if m in fitting), fitting[0] if fitting else "")
    return f"Models that read {kind} for {task}: {', '.join(fitting)}. Try: python train.py model={best} data={data}"


def models_for(kind: str, task: str) -> list[str]:
    """Names of our models that read `kind` and serve `task`, from their source."""
    names = []
    for file in sorted((Path(__file__).parent / "models").glob("[a-z]*.py")):
        if found := model_class(file.stem):
            facts = found.facts()
            if kind in facts.get("accepts", ()) and task in facts.get("tasks", ()):
                names.append(file.stem)
    return names


def model_class(name: str) -> Any:
    """The Target of models/<name>.py: its one class with `accepts`; None for base and __init__."""
    from layerlab.signature import load_module

    module = load_module(f"layerlab.models.{name}")
    for n in module.names if module else ():
        target = read_target(f"layerlab.models.{name}.{n}")
        if target and "accepts" in target.facts():
            return target
    return None


def build(node: Config, *args: Any, allowed: tuple[str, ...] = ALLOWED, **kwargs: Any) -> Any:
    """Call a node's `_target_` with `args`, the node's plain values and `kwargs`; nested nodes are built first.

    Raises ConfigError where the object does not live under an allowed prefix: `torch.nn.functional.torch.load` has
    one, and lives elsewhere.
    """
    target = locate(node["_target_"], allowed)
    options = {k: _build_nested(v, allowed) for k, v in node.items() if not k.startswith("_")}
    return target(*args, **{**options, **kwargs})


def _build_nested(value: Any, allowed: tuple[str, ...]) -> Any:
    if isinstance(value, dict):
        if "_target_" in value:
            return build(value, allowed=allowed)
        return {k: _build_nested(v, allowed) for k, v in value.items()}
    return [_build_nested(v, allowed) for v in value] if isinstance(value, list) else value


def locate(path: str, allowed: tuple[str, ...] = ALLOWED) -> Any:
    """Import what a dotted path names, if it and its home are allowed. Raises ConfigError."""
    refusal = _not_allowed("_target_", path, allowed)
    if not path.startswith(allowed):
        raise ConfigError(refusal)
    module_name, _, name = path.rpartition(".")
    try:
        found = getattr(importlib.import_module(module_name), name)
    except (ImportError, AttributeError) as e:
        raise ConfigError(f"_target_: {path} cannot be imported ({e})") from e
    home = getattr(found, "__module__", None)
    if not (inspect.isclass(found) or inspect.isroutine(found)) or not f"{home}.".startswith(allowed):
        raise ConfigError(refusal)
    return found
