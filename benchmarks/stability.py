"""How often a verdict flips when the seeds change: eight claims as bare PyTorch, ten seed sets, before any grammar.

    python benchmarks/stability.py [--only zg_diverges] [--sets 10]

The nets of all seeds are trained side by side (torch.func): independent initialisations, splits and orders, one pass.
Writes benchmarks/results/stability.csv, a row for each claim, data set and seed set; --table prints the counts.
"""

import argparse
import copy
import csv
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import Tensor, nn
from torch.func import functional_call, stack_module_state, vmap
from torch.nn import functional as F

from layerlab.claims.verdict import Answer, answer, estimate, verdict
from layerlab.data.mnist1d import generated

FILE = Path(__file__).parent / "results" / "stability.csv"
Values = Tensor  # one number per seed, (S,)
Checks = dict[str, list[tuple[str, Values | float, str, float]]]  # list -> (name, left, relation, right)


# --- data: (S, N, F) and (S, N), a stratified 60/40 split of its own for every seed


def raw(name: str) -> tuple[np.ndarray, np.ndarray]:
    """All rows (N, F) and labels (N,) of a data set."""
    if name == "digits":
        found = load_digits()
        return found.data / 16, found.target
    made = generated(42)
    return np.concatenate([made["x"], made["x_test"]]), np.concatenate([made["y"], made["y_test"]])


def splits(name: str, seeds: range) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """x and y to train on, x and y to test on, standardised on the former, for each seed."""
    x, y = raw(name)
    parts = []
    for seed in seeds:
        a, b, ya, yb = train_test_split(x, y, train_size=0.6, stratify=y, random_state=seed)
        mean, std = a.mean(), a.std()
        parts.append([torch.tensor((v - mean) / std, dtype=torch.float32) for v in (a, b)])
        parts[-1] += [torch.tensor(v) for v in (ya, yb)]
    x_train, x_test, y_train, y_test = (torch.stack(p) for p in zip(*parts, strict=True))
    return x_train, y_train, x_test, y_test


# --- nets side by side


class Nets:
    """One net per seed, with stacked weights. lr, optimizer: as torch's; loss: (logits, y) -> (N,) unreduced."""

    def __init__(self, make: Callable[[], nn.Module], seeds: range):
        made = []
        for seed in seeds:
            torch.manual_seed(seed)
            made.append(make())
        self.weights, _ = stack_module_state(made)
        self.weights = {k: v.detach().requires_grad_() for k, v in self.weights.items()}
        self.net = copy.deepcopy(made[0]).to("meta")
        self.seeds = seeds

    def __call__(self, x: Tensor, **kwargs: Any) -> Any:
        """(S, B, ...) -> (S, B, ...): every net on its own rows."""
        return vmap(lambda w, x: functional_call(self.net, w, (x,), kwargs), randomness="error")(self.weights, x)

    def train(
        self,
        optimizer: Callable[[list[Tensor]], torch.optim.Optimizer],
        batches: Iterator[tuple[Tensor, Tensor]],
        zero: bool = True,
        twice: bool = False,
        clip: float | None = None,
    ) -> Tensor:
        """Loss of every step (steps, S). twice: softmax before the cross-entropy. clip: of each net's own norm."""
        stepper, losses = optimizer(list(self.weights.values())), []
        for x, y in batches:
            logits = self(x)
            logits = logits.softmax(-1) if twice else logits
            loss = F.cross_entropy(logits.flatten(0, 1), y.flatten(), reduction="none").view(len(y), -1).mean(1)
            if zero:
                stepper.zero_grad()
            loss.sum().backward()
            if clip:
                norm = sum(w.grad.flatten(1).square().sum(1) for w in self.weights.values()).sqrt()  # ty: ignore
                scale = (clip / (norm + 1e-6)).clamp(max=1)
                for w in self.weights.values():
                    w.grad *= scale.view(-1, *[1] * (w.ndim - 1))
            stepper.step()
            losses.append(loss.detach())
        return torch.stack(losses)

    @torch.no_grad()
    def accuracy(self, x: Tensor, y: Tensor) -> Values:
        """Share of right answers of each net on its own test rows."""
        hits = [(self(a).argmax(-1) == b).float() for a, b in zip(x.split(512, 1), y.split(512, 1), strict=True)]
        return torch.cat(hits, 1).mean(1)


