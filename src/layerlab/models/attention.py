"""A lookup table: queries, keys and values."""

from torch import Tensor, nn

from layerlab.contract import Count, DataSpec, Size
from layerlab.models.base import Model
from layerlab.nn import attention, read, recurrent
from layerlab.nn.attention import Position, Positions


class Attention(Model):
    """One head of attention and nothing else: sequences -> (B, out), or (B, T, out) for next_token.

    Every step asks all others (those before it, for next_token); the last one answers for the sequence. There is no
    residual and no MLP: what the head reads was looked up. scale: divide the scores by sqrt(width). patch: cuts an
    image into square patches as steps; 0 = its rows. Source: Vaswani et al. 2017, eq. 1.
    """

    accepts, tasks = ("image", "tokens", "series"), ("classify", "regress", "next_token", "forecast")
    stages = (("embed", r"(embed|position)\."), ("body", r"body\."), ("head", r"head\."))

    def __init__(
        self, spec: DataSpec, width: Count = 64, scale: bool = True, position: Position = "learned", patch: Size = 0
    ):
        super().__init__(spec)
        self.embed = read.Sequence(self.spec, width, patch)
        self.position = Positions(position, self.embed.steps, width)
        self.body = attention.Attention(width, 1, causal=self.spec.task == "next_token", scaled=scale)
        self.head = nn.Linear(width, self.spec.out)

    def features(self, x: Tensor) -> Tensor:
        mask = None if self.spec.task == "next_token" else self.mask(x)
        h = self.body(self.position(self.embed(x)), mask, self.position.turn)  # (B, T, width)
        return recurrent.states(h, self.spec.task, mask)

    def attention(self, x: Tensor) -> list[Tensor]:
        """Attention weights for a batch: (B, ...) -> one tensor (B, 1, T, T), rows sum to 1."""
        return attention.weights_of(self, x)
