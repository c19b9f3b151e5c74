"""The linear forecast, in closed form."""

from collections.abc import Iterable

import torch
from torch import Tensor, nn

from layerlab.contract import DataSpec
from layerlab.models.base import Batch, Model

STRENGTHS = (1e-4, 1e-2, 0.1, 1.0)  # of which val chooses


class Ridge(Model):
    """One matrix for all channels, (X'X + .01 s N I)^-1 X'Y in float64: (B, L, 1) -> (B, H).

    subtract_last: y - last from x - last, without an intercept; else y from x with one. The strength s is chosen on
    val; N rows are windows x channels. Source: Hoerl & Kennard 1970.
    """

    accepts, tasks, stages = ("series",), ("forecast",), ()
    raw_window = True
    weight: Tensor
    strength: Tensor

    def __init__(self, spec: DataSpec, subtract_last: bool = True):
        super().__init__(spec)
        self.subtract_last, self.head = subtract_last, nn.Identity()
        L, H = self.spec.shape[0], self.spec.out
        self.register_buffer("weight", torch.zeros(L + (not subtract_last), H, dtype=torch.float64))
        self.register_buffer("strength", torch.tensor(0.0, dtype=torch.float64))

    def _design(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Rows of X (B, L or L + 1) in float64, and what is added back to the answer (B, 1)."""
        x = x[..., 0].double()
        if self.subtract_last:
            return x - x[:, -1:], x[:, -1:]
        return torch.cat([x, torch.ones_like(x[:, :1])], 1), torch.zeros_like(x[:, :1])

    def solve(self, train: Iterable[Batch], val: Iterable[Batch]) -> None:
        """Accumulate X'X and X'Y over train, solve for every strength, keep the one with the smallest mse on val."""
        gram = torch.zeros(len(self.weight), len(self.weight), dtype=torch.float64, device=self.weight.device)
        cross, n = torch.zeros_like(self.weight), 0
        for x, y in train:
            X, offset = self._design(x)
            gram += X.T @ X
            cross += X.T @ (y.double() - offset)
            n += len(X)
        eye = torch.eye(len(gram), dtype=torch.float64, device=gram.device)
        weights = [torch.linalg.solve(gram + 0.01 * s * n * eye, cross) for s in STRENGTHS]
        errors = torch.zeros(len(STRENGTHS), dtype=torch.float64)
        for x, y in val:
            X, offset = self._design(x)
            for i, w in enumerate(weights):
                errors[i] += float(((X @ w + offset - y) ** 2).sum())
        best = int(errors.argmin())
        self.weight.copy_(weights[best])
        self.strength.fill_(STRENGTHS[best])

    def features(self, x: Tensor) -> Tensor:
        X, offset = self._design(x)
        return (X @ self.weight + offset).to(x.dtype)
