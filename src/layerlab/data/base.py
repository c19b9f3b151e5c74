"""The one LightningDataModule that every source of data inherits."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from hashlib import blake2b
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from lightning.pytorch import LightningDataModule
from torch import Tensor

from layerlab.contract import DataError, DataSpec, Kind, TaskName, key
from layerlab.data.batches import Batch, Batches, Split, Tensors
from layerlab.data.split import folded, shares, stratified

PIECE = 1 << 16  # examples that are hashed at a time: a mapped file may be larger than memory
LOOKED_AT = 100_000  # training examples up to which copies among them are looked for
EVAL_EXAMPLES = 1024  # per evaluation batch where examples are small; never fewer than the training batch


class Data(LightningDataModule):
    """Base of all sources: `load()` gives the spec and the splits, everything else stands here.

    Fixed splits `train`, `val`, `test`; scalers and vocabularies come from `train` alone. Batches are `(x, y)` as the
    spec says. `seed` keys the order of the training batches and is set by the run.
    """

    kind: ClassVar[Kind]
    carved: ClassVar[bool] = False  # val is cut out of the published training part: counts that choose nothing use both
    tasks: ClassVar[tuple[TaskName, ...]]
    encoding: ClassVar[tuple[str, ...]] = ()  # options that say what x means beyond its shape: eval keeps the run's

    def __init__(self, batch_size: int):
        super().__init__()
        self.batch_size = batch_size
        self.seed = 0
        self.augment: list[Callable[[Batch], Batch]] = []  # of the training batches, in this order; set by the run
        self.sampling: Tensor | None = None  # weight by which each training example is drawn; None: each once an epoch
        self.notes: tuple[str, ...] = ()  # what a user should know of the files, nothing cut off; set by load
        self.fitted: DataSpec | None = None  # of the run whose scaler and vocabulary are used instead of our own
        self._loaded: tuple[DataSpec, dict[str, Split]] | None = None

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        """The spec, and `train`, `val`, `test` by name. Raises DataError where the source cannot be used."""
        raise NotImplementedError

    def setup(self, stage: str | None = None) -> None:
        """Load once; later calls cost nothing."""
        self._load_once()

    def _load_once(self) -> tuple[DataSpec, dict[str, Split]]:
        if self._loaded is None:
            self._loaded = self.load()
        return self._loaded

    @property
    def spec(self) -> DataSpec:
        """What every batch looks like."""
        return self._load_once()[0]

    @property
    def splits(self) -> dict[str, Split]:
        """The splits by name."""
        return self._load_once()[1]

    def train_dataloader(self) -> Batches:
        """Shuffled anew in every epoch, by (seed, epoch); each rank sees its own share."""
        if (trainer := self.trainer) is None:
            return self.train_batches(lambda: (0, 0))
        shuffle = not trainer.overfit_batches  # ty: ignore[missing-attribute]  (set by a connector)
        return self.train_batches(partial(_place, trainer), shuffle, trainer.global_rank, trainer.world_size)

    def train_batches(
        self, place: Callable[[], tuple[int, int]], shuffle: bool = True, rank: int = 0, world: int = 1
    ) -> Batches:
        """The training split; `place` tells epoch and batch at which an iteration begins."""
        split = self._resident("train")
        change = self._augmented if self.augment else None
        return Batches(
            split,
            self.batch_size,
            shuffle=shuffle,
            seed=self.seed,
            rank=rank,
            world=world,
            place=place,
            change=change,
            sampling=self.sampling,
        )

    def _augmented(self, batch: Batch) -> Batch:
        for change in self.augment:
            batch = change(batch)
        return batch

    def val_dataloader(self) -> Batches:
        return self.batches("val")

    def test_dataloader(self) -> Batches:
        return self.batches("test")

    def batches(self, split: str) -> Batches:
        """A split in order, every example once. Under DDP every rank reads all of it: exact, with nothing to gather."""
        return Batches(self._resident(split), max(self.batch_size, self.eval_batch_size))

    @property
    def eval_batch_size(self) -> int:
        """Examples per evaluation batch: at most about 2^18 numbers of x."""
        return max(1, min(EVAL_EXAMPLES, 2**18 // int(torch.tensor(self.spec.shape).prod())))

    def _resident(self, name: str) -> Split:
        split = self.splits[name]
        return split.to(self.trainer.strategy.root_device) if self.trainer else split

    # --- new inputs, for predict: uses what was fitted on the training part and nothing else

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        """x for new inputs in a file or folder, and a name for each row; None: what comes after the data itself.

        Raises DataError where that is not possible.
        """
        raise DataError(f"input={path}: data={self.spec.name} cannot read new inputs from a file")

    def state_dict(self) -> dict[str, Any]:
        """What was fitted on the training part, as plain values; lies in every checkpoint."""
        return {"spec": self.spec.to_dict()}

    def take_over(self, state_dict: dict[str, Any]) -> None:
        """Read this data with what another was fitted to: its scaler and its vocabulary. Call it before `spec`."""
        self.fitted = DataSpec.coerce(state_dict["spec"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what was fitted, without loading the training data."""
        if self._loaded is None:
            self._loaded = DataSpec.coerce(state_dict["spec"]), {}

    def shared_with_training(self, part: str = "test") -> list[int]:
        """Which examples of a part are, number for number, those of a training example; of what fits in memory."""
        train, own = (self.splits.get(p) for p in ("train", part))
        if not (isinstance(train, Tensors) and isinstance(own, Tensors)) or len(train) > LOOKED_AT:
            return []
        rows = {row.numpy().tobytes() for row in train.x}
        return [i for i, row in enumerate(own.x) if row.numpy().tobytes() in rows]

    def fingerprint(self) -> str:
        """Sixteen hexadecimal digits that stand for every number of every split."""
        digest, seen = blake2b(digest_size=8), set()
        for name, split in sorted(self.splits.items()):
            digest.update(name.encode())
            for value in vars(split).values():
                if isinstance(value, Tensor) and (where := (value.data_ptr(), value.shape)) not in seen:
                    seen.add(where)  # the splits of a mapped file share it
                    for piece in value.split(PIECE) if value.ndim else [value]:
                        digest.update(piece.contiguous().numpy().data)
        return digest.hexdigest()


