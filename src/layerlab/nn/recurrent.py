"""How recurrent cells start: the forget gate of an LSTM. Gate order of torch.nn.LSTM: input, forget, cell, output."""

from typing import Literal

import torch
from torch import Tensor, nn

from layerlab.nn import read

ForgetBias = float | Literal["torch", "chrono"]


@torch.no_grad()
def init_forget_bias(lstm: nn.LSTM, value: ForgetBias, steps: int) -> None:
    """Set how open the forget gates of an LSTM start, in place.

    value: `torch` leaves the framework's initialisation untouched (close to 0 on average); a number is the bias
    of every forget gate (1: Jozefowicz et al. 2015); `chrono` draws log U(1, steps) and gives the input gate
    its negative, other biases 0 (Tallec & Ollivier 2018, arXiv 1804.11188). steps: the longest dependency, in steps.
    """
    if value == "torch":
        return
    h = lstm.hidden_size
    for name, bias in lstm.named_parameters():
        if not name.startswith("bias"):
            continue
        second = name.startswith("bias_hh")  # the two biases add up: one carries the value, the other 0
        if value == "chrono":
            bias.zero_()
            if not second:
                forget = torch.empty(h).uniform_(1, max(steps, 2)).log()
                bias[h : 2 * h] = forget
                bias[:h] = -forget
        else:
            bias[h : 2 * h] = 0.0 if second else float(value)


def states(h: Tensor, task: str, mask: Tensor | None) -> Tensor:
    """The states that a head reads: all of (B, T, width) for next_token, else the last inside the mask, (B, width)."""
    return h if task == "next_token" else read.last(h, mask)
