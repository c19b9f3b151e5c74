"""Tomorrow will be as the same day of the last season."""

from typing import Literal

import torch
from torch import Tensor, nn

from layerlab.contract import Count, DataSpec
from layerlab.models.base import Model


class SeasonalNaive(Model):
    """Repeats the last `season` steps over the horizon: (B, L, 1) -> (B, H). season `auto`: that of the data.

    Raises ValueError where the data names no season or the window is shorter than one.
    """

    accepts, tasks, stages = ("series",), ("forecast",), ()
    raw_window = True

    def __init__(self, spec: DataSpec, season: Count | Literal["auto"] = "auto"):
        super().__init__(spec)
        m, L = self.spec.season if season == "auto" else season, self.spec.shape[0]
        if m == 0:
            raise ValueError("model.season=auto: the data names no season; give model.season or data.season in steps")
        if m > L:
            raise ValueError(f"model.season={m}: longer than data.lookback={L}; make data.lookback at least {m}")
        self.head = nn.Identity()
        self.at = [L - m + h % m for h in range(self.spec.out)]

    def solve(self, train: object, val: object) -> None:
        """Nothing to fit."""

    def features(self, x: Tensor) -> Tensor:
        return x[:, torch.tensor(self.at, device=x.device), 0]  # (B, L, 1) -> (B, H)
