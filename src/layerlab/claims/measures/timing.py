"""What an activation costs, in CPU time."""

import random
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from layerlab.models.base import Model
from layerlab.nn.activation import activation

GIVES = {"op": ("act", "round"), "step": ("act", "round")}
BATCH, WIDTH, OPS = 256, 1024, 40  # of the operation
NET, DEPTH, EXAMPLES, STEPS = 512, 4, 128, 5  # of the whole training step


def timing(model: Model, data: Any, act: list[str], round: list[int]) -> dict[str, float]:
    """Time over that of ReLU in the same round: of the operation, forward and backward, and of a whole training step.

    op: on (256, 1024). step: SGD on an MLP of 4 x 512, batch 128. The time of the thread, one torch thread. In a round
    the variants take turns call by call, in an order drawn anew, so that what slows the machine slows all alike; the
    medians are compared. `relu` is timed against itself: the noise. Neither model nor data is used.
    """
    torch.set_num_threads(1)
    found: dict[str, float] = {}
    shared = torch.randn(BATCH, WIDTH, requires_grad=True), torch.ones(BATCH, WIDTH)  # one place in memory for all
    batch = torch.randn(EXAMPLES, NET), torch.randint(10, (EXAMPLES,))
    for case, make, calls, given in (("op", _operation, OPS, shared), ("step", _step, STEPS, batch)):
        runs = {a: make(a, *given) for a in ("base", *act)}
        _medians(runs, 3)  # warm up
        for number in round:
            took = _medians(runs, calls)
            found |= {f"{case}(act={a},round={number})": took[a] / took["base"] for a in act}
    return found


def _medians(runs: dict[str, Callable[[], None]], calls: int) -> dict[str, float]:
    """The median seconds of a call of each."""
    spent: dict[str, list[float]] = {a: [] for a in runs}
    for _ in range(calls):
        for a in random.sample(list(runs), len(runs)):
            began = time.thread_time()
            runs[a]()
            spent[a].append(time.thread_time() - began)
    return {a: sorted(v)[calls // 2] for a, v in spent.items()}


def _named(act: Any) -> nn.Module:
    return activation("relu" if act == "base" else act)


def _operation(act: str, x: torch.Tensor, ones: torch.Tensor) -> Callable[[], None]:
    layer = _named(act)

    def run() -> None:
        torch.autograd.grad(layer(x), x, ones)

    return run


def _step(act: str, x: torch.Tensor, y: torch.Tensor) -> Callable[[], None]:
    layers: list[nn.Module] = []
    for _ in range(DEPTH):
        layers += [nn.Linear(NET, NET), _named(act)]
    net = nn.Sequential(*layers, nn.Linear(NET, 10))
    optimizer = torch.optim.SGD(net.parameters(), 0.01)

    def run() -> None:
        optimizer.zero_grad()
        nn.functional.cross_entropy(net(x), y).backward()
        optimizer.step()

    return run
