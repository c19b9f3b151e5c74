"""The Trainer, with every flag that a user reaches for declared and checked."""

from __future__ import annotations

import os
import re
from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from lightning.pytorch.plugins.environments import SLURMEnvironment
from lightning.pytorch.plugins.layer_sync import TorchSyncBatchNorm
from lightning.pytorch.profilers import AdvancedProfiler, PassThroughProfiler, PyTorchProfiler, SimpleProfiler

from layerlab.contract import Count, LayerlabError, NonNegative, Positive, Size
from layerlab.train.checkpoint import CheckpointIO
from layerlab.train.freeze import EPOCHS

Limit = Annotated[float, "> 0"]
PROFILERS: dict[str, Any] = {"simple": SimpleProfiler, "advanced": AdvancedProfiler, "pytorch": PyTorchProfiler}


def trainer(
    *,
    folder: Path | None,
    callbacks: list[Callback],
    loggers: list[Any],
    accelerator: Literal["auto", "cpu", "gpu", "mps", "tpu"] = "auto",
    devices: Count | Literal["auto"] | list[int] = 1,
    num_nodes: Count = 1,
    strategy: Literal["auto", "ddp", "ddp_find_unused_parameters_true", "fsdp", "deepspeed"] = "auto",
    precision: Literal["auto", 32, "32", "bf16-mixed", "16-mixed", "bf16-true", "64-true"] = "auto",
    threads: Count = 1,
    max_epochs: Count | Literal["auto"] = "auto",
    min_epochs: Size = 0,
    max_steps: Count | Literal[-1] = -1,
    max_time: str | None = None,
    accumulate_grad_batches: Count = 1,
    gradient_clip_val: NonNegative = 1.0,
    gradient_clip_algorithm: Literal["norm", "value"] = "norm",
    overfit_batches: NonNegative = 0.0,
    limit_train_batches: Limit = 1.0,
    limit_val_batches: Limit = 1.0,
    limit_test_batches: Limit = 1.0,
    val_check_interval: Positive = 1.0,
    check_val_every_n_epoch: Count = 1,
    log_every_n_steps: Count = 50,
    deterministic: bool = False,
    benchmark: bool = False,
    detect_anomaly: bool = False,
    sync_batchnorm: bool = False,
    profiler: Literal["simple", "advanced", "pytorch"] | None = None,
) -> Trainer:
    """A Lightning Trainer that writes into `folder`.

    devices: how many, or which (a list, GPUs only). max_epochs `auto`: what the freeze strategy
    names. precision `auto`: 32 on a CPU, mixed on a GPU. threads: of torch,
    per process. max_time: DD:HH:MM:SS. Limits: a share of the batches, or a number of them where it is a whole number
    above 1. Raises LayerlabError for devices that are not there.
    """
    torch.set_num_threads(threads)
    found = found_accelerator(accelerator)
    check_devices(found, devices, strategy)
    if max_time and not re.fullmatch(r"\d+:\d\d:\d\d:\d\d", max_time):
        raise LayerlabError(f"trainer.max_time={max_time!r}: expected DD:HH:MM:SS, for example 00:01:30:00")
    plugins: list[Any] = [CheckpointIO(), *([SyncNorms()] if sync_batchnorm else [])]
    if SLURMEnvironment.detect():
        plugins.append(SLURMEnvironment(auto_requeue=False))  # train/guards.py saves first, and requeues then
    return Trainer(
        accelerator=found,
        devices=devices,
        num_nodes=num_nodes,
        strategy=strategy,
        precision=_precision(precision, found),  # ty: ignore[invalid-argument-type]  (checked by its Literal)
        max_epochs=EPOCHS if max_epochs == "auto" else max_epochs,
        min_epochs=min_epochs or None,
        max_steps=max_steps,
        max_time=max_time,
        accumulate_grad_batches=accumulate_grad_batches,
        gradient_clip_val=gradient_clip_val or None,
        gradient_clip_algorithm=gradient_clip_algorithm if gradient_clip_val else None,
        overfit_batches=_limit(overfit_batches),
        limit_train_batches=_limit(limit_train_batches),
        limit_val_batches=_limit(limit_val_batches),
        limit_test_batches=_limit(limit_test_batches),
        val_check_interval=_limit(val_check_interval),
        check_val_every_n_epoch=check_val_every_n_epoch,
        log_every_n_steps=log_every_n_steps,
        deterministic=deterministic,
        benchmark=benchmark,
        detect_anomaly=detect_anomaly,
        profiler=PROFILERS[profiler](dirpath=folder / "profile", filename="fit")
        if profiler and folder
        else Unwatched(),
        callbacks=callbacks,
        logger=loggers or False,
        plugins=plugins,
        default_root_dir=folder or os.devnull,
        num_sanity_val_steps=0,  # its values would pollute the best score
        enable_checkpointing=False,  # train/checkpoint.py saves
        enable_progress_bar=any("ProgressBar" in type(c).__name__ for c in callbacks),
        enable_model_summary=False,
        use_distributed_sampler=False,  # data/batches.py shards
    )


class Unwatched(PassThroughProfiler):
    """No profiler, without the generator that Lightning makes a hundred times in every step to profile nothing."""

    _nothing = nullcontext()

    def profile(self, action_name: str) -> Any:
        return self._nothing


class SyncNorms(TorchSyncBatchNorm):
    """Batch norms that share their statistics: timm's keep the activation inside them, which torch's would drop."""

    def apply(self, model: Any) -> Any:
        from timm.layers import convert_sync_batchnorm  # here: most runs need nothing of timm

        return convert_sync_batchnorm(model)


def _limit(value: float) -> float | int:
    """1.0 is all batches, 3.0 from the command line is three of them."""
    return int(value) if value > 1 else value


def found_accelerator(accelerator: str) -> str:
    """What `auto` is on this machine."""
    if accelerator != "auto":
        return accelerator
    if torch.cuda.is_available():
        return "gpu"
    return "mps" if torch.backends.mps.is_available() else "cpu"


def check_devices(accelerator: str, devices: int | str | list[int], strategy: str) -> None:
    """Refuse devices that are not there. Raises LayerlabError."""
    if accelerator != "gpu" and (strategy in ("fsdp", "deepspeed") or isinstance(devices, list)):
        what = f"trainer.strategy={strategy}" if isinstance(devices, int | str) else f"trainer.devices={devices}"
        raise LayerlabError(
            f"{what}: needs GPUs, this run is on {accelerator}; use strategy=ddp and a number of devices"
        )
    if accelerator not in ("cpu", "gpu"):
        return
    there = (os.cpu_count() or 1) if accelerator == "cpu" else torch.cuda.device_count()
    if accelerator == "gpu" and there == 0:
        raise LayerlabError("trainer.accelerator=gpu: no CUDA device found; use trainer=cpu")
    wanted = devices if isinstance(devices, int) else len(devices) if isinstance(devices, list) else 0
    if wanted > there:
        raise LayerlabError(
            f"trainer.devices={devices}: {wanted} requested, {there} available; give trainer.devices={there} or less"
        )


def _precision(precision: str | int, accelerator: str) -> str | int:
    if precision != "auto":
        return precision
    if accelerator != "gpu":
        return 32  # bf16 on a CPU pays for large dense products only
    return "bf16-mixed" if torch.cuda.is_bf16_supported() else "16-mixed"
