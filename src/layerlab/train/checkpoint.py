"""Checkpoints that are whole or not there, and are checked before they are read."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import IO, Any

import lightning
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins.io import TorchCheckpointIO

from layerlab.contract import LayerlabError
from layerlab.models.base import Model


class CheckpointError(LayerlabError):
    """A checkpoint that cannot be used: missing, damaged, or not ours."""


class NotWritten(LayerlabError):
    """A checkpoint that could not be written; those before it are untouched."""

    exit_code, reason = 1, "disk"


def sidecar(path: Path) -> Path:
    """The file that holds size and SHA-256 of a checkpoint."""
    return path.with_name(path.name + ".json")


_memory: dict[Path, dict[str, Any]] | None = None  # of a run with record=light


@contextmanager
def in_memory() -> Generator[None]:
    """Checkpoints of the block are kept in memory alone, and gone at its end."""
    global _memory
    before, _memory = _memory, {}
    try:
        yield
    finally:
        _memory = before


def write(checkpoint: dict[str, Any], path: Path) -> None:
    """Save under a temporary name in the same folder, flush, write the sidecar, rename: no half file by its name."""
    if _memory is not None:
        _memory[path] = deepcopy({k: v for k, v in checkpoint.items() if k != "optimizer_states"})
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    side = part.with_name(part.name + ".json")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with part.open("wb") as f:
            torch.save(checkpoint, f)
            _flush(f)
        with part.open("rb") as f:
            digest = hashlib.file_digest(f, "sha256").hexdigest()
        facts = {"sha256": digest, "bytes": part.stat().st_size, "step": checkpoint.get("global_step")}
        facts |= checkpoint.get("callbacks", {}).get("Checkpoints", {}).get("run", {})
        with side.open("w", encoding="utf-8") as f:
            json.dump(facts, f)
            _flush(f)
        side.replace(sidecar(path))  # first: a checkpoint without a matching sidecar is never used
        part.replace(path)
        _flush_folder(path.parent)
    except (OSError, RuntimeError) as e:  # torch.save raises the one or the other where the disk is full
        needs, free = _size(checkpoint), _free(path.parent)
        raise NotWritten(
            f"checkpoint: {path.name} not written ({_reason(e)}), needs {needs / 1e6:.1f} MB, {free / 1e6:.1f} MB free "
            f"in {path.parent}; make room and go on with resume={path.parent.parent}"
        ) from e
    finally:
        for left in (part, side):
            left.unlink(missing_ok=True)


def _flush(f: IO[Any]) -> None:
    f.flush()
    os.fsync(f.fileno())


def _flush_folder(folder: Path) -> None:
    """Put the new names down too; only POSIX can."""
    if os.name == "posix":
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def _reason(e: Exception) -> str:
    cause = e if isinstance(e, OSError) else e.__context__
    return (isinstance(cause, OSError) and cause.strerror) or type(e).__name__


def _size(node: Any) -> int:
    """Bytes of the tensors in a checkpoint."""
    if isinstance(node, torch.Tensor):
        return node.nbytes
    values = node.values() if isinstance(node, dict) else node if isinstance(node, list | tuple) else ()
    return sum(map(_size, values))


def _free(folder: Path) -> int:
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def refuse_full_disk(model: torch.nn.Module, folder: Path) -> None:
    """Refuse to begin where there is no room for three checkpoints, with two moments for every weight each."""
    needs = 3 * 3 * sum(p.nbytes for p in model.parameters())
    if (free := _free(folder)) < needs:
        raise LayerlabError(
            f"{folder}: {free / 1e6:.0f} MB free, three checkpoints need {needs / 1e6:.0f} MB; make room, or give "
            f"another folder with logs= or hydra.run.dir="
        )


def facts(path: Path) -> dict[str, Any]:
    """What the sidecar of a checkpoint says; {} where there is none, or it is damaged."""
    try:
        found = json.loads(sidecar(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def verify(path: Path) -> None:
    """Compare a checkpoint with the SHA-256 of its sidecar. Raises CheckpointError with what is wrong."""
    if _memory is not None and path in _memory:
        return
    if not path.is_file():
        raise CheckpointError(f"{path}: no such checkpoint; give checkpoint=best, last, or a file in checkpoints/")
    if not (recorded := facts(path).get("sha256")):
        raise _foreign(path, f"no readable {sidecar(path).name}")
    with path.open("rb") as f:
        found = hashlib.file_digest(f, "sha256").hexdigest()
    if found != recorded:
        raise CheckpointError(
            f"{path.name}: sha256 mismatch (recorded {recorded[:12]}, found {found[:12]}), damaged; use another one"
        )


def _foreign(path: Path, why: str) -> CheckpointError:
    size = path.stat().st_size
    return CheckpointError(
        f"{path.name}: not a layerlab checkpoint ({size} bytes, {why}); give one that layerlab wrote, or omit it"
    )


def read(path: Path) -> dict[str, Any]:
    """Check the SHA-256, then load plain values and tensors only. Raises CheckpointError with what is wrong."""
    verify(path)
    if _memory is not None and path in _memory:
        return _memory[path]
    try:
        found = torch.load(path, map_location="cpu", weights_only=True)
        if "state_dict" not in found:
            raise _foreign(path, "no state_dict")
        return found
    except (EOFError, KeyError, RuntimeError, ValueError, TypeError) as e:
        raise _foreign(path, type(e).__name__) from e
    except pickle.UnpicklingError as e:  # never follow its advice to load it anyway
        raise CheckpointError(f"{path.name}: contains objects other than tensors and plain values; refused") from e


def remove(path: Path) -> None:
    """Remove a checkpoint and its sidecar, where they are."""
    if _memory is not None:
        _memory.pop(path, None)
        return
    path.unlink(missing_ok=True)
    sidecar(path).unlink(missing_ok=True)


def equal(a: Any, b: Any) -> bool:
    """Whether two parts of checkpoints are equal bit for bit, however nested."""
    if isinstance(a, torch.Tensor):
        return torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(equal(v, b[k]) for k, v in a.items())
    if isinstance(a, list | tuple):
        return len(a) == len(b) and all(map(equal, a, b))
    return a == b


def plain_state(model: Model, data: Any, epoch: int, step: int) -> dict[str, Any]:
    """A checkpoint that loads as those of Lightning do; it holds no optimizer: nothing resumes from it."""
    state: dict[str, Any] = {
        "state_dict": model.state_dict(),
        "hyper_parameters": dict(model.hparams),
        type(data).__qualname__: data.state_dict(),
        "epoch": epoch,
        "global_step": step,
        "pytorch-lightning_version": lightning.__version__,
    }
    model.on_save_checkpoint(state)
    return state


class CheckpointIO(TorchCheckpointIO):
    """Lightning's way in and out of `write` and `read`."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        write(checkpoint, Path(path))

    def load_checkpoint(self, path: Any, map_location: Any = None, weights_only: bool | None = None) -> dict[str, Any]:
        return read(Path(path))


