"""One table of logits: what follows which symbol, trained."""

from torch import Tensor, nn

from layerlab.contract import DataSpec
from layerlab.models.base import Model


class Bigram(Model):
    """Row of the last id in a trained V x V table: ids (B, T) -> logits (B, T, V). Source: Shannon 1948."""

    accepts, tasks = ("tokens",), ("next_token",)
    stages = (("head", r"head\."),)

    def __init__(self, spec: DataSpec):
        super().__init__(spec)
        V = len(self.spec.vocabulary)
        self.head = nn.Embedding(V, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        return x
