"""What comes next? Cross-entropy per symbol, and sampling from the answer."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from layerlab.contract import DataSpec
from layerlab.tasks.base import Task, symbol_error, symbol_report


class NextToken(Task):
    """Logits (B, T, V) against the next ids (B, T), -100 where there is none.

    Reported: nll in nats per predicted symbol (sum over symbols / number of symbols), loss (the same), acc.
    """

    name, monitor, mode = "next_token", "val/nll", "min"
    collects = False  # N x T x V logits of a text do not fit in memory

    def __init__(self, spec: DataSpec | dict[str, Any]):
        super().__init__(spec)

    def measure(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        return symbol_error(out, y)

    def report(self, sums: list[float]) -> dict[str, float]:
        return symbol_report(sums)


@torch.no_grad()
def sample(
    model: Callable[[Tensor], Tensor],
    prompt: Tensor,
    *,
    context: int,
    length: int,
    temperature: float = 1.0,
    stop: int | None = None,
    generator: torch.Generator | None = None,
) -> Tensor:
    """Continue each prompt by sampling: ids (B, T) -> (B, T + up to `length`).

    The model sees the last `context` ids. temperature: divides the logits; 0 takes the most probable symbol.
    stop: the id that ends a sequence; what follows it is `stop` too.
    """
    ids, done = prompt, torch.zeros(len(prompt), dtype=torch.bool, device=prompt.device)
    for _ in range(length):
        logits = model(ids[:, -context:])[:, -1]  # (B, V)
        if temperature == 0:
            new = logits.argmax(1)
        else:
            p = (logits / temperature).softmax(1).cpu()
            new = torch.multinomial(p, 1, generator=generator).squeeze(1).to(ids.device)
        if stop is not None:
            new = new.masked_fill(done, stop)
            done = done | (new == stop)
        ids = torch.cat([ids, new[:, None]], 1)
        if stop is not None and done.all():
            break
    return ids
