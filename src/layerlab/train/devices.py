"""What has to be settled before torch is imported: visible devices, threads."""

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
