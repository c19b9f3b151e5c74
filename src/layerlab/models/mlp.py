"""Layers of neurons in a row."""

from torch import Tensor, nn
from torch.nn import functional as F

from layerlab.contract import Count, DataSpec, Fraction, Size
from layerlab.models.base import Model
from layerlab.nn import read
from layerlab.nn.activation import Activation, activation


class MLP(Model):
    """Multilayer perceptron: anything, flattened, (B, ...) -> (B, out).

    For next_token it reads the last `context` ids at every position, (B, T) -> (B, T, out): Bengio et al. 2003.
    depth: hidden layers, 0 = one linear map. embed and context belong to next_token alone.
    """

    accepts, tasks = ("vector", "image", "tokens", "series"), ("classify", "regress", "next_token", "forecast")
    stages = (("embed", r"embed\."), ("body", r"body\."), ("head", r"head\."))

    def __init__(
        self,
        spec: DataSpec,
        width: Count = 128,
        depth: Size = 2,
        activation: Activation = "relu",
        dropout: Fraction = 0.0,
        embed: Count = 32,
        context: Count = 8,
    ):
        super().__init__(spec)
        self.context = context if self.spec.task == "next_token" else 0
        if not self.context and (embed, context) != (32, 8):  # the defaults: an option without effect is an error
            raise ValueError(
                f"model.context={context} model.embed={embed}: have an effect on next_token alone; leave them out"
            )
        if self.context:
            self.embed = nn.Embedding(len(self.spec.vocabulary) + 1, embed)  # + 1: before the beginning
            size = context * embed
        else:
            self.embed = read.Vector(self.spec)
            size = self.embed.size
        layers = [_hidden(size if i == 0 else width, width, activation, dropout) for i in range(depth)]
        self.body = nn.Sequential(*layers)
        self.head = nn.Linear(width if depth else size, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        if self.context:
            x = F.pad(x, (self.context - 1, 0), value=len(self.spec.vocabulary))  # (B, T) -> (B, T + context - 1)
            x = self.embed(x.unfold(1, self.context, 1)).flatten(2)  # (B, T, context, E) -> (B, T, context E)
        else:
            x = self.embed(x)
        return self.body(x)


def _hidden(size: int, width: int, name: Activation, dropout: float) -> nn.Sequential:
    return nn.Sequential(nn.Linear(size, width), activation(name), nn.Dropout(dropout))
