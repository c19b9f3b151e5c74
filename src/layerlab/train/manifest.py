"""The record of a run: its folder, manifest, status and results."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import Any

import yaml

from layerlab.build import refuse_untrusted
from layerlab.compose import Composed
from layerlab.contract import LayerlabError, key

PACKAGES = (
    "layerlab",
    "torch",
    "torchvision",
    "lightning",
    "hydra-core",
    "omegaconf",
    "torchmetrics",
    "numpy",
    "pandas",
    "timm",
    "wandb",
)
SECRET = re.compile(r"(?:^|[_\-.])(?:pass|password|passwd|token|secret|key|apikey)(?:$|[_\-.])", re.IGNORECASE)
INSIDE = re.compile(r"([\w.\-]+)(\s*[:=]\s*)([^,}\]\s]+)")  # key: value within an argument
LOGIN = re.compile(r"(://[^/\s:@]+:)[^/\s@]+(@)")  # of an address
REDACTED = "<redacted>"


def redact(node: Any) -> Any:
    """A config without the values of keys such as password, api_key or token_file; `tokenizer`, `max_tokens` stay."""
    if isinstance(node, dict):
        return {k: REDACTED if SECRET.search(str(k)) and v is not None else redact(v) for k, v in node.items()}
    if isinstance(node, list):
        return [redact(v) for v in node]
    return LOGIN.sub(rf"\1{REDACTED}\2", node) if isinstance(node, str) else node


def redact_command(arguments: list[str]) -> list[str]:
    """Command-line arguments with the values of secret keys hidden, also of keys inside a value."""
    hide = lambda m: m[1] + m[2] + (REDACTED if SECRET.search(m[1]) else m[3])  # noqa: E731
    found = []
    for argument in arguments:
        name, equals, value = argument.partition("=")
        if equals and SECRET.search(name):
            value = REDACTED
        found.append(LOGIN.sub(rf"\1{REDACTED}\2", name + equals + INSIDE.sub(hide, value)))
    return found


def config_hash(config: dict[str, Any]) -> str:
    """Eight hexadecimal digits that stand for a resolved config; not for how it is shown, or whether it goes on."""
    kept = {k: v for k, v in config.items() if k not in ("resume", "progress", "logs", "sweep")}
    return f"{key(json.dumps(kept, sort_keys=True, default=str)):016x}"[:8]


def make_folder(composed: Composed, given: str | None) -> Path:
    """The folder of a run: the one given, or logs/<name>/<date>-<hash>[-n], made by this process and no other.

    With record=light it is a file, the row of the run. Raises LayerlabError where it cannot be written.
    """
    light = composed.config["record"] == "light"
    try:
        if given and light:
            Path(given).parent.mkdir(parents=True, exist_ok=True)
            return Path(given) / "row.json" if Path(given).is_dir() else Path(given)
        if given:
            folder = Path(given).expanduser()
            folder.mkdir(parents=True, exist_ok=True)
            if any((folder / name).exists() for name in ("results.json", "checkpoints", "probe")):
                raise LayerlabError(f"hydra.run.dir={folder}: holds a run already; give another folder, or remove it")
            write_json(folder / "status.json", {"status": "running", "pid": os.getpid()})
            return folder
        stem = f"{time.strftime('%Y-%m-%d')}-{config_hash(composed.config)}"
        parent = Path(composed.config["logs"]).expanduser() / composed.name
        parent.mkdir(parents=True, exist_ok=True)
        n = 1
        while True:
            folder = parent / ((stem if n == 1 else f"{stem}-{n}") + (".json" if light else ""))
            try:
                folder.touch(exist_ok=False) if light else folder.mkdir()  # exclusive: another run may be faster
                return folder
            except FileExistsError:
                n += 1
    except OSError as e:
        raise LayerlabError(
            f"{e.filename}: not writable ({e.strerror}); choose another folder with hydra.run.dir="
        ) from e


class Record:
    """Writes the files of a run folder. With folder None (a rank other than 0) it writes nothing.

    row: with record=light the one file that is left, its status and its results.
    """

    curves = True  # whether curves.png belongs to it

    def __init__(self, folder: Path | None, composed: Composed, row: Path | None = None):
        self.folder, self.composed, self.row = folder, composed, row
        self.started, self.cpu_started = time.time(), time.process_time()
        self.facts: dict[str, Any] = {}
        self.hash = config_hash(composed.config)  # now: the run fills in what `auto` means

    def begin(self) -> None:
        """manifest.json and config.yaml, and the status `running`, before anything can fail."""
        self.status("running")
        if self.row:
            named = {"overrides": redact_command(self.composed.overrides), "config_hash": self.hash}
            self.facts |= named | {"choices": self.composed.choices, "seed": self.composed.config["seed"]}
            return
        self.facts = {
            "command": [Path(sys.argv[0]).name, *redact_command(sys.argv[1:])],
            "overrides": redact_command(self.composed.overrides),
            "choices": self.composed.choices,
            "config_hash": self.hash,
            "seed": self.composed.config["seed"],
            "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
            **machine(),
        }
        self.configure()

    def configure(self) -> None:
        """The config as it is now, in manifest.json and config.yaml."""
        self.add(config=redact(self.composed.config))
        if self.folder:
            text = yaml.safe_dump(redact(self.composed.config), sort_keys=False, allow_unicode=True)
            (self.folder / "config.yaml").write_text(text, encoding="utf-8")

    def resume(self) -> None:
        """Go on with the manifest that is there: the run is the same."""
        self.status("running")
        self.facts = read_json(self.folder / "manifest.json") if self.folder else {}
        self.add(resumed=[*self.facts.get("resumed", []), time.strftime("%Y-%m-%dT%H:%M:%S%z")])

    def add(self, **facts: Any) -> None:
        """Further facts for manifest.json."""
        if not self.row:
            self.facts |= facts
        self.write("manifest.json", self.facts)

    def status(self, status: str, reason: str | None = None, error: str | None = None) -> None:
        """status.json: running | ok | failed | preempted, and why."""
        found = {"status": status, "reason": reason, "error": error, "pid": os.getpid()}
        if self.row:
            write_json(self.row, self.facts | found)
        self.write("status.json", found)

    def results(self, results: dict[str, Any]) -> None:
        """results.json, or the same in the row."""
        if self.row:
            self.facts |= results
        self.write("results.json", results)

    def curve(self, rows: list[dict[str, float]] | None) -> None:
        """What was logged by step, in the row; None: no logger kept it."""
        if self.row and rows is not None:
            self.facts["history"] = rows

    def write(self, name: str, value: Any) -> None:
        """A json file, whole or not at all."""
        if self.folder:
            write_json(self.folder / name, value)


def write_json(file: Path, value: Any) -> None:
    """A json file, whole or not at all."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    part.write_text(json.dumps(value, indent=2, default=str, ensure_ascii=False) + "\n", encoding="utf-8")
    part.replace(file)


