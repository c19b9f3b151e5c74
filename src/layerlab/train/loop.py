"""The training loop of the textbook, written out: `trainer=plain`.

Forward and loss, zero_grad, backward, step. Over the same model, task, optimizer, schedule and batches as the Lightning
path, and with the same weights at the end, bit for bit (one device, fp32).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import torch
from lightning.pytorch import Callback, Trainer
from torch import nn

from layerlab.contract import Count, NonNegative, key
from layerlab.models.base import Model
from layerlab.tasks.base import Task
from layerlab.train import checkpoint
from layerlab.train.callbacks import line
from layerlab.train.freeze import EPOCHS, Freeze
from layerlab.train.guards import Diverged
from layerlab.train.trainer import trainer as lightning_trainer


@dataclass
class Epoch:
    """Where the loop stands after an epoch: how many it was, and how many optimizer steps."""

    number: int
    steps: int


def loop(
    model: Model,
    data: Any,
    optimizer: torch.optim.Optimizer,
    schedule: dict[str, Any],
    *,
    max_epochs: int,
    steps: int,
    clip: float,
    seed: int,
    zero_grad: bool = True,
    freeze: Freeze | None = None,
) -> Iterator[Epoch]:
    """Train for max_epochs or so many optimizer steps, whichever comes first; hand over after every epoch."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    step = 0
    for epoch in range(max_epochs):
        model.train()
        if freeze:  # which stages train in this epoch, and at which lr
            freeze.enter(epoch, optimizer, schedule["scheduler"], alone=True)
        model.epoch_sums.zero_()
        for batch in data.train_batches(lambda epoch=epoch: (epoch, 0)):
            step += 1
            torch.default_generator.manual_seed(key(seed, 0, "step", step))  # dropout draws by the step

            loss, sums, _ = model.step(batch)  # 1. forward pass, and how wrong it is
            if zero_grad:
                optimizer.zero_grad()  # 2. forget the gradients of the batch before
            loss.backward()  # 3. blame: dloss / dw for every weight w
            if clip:
                nn.utils.clip_grad_norm_(parameters, clip)
            optimizer.step()  # 4. a step downhill

            if schedule["interval"] == "step":
                schedule["scheduler"].step()
            model.epoch_sums += sums
            if step == steps:
                break
        yield Epoch(epoch + 1, step)
        if step == steps:
            return


class Plain:
    """The plain loop as a trainer: fp32 on one CPU; no resume, EMA, mixed precision, callbacks, wandb or TensorBoard.

    zero_grad=false leaves out that step: gradients of all batches add up. It validates after every epoch. `lightning`
    is the Trainer that tests the selected checkpoint. Raises LayerlabError for what it does not do.
    """

    def __init__(
        self,
        *,
        folder: Any,
        callbacks: list[Callback],
        loggers: list[Any],
        threads: Count = 1,
        max_epochs: Count | Literal["auto"] = "auto",
        max_steps: Count | Literal[-1] = -1,
        gradient_clip_val: NonNegative = 1.0,
        zero_grad: bool = True,
        accelerator: Literal["cpu"] = "cpu",
    ):
        self.max_epochs = EPOCHS if max_epochs == "auto" else max_epochs
        self.max_steps, self.clip = max_steps, gradient_clip_val
        self.zero_grad, self.loggers = zero_grad, loggers
        self.lightning: Trainer = lightning_trainer(
            folder=folder, callbacks=[], loggers=loggers, accelerator=accelerator, precision=32, threads=threads
        )
        self.progress = any("Epoch" in type(c).__name__ or "Bar" in type(c).__name__ for c in callbacks)

    def fit(
        self,
        model: Model,
        task: Task,
        data: Any,
        recipe: Any,
        saver: checkpoint.Checkpoints,
        seed: int,
        patience: int = 0,
    ) -> Epoch:
        """Train, validate after every epoch, keep the best and the last checkpoint; where the loop ended.

        patience: epochs without an improvement after which it ends, 0 = never.
        """
        epochs = self.max_epochs
        most = epochs * len(data.train_batches(lambda: (0, 0)))
        steps = most if self.max_steps < 0 else min(most, self.max_steps)
        optimizer, schedule = recipe.build(steps)
        settings = {"max_epochs": epochs, "steps": steps, "clip": self.clip, "seed": seed, "zero_grad": self.zero_grad}
        settings["freeze"] = None if recipe.freeze.trivial else recipe.freeze
        done, waited = Epoch(0, 0), 0
        for done in loop(model, data, optimizer, schedule, **settings):
            if not torch.isfinite(model.epoch_sums).all():
                raise Diverged(f"loss: not finite in epoch {done.number}, by step {done.steps}; lower optimizer.lr")
            figures = {f"train/{k}": v for k, v in task.report(model.epoch_sums.tolist()).items()}
            figures |= {f"val/{k}": v for k, v in validate(model, task, data).items()}
            if settings["freeze"]:
                figures |= recipe.freeze.figures(done.number - 1, optimizer)
            if schedule["interval"] == "epoch":
                schedule["scheduler"].step(figures[schedule["monitor"]])
            for logger in self.loggers:
                logger.log_metrics(
                    figures | {"epoch": done.number - 1, "lr": optimizer.param_groups[-1]["lr"]}, done.steps - 1
                )
            path = saver.path(done.steps)
            state = checkpoint.plain_state(model, data, done.number, done.steps)
            validated = {k: v for k, v in figures.items() if k.startswith("val/")}
            saver.keep(path, figures[saver.monitor], validated, partial(checkpoint.write, state))
            if self.progress:
                print(line(done.number, epochs, figures), flush=True)
            waited = 0 if saver.best == path else waited + 1
            if patience and waited >= patience:
                break
        return done


@torch.no_grad()
def validate(model: Model, task: Task, data: Any) -> dict[str, float]:
    """Figures of the validation split."""
    model.eval()
    sums = torch.stack([model.step(batch)[1] for batch in data.batches("val")])  # (batches, 4)
    return task.report(sums.sum(0).tolist())
