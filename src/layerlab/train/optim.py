"""Optimizers, and the recipe that gives a model its optimizer, its schedule and its freeze strategy."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import torch

from layerlab.contract import Fraction, LayerlabError, NonNegative, Positive

if TYPE_CHECKING:
    from layerlab.models.base import Model
    from layerlab.train.freeze import Freeze

Groups = list[dict[str, Any]]


def sgd(
    parameters: Groups,
    lr: Positive = 0.1,
    momentum: Fraction = 0.9,
    nesterov: bool = True,
    weight_decay: NonNegative = 5e-4,
) -> torch.optim.Optimizer:
    """Stochastic gradient descent with momentum (Sutskever et al. 2013)."""
    return torch.optim.SGD(
        parameters, lr=lr, momentum=momentum, nesterov=nesterov and momentum > 0, weight_decay=weight_decay, fused=True
    )


def adam(
    parameters: Groups,
    lr: Positive = 3e-3,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.999,
    eps: Positive = 1e-8,
) -> torch.optim.Optimizer:
    """Adam (Kingma & Ba 2015), without weight decay: that is adamw."""
    return torch.optim.Adam(parameters, lr=lr, betas=(beta1, beta2), eps=eps, fused=True)


def adamw(
    parameters: Groups,
    lr: Positive | Literal["auto"] = "auto",
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.99,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019).

    lr: auto = 3e-3, or what the freeze strategy names.
    """
    lr = 3e-3 if lr == "auto" else lr
    return torch.optim.AdamW(parameters, lr=lr, betas=(beta1, beta2), eps=eps, weight_decay=weight_decay, fused=True)


def rmsprop(
    parameters: Groups,
    lr: Positive = 1e-3,
    alpha: Fraction = 0.99,
    eps: Positive = 1e-8,
    momentum: Fraction = 0.0,
    weight_decay: NonNegative = 0.0,
) -> torch.optim.Optimizer:
    """RMSprop (Hinton 2012, lecture 6e)."""
    return torch.optim.RMSprop(parameters, lr=lr, alpha=alpha, eps=eps, momentum=momentum, weight_decay=weight_decay)


class Recipe:
    """Optimizer, schedule and freeze strategy of a run; the model calls it in `configure_optimizers`.

    lr: that of the optimizer, which the strategy multiplies by stage; None where it states none.
    """

    def __init__(
        self,
        optimizer: Callable[[Groups], torch.optim.Optimizer],
        schedule: Callable[[torch.optim.Optimizer, int], dict[str, Any]],
        freeze: Freeze,
        lr: float | None = None,
    ):
        self.optimizer, self.schedule, self.freeze, self.lr = optimizer, schedule, freeze, lr

    def build(self, steps: int) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
        """Optimizer and schedule, for a run of so many optimizer steps."""
        optimizer = self.optimizer(self.freeze.groups(self.lr))
        self._check_coverage(optimizer)
        return optimizer, self.schedule(optimizer, steps)

    def _check_coverage(self, optimizer: torch.optim.Optimizer) -> None:
        """Every parameter that ever trains is in exactly one group. Raises LayerlabError naming those that are not."""
        held = [p for group in optimizer.param_groups for p in group["params"]]
        names = {p: n for n, p in self.freeze.model.named_parameters()}
        counts = {p: sum(q is p for q in held) for p in self.freeze.ever} if len(held) != len(self.freeze.ever) else {}
        wrong = [names[p] for p, n in counts.items() if n != 1] or ([] if set(held) == self.freeze.ever else ["others"])
        if wrong:
            raise LayerlabError(
                f"freeze={self.freeze.policy.name}: {', '.join(wrong[:10])} not in exactly one group of the optimizer"
            )

    def __call__(self, model: Model) -> dict[str, Any]:
        """What Lightning's `configure_optimizers` returns."""
        trainer = model.trainer
        optimizer, scheduler = self.build(int(trainer.estimated_stepping_batches))
        if str(trainer.precision).endswith("mixed"):
            # Lightning refuses to clip for an optimizer that unscales gradients itself, as the fused ones offer to;
            # without the offer the scaler does it, before the clipping
            optimizer._step_supports_amp_scaling = False  # ty: ignore[missing-attribute]
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
