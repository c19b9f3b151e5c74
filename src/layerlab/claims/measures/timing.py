"""What an activation costs, in CPU time."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from layerlab.models.base import Model
from layerlab.nn.activation import activation

GIVES = {"op": ("act", "round"), "step": ("act", "round")}
BATCH, WIDTH, OPS = 256, 1024, 100  # of the operation
NET, DEPTH, EXAMPLES, STEPS = 512, 4, 128, 25  # of the whole training step


def timing(model: Model, data: Any, act: list[str], round: list[int]) -> dict[str, float]:
    """Time over that of ReLU in the same round: of the operation, forward and backward, and of a whole training step.

    op: on (256, 1024). step: SGD on an MLP of 4 x 512, batch 128. The time of the thread, one torch thread, variants
    one after the other, in the other order in every second round; `relu` is timed against itself: the noise. Neither
    model nor data is used.
    """
    torch.set_num_threads(1)
    made = {"op": (_operation, OPS), "step": (_step, STEPS)}
    kinds = {case: {a: make(a) for a in ("base", *act)} for case, (make, _) in made.items()}
    for run in (run for runs in kinds.values() for run in runs.values()):
        _seconds(run, 3)  # warm up
    found: dict[str, float] = {}
    for i, number in enumerate(round):
        for case, runs in kinds.items():
            order = list(runs) if i % 2 == 0 else list(runs)[::-1]
            took = {a: _seconds(runs[a], made[case][1]) for a in order}
            found |= {f"{case}(act={a},round={number})": took[a] / took["base"] for a in act}
    return found


def _seconds(run: Callable[[], None], times: int) -> float:
    """The least that a call took: what another process on the core adds is not the activation's."""
    spent = []
    for _ in range(times):
        began = time.thread_time()
        run()
        spent.append(time.thread_time() - began)
    return min(spent)


def _named(act: Any) -> nn.Module:
    return activation("relu" if act == "base" else act)


def _operation(act: str) -> Callable[[], None]:
    layer, x = _named(act), torch.randn(BATCH, WIDTH, requires_grad=True)
    ones = torch.ones(BATCH, WIDTH)

    def run() -> None:
        layer(x).backward(ones)

    return run


def _step(act: str) -> Callable[[], None]:
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Linear(NET, NET), _named(act)]
    net = nn.Sequential(*layers, nn.Linear(NET, 10))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)
    x, y = torch.randn(EXAMPLES, NET), torch.randint(10, (EXAMPLES,))

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return run