class Drawn(Data):
    """Base of the sources that draw their split: by shares with split_seed, or the fold-th of `folds` parts as test.

    folds 0: shares. train_size: of the training part only so many, drawn with split_seed, each class with its share
    where there is one for each.
    Raises DataError for a fold that there is not.
    """

    def __init__(self, batch_size: int, split_seed: int, folds: int, fold: int, train_size: int | None = None):
        super().__init__(batch_size)
        self.split_seed, self.folds, self.fold, self.train_size = split_seed, folds, fold, train_size
        if folds == 1 or (folds and fold >= folds):
            raise DataError(f"data.folds={folds}, data.fold={fold}: give two folds or more, and a fold from 0 up")
        if fold and not folds:
            raise DataError(f"data.fold={fold}: without effect; give data.folds= too")

    def parts(self, y: np.ndarray) -> dict[str, np.ndarray]:
        """Indices of train, val and test for labels y (N,), or targets (N, ...)."""
        found = folded(y, self.split_seed, self.folds, self.fold) if self.folds else stratified(y, self.split_seed)
        return self.fewer(found, y)

    def fewer(self, parts: dict[str, np.ndarray], y: np.ndarray) -> dict[str, np.ndarray]:
        """The same with train_size training examples. Raises DataError where there are not so many."""
        if self.train_size is None:
            return parts
        train = parts["train"]
        if self.train_size >= len(train):
            raise DataError(f"data.train_size={self.train_size}: there are {len(train)}; give fewer, or null for all")
        _, own = shares(y[train], self.train_size / len(train), self.split_seed)
        return parts | {"train": train[own]}


def _place(trainer: Any) -> tuple[int, int]:
    """Epoch and batch at which training goes on, from the trainer's own count (guarded by test_lightning_contract)."""
    done = trainer.fit_loop.epoch_loop.batch_progress.total.ready
    return divmod(done, int(trainer.num_training_batches))


def standardise(
    x: Tensor, train: Tensor, dims: tuple[int, ...], fitted: DataSpec | None = None
) -> tuple[Tensor, tuple[float, ...], tuple[float, ...]]:
    """(x - mean) / std with the statistics of `train` over `dims`, and both; a constant feature keeps std 1.

    fitted: a spec whose statistics are used instead.
    """
    mean, std = train.mean(dims, keepdim=True), train.std(dims, keepdim=True, correction=0)
    if fitted:
        mean, std = torch.tensor(fitted.mean).reshape(mean.shape), torch.tensor(fitted.std).reshape(std.shape)
    std = torch.where(std > 0, std, torch.ones_like(std))
    return (x - mean) / std, tuple(mean.flatten().tolist()), tuple(std.flatten().tolist())


def shuffled(y: Tensor, index: np.ndarray, seed: int) -> Tensor:
    """Labels y (N,) of which those at `index` have changed places among each other: nothing can be learnt from them."""
    generator = torch.Generator().manual_seed(key(seed, "labels"))
    own = torch.from_numpy(index)
    return y.index_put((own,), y[own[torch.randperm(len(own), generator=generator)]])
