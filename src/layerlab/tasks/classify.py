"""Which class? Cross-entropy for one of C, binary cross-entropy with logits for yes/no and for several at once."""

from typing import Any, Literal

import torch
from torch import Tensor
from torch.nn import functional as F
from torchmetrics.functional import classification as tm

from layerlab.contract import DataSpec, Fraction, Mismatch
from layerlab.tasks.base import Task, sums


class Classify(Task):
    """Logits (B, C) against class ids (B,); binary: (B, 1) against 0 and 1; multilabel: (B, C) against (B, C).

    Mixed images come with shares of the classes (B, C) in place of ids; acc then asks for the largest share.

    labels: `multiclass` minimises cross-entropy; `binary` one sigmoid output with BCE-with-logits; `multilabel`
    one sigmoid output per class. label_smoothing: share of the target spread over all classes (Szegedy et al. 2016).
    before_loss: `softmax` takes it before a loss that takes it again, a classic mistake to be seen at work;
    `log_softmax` does the same and changes nothing.
    Classes weigh in the loss as the spec says. Reported: acc (of labels, for multilabel), nll in nats per example, loss
    (equal to nll without smoothing and weights).
    """

    name, monitor, mode = "classify", "val/acc", "max"
    further = ("f1", "balanced_acc", "auroc", "ece")

    def __init__(
        self,
        spec: DataSpec | dict[str, Any],
        labels: Literal["multiclass", "binary", "multilabel"] = "multiclass",
        label_smoothing: Fraction = 0.0,
        before_loss: Literal["none", "softmax", "log_softmax"] = "none",
    ):
        super().__init__(spec, labels=labels, label_smoothing=label_smoothing, before_loss=before_loss)
        self.labels, self.label_smoothing, self.before_loss = labels, label_smoothing, before_loss
        if before_loss != "none" and labels != "multiclass":
            raise Mismatch(f"task.before_loss={before_loss}: has no effect on task.labels={labels}; leave it out")
        several = len(self.spec.target) > 1
        if several and labels != "multilabel":
            raise Mismatch(
                f"task.labels={labels}: data={self.spec.name} has {self.spec.out} labels per example; "
                f"use task.labels=multilabel"
            )
        if labels == "multilabel" and not several:
            raise Mismatch(f"task.labels=multilabel: data={self.spec.name} has one class per example; use multiclass")
        if labels == "binary" and self.spec.out != 2:
            raise Mismatch(f"task.labels=binary: data={self.spec.name} has {self.spec.out} classes; use multiclass")

    @property
    def model_spec(self) -> DataSpec:
        return self.spec.replace(out=1) if self.labels == "binary" else self.spec

    def measure(self, out: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        if self.before_loss != "none":
            out = out.softmax(1) if self.before_loss == "softmax" else out.log_softmax(1)
        nll = self._loss(out, y, 0.0, weighted=False)
        plain = not self.label_smoothing and not self.spec.class_weights
        loss = nll if plain else self._loss(out, y, self.label_smoothing)
        n = len(y)
        return loss, sums(loss * n, nll * n, self._correct(out, y), n)

    def _loss(self, out: Tensor, y: Tensor, smoothing: float, weighted: bool = True) -> Tensor:
        weights = None
        if weighted and self.spec.class_weights:  # they are 1 on average over the training examples
            weights = torch.tensor(self.spec.class_weights, device=out.device, dtype=out.dtype)
        if self.labels == "multiclass":
            if weights is None:
                return F.cross_entropy(out, y, label_smoothing=smoothing)
            return F.cross_entropy(out, y, weights, label_smoothing=smoothing, reduction="none").mean()
        target = y.reshape(out.shape).to(out.dtype)  # (B,) -> (B, 1) for binary
        each = None if weights is None else weights[target.long()]
        return F.binary_cross_entropy_with_logits(out, target * (1 - smoothing) + smoothing / 2, each)

    def _correct(self, out: Tensor, y: Tensor) -> Tensor:
        if self.labels == "multiclass":
            return (out.argmax(1) == (y if y.ndim == 1 else y.argmax(1))).sum()
        return ((out > 0) == y.reshape(out.shape).bool()).to(out.dtype).mean(1).sum()

    def report(self, sums: list[float]) -> dict[str, float]:
        loss, nll, correct, n = sums
        return {"loss": loss / n, "nll": nll / n, "acc": correct / n}

    def metrics(self, out: Tensor, y: Tensor) -> dict[str, float]:
        C = self.spec.out
        if self.labels == "multiclass":
            p = out.softmax(1)
            found = {
                "f1": tm.multiclass_f1_score(p, y, average="macro", num_classes=C),
                "balanced_acc": tm.multiclass_recall(p, y, average="none", num_classes=C)[y.unique()].mean(),
                "ece": tm.multiclass_calibration_error(p, y, num_classes=C),  # Guo et al. 2017, 15 bins
            }
        elif self.labels == "binary":
            p, target = out.sigmoid().flatten(), y.flatten()
            found = {
                "f1": tm.binary_f1_score(p, target),
                "auroc": tm.binary_auroc(p, target),
                "ece": tm.binary_calibration_error(p, target),
            }
        else:
            found = {"f1": tm.multilabel_f1_score(out.sigmoid(), y.long(), average="macro", num_labels=C)}
        return {name: float(value) for name, value in found.items()}

    def probabilities(self, out: Tensor) -> Tensor:
        """(B, C) probabilities of each class; for multilabel of each label by itself."""
        if self.labels == "multiclass":
            return out.softmax(1)
        p = out.sigmoid()
        return torch.cat([1 - p, p], 1) if self.labels == "binary" else p
