"""Which number of a weight tells how much it contributed to the error."""

from typing import Any

import torch

from layerlab.models.base import Model

GIVES = dict.fromkeys(("rho_g", "rho_gw", "rho_w", "rho_random"), ())
WEIGHTS, EXAMPLES = 300, 512


def blame(model: Model, data: Any) -> dict[str, float]:
    """Rank correlations (Spearman) with how much the loss changes when a weight is set to 0, over 300 weights.

    rho_g: of |gradient|. rho_gw: of |gradient x weight|, the first term of the Taylor series of that change. rho_w: of
    |weight|. rho_random: of a number that means nothing. In 64 bits, on 512 training examples.
    """
    from scipy.stats import spearmanr

    model = model.double().eval()
    x, y = data.splits["train"].read(torch.arange(EXAMPLES), None)
    x = x.double()
    weights = [p for p in model.parameters() if p.ndim > 1]
    whole = model.step((x, y))[0]
    g = torch.cat([v.flatten() for v in torch.autograd.grad(whole, weights)])
    w = torch.cat([p.detach().flatten() for p in weights])
    chosen = torch.randperm(len(w))[:WEIGHTS]
    changes = []
    with torch.no_grad():
        places = [(p.view(-1), i) for p in weights for i in range(p.numel())]
        for at in chosen.tolist():
            flat, i = places[at]
            before = flat[i].clone()
            flat[i] = 0
            changes.append(abs(float(model.step((x, y))[0] - whole)))
            flat[i] = before
    scores = {"g": g.abs(), "gw": (g * w).abs(), "w": w.abs(), "random": torch.rand(len(w))}
    return {f"rho_{name}": float(spearmanr(s[chosen].numpy(), changes).statistic) for name, s in scores.items()}
