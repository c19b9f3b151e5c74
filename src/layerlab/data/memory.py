"""Made-up sequences whose answer depends on something seen before."""

from typing import Annotated, Literal

import torch
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec, Size, key
from layerlab.data.base import Data
from layerlab.data.batches import Split, Tensors

COUNTS = {"train": 20_000, "val": 1_000, "test": 2_000}


class Memory(Data):
    """Base of the made-up sequences: 20,000 train, 1,000 val, 2,000 test; generator_seed makes another set."""

    def __init__(self, batch_size: Count, generator_seed: Size):
        super().__init__(batch_size)
        self.generator_seed = generator_seed

    def facts(self) -> DataSpec:
        """What the examples look like."""
        raise NotImplementedError

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """n examples x, and their answers y."""
        raise NotImplementedError

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        spec = self.facts()
        return spec, {
            part: Tensors(*self.draw(n, torch.Generator().manual_seed(key(self.generator_seed, spec.name, part))))
            for part, n in COUNTS.items()
        }


class CopyTask(Memory):
    """Which letter stood before the last `lag`? Ids (steps,) -> one of 8; guessing is right once in 8.

    One of A to H, then `lag` of eight other letters, then `?`. steps `auto`: lag + 2, the letter is the first token;
    longer sequences begin with other letters. Source: after Hochreiter & Schmidhuber 1997, experiment 2.
    Raises DataError where the lag is longer than the sequence.
    """

    kind, tasks = "tokens", ("classify",)

    def __init__(
        self,
        batch_size: Count = 64,
        lag: Count = 50,
        steps: Count | Literal["auto"] = "auto",
        generator_seed: Size = 0,
    ):
        super().__init__(batch_size, generator_seed)
        self.lag, self.steps = lag, lag + 2 if steps == "auto" else steps
        if self.steps < lag + 2:
            raise DataError(
                f"data.lag={lag}: longer than the sequence of data.steps={steps}; give data.steps={lag + 2} or more"
            )

    def facts(self) -> DataSpec:
        return DataSpec(
            kind="tokens",
            task="classify",
            shape=(self.steps,),
            out=8,
            name="copy_task",
            classes=tuple("ABCDEFGH"),
            vocabulary=tuple("ABCDEFGHabcdefgh?"),
        )

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        x = torch.randint(8, 16, (n, self.steps), generator=g)
        y = torch.randint(0, 8, (n,), generator=g)
        x[:, -self.lag - 2], x[:, -1] = y, 16
        return x, y


class Lookup(Memory):
    """Pairs of a key and a value, then one of the keys: which value? Ids (2 pairs + 1,) -> one of `symbols`.

    Each pair is one token of a key, then one of a value; the keys of a sequence are distinct. Guessing among the
    values is right about once in `symbols`, more often where values repeat. Source: the associative recall of Graves et
    al. 2014, arXiv 1410.5401, with single symbols.
    """

    kind, tasks = "tokens", ("classify",)

    def __init__(
        self,
        batch_size: Count = 64,
        pairs: Count = 6,
        symbols: Annotated[int, ">= 2", "<= 26"] = 10,
        generator_seed: Size = 0,
    ):
        super().__init__(batch_size, generator_seed)
        self.pairs, self.symbols = pairs, symbols
        if pairs > symbols:
            raise DataError(f"data.pairs={pairs}: needs as many keys, data.symbols={symbols} (at most 26)")

    def facts(self) -> DataSpec:
        values = tuple(str(i) for i in range(self.symbols))
        keys = tuple("abcdefghijklmnopqrstuvwxyz"[: self.symbols])
        return DataSpec(
            kind="tokens",
            task="classify",
            shape=(2 * self.pairs + 1,),
            out=self.symbols,
            name="lookup",
            classes=values,
            vocabulary=keys + values,
        )

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        keys = torch.rand(n, self.symbols, generator=g).argsort(1)[:, : self.pairs]  # distinct in each row
        values = torch.randint(0, self.symbols, (n, self.pairs), generator=g)
        asked = torch.randint(0, self.pairs, (n, 1), generator=g)
        pairs = torch.stack([keys, values + self.symbols], 2).flatten(1)  # (n, pairs, 2) -> k v k v ...
        return torch.cat([pairs, keys.gather(1, asked)], 1), values.gather(1, asked).squeeze(1)


class Adding(Memory):
    """The sum of the two marked numbers: series (steps, 2) of numbers in [0, 1) and marks -> one number.

    One mark stands in each half. mse .167 is what guessing 1 always gives, the variance of two uniform numbers.
    Source: Hochreiter & Schmidhuber 1997, experiment 4, as in Le et al. 2015.
    """

    kind, tasks = "series", ("regress",)

    def __init__(self, batch_size: Count = 64, steps: Annotated[int, ">= 2"] = 100, generator_seed: Size = 0):
        super().__init__(batch_size, generator_seed)
        self.steps = steps

    def facts(self) -> DataSpec:
        return DataSpec(
            kind="series",
            task="regress",
            shape=(self.steps, 2),
            out=1,
            name="adding",
            channels=("number", "mark"),
            target=("sum",),
            target_mean=(0.0,),
            target_std=(1.0,),
        )

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        half = self.steps // 2
        numbers, marks = torch.rand(n, self.steps, generator=g), torch.zeros(n, self.steps)
        first = torch.randint(0, half, (n, 1), generator=g)
        second = torch.randint(half, self.steps, (n, 1), generator=g)
        marks.scatter_(1, torch.cat([first, second], 1), 1.0)
        return torch.stack([numbers, marks], 2), (numbers * marks).sum(1, keepdim=True)