def epochs(x: Tensor, y: Tensor, seeds: range, n: int, batch_size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Batches (S, B, ...) of n epochs, each seed in an order of its own."""
    generators = [torch.Generator().manual_seed(seed) for seed in seeds]
    rows = torch.arange(len(seeds))[:, None]
    for _ in range(n):
        order = torch.stack([torch.randperm(x.shape[1], generator=g) for g in generators])
        for i in order.split(batch_size, 1):
            yield x[rows, i], y[rows, i]


class Hidden(nn.Module):
    """MLP that can give its hidden activations. bias: added to all hidden biases at the start."""

    def __init__(self, size: int, depth: int, act: Callable, width: int = 64, bias: float = 0, init: Any = None):
        super().__init__()
        self.act = act
        self.hidden = nn.ModuleList(nn.Linear(size if i == 0 else width, width) for i in range(depth))
        self.head = nn.Linear(width, 10)
        for layer in self.hidden:
            if init:
                init(layer.weight)
                nn.init.zeros_(layer.bias)
            if bias:
                nn.init.constant_(layer.bias, bias)

    def forward(self, x: Tensor, inner: bool = False) -> Any:
        seen = []
        for layer in self.hidden:
            x = self.act(layer(x))
            seen.append(x)
        return torch.stack(seen, -1) if inner else self.head(x)


def adam(lr: float) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    return lambda weights: torch.optim.Adam(weights, lr)


def sgd(lr: float) -> Callable[[list[Tensor]], torch.optim.Optimizer]:
    return lambda weights: torch.optim.SGD(weights, lr)


# --- the claims: name -> (data, seeds of a set, what gives the checks of all seeds)


def sigmoid_vanish(data: str, seeds: range) -> Checks:
    x, y, _, _ = splits(data, seeds)

    def glog(act: Callable, depth: int, init: Any = None) -> Values:
        nets = Nets(lambda: Hidden(x.shape[-1], depth, act, init=init), seeds)
        F.cross_entropy(nets(x[:, :512]).flatten(0, 1), y[:, :512].flatten()).backward()
        first, last = (
            nets.weights[k].grad.flatten(1).norm(dim=1)  # ty: ignore
            for k in ("hidden.0.weight", f"hidden.{depth - 1}.weight")
        )
        return (first / last).log10()

    depths = torch.tensor([2.0, 5, 10, 20])
    found = torch.stack([glog(torch.sigmoid, int(d)) for d in depths])
    centred = depths - depths.mean()
    slope = (centred[:, None] * found).sum(0) / centred.square().sum()
    he = glog(torch.relu, 10, nn.init.kaiming_normal_)
    return {
        "expect": [("slope", slope, "<=", -0.6), ("d10", found[2], "<=", -6)],
        "control": [("relu he", he, ">=", -0.5 if data == "digits" else -1)],
        "limits": [("relu default d20", glog(torch.relu, 20), "<=", -4)],
    }


def zg_diverges(data: str, seeds: range) -> Checks:
    x, y, xt, yt = splits(data, seeds)
    n, batch = (20, 32) if data == "digits" else (10, 64)

    def run(optimizer: Any, zero: bool) -> tuple[Values, Values, Values]:
        nets = Nets(lambda: Hidden(x.shape[-1], 2, torch.relu), seeds)
        losses = nets.train(optimizer, epochs(x, y, seeds, n, batch), zero=zero)
        return losses[0], losses[-17:].mean(0).nan_to_num(math.inf), nets.accuracy(xt, yt)

    arms = {"sgd_small": sgd(1e-3), "sgd_large": sgd(1e-1), "adam": adam(1e-3), "adam_large": adam(1e-2)}
    kept = {name: run(o, False) for name, o in arms.items()}
    zeroed = {name: run(o, True) for name, o in arms.items()}
    grew = {name: (final > first).float() for name, (first, final, _) in kept.items()}
    fell = (zeroed["sgd_large"][1] < zeroed["sgd_large"][0]).float()
    return {
        "expect": [(f"count {name}", grew[name], "count>=", 4) for name in ("sgd_large", "adam", "adam_large")],
        "control": [("count zeroed", fell, "count>=", 5)],
        "limits": [
            ("free speed-up", kept["sgd_small"][2] - zeroed["sgd_small"][2], ">=", 0.2 if data == "digits" else 0.05)
        ],
    }


def relu_dying(data: str, seeds: range) -> Checks:
    return _dying(data, seeds)[0]


def leaky_cures(data: str, seeds: range) -> Checks:
    return _dying(data, seeds)[1]


def _dying(data: str, seeds: range) -> tuple[Checks, Checks]:
    x, y, xt, yt = splits(data, seeds)

    def run(act: Callable, lr: float, bias: float = 0) -> tuple[Values, Values]:
        nets = Nets(lambda: Hidden(x.shape[-1], 3, act, bias=bias), seeds)
        nets.train(adam(lr), epochs(x, y, seeds, 8, 32 if data == "digits" else 64))
        with torch.no_grad():
            alive = (nets(xt, inner=True) > 0).any(1)  # (S, width, depth)
        return (~alive).float().mean((1, 2)), nets.accuracy(xt, yt)

    born, healthy, hot = run(torch.relu, 1e-3, -1), run(torch.relu, 1e-3), run(torch.relu, 1e-1)
    leaky = {bias: run(F.leaky_relu, 1e-3, bias)[1] for bias in (0, -1, -3)}
    works, most = (0.8, 0.7) if data == "digits" else (0.3, 0.5)
    dying: Checks = {
        "expect": [
            ("dead", born[0], ">=", most),
            ("acc", born[1], "<=", 0.15),
            ("dead hot", hot[0], ">=", most),
        ],
        "control": [("leaky", leaky[-1], ">=", works), ("healthy", healthy[0], "<=", 0.15)],
        "limits": [],
    }
    cured: Checks = {
        "expect": [("gain", leaky[-1] - born[1], ">=", 0.5 if data == "digits" else 0.15)],
        "control": [
            ("equal, above", leaky[0] - healthy[1], ">=", -0.05),
            ("equal, below", leaky[0] - healthy[1], "<=", 0.05),
        ],
        "limits": [("bias -3", leaky[-3], "<=", 0.3)],
    }
    return dying, cured


def softmax_twice(data: str, seeds: range) -> Checks:
    x, y, xt, yt = splits(data, seeds)
    batch = 32 if data == "digits" else 64

    def run(optimizer: Any, n: int, twice: bool) -> tuple[Values, Values]:
        nets = Nets(lambda: Hidden(x.shape[-1], 2, torch.relu), seeds)
        losses = nets.train(optimizer, epochs(x, y, seeds, n, batch), twice=twice)
        return losses[-17:].mean(0), nets.accuracy(xt, yt)

    arms = (("sgd", sgd(0.1), 3), ("adam", adam(1e-3), 20))
    once, doubled = ({name: run(o, n, twice) for name, o, n in arms} for twice in (False, True))
    return {
        "expect": [
            ("floor", doubled["adam"][0], ">=", 1.46),
            ("sgd gap", once["sgd"][1] - doubled["sgd"][1], ">=", 0.2 if data == "digits" else 0.05),
        ],
        "control": [("sgd once", once["sgd"][1], ">=", 0.8 if data == "digits" else 0.25)],
        "limits": [("adam gap", once["adam"][1] - doubled["adam"][1], "<=", 0.02)],
    }


def softmax_not_hidden(data: str, seeds: range) -> Checks:
    x, y, xt, yt = splits(data, seeds)
    batch = 32 if data == "digits" else 64

    def run(act: Callable, depth: int) -> Values:
        nets = Nets(lambda: Hidden(x.shape[-1], depth, act), seeds)
        nets.train(adam(1e-3), epochs(x, y, seeds, 15, batch))
        return nets.accuracy(xt, yt)

    def soft(x: Tensor) -> Tensor:
        return x.softmax(-1)

    works = 0.85 if data == "digits" else 0.25
    return {
        "expect": [
            ("d1", run(soft, 1) - run(torch.relu, 1), "<=", -0.1),
            ("d4", run(soft, 4), "<=", 0.2),
        ],
        "control": [("sigmoid", run(torch.sigmoid, 1), ">=", works)],
        "limits": [],
    }


class Recurrent(nn.Module):
    """Reads (B, T, F) and answers from the last state. kind: rnn, orth, lstm; bias: of the forget gate, None torch's.

    attention: from the last position over embeddings with positions instead.
    """

    def __init__(self, kind: str, size: int, out: int, width: int = 48, bias: float | None = None, length: int = 0):
        super().__init__()
        self.kind, self.width = kind, width
        if kind == "attention":
            self.inp = nn.Linear(size, width)
            self.place = nn.Parameter(torch.randn(length, width) * 0.5)
            self.query, self.key, self.value = (nn.Linear(width, width) for _ in range(3))
        else:
            cell: Any = nn.LSTMCell(size, width) if kind == "lstm" else nn.RNNCell(size, width)
            if kind == "orth":
                nn.init.orthogonal_(cell.weight_hh)
            if bias is not None:
                with torch.no_grad():
                    cell.bias_ih[width : 2 * width] = bias
                    cell.bias_hh[width : 2 * width] = 0
            self.wi, self.wh = nn.Parameter(cell.weight_ih.data), nn.Parameter(cell.weight_hh.data)
            self.b = nn.Parameter(cell.bias_ih.data + cell.bias_hh.data)
        self.head = nn.Linear(width, out)

    def forward(self, x: Tensor, weights: bool = False) -> Tensor:
        if self.kind == "attention":
            h = self.inp(x) + self.place
            score = (self.key(h) @ self.query(h[:, -1:]).mT).squeeze(-1) / self.width**0.5  # (B, T)
            share = score.softmax(-1)
            return share if weights else self.head((share[..., None] * self.value(h)).sum(1))
        inputs = x @ self.wi.mT + self.b  # (B, T, gates)
        h = c = torch.zeros_like(inputs[:, 0, : self.width])
        for t in range(x.shape[1]):
            gates = inputs[:, t] + h @ self.wh.mT
            if self.kind == "lstm":
                i, f, g, o = gates.chunk(4, -1)
                c = f.sigmoid() * c + i.sigmoid() * g.tanh()
                h = o.sigmoid() * c.tanh()
            else:
                h = gates.tanh()
        return self.head(h)


def attn_word1(data: str, seeds: range) -> Checks:
    def words(T: int, seed: int, n: int) -> Iterator[tuple[Tensor, Tensor]]:
        generators = [torch.Generator().manual_seed(1000 * seed + s) for s in seeds]
        for _ in range(n):
            ids = torch.stack([torch.randint(8, (64, T), generator=g) for g in generators])
            yield F.one_hot(ids, 8).float(), ids[..., 0]

    def run(kind: str, T: int) -> tuple[Values, Values | None]:
        nets = Nets(lambda: Recurrent(kind, 8, 8, length=T), seeds)
        nets.train(adam(3e-3), words(T, 1, 250), clip=1.0)
        x, y = (torch.cat(v, 1) for v in zip(*words(T, 2, 8), strict=True))
        with torch.no_grad():
            share = nets(x, weights=True)[..., 0].mean(1) if kind == "attention" else None
        return nets.accuracy(x, y), share

    far, share = run("attention", 60)
    assert share is not None
    return {
        "expect": [("attention", far, ">=", 0.95), ("weight", share, ">=", 0.9), ("rnn", run("rnn", 60)[0], "<=", 0.4)],
        "control": [("lstm", run("lstm", 60)[0], "<=", 0.4), ("rnn T=3", run("rnn", 3)[0], ">=", 0.8)],
        "limits": [],
    }


class Shifted(nn.Module):
    """Two circular convolutions with a pool after the first, then flatten, or the global mean or maximum; or an MLP."""

    def __init__(self, head: str):
        super().__init__()
        self.kind = head
        if head == "mlp":
            self.one, self.two = nn.Linear(400, 64), nn.Linear(64, 64)
            self.head = nn.Linear(64, 10)
        else:
            self.one, self.two = nn.Conv2d(1, 16, 3), nn.Conv2d(16, 32, 3)
            self.head = nn.Linear(3200 if head == "flatten" else 32, 10)

    def forward(self, x: Tensor) -> Tensor:
        if self.kind == "mlp":
            h = self.two(self.one(x.flatten(1)).relu()).relu()
        else:
            h = F.max_pool2d(self.one(F.pad(x, (1, 1, 1, 1), "circular")).relu(), 2)
            h = self.two(F.pad(h, (1, 1, 1, 1), "circular")).relu()
            h = h.flatten(1) if self.kind == "flatten" else h.mean((2, 3)) if self.kind == "gap" else h.amax((2, 3))
        return self.head(h)


def cnn_invariance(data: str, seeds: range) -> Checks:
    x, y, xt, yt = splits(data, seeds)

    def placed(x: Tensor, by: int = 0) -> Tensor:
        """(S, N, 64) on a canvas (S, N, 1, 20, 20) of its background, at (6, 6 + by)."""
        images = x.view(*x.shape[:2], 1, 8, 8)
        canvas = images.amin() * torch.ones(*x.shape[:2], 1, 20, 20)
        canvas[..., 6:14, 6 + by : 14 + by] = images
        return canvas

    def run(head: str) -> dict[int, Values]:
        nets = Nets(lambda: Shifted(head), seeds)
        nets.train(adam(3e-3), epochs(placed(x), y, seeds, 25, 32))
        return {by: nets.accuracy(placed(xt[:, :300], by), yt[:, :300]) for by in (0, 1, 2, 4)}

    found = {head: run(head) for head in ("flatten", "gap", "gmp", "mlp")}
    return {
        "expect": [("gmp 4", found["gmp"][4], ">=", 0.9), ("flatten 2", found["flatten"][2], ">=", 0.9)],
        "control": [("mlp 2", found["mlp"][2], "<=", 0.3)],
        "limits": [("on the lattice", found["gap"][4] - found["gap"][0], ">=", -0.03)],
    }


def lstm_conveyor(data: str, seeds: range) -> Checks:
    x, y, xt, yt = splits(data, seeds)

    def rows(x: Tensor, blanks: int) -> Tensor:
        """(S, N, 64) -> (S, N, 8 + blanks, 8)."""
        return F.pad(x.view(*x.shape[:2], 8, 8), (0, 0, 0, blanks))

    def run(kind: str, blanks: int, bias: float | None = None) -> Values:
        nets = Nets(lambda: Recurrent(kind, 8, 10, bias=bias), seeds)
        nets.train(adam(3e-3), epochs(rows(x, blanks), y, seeds, 8, 32), clip=1.0)  # 272 iterations
        return nets.accuracy(rows(xt[:, :300], blanks), yt[:, :300])

    return {
        "expect": [("torch", run("lstm", 50), ">=", 0.45), ("bias 3", run("lstm", 50, 3.0), ">=", 0.45)],
        "control": [
            ("rnn", run("rnn", 50), "<=", 0.3),
            *((f"D=0 {k} {b}", run(k, 0, b), ">=", 0.9) for k, b in (("rnn", None), ("lstm", None), ("lstm", 3.0))),
        ],
        "limits": [("orthogonal", run("orth", 50), ">=", 0.45)],
    }


CLAIMS: dict[str, tuple[tuple[str, ...], int, Callable[[str, range], Checks]]] = {
    "sigmoid_vanish": (("digits", "mnist1d"), 5, sigmoid_vanish),
    "zg_diverges": (("digits", "mnist1d"), 5, zg_diverges),
    "relu_dying": (("digits", "mnist1d"), 5, relu_dying),
    "leaky_cures": (("digits", "mnist1d"), 5, leaky_cures),
    "softmax_twice": (("digits", "mnist1d"), 5, softmax_twice),
    "softmax_not_hidden": (("digits", "mnist1d"), 5, softmax_not_hidden),
    "attn_word1": (("words",), 3, attn_word1),
    "cnn_invariance": (("digits",), 5, cnn_invariance),
    "lstm_conveyor": (("digits",), 5, lstm_conveyor),
}


def judge(left: Tensor, relation: str, right: float) -> tuple[Answer, float]:
    """The answer of a check on the units of one seed set, and its mean."""
    if relation == "count>=":
        return ("yes" if left.sum() >= right else "no"), float(left.sum())
    found = estimate((left - right).tolist())
    return answer(found.low, found.high, relation), found.mean + right


def measure(name: str, sets: int, first: int) -> list[dict[str, Any]]:
    """Rows of a claim: its verdict and answers for each data set and seed set."""
    data, size, claim = CLAIMS[name]
    rows = []
    for d in data:
        began = time.process_time()
        checks = claim(d, range(first, first + sets * size))
        cost = time.process_time() - began
        for k in range(sets):
            part = slice(k * size, (k + 1) * size)
            found = {
                kind: [(what, *judge(left[part], r, right)) for what, left, r, right in listed]  # ty: ignore
                for kind, listed in checks.items()
            }
            decided = verdict(*([a for _, a, _ in found[kind]] for kind in ("expect", "control", "limits")))
            told = "; ".join(f"{what}: {a} {mean:.3f}" for listed in found.values() for what, a, mean in listed)
            rows.append(
                {"claim": name, "data": d, "set": k, "n": size, "verdict": decided, "answers": told, "cpu_s": cost}
            )
        print(f"{name} {d}: {dict(Counter(r['verdict'] for r in rows if r['data'] == d))}  {cost:.0f} CPU s")
        print("   ", rows[-1]["answers"], flush=True)
    return rows


def main() -> None:
    """Measure what is asked for, add it to the csv, print the counts."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="*", default=list(CLAIMS))
    parser.add_argument("--sets", type=int, default=10)
    parser.add_argument("--first", type=int, default=0, help="the first seed; a pilot takes others than the count")
    parser.add_argument("--dry", action="store_true", help="print, write nothing")
    options = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # gradients over 60 steps are denormal, and those cost a hundred times as much
    held = list(csv.DictReader(FILE.open(encoding="utf-8"))) if FILE.is_file() else []
    for name in options.only:
        new = measure(name, options.sets, options.first)
        held = [r for r in held if r["claim"] != name] + new
        if not options.dry:
            with FILE.open("w", encoding="utf-8", newline="") as f:
                writer = csv.DictWriter(f, list(new[0]))
                writer.writeheader()
                writer.writerows(held)


if __name__ == "__main__":
    main()
