"""What ends a run early without losing it: a signal, and a loss that is no number any more."""

from __future__ import annotations

import math
import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from torch import Tensor

from layerlab.contract import LayerlabError
from layerlab.models.base import Model
from layerlab.train.checkpoint import Checkpoints
from layerlab.train.signals import exit_code, listened

NORM_EVERY = 20  # optimizer steps between two looks at the gradients, where clipping does not look at every step
EXPLODED = 1e4  # times the first loss, or times 1 where that is less


class Diverged(LayerlabError):
    """Training stopped because its loss or its gradients are no numbers."""

    exit_code, reason = 4, "diverged"


class Signals(Callback):
    """SIGTERM, SIGUSR1 and SIGINT end a run after the next optimizer step, with a checkpoint that goes on exactly.

    It waits for the step inside an accumulation window, whose half-summed gradients are in no checkpoint, and for the
    end of a validation that is due or running: benchmarks/resume.py shows what is exact and what is not. Raises
    SystemExit with 130 for SIGINT, else 143. Under Slurm SIGUSR1 puts the job back into the queue. Outside of training
    a signal ends the process at once. All ranks agree on it.
    """

    saver: Checkpoints  # set by the run
    finite: Finite

    def __init__(self) -> None:
        self.received, self.training = 0, False
        self.alone = False  # the only process of its run

    @property
    def name(self) -> str | None:
        """Of the signal that was received."""
        return signal.Signals(self.received).name if self.received else None

    @contextmanager
    def installed(self) -> Generator[None]:
        """Listen while the block runs; only the main thread of a process may."""
        before = {s: signal.signal(s, self._receive) for s in listened()}
        try:
            yield
        finally:
            for s, handler in before.items():  # a second SIGTERM must not cut short what the first one has begun
                signal.signal(s, signal.SIG_IGN if self.received and handler == signal.SIG_DFL else handler)

    def _receive(self, number: int, frame: Any) -> None:
        again, self.received = self.received, number
        if not self.training or (number == again == signal.SIGINT):  # a second Ctrl-C does not wait
            raise SystemExit(exit_code(number))

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training, self.alone = True, trainer.world_size == 1
        for number in listened():  # Lightning's handler of SIGTERM would end the run with code 0 and no checkpoint
            signal.signal(number, self._receive)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.training = False
        if self.received:  # after the last validation
            self._end(trainer)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.alone and not self.received:
            return
        loop, fetcher = trainer.fit_loop.epoch_loop, trainer.fit_loop._data_fetcher
        # Lightning would take up a run cut at the end of an epoch without the rest of it: no validation, no figures
        due = loop.batch_progress.is_last_batch or loop._should_check_val_fx(fetcher)  # ty: ignore[invalid-argument-type]
        if not (due or loop._should_accumulate()) and self._agreed(trainer):
            self.finite.look(trainer, pl_module)
            self.finite.refuse_weights(trainer, pl_module)
            for logger in trainer.loggers:
                logger.save()
            self.saver.keep(self.saver.path(trainer.global_step, "cut"), None, {}, trainer.save_checkpoint)
            self._end(trainer)

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and self._agreed(trainer):
            self._end(trainer)  # the checkpoint of this validation was written just now

    def _agreed(self, trainer: Trainer) -> bool:
        if self.alone:
            return bool(self.received)
        # as numbers: a signal reaches one rank or all of them
        mine = torch.tensor(float(self.received), device=trainer.strategy.root_device)
        self.received = int(trainer.strategy.reduce(mine, reduce_op="max"))
        return bool(self.received)

    def _end(self, trainer: Trainer) -> None:
        if trainer.is_global_zero:
            where = self.saver.folder.parent
            print(f"{self.name}: stopped after step {trainer.global_step}; resume={where} goes on", file=sys.stderr)
            if self.name == "SIGUSR1":
                requeue()
        raise SystemExit(exit_code(self.received))


