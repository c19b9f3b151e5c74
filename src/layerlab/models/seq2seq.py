"""One sequence in, another out, and a look back at every step."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Fraction
from layerlab.models.base import Model

END = 0  # id that begins and ends every answer


class Seq2Seq(Model):
    """Encoder and decoder with attention: ids (B, T) -> logits of the answer (B, U, V).

    A bidirectional GRU reads, a GRU writes; before each symbol it looks at all states of the encoder. attention:
    `additive`, v . tanh(W s + U h) (Bahdanau et al. 2015, arXiv 1409.0473), or `dot`, s . W h (Luong et al. 2015,
    arXiv 1508.04025, "general"), read with the state before the step. In training the right symbols are fed back
    (teacher forcing), and `forward` and `generate` feed back the most probable ones.
    """

    accepts, tasks = ("tokens",), ("transduce",)
    stages = (("encoder", r"encoder"), ("decoder", r"(decoder|start|query|key|energy)"), ("head", r"head\."))

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 128,
        embed: Count = 64,
        attention: Literal["additive", "dot"] = "additive",
        dropout: Fraction = 0.0,
    ):
        super().__init__(spec)
        self.steps = self.spec.target_shape[0]
        self.encoder_embed = nn.Embedding(len(self.spec.vocabulary), embed)
        self.encoder = nn.GRU(embed, width, batch_first=True, bidirectional=True)
        self.start = nn.Linear(width, width)  # state of the decoder from the backward encoder's first
        self.decoder_embed = nn.Embedding(self.spec.out, embed)
        self.decoder = nn.GRUCell(embed + 2 * width, width)
        self.additive = attention == "additive"
        self.key = nn.Linear(2 * width, width, bias=self.additive)
        self.query = nn.Linear(width, width, bias=False) if self.additive else nn.Identity()
        self.energy = nn.Linear(width, 1, bias=False) if self.additive else None
        self.dropout = nn.Dropout(dropout)
        self.head = nn.Linear(3 * width, self.spec.out)

    def forward(self, x: Tensor) -> Tensor:
        return self._write(x, None)[0]

    def step(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor, Tensor]:
        """Loss, sums and output of a batch with the right symbols fed back."""
        x, y = batch
        out, _ = self._write(x, y)
        return *self._task.measure(out, y), out

    @torch.no_grad()
    def generate(self, x: Tensor) -> Tensor:
        """The most probable answer, symbol by symbol: (B, T) -> ids (B, U); what follows the end means nothing."""
        return self(x).argmax(2)

    @torch.no_grad()
    def alignment(self, x: Tensor) -> Tensor:
        """Where the decoder looked for each symbol it wrote: (B, T) -> (B, U, T), rows sum to 1."""
        return self._write(x, None)[1]

    def _write(self, x: Tensor, y: Tensor | None) -> tuple[Tensor, Tensor]:
        """Logits (B, U, V) and alignment (B, U, T); y (B, U): what is fed back, else what was written."""
        mask = self.mask(x)
        states, state = self._read(x, mask)  # (B, T, 2 width), (B, width)
        keys = self.key(states)  # (B, T, width)
        symbol = torch.full((len(x),), END, device=x.device)
        logits, looks = [], []
        for u in range(self.steps if y is None else y.shape[1]):
            look = self._look(state, keys, mask)  # (B, T)
            seen = (look[:, None] @ states).squeeze(1)  # (B, 1, T) (B, T, 2 width) -> (B, 2 width)
            state = self.decoder(torch.cat([self.dropout(self.decoder_embed(symbol)), seen], 1), state)
            logits.append(self.head(self.dropout(torch.cat([state, seen], 1))))
            looks.append(look)
            symbol = logits[-1].argmax(1) if y is None else y[:, u].clamp(min=0)
        return torch.stack(logits, 1), torch.stack(looks, 1)

    def _read(self, x: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        h = self.dropout(self.encoder_embed(x))
        if mask is None:
            states, last = self.encoder(h)
        else:  # packed: the backward direction starts at the end of each word, not in its padding
            lengths = mask.sum(1).clamp(min=1).cpu()
            packed = nn.utils.rnn.pack_padded_sequence(h, lengths, batch_first=True, enforce_sorted=False)
            states, last = self.encoder(packed)
            states, _ = nn.utils.rnn.pad_packed_sequence(states, batch_first=True, total_length=x.shape[1])
        return states, self.start(last[1]).tanh()

    def _look(self, state: Tensor, keys: Tensor, mask: Tensor | None) -> Tensor:
        """Weights over the T steps, (B, T), of a state (B, width)."""
        if self.energy is None:
            scores = (keys @ state[:, :, None]).squeeze(2)  # (B, T, width) (B, width, 1) -> (B, T)
        else:
            scores = self.energy((self.query(state)[:, None] + keys).tanh()).squeeze(2)
        return (scores if mask is None else scores.masked_fill(~mask, float("-inf"))).softmax(1)
