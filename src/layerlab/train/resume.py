"""Going on with a run that was cut: which one, from which checkpoint, and whether it still is the same run."""

from __future__ import annotations

import sys
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
        read_config(folder)  # or a refusal
        return folder
    parent, own = Path(composed.config["logs"]).expanduser() / composed.name, config_hash(composed.config)
    found = []
    for file in parent.glob("*/manifest.json"):
        manifest = read_json(file)
        if manifest.get("config_hash") == own:
            found.append((manifest["started"], file.parent))
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
    """The newest checkpoint that is what was written, None where there is none; says what is passed over.

    main: also removes what a killed run left unfinished.
    """
    place = folder / "checkpoints"
    if main and (left := [*place.glob(".*"), *folder.glob(".*.json.*")]):
        size = sum(f.stat().st_size for f in left)
        for file in left:
            file.unlink(missing_ok=True)
        print(f"checkpoint: removed {len(left)} unfinished files ({size / 1e6:.1f} MB)", file=sys.stderr)
    files = [f for f in place.glob("step-*.ckpt") if checkpoint.sidecar(f).is_file()]
    passed = ""
    for file in sorted(files, key=lambda f: (read_json(checkpoint.sidecar(f)).get("step", 0), f.name), reverse=True):
        try:
            checkpoint.verify(file)
        except checkpoint.CheckpointError as e:
            passed = str(e)
            continue
        if passed and main:
            print(f"{passed}; using {file.name}", file=sys.stderr)
        return file
    if passed:
        raise LayerlabError(f"{passed}; no other checkpoint in {place}, start a new run")
    return None


def _at(config: dict[str, Any], key: str) -> Any:
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node
