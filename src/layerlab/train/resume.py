"""Going on with a run that was cut: which one, from which checkpoint, and whether it still is the same run."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from layerlab.compose import Composed
from layerlab.contract import LayerlabError
from layerlab.train import checkpoint
from layerlab.train.manifest import config_hash, read_config, read_json


def find(composed: Composed) -> Path | None:
    """The folder that `resume=` names; `last`: that of the newest run with the same config, None where there is none.

    Raises LayerlabError for a folder without a run.
    """
    wanted = composed.config["resume"]
    if wanted != "last":
        folder = Path(wanted).expanduser()
        if not (folder / "config.yaml").is_file():
            raise LayerlabError(f"resume={wanted}: no run in this folder; give the folder of a run, or resume=last")
        read_config(folder)  # or a refusal
        return folder
    parent = Path(composed.config["logs"]).expanduser() / composed.name
    return _newest_run(parent.glob("*"), config_hash(composed.config))


def _newest_run(folders: Iterable[Path], own: str) -> Path | None:
    """Of these folders that of the newest run with a config hash, None where there is none."""
    found = []
    for folder in folders:
        if (folder / "manifest.json").is_file():
            manifest = read_json(folder / "manifest.json")
            if manifest.get("config_hash") == own:
                found.append((manifest["started"], folder))
    return max(found)[1] if found else None


def adopted(composed: Composed, folder: Path) -> Composed:
    """The run's own config, where nothing that was typed contradicts it. Raises LayerlabError naming what does."""
    manifest, config = read_json(folder / "manifest.json"), read_config(folder)
    for override in composed.overrides:
        key = override.partition("=")[0].lstrip("+~")
        if key in ("resume", "logs", "progress"):
            continue
        mine, theirs = _at(composed.config, key), _at(config, key)
        if key in composed.choices:
            mine, theirs = composed.choices[key], manifest["choices"].get(key)
        if mine != theirs:
            raise LayerlabError(
                f"resume: {key} is {mine}, {folder} was trained with {theirs}; set it back or start a new run"
            )
    kept = {k: composed.config[k] for k in ("resume", "progress")}
    return replace(composed, config=config | kept, choices=manifest["choices"], overrides=manifest["overrides"])


def exact(config: dict[str, Any]) -> None:
    """Refuse what is not exact across a resume, by name."""
    for name, node in config["callbacks"].items():
        if node["_target_"].endswith(".StochasticWeightAveraging"):
            raise LayerlabError(f"callbacks.{name}: not exact across resume; use callbacks=ema, or start a new run")


def warn_of_other_data(folder: Path, own: str, fingerprint: str) -> None:
    """One line where the newest run with the same config, beside this one, read other data."""
    # by the hash in their names: a sweep has as many other folders as it has jobs
    other = _newest_run((f for f in folder.parent.glob(f"*-{own}*") if f != folder), own)
    if (
        other
        and (old := read_json(other / "manifest.json").get("data", {}).get("fingerprint", fingerprint)) != fingerprint
    ):
        print(f"data: has changed since {other} (fingerprint {fingerprint}, was {old})", file=sys.stderr)


def check_data(manifest: dict[str, Any], fingerprint: str) -> None:
    """Refuse other data: the run would not go on as it would have."""
    if (old := manifest.get("data", {}).get("fingerprint", fingerprint)) != fingerprint:
        raise LayerlabError(f"resume: the data has changed (fingerprint {fingerprint}, was {old}); start a new run")


def check_devices(manifest: dict[str, Any], devices: int) -> None:
    """Refuse another number of devices: they would see the examples in another order."""
    if (count := manifest.get("devices", devices)) != devices:
        raise LayerlabError(
            f"resume: {devices} devices, the run was trained on {count}: another order of the examples; "
            f"give trainer.devices={count}, or start a new run"
        )


def newest(folder: Path, main: bool) -> Path | None:
    """The newest checkpoint that is what was written, None where none was; says what is passed over.

    main: also removes what a killed run left unfinished, and puts damaged files aside. Raises LayerlabError where there
    are checkpoints and none of them can be used.
    """
    place = folder / "checkpoints"
    if main:
        _clear(folder)
    files = sorted(place.glob("step-*.ckpt"), key=lambda f: (checkpoint.facts(f).get("step") or 0, f.name))
    passed = []
    for file in reversed(files):
        try:
            checkpoint.verify(file)
        except checkpoint.CheckpointError as e:
            passed.append((file, e))
            continue
        if passed and main:
            print(f"{passed[-1][1]}; using {file.name}", file=sys.stderr)
            for damaged, _ in passed:
                damaged.replace(damaged.with_name(f"{damaged.name}.damaged"))
        return file
    if passed:
        raise LayerlabError(f"{passed[0][1]}; no other checkpoint in {place}, start a new run")
    return None


def _clear(folder: Path) -> None:
    """Remove temporary files, and sidecars without their checkpoint."""
    place = folder / "checkpoints"
    left = [*place.glob(".*"), *folder.glob(".*.json.*")]
    left += [f for f in place.glob("*.ckpt.json") if not f.with_suffix("").exists()]
    if left:
        size = sum(f.stat().st_size for f in left)
        for file in left:
            file.unlink(missing_ok=True)
        print(f"checkpoint: removed {len(left)} unfinished files ({size / 1e6:.1f} MB)", file=sys.stderr)


def _at(config: dict[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node
