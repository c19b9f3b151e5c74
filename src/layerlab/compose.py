"""Command line -> composed config, by Hydra; and what to say where Hydra refuses."""

from __future__ import annotations

import re
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.config_loader import ConfigLoader
from hydra.core.global_hydra import GlobalHydra
from hydra.core.hydra_config import HydraConfig
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import HydraException
from hydra.initialize import initialize_config_dir
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from layerlab.build import ConfigError, check, config_dir, suggest, trust, unknown_key

OVERLAYS = ("experiment", "debug")  # groups that set values of other groups, and declare none
PATH_KEYS = (
    "data.path",
    "model.init_from",
    "model.weights",
    "resume",
    "logs",
    "run",
    "input",
    "output",
    "hydra.run.dir",
    "hydra.sweep.dir",
)


@dataclass
class Composed:
    """A checked config as plain values, the options chosen in each group, and the overrides that were typed."""

    config: dict[str, Any]
    choices: dict[str, Any]
    overrides: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        """What the run is called: its experiment, else model and data."""
        return self.choices.get("experiment") or f"{self.choices.get('model')}-{self.choices.get('data')}"


def quote(argument: str) -> str:
    """Quote the value of a path key, so that Hydra's grammar takes it as typed. Raises ConfigError where it cannot."""
    name, equals, value = argument.partition("=")
    if not equals or name.lstrip("+") not in PATH_KEYS or value in ("", "null", "???"):
        return argument
    if value[0] in "'\"" and value[-1] == value[0] and len(value) > 1:
        return argument
    if re.match(r"(choice|glob)\(.*\)$", value):  # a sweep over paths
        return argument
    if value.endswith("\\") or "${" in value:
        raise ConfigError(
            f"{name}: {value} ends in a backslash or holds ${{; rename the file, or quote it as {name}='...'"
        )
    return f"{name}='" + value.replace("'", "\\'") + "'"


def compose(*overrides: str, name: str = "train") -> Composed:
    """Compose and check a config from overrides, as `python train.py` does. Raises ConfigError."""
    return composer(name)([*map(quote, overrides)])


