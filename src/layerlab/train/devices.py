"""What is settled without torch: visible devices, threads."""

import os
import shutil
from pathlib import Path
from typing import Any


def prepare(config: dict[str, Any]) -> None:
    """Set the environment for the devices that a config asks for; call it before torch is imported."""
    trainer = config["trainer"]
    wanted = trainer.get("accelerator", "auto")
    has_gpu = Path("/proc/driver/nvidia").exists() or shutil.which("nvidia-smi") is not None
    if wanted == "cpu" or (wanted == "auto" and not has_gpu):
        # a CUDA build of torch asks the driver in every optimizer.step: a fifth of a small step
        os.environ.setdefault("CUDA_VISIBLE_DEVICES", "")
    os.environ.setdefault("OMP_NUM_THREADS", str(trainer.get("threads", 1)))


def gpus() -> list[str]:
    """Numbers of the NVIDIA GPUs that CUDA would show, without touching it."""
    if (visible := os.environ.get("CUDA_VISIBLE_DEVICES")) is not None:
        return [v for v in visible.split(",") if v.strip()]
    found = Path("/proc/driver/nvidia/gpus")
    return [str(i) for i in range(len(list(found.iterdir())))] if found.is_dir() else []
