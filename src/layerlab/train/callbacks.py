"""What happens between the steps of a run."""

import sys
import time
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer

from layerlab.contract import LayerlabError, key
from layerlab.models.base import Model, trainable
from layerlab.train.freeze import Freeze


class Keyed(Callback):
    """Seed torch before every training step by (seed, rank, step): dropout draws the same after a resume."""

    def __init__(self, seed: int):
        self.seed = seed

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        step = trainer.fit_loop.epoch_loop.batch_progress.total.ready  # batches, not optimizer steps: see accumulation
        k = key(self.seed, trainer.global_rank, "step", step)
        torch.default_generator.manual_seed(k)  # torch.manual_seed costs half an MLP step more
        if pl_module.device.type == "cuda":
            torch.cuda.default_generators[pl_module.device.index or 0].manual_seed(k)


class SameConfig(Callback):
    """Refuse ranks that were started with different configs: they would train different models without a word."""

    def __init__(self, config_hash: str):
        self.hash = config_hash

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if stage != "fit" or trainer.world_size == 1:
            return
        first = trainer.strategy.broadcast(self.hash)
        differs = torch.tensor(float(first != self.hash), device=trainer.strategy.root_device)
        if float(trainer.strategy.reduce(differs, reduce_op="max")):  # of any rank: all of them end
            own = f"rank {trainer.global_rank}: config hash {self.hash}, rank 0 {first}"
            raise LayerlabError(f"{own}, and not all agree; start every rank with the same command")


class Freezing(Callback):
    """Apply the freeze strategy anew at every epoch: it remembers nothing, so a resume cannot miss anything."""

    def __init__(self, freeze: Freeze):
        self.freeze = freeze
        self.resting: list[torch.nn.Parameter] = []  # in this epoch

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter(trainer)  # a run resumed in mid-epoch has no start of that epoch

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self._enter(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        pl_module.log_dict(self.freeze.figures(trainer.current_epoch, trainer.optimizers[0]))

    def _enter(self, trainer: Trainer) -> None:
        (config,) = trainer.lr_scheduler_configs
        self.freeze.enter(trainer.current_epoch, trainer.optimizers[0], config.scheduler, trainer.world_size == 1)
        self.resting = self.freeze.rest(trainer.current_epoch)

    def on_before_optimizer_step(self, trainer: Trainer, pl_module: LightningModule, optimizer: Any) -> None:
        for parameter in self.resting:  # before Lightning clips: they have no share in it
            parameter.grad = None


class ProbeFigures(Callback):
    """Log of a linear probe what Freezing logs of the other strategies. frozen: stages that never train."""

    def __init__(self, frozen: int):
        self.frozen = frozen

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        count = float(trainable(pl_module.parameters()))
        lr = trainer.optimizers[0].param_groups[-1]["lr"]
        pl_module.log_dict(
            {"freeze/trainable_params": count, "freeze/frozen_stages": float(self.frozen), "lr/head": lr}
        )


class Plateau(Callback):
    """Tell a schedule that follows validation of each epoch, before its checkpoint is written.

    Lightning would do it after, and not at all in the epoch in which a run goes on.
    """

    def __init__(self, monitor: str):
        self.monitor = monitor

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn == "fit" and trainer.fit_loop.epoch_loop.batch_progress.is_last_batch:
            (config,) = trainer.lr_scheduler_configs
            config.scheduler.step(trainer.callback_metrics[self.monitor])  # ty: ignore[invalid-argument-type]


class Pruning(Callback):
    """Tell a search of each validation, and stop where it has seen enough. where: file of the study, and the trial."""

    def __init__(self, where: str, monitor: str):
        self.file, _, number = where.rpartition(":")
        self.number, self.monitor, self.pruned = int(number), monitor, False

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        if trainer.state.fn != "fit":
            return
        import optuna
        from optuna.storages import JournalStorage
        from optuna.storages.journal import JournalFileBackend

        study = optuna.load_study(
            study_name="sweep",
            storage=JournalStorage(JournalFileBackend(self.file)),
            pruner=optuna.pruners.MedianPruner(),
        )
        trial = optuna.Trial(study, self.number)
        trial.report(float(trainer.callback_metrics[self.monitor]), trainer.current_epoch)
        if trial.should_prune():
            self.pruned = trainer.should_stop = True


class EpochLines(Callback):
    """One line per epoch, for a log file or a pipe."""

    def __init__(self) -> None:
        self.began = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        self.began = time.perf_counter()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        assert isinstance(pl_module, Model)
        # the module logs its own figures after the callbacks: read the sums they come from
        sums = pl_module.epoch_sums_of_all_ranks()
        if not trainer.is_global_zero:
            return
        train = pl_module._task.report(sums.tolist())
        found = {k: float(v) for k, v in trainer.callback_metrics.items()} | {f"train/{k}": v for k, v in train.items()}
        seconds = time.perf_counter() - self.began
        print(f"{line(trainer.current_epoch + 1, trainer.max_epochs, found)}  {seconds:.1f} s", flush=True)


def line(epoch: int, epochs: int | None, figures: dict[str, float]) -> str:
    """An epoch in one line."""
    shown = [k for k in ("train/loss", "train/acc", "val/loss", "val/acc") if k in figures]
    return f"epoch {epoch}/{epochs}  " + "  ".join(f"{k} {figures[k]:.4f}" for k in shown)


def progress(kind: str) -> Callback | None:
    """bar | lines | none; `auto`: a bar on a terminal, lines elsewhere."""
    if kind == "auto":
        kind = "bar" if sys.stdout.isatty() else "lines"
    if kind == "bar":
        from lightning.pytorch.callbacks import RichProgressBar

        return RichProgressBar(refresh_rate=20, leave=False)
    return EpochLines() if kind == "lines" else None