class Finite(Callback):
    """Stop where the loss is no number or has exploded, before it is learnt from, and where gradients are no numbers.

    Gradients are looked at in every step where clipping computes their norm, else every few steps. A GPU is not waited
    for: its fused optimizers skip a step by a flag that stays there, and from the first bad loss on they skip all,
    until the flag is looked at (`look`): at log points and before anything is saved. Raises Diverged with step, lr,
    gradient norm and layer. Gradients are left alone under fp16, whose scaler skips such steps by design.
    """

    def __init__(self, saver: Checkpoints):
        self.saver = saver
        self.limit: Tensor | float | None = None  # of the loss
        self.skipped: Tensor | None = None  # 1 from the first bad loss on, on the device
        self.first: Tensor | None = None  # the step of that loss
        self.value: Tensor | None = None
        self.scaled = self.clipped = False
        self.norm: Tensor | None = None  # of the gradients of the step before, where it was computed

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        # asked here once: Lightning's properties cost more than the look itself
        self.scaled = str(trainer.precision) == "16-mixed"
        self.clipped = bool(trainer.gradient_clip_val) and trainer.gradient_clip_algorithm != "value"
        pl_module.watch_norm = None if self.scaled else partial(self._norm_is, trainer, pl_module)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        pl_module.watch_norm = None  # it holds the trainer

    def on_before_backward(self, trainer: Trainer, pl_module: LightningModule, loss: Tensor) -> None:
        if loss.device.type == "cuda" and "fused" in trainer.optimizers[0].defaults:
            loss = loss.detach()
            if self.limit is None:
                self.limit = EXPLODED * loss.clamp(min=1)
            self._mark(trainer, ~(loss < self.limit), loss)
            return
        value = loss.item()
        if self.limit is None:
            self.limit = EXPLODED * max(value, 1)
        if not value < self.limit:
            raise self._diverged(trainer, pl_module, f"loss: {value:.4g}", trainer.global_step)

    def _mark(self, trainer: Trainer, bad: Tensor, value: Tensor) -> None:
        if self.skipped is None or self.first is None or self.value is None:
            self.skipped, self.value = torch.zeros((), device=bad.device), torch.zeros((), device=bad.device)
            self.first = torch.zeros((), dtype=torch.int64, device=bad.device)
        before = self.skipped.bool()
        self.first = torch.where(bad & ~before, trainer.global_step, self.first)
        self.value = torch.where(bad & ~before, value.float(), self.value)
        self.skipped = (before | bad).float()
        trainer.optimizers[0].found_inf = self.skipped  # ty: ignore[missing-attribute]  (for the fused kernels)

    def _norm_is(self, trainer: Trainer, pl_module: LightningModule, norm: Tensor) -> None:
        """Called by the model with the norm that clipping has computed."""
        self.norm = norm
        if norm.device.type == "cuda" and "fused" in trainer.optimizers[0].defaults:
            self._mark(trainer, ~torch.isfinite(norm), norm)
        elif not math.isfinite(norm):
            raise self._diverged(trainer, pl_module, "gradients: not finite", trainer.global_step)

    def look(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise Diverged where a GPU has met a bad loss since the last look."""
        if self.skipped is not None and self.first is not None and self.value is not None and bool(self.skipped):
            raise self._diverged(trainer, pl_module, f"loss or norm: {float(self.value):.4g}", int(self.first))

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        if not (self.clipped or self.scaled) and trainer.global_step % NORM_EVERY == 0:
            self.norm = _norm(pl_module)
            if not torch.isfinite(self.norm):
                self.look(trainer, pl_module)  # the loss before it, if it was that
                raise self._diverged(trainer, pl_module, "gradients: not finite", trainer.global_step)

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self.skipped is not None and trainer.global_step % trainer.log_every_n_steps == 0:  # ty: ignore[missing-attribute]
            self.look(trainer, pl_module)

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.look(trainer, pl_module)
        if trainer.state.fn == "fit":
            self.refuse_weights(trainer, pl_module)

    def refuse_weights(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raise Diverged where a weight is no number: it must not be saved."""
        if not torch.stack([torch.isfinite(p).all() for p in pl_module.parameters()]).all():
            raise self._diverged(trainer, pl_module, "weights: not finite", trainer.global_step)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.look(trainer, pl_module)

    def _diverged(self, trainer: Trainer, module: LightningModule, what: str, step: int) -> Diverged:
        lr = trainer.optimizers[0].param_groups[-1]["lr"]
        broken = [n for n, p in module.named_parameters() if not torch.isfinite(p).all()]
        broken = broken or [
            n for n, p in module.named_parameters() if p.grad is not None and not torch.isfinite(p.grad).all()
        ]
        layer = f", layer {broken[0].rpartition('.')[0]}" if broken else ""
        kept = f"last good {self.saver.last.name}" if self.saver.last else "no checkpoint yet"
        size = "" if self.norm is None else f", gradient norm {float(self.norm):.3g}"
        return Diverged(
            f"{what} at step {step} (lr {lr:.3g}{size}{layer}); "
            f"stopped, {kept}; lower optimizer.lr, or look for what is odd in the data"
        )


def requeue() -> None:
    """Under Slurm put this job back into the queue; it goes on in the same folder."""
    if job := os.environ.get("SLURM_JOB_ID"):
        done = subprocess.run(["scontrol", "requeue", job], capture_output=True, text=True, check=False)
        said = "requeued" if done.returncode == 0 else f"not requeued: {done.stderr.strip()}"
        print(f"slurm: job {job} {said}", file=sys.stderr)


def _norm(module: LightningModule) -> Tensor:
    grads = [p.grad for p in module.parameters() if p.grad is not None]
    return torch.nn.utils.get_total_norm(grads) if grads else torch.tensor(float("nan"))