def composer(name: str = "train") -> Composer:
    """Composes configs of a verb outside of hydra.main."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        return Composer(GlobalHydra.instance().config_loader(), name)


def compose_data(choice: str, *overrides: str) -> dict[str, Any]:
    """The checked data node of `data=choice` with overrides of its keys. Raises ConfigError."""
    with initialize_config_dir(str(config_dir()), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        typed = [f"data={choice}", *map(quote, overrides)]
        full = Composer(loader, "train").load(typed, typed)
        declared = loader.load_configuration("train", [f"data={choice}"], RunMode.RUN)
        config = {"data": _plain(full, resolve=True)["data"]}
        check(config, {"data": _plain(declared, resolve=False)["data"]}, {"data": choice})
        return _absolute(config)["data"]


@dataclass(frozen=True)
class _Base:
    """What the options chosen in the groups compose to. plain: its values as they stand.

    refers: whether one refers to another (`${...}`). declares: whether it is nothing but what these options declare.
    """

    full: DictConfig
    plain: dict[str, Any]
    choices: dict[Any, Any]
    refers: bool
    declares: bool


class Composer:
    """Composes and checks configs as Hydra does, many of one command at a fraction of its cost.

    What is chosen in the groups is composed once; the values of further configs with the same choice are set in a copy.
    """

    def __init__(self, loader: ConfigLoader, name: str):
        self.loader, self.name = loader, name
        self.groups = set(loader.list_groups(""))
        self._bases: dict[tuple[str, ...], _Base] = {}
        self._declared: dict[tuple[str, ...], dict[str, Any]] = {}
        self._parsed: dict[str, Override] = {}

    def __call__(self, overrides: list[str]) -> Composed:
        """The checked config of quoted overrides. Raises ConfigError."""
        values = [o for o in overrides if self._sets_a_value(o)]
        chosen = tuple(o for o in overrides if o not in values)
        if chosen not in self._bases:
            self._bases[chosen] = self._base(chosen, overrides)
        base = self._bases[chosen]
        try:
            new = list(dict.fromkeys(v for v in values if v not in self._parsed))
            self._parsed |= zip(new, OverridesParser.create().parse_overrides(new), strict=True)
            parsed = [self._parsed[v] for v in values]
            config = None if base.refers else _set(base.plain, parsed)
            if config is None:
                full = deepcopy(base.full)
                ConfigLoaderImpl._apply_overrides_to_config(parsed, full)
                config = _plain(full, resolve=True)
        except (HydraException, OmegaConfBaseException, ValueError) as e:
            raise ConfigError(*explain(e, self.loader, self.name, overrides)) from e
        return self.checked(config, base.choices, overrides, base.plain if base.declares else None)

    def _base(self, chosen: tuple[str, ...], typed: list[str]) -> _Base:
        found = self.load(list(chosen), typed)
        # without Hydra's own node, which no other refers to: copying it would be half of the cost
        own = _without_hydra(found)
        OmegaConf.set_struct(own, True)  # an unknown key is an error, as in what it is a copy of
        plain = _plain(own, resolve=False)
        declares = {o.partition("=")[0] for o in chosen} <= self.groups.difference(OVERLAYS)
        return _Base(own, plain, dict(found.hydra.runtime.choices), "${" in repr(plain), declares)

    def _sets_a_value(self, override: str) -> bool:
        key = override.partition("=")[0]
        return key not in self.groups and not key.startswith(("+", "~", "hydra")) and "@" not in key

    def load(self, overrides: list[str], typed: list[str]) -> DictConfig:
        """What Hydra composes of overrides. typed: all that were given, for the text of a ConfigError."""
        try:
            return self.loader.load_configuration(self.name, overrides, RunMode.RUN)
        except (HydraException, OmegaConfBaseException, ValueError) as e:
            raise ConfigError(*explain(e, self.loader, self.name, typed)) from e

    def checked(
        self,
        config: dict[str, Any],
        choices: Mapping[Any, Any],
        typed: list[str],
        declared: dict[str, Any] | None = None,
    ) -> Composed:
        """Plain values, compared with what the yaml files declare and the targets take. Raises ConfigError.

        declared: what the chosen options declare, where it has been composed already.
        """
        chosen = {str(k): v for k, v in choices.items() if not str(k).startswith("hydra/")}
        options = dict(_group_overrides(self.groups, typed))  # a list of options is not among Hydra's choices
        groups = [f"{k}={'null' if v is None else v}" for k, v in chosen.items() if k not in OVERLAYS]
        groups += [f"{k}={v}" for k, v in options.items() if k not in chosen]
        # nor is a list that an experiment names: of a group of parts, such as augment, its parts tell
        for group in set(config) & self.groups - {*chosen, *options}:
            parts = [k for k, v in (config[group] or {}).items() if isinstance(v, dict) and "_target_" in v]
            groups += [f"{group}=[{','.join(map(str, parts))}]"] if parts else []
        if tuple(groups) not in self._declared:
            if declared is None:
                declared = _plain(self.loader.load_configuration(self.name, groups, RunMode.RUN), resolve=False)
            self._declared[tuple(groups)] = declared
        if missing := [k for k, v in config.items() if v == "???"]:
            raise ConfigError(*(f"{k}: missing; give {k}=..." for k in missing))
        _absolute(config)
        if own := config.get("user"):
            own["paths"] = [str(Path(p).expanduser().absolute()) for p in own["paths"] or []]
            trust(own["paths"], own["targets"] or [])
        check(config, self._declared[tuple(groups)], chosen)
        return Composed(config, chosen | {k: v for k, v in options.items() if k not in chosen}, typed)


def composed(config: DictConfig) -> Composed:
    """The config that hydra.main composed for this job, checked. Raises ConfigError."""
    hydra = HydraConfig.get()
    composer = Composer(GlobalHydra.instance().config_loader(), str(hydra.job.config_name))
    return composer.checked(_plain(config, resolve=True), hydra.runtime.choices, list(hydra.overrides.task))


def _set(plain: dict[str, Any], overrides: list[Override]) -> dict[str, Any] | None:
    """Plain values with these overrides set; None where that takes more than setting a value that is there."""
    config = deepcopy(plain)
    for override in overrides:
        *way, last = override.key_or_group.split(".")
        node, value = config, override.value()
        for part in way:
            node = node.get(part) if isinstance(node, dict) else None
        simple = all(isinstance(v, str | int | float | None) for v in (value if isinstance(value, list) else [value]))
        if not (isinstance(node, dict) and last in node and simple) or "${" in str(value):
            return None
        if isinstance(node[last], dict):
            return None
        node[last] = value
    return config


def _absolute(config: dict[str, Any]) -> dict[str, Any]:
    """The same config, its data.path absolute: a run is read from other folders too."""
    if isinstance(path := config.get("data", {}).get("path"), str):
        config["data"]["path"] = str(Path(path).expanduser().absolute())
    return config


def _without_hydra(full: DictConfig) -> DictConfig:
    return OmegaConf.masked_copy(full, [str(k) for k in full if k != "hydra"]) if "hydra" in full else full


def _plain(full: DictConfig, resolve: bool) -> dict[str, Any]:
    try:
        config = OmegaConf.to_container(_without_hydra(full), resolve=resolve)
    except OmegaConfBaseException as e:
        raise ConfigError(str(e).splitlines()[0]) from e
    assert isinstance(config, dict)
    return {str(k): v for k, v in config.items()}


def _group_overrides(groups: set[str], overrides: list[str]) -> list[tuple[str, str]]:
    pairs = [o.partition("=") for o in overrides]
    return [(k.lstrip("+"), v) for k, _, v in pairs if k.lstrip("+") in groups]


# --- errors


def explain(error: Exception, loader: ConfigLoader, name: str, overrides: list[str]) -> list[str]:
    """What is wrong with overrides that Hydra refused, a line each, with the nearest name that there is."""
    try:
        parsed = OverridesParser.create().parse_overrides(overrides)
    except HydraException:
        return [_ungrammatical(o) for o in overrides if not _parses(o)]
    groups = {g: loader.get_group_options(g) for g in loader.list_groups("") if g != "hydra"}
    findings = [f for o in parsed for value in _values(o) if (f := _unknown_option(o.key_or_group, value, groups))]
    if not findings:
        kept = [f"{o.key_or_group}={_values(o)[0]}" for o in parsed if o.key_or_group in groups]
        declared = loader.load_configuration(name, [k for k in kept if "[" not in k], RunMode.RUN)
        findings = [f for o in parsed if (f := _unknown_override(o, declared, groups))]
    return findings or [_first_line(error)]


def _values(override: Override) -> list[Any]:
    """The value of an override, or each value of a sweep over it."""
    if override.is_sweep_override():
        return [v.strip("'\"") for v in override.sweep_string_iterator()]
    value = override.value()
    return list(value) if isinstance(value, list) else ["null" if value is None else value]


def _parses(override: str) -> bool:
    try:
        OverridesParser.create().parse_overrides([override])
    except HydraException:
        return False
    return True


def _ungrammatical(override: str) -> str:
    key, equals, value = override.partition("=")
    if not equals:
        return f"{override}: expected key=value; see --help"
    return f"{key}={value}: special characters; quote this value as \"{key}='{value}'\""


def _unknown_option(group: str, option: Any, groups: dict[str, list[str]]) -> str | None:
    """A group that has no such option, or is none of a run's."""
    if group == "claim":
        return f"claim={option}: not an option of a run; layerlab claim name={option}"
    if group not in groups or not isinstance(option, str) or option in groups[group]:
        return None
    if option == "null":
        return None if group in OVERLAYS else f"{group}=null: choose one of {', '.join(groups[group])}"
    return f"{group}={option}: no such {group}; {suggest(option, groups[group])}"


def _unknown_override(override: Override, declared: DictConfig, groups: dict[str, list[str]]) -> str | None:
    key = override.key_or_group
    if key in groups or key.split(".")[0] == "hydra":
        return None
    node: Any = declared
    parts = key.split(".")
    for i, part in enumerate(parts):
        if isinstance(node, DictConfig) and part in node:
            node = node[part] if not OmegaConf.is_missing(node, part) else None
            continue
        if not isinstance(node, DictConfig):
            return f"{key}: {'.'.join(parts[:i])} has no options"
        known = {str(k): v for k, v in node.items_ex(resolve=False) if k != "hydra"}
        return unknown_key(tuple(parts[:i]), part, known, groups if i == 0 else ())
    return None


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "append to your config" not in line]
    return lines[0] if lines else type(error).__name__
