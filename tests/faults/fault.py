"""A callback that breaks a run in a way of its choice, as a user's own code could."""

import os
import signal

from lightning.pytorch import Callback


class Fault(Callback):
    def __init__(self, how: str = "none", at: int = 3):
        self.how, self.at = how, at

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step != self.at or os.environ.get("FAULT_OFF"):
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
