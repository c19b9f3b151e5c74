"""How weights start, by name."""

from typing import Literal

import torch
from torch import nn

Init = Literal["default", "xavier", "kaiming", "orthogonal"]


@torch.no_grad()
def init_linear(linear: nn.Linear, name: Init, activation: str) -> None:
    """Draw the weights of one layer anew, in place, biases 0; `default` leaves the framework's draw.

    xavier: U(+-gain sqrt(6 / (fan_in + fan_out))), Glorot & Bengio 2010. kaiming: N(0, 2 / fan_in), He et al. 2015,
    eq. 10. orthogonal: Saxe et al. 2014. xavier and orthogonal use the gain of the activation, 1 where torch states
    none.
    """
    if name == "default":
        return
    known = ("relu", "leaky_relu", "sigmoid", "tanh")
    gain = nn.init.calculate_gain(activation) if activation in known else 1.0
    if name == "xavier":
        nn.init.xavier_uniform_(linear.weight, gain)
    elif name == "kaiming":
        nn.init.kaiming_normal_(linear.weight, nonlinearity="relu")
    else:
        nn.init.orthogonal_(linear.weight, gain)
    nn.init.zeros_(linear.bias)
