"""Rows of numbers and categories: a csv of your own, or three sets of the scikit-learn wheel."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from layerlab.contract import Count, DataError, DataSpec, Size
from layerlab.data import cells
from layerlab.data.base import Drawn
from layerlab.data.batches import Split, Tensors


class Table(Drawn):
    """Predict `target` from the other columns; numbers z-scored, categories one-hot; 70/10/20 drawn with split_seed.

    name: breast_cancer | wine (classify), diabetes (regress; add task=regress). path and target: a csv of your own;
    several targets of 0 and 1 are labels of their own (task.labels=multilabel). values: whether the target is a
    `class` or a `number`; `auto` takes numbers with more than 20 different values as a number. columns: the features,
    [] = all others. fill: `mean` for empty numbers (of the training rows), null refuses them.
    """

    kind, tasks = "vector", ("classify", "regress")

    def __init__(
        self,
        batch_size: Count = 8,
        name: Literal["breast_cancer", "wine", "diabetes"] = "breast_cancer",
        path: str | None = None,
        target: str | list[str] | None = None,
        columns: Sequence[str] = (),
        values: Literal["auto", "class", "number"] = "auto",
        fill: Literal["mean"] | None = None,
        split_seed: Size = 0,
        folds: Size = 0,
        fold: Size = 0,
    ):
        super().__init__(batch_size, split_seed, folds, fold)
        if path and not target:
            raise DataError("data.target=null: which column is to be predicted? give data.target=COLUMN")
        if target and not path:
            raise DataError(f"data.target={target!r}: belongs to a csv of your own; give data.path=, or leave it out")
        self.set, self.path, self.fill = name, path, fill
        self.target = [target] if isinstance(target, str) else list(target or ())
        self.columns, self.values = list(columns), values
        self.encoder: list[tuple[str, Any]] = []  # (column, its mean and std, or its categories)

    def load(self) -> tuple[DataSpec, dict[str, Split]]:
        return self._own() if self.path else self._embedded()

    def _embedded(self) -> tuple[DataSpec, dict[str, Split]]:
        from sklearn import datasets

        raw = getattr(datasets, f"load_{self.set}")()
        names = [str(n) for n in raw.feature_names]
        labels = raw.target if self.set != "diabetes" else raw.target.astype(np.float64)[:, None]
        parts = self.parts(labels)
        self.encoder = [(n, _fit_number(raw.data[parts["train"], i])) for i, n in enumerate(names)]
        x = np.stack([_scale(raw.data[:, i], e) for i, (_, e) in enumerate(self.encoder)], 1)
        classes = [] if self.set == "diabetes" else [str(c) for c in raw.target_names]
        return self._finish(x, labels, parts, classes, ["progression"] if not classes else [], self.set)

    def _own(self) -> tuple[DataSpec, dict[str, Split]]:
        path = str(self.path)
        frame = cells.read(path)
        targets = [cells.column(frame, t, "data.target", path) for t in self.target]
        columns = [cells.column(frame, c, "data.columns", path) for c in self.columns]
        if self.encoder:
            columns = [cells.column(frame, c, "data.columns", path) for c, _ in self.encoder]
        columns = columns or [c for c in frame.columns if c not in targets]
        if both := set(columns) & set(targets):
            raise DataError(f"data.columns: {sorted(both)[0]!r} is the target; leave it out of the features")
        labels, classes = self._labels(frame, targets)
        if len(frame) < 10:
            raise DataError(f"{Path(path).name}: {len(frame)} rows are too few to split into train, val and test")
        parts = self.parts(labels)
        self.encoder = self.encoder or [self._fit(frame, c, parts["train"]) for c in columns]
        x = np.concatenate([self._encode_column(frame, c, e, path) for c, e in self.encoder], 1)
        return self._finish(x, labels, parts, classes, targets if not classes else [], Path(path).stem)

    def _labels(self, frame: Any, targets: list[str]) -> tuple[np.ndarray, list[str]]:
        path = str(self.path)
        if len(targets) > 1 and self.values != "number":
            y = np.stack([cells.numbers(frame, t, path, None) for t in targets], 1)
            if np.isin(y, (0, 1)).all():
                return y, targets
        distinct = max(frame[t].nunique() for t in targets)
        numeric = all(cells.is_numeric(frame, t) for t in targets)
        auto = self.fitted.task == "regress" if self.fitted else numeric and distinct > 20
        if self.values == "number" or (self.values == "auto" and auto):
            return np.stack([cells.numbers(frame, t, path, None) for t in targets], 1), []
        if len(targets) > 1:
            raise DataError(f"data.target={targets}: several targets must all be numbers, or all labels of 0 and 1")
        texts = frame[targets[0]]
        if (empty := texts.str.lower().isin(cells.EMPTY)).any():
            row = frame.index[int(np.flatnonzero(empty)[0])]
            raise DataError(f'{Path(path).name} row {row} column "{targets[0]}": empty target; remove the row')
        if self.fitted:
            classes = list(self.fitted.classes)
            if (other := ~texts.isin(classes)).any():
                row = frame.index[int(np.flatnonzero(other)[0])]
                raise DataError(
                    f'{Path(path).name} row {row} column "{targets[0]}": {texts[row]!r} is none of the classes '
                    f"{', '.join(classes)}"
                )
            return texts.map({c: i for i, c in enumerate(classes)}).to_numpy().astype(np.int64), classes
        classes = sorted(texts.unique(), key=lambda t: (float(t), t) if numeric else (0.0, t))
        if len(classes) < 2:
            raise DataError(
                f'{Path(path).name} column "{targets[0]}": one class only ({classes[0]!r}); nothing to learn'
            )
        return texts.map({c: i for i, c in enumerate(classes)}).to_numpy().astype(np.int64), classes

    def _fit(self, frame: Any, column: str, train: np.ndarray) -> tuple[str, Any]:
        if cells.is_numeric(frame, column):
            values = cells.numbers(frame, column, str(self.path), self.fill)
            given = ~frame[column].str.lower().isin(cells.EMPTY).to_numpy()
            return column, _fit_number(values[train][given[train]])
        return column, sorted(frame[column].iloc[train].unique())

    def _encode_column(self, frame: Any, column: str, how: Any, path: str) -> np.ndarray:
        """(N, 1) z-scores of a number, (N, categories) of a category."""
        if isinstance(how, dict):
            empty = frame[column].str.lower().isin(cells.EMPTY).to_numpy()
            values = cells.numbers(frame, column, path, self.fill)
            if self.fill == "mean":
                values = np.where(empty, how["mean"], values)  # the mean of the training rows, not of all
            return _scale(values, how)[:, None]
        # a category that no training row has: all zeros, as if none were known
        return np.stack([(frame[column] == c).to_numpy() for c in how], 1).astype(np.float64)

    def _finish(
        self,
        x: np.ndarray,
        y: np.ndarray,
        parts: dict[str, np.ndarray],
        classes: list[str],
        targets: list[str],
        name: str,
    ) -> tuple[DataSpec, dict[str, Split]]:
        facts: dict[str, Any] = {"task": "classify", "out": len(classes), "classes": tuple(classes)}
        if not classes:
            mean, std = y[parts["train"]].mean(0), y[parts["train"]].std(0)
            if self.fitted:
                mean, std = np.array(self.fitted.target_mean), np.array(self.fitted.target_std)
            if (std == 0).any():
                raise DataError(f"data={name}: the target is constant in the training rows; nothing to learn")
            y = (y - mean) / std
            facts = {"task": "regress", "out": y.shape[1], "target": tuple(targets)}
            facts |= {"target_mean": tuple(mean.tolist()), "target_std": tuple(std.tolist())}
        elif y.ndim == 2:
            facts["target"] = tuple(classes)  # one label each: multilabel
        spec = DataSpec(kind="vector", shape=(x.shape[1],), name=name, channels=self._features(), **facts)
        xs = torch.tensor(x, dtype=torch.float32)
        ys = torch.tensor(y, dtype=torch.float32 if y.ndim == 2 else torch.int64)
        return spec, {part: Tensors(xs[i], ys[i]) for part, i in parts.items()}

    def _features(self) -> tuple[str, ...]:
        return tuple(n for c, e in self.encoder for n in ([c] if isinstance(e, dict) else [f"{c}={v}" for v in e]))

    def encode(self, path: Path | None) -> tuple[Tensor, list[str]]:
        """Rows of a csv with the same columns, encoded as in training: (N, F), named by their row."""
        if path is None:
            raise DataError("input: missing; give input=PATH of a csv with the same columns")
        frame = cells.read(str(path), "input")
        for c, _ in self.encoder:
            cells.column(frame, c, "input", str(path))
        x = np.concatenate([self._encode_column(frame, c, e, str(path)) for c, e in self.encoder], 1)
        return torch.tensor(x, dtype=torch.float32), [f"row {i}" for i in frame.index]

    def state_dict(self) -> dict[str, Any]:
        return super().state_dict() | {"encoder": [list(pair) for pair in self.encoder]}

    def take_over(self, state_dict: dict[str, Any]) -> None:
        super().take_over(state_dict)
        self.encoder = [(c, e) for c, e in state_dict["encoder"]]

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.encoder = [(c, e) for c, e in state_dict["encoder"]]


def _fit_number(values: np.ndarray) -> dict[str, float]:
    return {"mean": float(values.mean()), "std": float(values.std()) or 1.0}


def _scale(values: np.ndarray, how: dict[str, float]) -> np.ndarray:
    return (values - how["mean"]) / how["std"]
