"""The calls of a training step in other orders."""

from typing import Any

import torch

from layerlab.models.base import Model

GIVES = {"acc": ("order",), "moved": ("order",)}
STEPS, LR = 100, 0.5
CALLS = "zflbs"  # zero_grad, forward, loss, backward, step


def loop_orders(model: Model, data: Any, order: list[str]) -> dict[str, float]:
    """100 steps of plain SGD from the model's weights, with the calls in each order; batches are the same.

    acc: test accuracy at the end. moved: largest difference of a weight from the order zflbs, 0 = the same bit for bit.
    z: zero_grad, f: forward, l: loss, b: backward, s: step. A call whose input is not there yet does nothing.
    """
    start = {k: v.clone() for k, v in model.state_dict().items()}
    test = data.splits["test"].read(torch.arange(len(data.splits["test"])), None)
    found, reference = {}, None
    for calls in dict.fromkeys([CALLS, *order]):
        model.load_state_dict(start)
        _train(model, data, calls)
        weights = torch.cat([p.detach().flatten() for p in model.parameters()])
        reference = weights if reference is None else reference
        with torch.no_grad():
            acc = (model.answer(test[0]).argmax(1) == test[1]).float().mean()
        found[f"acc(order={calls})"] = float(acc)
        found[f"moved(order={calls})"] = float((weights - reference).abs().max())
    return found


def _train(model: Model, data: Any, calls: str) -> None:
    optimizer = torch.optim.SGD(model.parameters(), LR)
    optimizer.zero_grad()
    split, generator = data.splits["train"], torch.Generator().manual_seed(data.seed)
    out = loss = None
    for _ in range(STEPS):
        x, y = split.read(torch.randint(len(split), (data.batch_size,), generator=generator), None)
        out = loss = None
        for call in calls:
            if call == "z":
                optimizer.zero_grad()
            elif call == "f":
                out = model.answer(x)
            elif call == "l" and out is not None:
                loss = torch.nn.functional.cross_entropy(out, y)
            elif call == "b" and loss is not None:
                loss.backward()
            elif call == "s":
                optimizer.step()
