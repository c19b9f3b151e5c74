"""A state and a conveyor belt with three gates."""

import torch
from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Fraction, Size
from layerlab.models.base import Model
from layerlab.nn import read, recurrent
from layerlab.nn.recurrent import ForgetBias, Gate


class LSTM(Model):
    """Long short-term memory: sequences -> (B, out), or (B, T, out) for next_token.

    forget_bias: `torch` (the framework's initialisation), a number, or `chrono` for long memory. ablate: a gate that
    is fixed at 1 (Greff et al. 2017). patch: cuts an image into square patches as steps; 0 = its rows.
    Sources: Hochreiter & Schmidhuber 1997; forget gate: Gers et al. 2000; bias 1: Jozefowicz et al. 2015.
    """

    accepts, tasks = ("image", "tokens", "series"), ("classify", "regress", "next_token", "forecast")
    stages = (("embed", r"embed\."), ("body", r"body\."), ("head", r"head\."))

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 128,
        depth: Count = 1,
        forget_bias: ForgetBias = 1.0,
        ablate: Gate = "none",
        dropout: Fraction = 0.0,
        patch: Size = 0,
    ):
        super().__init__(spec)
        if ablate == "forget" and forget_bias != 1.0:
            raise ValueError(f"model.forget_bias={forget_bias}: has no effect on a gate that is fixed; leave it out")
        self.embed = read.Sequence(self.spec, width, patch)
        self.body = nn.LSTM(width, width, depth, dropout=dropout if depth > 1 else 0, batch_first=True)
        recurrent.init_forget_bias(self.body, forget_bias, self.embed.steps)
        recurrent.open_gate(self.body, ablate)
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(width, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        h, _ = self.body(self.embed(x))  # (B, T, width)
        return self.dropout(recurrent.states(h, self.spec.task, self.mask(x)))

    @torch.no_grad()
    def inside(self, x: Tensor) -> list[dict[str, Tensor]]:
        """Gates, cell and state at every step, by layer and name: (B, T, width) each; see nn.recurrent.unroll."""
        return recurrent.unroll(self.body, self.embed(x))
