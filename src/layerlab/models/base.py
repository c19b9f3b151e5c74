"""The one LightningModule that every architecture inherits: steps, logging, hyper-parameters, stages."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Iterable
from typing import Any, ClassVar, Literal, Self

import torch
from lightning.pytorch import LightningModule
from torch import Tensor, nn

from layerlab import tasks
from layerlab.contract import IGNORE, DataSpec, Mismatch

Batch = tuple[Tensor, Tensor]
WIDE = torch.float32 if torch.backends.mps.is_available() else torch.float64  # of sums; MPS has no float64


class Model(LightningModule):
    """Base of all architectures: `forward(x) = head(features(x))`, one loop for every task.

    A subclass is its constructor `(spec, **plain values)`, `features`, a module `head`, and three class facts. One
    that cannot be cut in two defines `forward` itself. `task` and `recipe` are attached by the run, never passed.

    Raises Mismatch where the spec is of a kind or task that the class does not take.
    """

    accepts: ClassVar[tuple[str, ...]]  # kinds of x it reads
    tasks: ClassVar[tuple[str, ...]]  # tasks its output serves
    stages: ClassVar[tuple[tuple[str, str], ...]]  # (name, pattern of parameter names), from input to head
    raw_window: ClassVar[bool] = False  # forecasts from the window as it is: the task wraps nothing around it
    preprocessing: dict[str, Any] | None = None  # what its weights were trained with, for the manifest
    started: Literal["random", "pretrained", "run"] = "random"  # where the first weights are from; set as they come

    head: nn.Module

    def __init__(self, spec: DataSpec | dict[str, Any]):
        super().__init__()
        self.spec = spec = DataSpec.coerce(spec)
        self.save_hyperparameters(ignore=["spec"], logger=False)
        self._hparams["spec"] = spec.to_dict()  # plain: load_from_checkpoint runs under weights_only
        name = type(self).__name__
        if spec.kind not in self.accepts:
            raise Mismatch(f"{name} reads {', '.join(self.accepts)}, but data={spec.name} gives {spec.kind}")
        if spec.task not in self.tasks:
            raise Mismatch(f"{name} serves {', '.join(self.tasks)}, but the task is {spec.task}")
        self.task: tasks.Task | None = None
        self.recipe: Callable[[Model], Any] | None = None
        self.watch_norm: Callable[[Tensor], None] | None = None  # told of the gradient norm; set by train/guards.py
        self.kept_in_eval: list[nn.Module] = []  # modules of frozen stages; set by train/freeze.py
        # saved, so that a run cut in mid-epoch still logs the whole epoch (Lightning's on_epoch does not); no buffer,
        # for DDP would overwrite it with that of rank 0, and bf16-true cast it, where a count stops at 256
        self.epoch_sums = torch.zeros(4, dtype=WIDE)

    @classmethod
    def refuse(cls, options: dict[str, Any]) -> None:
        """Refuse options that can be seen to be wrong before the data is read. Raises LayerlabError."""

    def features(self, x: Tensor) -> Tensor:
        """What the head reads: everything up to it."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x))

    def initialise(self) -> list[str]:
        """Give a new model its starting weights where they are not drawn; what was found, in lines for the log.

        A model from a checkpoint is not initialised: that brings its own.
        """
        return []

    def mask(self, x: Tensor) -> Tensor | None:
        """(B, T) True where x is not padding; None where nothing is padded."""
        return None if self.spec.pad is None or self.spec.kind != "tokens" else x != self.spec.pad

    def solve(self, train: Iterable[Batch], val: Iterable[Batch]) -> None:
        """Fit in closed form, in place of training, from batches as the network sees them."""
        raise NotImplementedError

    def generate(self, x: Tensor) -> Tensor:
        """What the model writes by itself, symbol by symbol: (B, T) -> ids (B, U); for transduce."""
        raise NotImplementedError

    @property
    def closed_form(self) -> bool:
        """Whether `solve` stands in for training."""
        return type(self).solve is not Model.solve

    # --- what happens in a run

    def answer(self, x: Tensor) -> Tensor:
        """The output for a batch as the data gives it, through whatever the task wraps around the network."""
        return self.task.apply(self, x) if self.task else self(x)

    def step(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Mean loss, sums (4,) and output of a batch; the one method that a special loop overrides."""
        x, y = batch
        out = self.answer(x)
        return *self._task.measure(out, y), out

    @property
    def _task(self) -> tasks.Task:
        if self.task is None:
            raise RuntimeError(f"{type(self).__name__}: no task attached; set model.task before training it")
        return self.task

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        loss, sums, _ = self.step(batch)
        if batch_idx == 0:
            self.epoch_sums.zero_()
        self.epoch_sums += sums
        trainer = self.trainer
        # self.log at every step costs half an MLP step; + 1 is where Lightning hands values to the loggers
        if (trainer.global_step + 1) % self._log_every == 0:
            self.log_dict({"train/loss_step": loss.detach(), "lr": trainer.optimizers[0].param_groups[-1]["lr"]})
        return loss

    def on_train_start(self) -> None:
        self.epoch_sums = self.epoch_sums.to(self.device)
        self._log_every: int = self.trainer.log_every_n_steps  # ty: ignore[missing-attribute]  (set by a connector)

    def on_train_epoch_end(self) -> None:
        self._log("train", self.epoch_sums_of_all_ranks())

    def epoch_sums_of_all_ranks(self) -> Tensor:
        """The sums (4,) of the running epoch, added up over the ranks; every rank has to call it."""
        return self.trainer.strategy.reduce(self.epoch_sums.clone(), reduce_op="sum")

    def on_validation_epoch_start(self) -> None:
        self._begin()

    def on_test_epoch_start(self) -> None:
        self._begin()

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, collect=False)

    def test_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        self._evaluate(batch, collect=self._task.collects)

    def on_validation_epoch_end(self) -> None:
        self._log("val", self._sums)

    def on_test_epoch_end(self) -> None:
        further = {}
        if self._outputs:
            outs, ys = zip(*self._outputs, strict=True)
            self.outputs = _joined(outs), _joined(ys)
            further = self._task.metrics(*self.outputs)
        self._log("test", self._sums, further)

    def _begin(self) -> None:
        self._sums = torch.zeros(4, dtype=WIDE, device=self.device)
        self._outputs: list[tuple[Tensor, Tensor]] = []

    def _evaluate(self, batch: tuple[Tensor, Tensor], collect: bool) -> None:
        _, sums, out = self.step(batch)
        self._sums = self._sums + sums
        if collect:
            self._outputs.append((self._task.prediction(self, batch[0], out).cpu(), batch[1].cpu()))

    def _log(self, split: str, sums: Tensor, further: dict[str, float] | None = None) -> None:
        figures = self._task.report(sums.tolist()) | (further or {})
        self.log_dict({f"{split}/{name}": v for name, v in figures.items()}, prog_bar=split != "test")

    def predict_step(self, batch: Tensor | tuple[Tensor, ...], batch_idx: int = 0) -> Tensor:
        return self.answer(batch[0] if isinstance(batch, tuple | list) else batch)

    def configure_gradient_clipping(
        self, optimizer: Any, gradient_clip_val: float | None = None, gradient_clip_algorithm: str | None = None
    ) -> None:
        """Clip as Lightning does, and hand on the norm, which has been computed anyway."""
        if not gradient_clip_val or gradient_clip_algorithm == "value":
            self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)
            return
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.get_total_norm([p.grad for p in parameters if p.grad is not None])
        if self.watch_norm:
            self.watch_norm(norm)  # before clipping spreads what is no number
        if norm.device.type == "cpu" and norm + 1e-6 <= gradient_clip_val:
            return  # they would be multiplied by 1; a GPU is not waited for
        nn.utils.clip_grads_with_norm_(parameters, gradient_clip_val, norm)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """What optimizer.zero_grad() does, without what it costs a small step to have it profiled."""
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def configure_optimizers(self) -> Any:
        if self.recipe is None:
            raise RuntimeError(f"{type(self).__name__}: no recipe attached; set model.recipe before training it")
        return self.recipe(self)

    # --- stages

    def stage_parameters(self, fine: bool = False) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Parameters by stage, input to head; fine: by layer, where a model tells them apart.

        Raises Mismatch for a parameter in no stage or in more than one.
        """
        found: dict[str, list[tuple[str, nn.Parameter]]] = {name: [] for name, _ in self.stages}
        for name, parameter in self.named_parameters():
            homes = [stage for stage, pattern in self.stages if re.match(pattern, name)]
            if len(homes) != 1:
                raise Mismatch(f"{type(self).__name__}.stages: parameter {name} is in {homes or 'no stage'}, needs one")
            found[homes[0]].append((name, parameter))
        return found

    def stage_modules(self, fine: bool = False) -> dict[str, list[str]]:
        """Names of modules by stage: that of their parameters; for one without any (dropout) that of the one before.

        A module whose parameters lie in several stages is in none, unless it owns them itself: then in the last.
        """
        stages = self.stage_parameters(fine)
        if not stages:
            return {}
        home = {p: i for i, named in enumerate(stages.values()) for _, p in named}
        found: dict[str, list[str]] = {stage: [] for stage in stages}
        names, last = list(stages), 0
        for name, module in self.named_modules():
            inside = {home[p] for p in module.parameters()}
            if len(inside) > 1 and not any(True for _ in module.parameters(recurse=False)):
                continue
            last = max(inside, default=last)
            found[names[last]].append(name)
        return found

    def train(self, mode: bool = True) -> Self:
        """Training mode, except for what is kept in eval: requires_grad=False does not stop running statistics."""
        super().train(mode)
        for module in self.kept_in_eval:
            module.eval()
        return self

    # --- checkpoints hold plain values, and rebuild the model without a config

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.task:
            checkpoint["task"] = self.task.to_dict()
        if self._trainer is not None:  # of each rank its own: (ranks, 4)
            ranks = [torch.empty_like(self.epoch_sums) for _ in range(self.trainer.world_size)]
            if len(ranks) > 1:
                torch.distributed.all_gather(ranks, self.epoch_sums)
            checkpoint["epoch_sums"] = torch.stack(ranks if len(ranks) > 1 else [self.epoch_sums]).cpu()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        if self.task is None and "task" in checkpoint:
            self.task = tasks.restore(checkpoint["task"])
        if self._trainer is not None and "epoch_sums" in checkpoint:
            self.epoch_sums = checkpoint["epoch_sums"][self.global_rank].to(self.device)

    def __setattr__(self, name: str, value: Any) -> None:
        # Lightning sets this one 44 times per step, and nn.Module looks through parameters, buffers and modules first
        if name == "_current_fx_name":
            self.__dict__[name] = value
        else:
            super().__setattr__(name, value)


# Lightning asks which arguments this takes in every step, and working that out costs a fiftieth of a small one
Model.training_step.__signature__ = inspect.signature(Model.training_step)  # ty: ignore[missing-attribute]


def _joined(batches: Iterable[Tensor]) -> Tensor:
    """Batches (B, ...) as one; sequences of different length filled up with -100."""
    batches = list(batches)
    if batches[0].ndim == 2 and len({b.shape[1] for b in batches}) > 1:
        longest = max(b.shape[1] for b in batches)
        batches = [nn.functional.pad(b, (0, longest - b.shape[1]), value=IGNORE) for b in batches]
    return torch.cat(batches)


def trainable(parameters: Iterable[nn.Parameter]) -> int:
    """How many numbers training may change."""
    return sum(p.numel() for p in parameters if p.requires_grad)
