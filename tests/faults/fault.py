"""A callback that breaks a run in a way of its choice, as a user's own code could."""

import os
import signal

from lightning.pytorch import Callback


class Fault(Callback):
    def __init__(self, how: str = "none", at: int = 3, rank: int = 0):
        self.how, self.at, self.rank = how, at, rank

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != self.at or trainer.global_rank != self.rank or os.environ.get("FAULT_OFF"):
            return
        if self.how == "raise":
            raise ValueError("planted")
        if self.how == "exit":
            raise SystemExit(3)
        if self.how == "exit_0":
            raise SystemExit(0)
        if self.how == "os_exit":
            os._exit(9)
        if self.how == "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        if self.how == "poison":
            for p in pl_module.parameters():
                p.data.fill_(float("nan"))


def save_for_ever(folder, done, elsewhere):
    """Save checkpoint after checkpoint as a run does, and tell of each that is whole; to be killed."""
    from functools import partial
    from pathlib import Path

    import torch

    from layerlab.train import checkpoint

    if elsewhere:
        os.environ["TMPDIR"] = elsewhere
    saver = checkpoint.Checkpoints(Path(folder) / "checkpoints", "val/loss", "min")
    step = 1 + max((checkpoint.facts(f).get("step") or 0 for f in saver.folder.glob("*.ckpt")), default=0)
    while True:
        state = {"state_dict": {"w": torch.full((200_000,), float(step))}, "global_step": step}
        saver.keep(saver.path(step), None, {}, partial(checkpoint.write, state))
        done.value = step
        step += 1
