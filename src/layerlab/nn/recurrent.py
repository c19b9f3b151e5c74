"""How recurrent cells start, and what goes on inside them. Gate order of torch.nn.LSTM: input, forget, cell, output."""

from typing import Literal

import torch
from torch import Tensor, nn

from layerlab.nn import read

ForgetBias = float | Literal["torch", "chrono"]
Gate = Literal["none", "forget", "input", "output"]
SATURATED = 100.0  # sigmoid(100) is 1 and its derivative 0, exactly, in every float type: such a gate never moves


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


@torch.no_grad()
def open_gate(lstm: nn.LSTM, gate: Gate) -> None:
    """Fix one gate of every layer at 1 for good, in place (NFG, NIG and NOG of Greff et al. 2017).

    Its weights are 0 and its bias SATURATED, so that neither the input nor a gradient moves it: the fused kernel runs
    as before.
    """
    if gate == "none":
        return
    at = {"input": 0, "forget": 1, "output": 3}[gate] * lstm.hidden_size
    for name, parameter in lstm.named_parameters():
        parameter[at : at + lstm.hidden_size] = SATURATED if name.startswith("bias_ih") else 0.0


@torch.no_grad()
def init_recurrent(rnn: nn.RNN, name: Literal["default", "orthogonal", "identity"]) -> None:
    """Set the weights from state to state of an RNN, in place; biases 0 unless `default`.

    orthogonal: Saxe et al. 2014. identity: meant for relu, Le et al. 2015, arXiv 1504.00941.
    """
    if name == "default":
        return
    for key, parameter in rnn.named_parameters():
        if key.startswith("bias"):
            parameter.zero_()
        elif key.startswith("weight_hh"):
            nn.init.orthogonal_(parameter) if name == "orthogonal" else nn.init.eye_(parameter)


def states(h: Tensor, task: str, mask: Tensor | None) -> Tensor:
    """The states that a head reads: all of (B, T, width) for next_token, else the last inside the mask, (B, width)."""
    return h if task == "next_token" else read.last(h, mask)


def unroll(body: nn.RNN | nn.GRU | nn.LSTM, x: Tensor) -> list[dict[str, Tensor]]:
    """Everything inside a recurrent network, step by step from the formulas: x (B, T, width) -> one dict per layer.

    Each holds `hidden`, and for an LSTM `cell` and the gates `input`, `forget`, `output`, `candidate`, for a GRU the
    gates `reset`, `update` and `candidate`: (B, T, width) each. The states are those of the fused kernel; between
    layers there is no dropout. Sources: Elman 1990; Cho et al. 2014; Hochreiter & Schmidhuber 1997, Gers et al. 2000.
    """
    layers = []
    for i in range(body.num_layers):
        W, U, b, c = (getattr(body, f"{name}_l{i}") for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        h = cell = x.new_zeros(len(x), body.hidden_size)
        steps = []
        for step in x.unbind(1):  # (B, width)
            a, r = step @ W.T + b, h @ U.T + c  # from the input, from the state
            if isinstance(body, nn.LSTM):
                now = _lstm(a + r, cell)
                cell = now["cell"]
            elif isinstance(body, nn.GRU):
                now = _gru(a, r, h)
            else:
                now = {"hidden": (a + r).tanh() if body.nonlinearity == "tanh" else (a + r).relu()}
            h = now["hidden"]
            steps.append(now)
        layers.append({name: torch.stack([s[name] for s in steps], 1) for name in steps[0]})  # (B, T, width)
        x = layers[-1]["hidden"]
    return layers


def _lstm(a: Tensor, cell: Tensor) -> dict[str, Tensor]:
    i, f, g, o = a.chunk(4, 1)
    gates = {"input": i.sigmoid(), "forget": f.sigmoid(), "candidate": g.tanh(), "output": o.sigmoid()}
    cell = gates["forget"] * cell + gates["input"] * gates["candidate"]
    return gates | {"cell": cell, "hidden": gates["output"] * cell.tanh()}


def _gru(a: Tensor, r: Tensor, h: Tensor) -> dict[str, Tensor]:
    (a_reset, a_update, a_new), (r_reset, r_update, r_new) = a.chunk(3, 1), r.chunk(3, 1)
    reset, update = (a_reset + r_reset).sigmoid(), (a_update + r_update).sigmoid()
    new = (a_new + reset * r_new).tanh()
    return {"reset": reset, "update": update, "candidate": new, "hidden": (1 - update) * new + update * h}
