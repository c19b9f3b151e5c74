"""A bag of words: what was there, not where."""

from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Fraction
from layerlab.models.base import Model
from layerlab.nn import read


class BOW(Model):
    """Mean of the embeddings, then a small MLP: ids (B, T) -> (B, out); for next_token of all ids so far, (B, T, out).

    Source: the CBOW of Mikolov et al. 2013, arXiv 1301.3781, section 3.1.
    """

    accepts, tasks = ("tokens",), ("classify", "regress", "next_token")
    stages = (("embed", r"embed\."), ("body", r"body\."), ("head", r"head\."))

    def __init__(self, spec: DataSpec, width: Count = 128, dropout: Fraction = 0.0):
        super().__init__(spec)
        self.embed = read.Sequence(self.spec, width)
        self.body = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Dropout(dropout))
        self.head = nn.Linear(width, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        h = self.embed(x)  # (B, T, width)
        if self.spec.task == "next_token":
            h = h.cumsum(1) / h.new_ones(h.shape[1]).cumsum(0)[:, None]  # (B, T, width): mean of the steps up to t
        else:
            h = read.mean(h, self.mask(x))
        return self.body(h)
