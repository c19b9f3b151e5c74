"""Optimizers, and the recipe that gives a model its optimizer and schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch

from layerlab.contract import Fraction, NonNegative, Positive

if TYPE_CHECKING:
    from layerlab.models.base import Model

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
    lr: Positive = 3e-3,
    beta1: Fraction = 0.9,
    beta2: Fraction = 0.99,
    eps: Positive = 1e-8,
    weight_decay: NonNegative = 0.01,
) -> torch.optim.Optimizer:
    """Adam with decoupled weight decay (Loshchilov & Hutter 2019)."""
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


def groups(model: Model) -> Groups:
    """Parameter groups by stage, each cut in decay and no decay: weight decay is for tensors of 2 and more dimensions.

    Biases and the gains of norms would only be pulled to 0 by it. Raises Mismatch for a parameter outside all stages.
    """
    found = []
    for stage, named in model.stage_parameters().items():
        for decays in (True, False):
            parameters = [p for _, p in named if p.requires_grad and (p.ndim >= 2) == decays]
            if parameters:
                group = {"params": parameters, "name": f"{stage}/{'decay' if decays else 'no_decay'}"}
                found.append(group if decays else group | {"weight_decay": 0.0})
    return found


class Recipe:
    """Optimizer and schedule of a run; the model calls it in `configure_optimizers`."""

    def __init__(
        self,
        optimizer: Callable[[Groups], torch.optim.Optimizer],
        schedule: Callable[[torch.optim.Optimizer, int], dict[str, Any]],
    ):
        self.optimizer, self.schedule = optimizer, schedule

    def build(self, model: Model, steps: int) -> tuple[torch.optim.Optimizer, dict[str, Any]]:
        """Both, for a run of so many optimizer steps."""
        optimizer = self.optimizer(groups(model))
        return optimizer, self.schedule(optimizer, steps)

    def __call__(self, model: Model) -> dict[str, Any]:
        """What Lightning's `configure_optimizers` returns."""
        trainer = model.trainer
        optimizer, scheduler = self.build(model, int(trainer.estimated_stepping_batches))
        if str(trainer.precision).endswith("mixed"):
            # Lightning refuses to clip for an optimizer that unscales gradients itself, as the fused ones offer to;
            # without the offer the scaler does it, before the clipping
            optimizer._step_supports_amp_scaling = False  # ty: ignore[missing-attribute]
        return {"optimizer": optimizer, "lr_scheduler": scheduler}
