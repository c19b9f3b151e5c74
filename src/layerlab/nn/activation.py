"""Activations by name, each a module so that hooks and the report see it."""

from typing import Literal

from torch import Tensor, nn

Activation = Literal[
    "identity",
    "relu",
    "leaky_relu",
    "sigmoid",
    "centred_sigmoid",
    "tanh",
    "softmax",
    "gelu",
    "silu",
    "elu",
    "step",
    "straight_through",
]


class Softmax(nn.Module):
    """exp(x_i) / sum_j exp(x_j) over the features: dim 1 of an image (B, C, H, W), else the last."""

    def forward(self, x: Tensor) -> Tensor:
        return x.softmax(1 if x.ndim == 4 else -1)


class CentredSigmoid(nn.Module):
    """The logistic function minus one half: its slopes, around 0 (LeCun et al. 1998)."""

    def forward(self, x: Tensor) -> Tensor:
        return x.sigmoid() - 0.5


class Step(nn.Module):
    """1 where x > 0, else 0; its gradient is 0 everywhere (McCulloch & Pitts 1943; Rosenblatt 1958)."""

    def forward(self, x: Tensor) -> Tensor:
        return (x > 0).to(x.dtype) + 0 * x  # + 0 x: part of the graph, with the true gradient 0


class StraightThrough(nn.Module):
    """Step forward, derivative of the logistic function backward (Bengio et al. 2013, arXiv 1308.3432)."""

    def forward(self, x: Tensor) -> Tensor:
        soft = x.sigmoid()
        return soft + ((x > 0).to(x.dtype) - soft).detach()


MODULES: dict[str, type[nn.Module]] = {
    "identity": nn.Identity,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,  # slope .01, as in Maas et al. 2013
    "sigmoid": nn.Sigmoid,
    "centred_sigmoid": CentredSigmoid,
    "tanh": nn.Tanh,
    "softmax": Softmax,
    "gelu": nn.GELU,  # exact x Phi(x), Hendrycks & Gimpel 2016
    "silu": nn.SiLU,
    "elu": nn.ELU,
    "step": Step,
    "straight_through": StraightThrough,
}


def activation(name: Activation) -> nn.Module:
    """The activation called `name`. Raises ValueError with the known names for another one."""
    if name not in MODULES:
        raise ValueError(f"activation={name!r}: expected one of {', '.join(MODULES)}")
    return MODULES[name]()
