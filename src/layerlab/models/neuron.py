"""One layer of neurons."""

from torch import Tensor, nn

from layerlab.contract import DataSpec
from layerlab.models.base import Model
from layerlab.nn import read


class Neuron(Model):
    """Weighted sums and a bias, one per output: anything, flattened, (B, ...) -> (B, out).

    With the loss of its task it is logistic regression (classify: the loss applies softmax or sigmoid) or linear
    regression (regress, forecast). Source: Rosenblatt 1958.
    """

    accepts, tasks = ("vector", "image", "series"), ("classify", "regress", "forecast")
    stages = (("head", r"head\."),)

    def __init__(self, spec: DataSpec):
        super().__init__(spec)
        self.read = read.Vector(self.spec)
        self.head = nn.Linear(self.read.size, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        return self.read(x)