def read_config(folder: Path) -> dict[str, Any]:
    """config.yaml of a run. Raises LayerlabError where there is no run, or one that names code not trusted."""
    try:
        config = yaml.safe_load((folder / "config.yaml").read_text(encoding="utf-8"))
    except OSError as e:
        raise LayerlabError(f"run={folder}: no run in this folder (config.yaml is missing)") from e
    except yaml.YAMLError as e:
        raise LayerlabError(f"{folder / 'config.yaml'}: damaged ({' '.join(str(e).split())}); give another run") from e
    refuse_untrusted(config, f"run={folder}")
    return config


def read_json(file: Path) -> dict[str, Any]:
    """A json file of a run. Raises LayerlabError where it is missing."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as e:
        raise LayerlabError(f"{file}: missing; the run has not finished") from e
    except ValueError as e:
        raise LayerlabError(f"{file}: damaged ({e}); give another run, or start this one anew") from e


@cache  # once for the jobs of a sweep, as their code is read once
def machine() -> dict[str, Any]:
    """Python, platform, cores, versions and the commit of the working directory."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "versions": {p: _version(p) for p in PACKAGES},
        "git": _git(),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _git() -> dict[str, Any] | None:
    try:
        ask = ["git", "rev-parse", "HEAD"], ["git", "status", "--porcelain", "--untracked-files=no"]
        commit, changes = (
            subprocess.run(a, capture_output=True, text=True, check=True, timeout=10).stdout for a in ask
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return {"commit": commit.strip(), "dirty": bool(changes.strip())}
