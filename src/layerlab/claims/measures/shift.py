"""The answer to a picture that has moved."""

from typing import Any

import torch

from layerlab.models.base import Model

GIVES = {"acc": ("shift",)}


@torch.no_grad()
def shift(model: Model, data: Any, shift: list[int]) -> dict[str, float]:
    """acc: test accuracy after every image has moved so many pixels to the right; what leaves comes in at the left.

    On a canvas whose margin is wider than the shift nothing leaves but the background.
    """
    split = data.splits["test"]
    x, y = split.read(torch.arange(len(split)), None)  # (N, 1, H, W)
    answers = {n: model.answer(x.roll(n, 3)).argmax(1) for n in shift}
    return {f"acc(shift={n})": float((answer == y).float().mean()) for n, answer in answers.items()}
