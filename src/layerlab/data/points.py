"""Points in the plane, made up: what a boundary is, and who can draw it."""

import math

import torch
from torch import Tensor

from layerlab.contract import Count, DataSpec, NonNegative, Size, key
from layerlab.data.base import Data, standardise
from layerlab.data.batches import Split, Tensors

COUNTS = {"train": 700, "val": 100, "test": 200}


class Points(Data):
    """Base of the plane sets: two features (B, 2), `noise` the std of what is added to each, split 700/100/200.

    A subclass draws. generator_seed makes another set, the same on every machine.
    """

    kind, tasks = "vector", ("classify",)
    set_name: str
    classes: tuple[str, ...] = ("0", "1")

    def __init__(self, batch_size: Count = 32, noise: NonNegative = 0.1, generator_seed: Size = 0):
        super().__init__(batch_size)
        self.noise, self.generator_seed = noise, generator_seed

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        """n points (n, 2) without noise, and their classes (n,)."""
        raise NotImplementedError

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        raw = {}
        for part, n in COUNTS.items():
            g = torch.Generator().manual_seed(key(self.generator_seed, self.set_name, part))
            x, y = self.draw(n, g)
            raw[part] = x + self.noise * torch.randn(n, 2, generator=g), y
        train, splits = raw["train"][0], {}
        for part, (x, y) in raw.items():
            x, mean, std = standardise(x, train, (0,), self.fitted)
            splits[part] = Tensors(x, y)
        spec = DataSpec(
            kind="vector",
            task="classify",
            shape=(2,),
            out=len(self.classes),
            name=self.set_name,
            classes=self.classes,
            channels=("x", "y"),
            mean=mean,
            std=std,
        )
        return spec, splits


class XOR(Points):
    """Four corners of a square; opposite ones are of a class: no line divides them (Minsky & Papert 1969)."""

    set_name = "xor"

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        corner = torch.randint(0, 2, (n, 2), generator=g)
        return corner.float(), corner[:, 0] ^ corner[:, 1]


class Moons(Points):
    """Two half circles that reach into each other."""

    set_name = "moons"

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        y = torch.randint(0, 2, (n,), generator=g)
        a = math.pi * torch.rand(n, generator=g)
        upper, lower = torch.stack([a.cos(), a.sin()], 1), torch.stack([1 - a.cos(), 0.5 - a.sin()], 1)
        return torch.where(y[:, None] == 0, upper, lower), y


class Spirals(Points):
    """Two spirals around each other, one turn and a half each (after Lang & Witbrock 1988)."""

    set_name = "spirals"

    def __init__(self, batch_size: Count = 32, noise: NonNegative = 0.02, generator_seed: Size = 0):
        super().__init__(batch_size, noise, generator_seed)

    def draw(self, n: int, g: torch.Generator) -> tuple[Tensor, Tensor]:
        y = torch.randint(0, 2, (n,), generator=g)
        r = torch.rand(n, generator=g).sqrt()  # dense outside as inside
        a = 3 * math.pi * r + math.pi * y
        return r[:, None] * torch.stack([a.cos(), a.sin()], 1), y
