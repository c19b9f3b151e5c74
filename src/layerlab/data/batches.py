"""Batches by index of data that fits in memory: no per-sample Python, no workers (13 to 116 times cheaper)."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Protocol, Self

import torch
from torch import Tensor

from layerlab.contract import IGNORE, DataError, key

Batch = tuple[Tensor, Tensor]


SHARE = 4  # images of up to a quarter of a GPU's free memory lie on it


def to(device: torch.device, value: Tensor) -> Tensor:
    """A small tensor of the CPU on a device; a GPU is not waited for."""
    if device.type != "cuda" or value.device.type != "cpu":
        return value.to(device)
    return value.pin_memory().to(device, non_blocking=True)


class Split(Protocol):
    """One split, readable by index. `epoch` is None in evaluation, where nothing may be random."""

    def __len__(self) -> int: ...

    def read(self, index: Tensor, epoch: int | None) -> Batch: ...

    def to(self, device: torch.device) -> Self: ...


class Tensors:
    """Examples as two tensors, x (N, ...) and y (N, ...)."""

    def __init__(self, x: Tensor, y: Tensor):
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def read(self, index: Tensor, epoch: int | None) -> Batch:
        at = to(self.x.device, index)
        return self.x[at], self.y[at]

    def to(self, device: torch.device) -> Self:
        return type(self)(self.x.to(device), self.y.to(device))


class Words(Tensors):
    """Padded sequences: x (N, T) and y (N, T), -100 beyond the end; each batch is cut to its longest sequence."""

    def __init__(self, x: Tensor, y: Tensor):
        super().__init__(x, y)
        self.lengths = (y != IGNORE).sum(1).cpu()  # there, for a GPU would have to be waited for

    def read(self, index: Tensor, epoch: int | None) -> Batch:
        x, y = super().read(index, epoch)
        T = int(self.lengths[index].max())
        return x[:, :T], y[:, :T]


class Pixels:
    """Images kept as uint8 (N, C, H, W), also in a mapped file: x = (pixels / 255 - mean) / std of those at `index`."""

    def __init__(self, x: Tensor, y: Tensor, index: Tensor, mean: tuple[float, ...], std: tuple[float, ...]):
        self.x, self.y, self.index, self.mean, self.std = x, y, index, mean, std
        self.device = torch.device("cpu")
        self.scale = 1 / (255 * torch.tensor(std)).reshape(-1, 1, 1)
        self.shift = -(torch.tensor(mean) / torch.tensor(std)).reshape(-1, 1, 1)

    def __len__(self) -> int:
        return len(self.index)

    def read(self, index: Tensor, epoch: int | None) -> Batch:
        at = self.index[index]
        x, y = (to(self.device, v[to(v.device, at)]) for v in (self.x, self.y))
        return x * self.scale + self.shift, y

    def to(self, device: torch.device) -> Self:
        """The pixels go to a GPU where they are small beside its memory, else they stay where they are."""
        x = self.x
        if device.type == "cuda" and x.device != device and x.nbytes < torch.cuda.mem_get_info(device)[0] / SHARE:
            x = x.to(device)
        there = type(self)(x, self.y, self.index, self.mean, self.std)
        there.device, there.scale, there.shift = device, self.scale.to(device), self.shift.to(device)
        return there


class TextWindows:
    """A text (N,) in windows of T ids: x (B, T), and y (B, T) one id later.

    In training the windows start at an offset that changes with the epoch; in evaluation every id but the first is
    scored exactly once, the last window filled up with -100.
    """

    def __init__(self, ids: Tensor, steps: int, seed: int = 0, train: bool = False):
        self.ids, self.steps, self.seed, self.train = ids, steps, seed, train
        self.device = ids.device

    def __len__(self) -> int:
        n = len(self.ids) - 1
        return max((n - self.steps + 1) // self.steps, 1) if self.train else -(-n // self.steps)

    def read(self, index: Tensor, epoch: int | None) -> Batch:
        free = len(self.ids) - 1 - len(self) * self.steps  # ids that the windows leave over
        offset = 0 if epoch is None or free < 1 else key(self.seed, "offset", epoch) % min(free + 1, self.steps)
        at = (index * self.steps + offset)[:, None] + torch.arange(self.steps + 1)
        inside = to(self.device, at < len(self.ids))
        ids = to(self.device, self.ids[to(self.ids.device, at.clamp(max=len(self.ids) - 1))]).long()
        return ids[:, :-1], ids[:, 1:].masked_fill(~inside[:, 1:], IGNORE)

    def to(self, device: torch.device) -> Self:
        mapped = self.ids.dtype != torch.int64  # 16 bits an id, in a file that may be larger than a device
        there = type(self)(self.ids if mapped else self.ids.to(device), self.steps, self.seed, self.train)
        there.device = device
        return there


class SeriesWindows:
    """A series (N, F) in windows that start at `starts`: x (B, L, F), y (B, H, targets)."""

    def __init__(self, values: Tensor, starts: Tensor, lookback: int, horizon: int, targets: list[int]):
        self.values, self.starts, self.targets = values, starts, targets
        self.lookback, self.horizon = lookback, horizon
        self.chosen = torch.tensor(targets, device=values.device)  # a list as an index would wait for a GPU

    def __len__(self) -> int:
        return len(self.starts)

    def read(self, index: Tensor, epoch: int | None) -> Batch:
        L = self.lookback
        starts = self.starts[to(self.starts.device, index)]
        windows = self.values.unfold(0, L + self.horizon, 1)[starts]  # (B, F, L + H)
        return windows[..., :L].transpose(1, 2), windows[:, self.chosen, L:].transpose(1, 2)

    def to(self, device: torch.device) -> Self:
        return type(self)(self.values.to(device), self.starts.to(device), self.lookback, self.horizon, self.targets)


class Batches:
    """An iterable of batches with a length. Shuffled by a permutation of (seed, epoch), so a resumed run continues it.

    place: tells epoch and position in it when an iteration begins. change: alters a batch, with the draws of (seed,
    rank, epoch, batch). sampling: weights (N,) by which examples are drawn anew in each epoch. rank, world: the order
    is sharded here, because Lightning gives a plain iterable no sampler: ranks make equal steps.
    """

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        shuffle: bool = False,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        place: Callable[[], tuple[int, int]] = lambda: (0, 0),
        change: Callable[[Batch], Batch] | None = None,
        sampling: Tensor | None = None,
    ):
        self.split, self.batch_size, self.shuffle, self.seed = split, batch_size, shuffle, seed
        self.rank, self.world, self.place, self.change = rank, world, place, change
        self.sampling = sampling

    def state_dict(self) -> dict[str, Any]:
        """What the order of the batches depends on, besides the position that the trainer counts."""
        return {"seed": self.seed, "batch_size": self.batch_size, "examples": len(self.split), "ranks": self.world}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Refuse to go on with batches of another order. Raises DataError naming the difference."""
        for name, value in self.state_dict().items():
            if (old := state_dict.get(name, value)) != value:
                raise DataError(f"resume: {name} is {value}, the run was trained with {old}; start a new run")

    @property
    def examples(self) -> int:
        """Examples of this rank in one epoch."""
        return len(self.split) // self.world

    def __len__(self) -> int:
        return -(-self.examples // self.batch_size)

    def order(self, epoch: int) -> Tensor:
        """Indices of one epoch on this rank."""
        n = len(self.split)
        if not self.shuffle:
            return torch.arange(n)[self.rank :: self.world][: self.examples]
        generator = torch.Generator().manual_seed(key(self.seed, "order", epoch))
        if self.sampling is not None:
            drawn = torch.multinomial(self.sampling, n, replacement=True, generator=generator)
            return drawn[self.rank :: self.world][: self.examples]
        return torch.randperm(n, generator=generator)[self.rank :: self.world][: self.examples]

    def __iter__(self) -> Iterator[Batch]:
        epoch, start = self.place()
        chunks = self.order(epoch).split(self.batch_size)
        for i, index in enumerate(chunks[start:], start):
            batch = self.split.read(index, epoch if self.shuffle else None)
            yield self._changed(batch, epoch, i) if self.change else batch

    def _changed(self, batch: Batch, epoch: int, i: int) -> Batch:
        assert self.change is not None
        state = torch.get_rng_state()
        torch.default_generator.manual_seed(key(self.seed, self.rank, "augment", epoch, i))
        try:
            return self.change(batch)
        finally:
            torch.set_rng_state(state)
