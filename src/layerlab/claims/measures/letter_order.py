"""What a model of text makes of the order of the letters that it has read."""

from typing import Any

import torch
from torch.nn import functional as F

from layerlab.models.base import Model

GIVES = {"nll": ("letters",)}
LEAST = 4  # letters of a word that are read, so that there is an order to change


@torch.no_grad()
def letter_order(model: Model, data: Any, letters: list[str]) -> dict[str, float]:
    """nll: of the last letter of each test word, given those before it, in nats.

    letters `kept`: as they stand; `shuffled`: all but the last one that is read in an order drawn anew, so that what
    changes is known from further back than one step alone. Words of fewer than `LEAST` letters before are left out.
    """
    model.eval()
    split = data.splits["test"]
    x, y = split.read(torch.arange(len(split)), None)  # (N, T): `.` and the letters, padded
    last = (y != 0).logical_and(y != -100).sum(1) - 1  # (N,): the step whose answer is the last letter
    x, y, last = (v[last >= LEAST] for v in (x, y, last))
    rows = torch.arange(len(x))
    draws = torch.rand(x.shape)
    steps = torch.arange(x.shape[1]).expand_as(draws)
    moved = (steps > 0) & (steps < last[:, None])  # the first token says where the word begins, the last one stays
    order = torch.where(moved, draws + 1, torch.where(steps == 0, 0.0, steps + 2.0)).argsort(1)
    found = {}
    for how, ids in {"kept": x, "shuffled": x.gather(1, order)}.items():
        if how in letters:
            logits = model.answer(ids)[rows, last]  # (N, vocabulary)
            found[f"nll(letters={how})"] = float(F.cross_entropy(logits, y[rows, last]))
    return found