class Checkpoints(Callback):
    """After each validation save `step-000300.ckpt`; keep the best by `monitor` and the last two, remove the others.

    writes: whether this is the process that does; the others only keep count.
    """

    def __init__(self, folder: Path, monitor: str, mode: str, writes: bool = True):
        self.writes = writes
        self.folder, self.monitor, self.sign = folder, monitor, 1 if mode == "max" else -1
        self.best: Path | None = None
        self.last: Path | None = None
        self.before: Path | None = None  # the one before the last: what is left where the last is damaged
        self.best_score = float("-inf")
        self.run: dict[str, Any] = {}  # hashes of config and data, versions: for the sidecars; set by the run
        self.validated: dict[Path, dict[str, float]] = {}  # figures of each

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and not trainer.sanity_checking:
            self._save(trainer, trainer.callback_metrics.get(self.monitor))

    def save(self, trainer: Trainer) -> None:
        """Save now; for a model that is not trained step by step."""
        self._save(trainer, trainer.callback_metrics.get(self.monitor))

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if self.last is None or self.last != self.path(trainer.global_step):
            self._save(trainer, None)

    def path(self, step: int, why: str = "") -> Path:
        """Name of the checkpoint after so many optimizer steps; why: what it was written for, beside the plan."""
        return self.folder / f"step-{step:06d}{why and '-' + why}.ckpt"

    def _save(self, trainer: Trainer, score: torch.Tensor | None) -> None:
        path = self.path(trainer.global_step)
        if path == self.last:
            return
        figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
        for logger in trainer.loggers:
            logger.save()  # what was logged so far: the checkpoint counts the rows
        self.keep(path, None if score is None else float(score), figures, trainer.save_checkpoint)

    def keep(self, path: Path, score: float | None, figures: dict[str, float], write: Callable[[Path], Any]) -> None:
        """Write a checkpoint that knows whether it is the best, and remove what is neither best nor last any more."""
        kept = self.best, self.last, self.before, self.best_score
        value = self.sign * score if score is not None else float("-inf")
        if self.best is None or value > self.best_score:
            self.best, self.best_score = path, value
        self.before, self.last = self.last, path
        self.validated[path] = figures
        try:
            write(path)
        except BaseException:
            self.best, self.last, self.before, self.best_score = kept
            raise
        for gone in {p for p in kept[:3] if p} - {self.best, self.last, self.before} if self.writes else ():
            remove(gone)

    def state_dict(self) -> dict[str, Any]:
        figures = {p.name: v for p, v in self.validated.items() if p in (self.best, self.last)}
        return {
            "best": self.best and self.best.name,
            "best_score": self.best_score,
            "validated": figures,
            "rows": _rows(self.folder.parent / "metrics.csv"),
            "before": self.before and self.before.name,
            "run": self.run,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.best = self.folder / state_dict["best"] if state_dict["best"] else None
        self.before = self.folder / state_dict["before"] if state_dict.get("before") else None
        self.best_score = state_dict["best_score"]
        self.validated = {self.folder / name: v for name, v in state_dict["validated"].items()}


def _rows(file: Path) -> int:
    """How many rows a csv has below its header."""
    if not file.is_file():
        return 0
    with file.open(encoding="utf-8") as f:
        return max(sum(1 for _ in f) - 1, 0)
