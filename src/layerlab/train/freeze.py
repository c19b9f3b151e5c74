"""Freeze strategies: which stage trains in which epoch, and at which multiple of the learning rate.

A strategy is a pure function of the epoch over the model's named stages. `Freeze` applies it, anew at every epoch, so
that a resumed run stands where the uninterrupted one stood. Literature and measurements: docs/transfer.md.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Annotated, Any, Literal

from torch import nn

from layerlab.contract import Count, Fraction, LayerlabError, Positive, Size
from layerlab.models.base import Model

BN = Literal["auto", "frozen", "train"]
SMALL_BATCH = 16  # examples per device below which batch statistics of a pretrained backbone are not re-estimated
LARGE = 192  # pixels from which a probe takes the lr and the epochs for 224
EPOCHS = 10  # trainer.max_epochs=auto, where a strategy does not say


@dataclass(frozen=True)
class State:
    """A stage in one epoch. lr: times optimizer.lr. bn: batch statistics move | are kept | and gain and bias with them.

    trainable: `norm` = gains and biases of normalisations, `bias` = every bias.
    """

    trainable: Literal["none", "all", "norm", "bias"]
    lr: float
    bn: Literal["train", "eval", "frozen"]


ALL_ALIKE = State("all", 1.0, "train")  # as without a strategy


@dataclass(frozen=True)
class Facts:
    """What a strategy may know. layers: the stages, cut finer. started: where the weights are from (models/base.py).

    batch_size: per device. pixels: of a side, 0 = no image.
    """

    stages: tuple[str, ...]
    layers: tuple[str, ...]
    started: Literal["random", "pretrained", "run"]
    batch_size: int = 32
    pixels: int = 0


@dataclass(frozen=True)
class Policy:
    """A strategy for one model: `state(epoch)` by stage, from input to head, and the settings that go with it.

    lr, epochs: what optimizer.lr=auto and trainer.max_epochs=auto mean. fine: its stages are the layers. patience:
    epochs without an improvement after which the run ends, 0 = never. cache: whether frozen features may be computed
    once; views: augmented copies of each of them. before: of the run that is made first. probe: the head is trained by
    itself, on standardised features.
    """

    name: str
    state: Callable[[int], dict[str, State]]
    lr: float = 3e-3
    epochs: int = EPOCHS
    fine: bool = False
    patience: int = 0
    cache: bool = False
    views: int = 0
    before: Policy | None = None
    probe: bool = False


def auto(facts: Facts, bn: BN = "auto") -> Policy:
    """linear_probe for a model with pretrained weights, none for any other, one that goes on from a run too."""
    return linear_probe(facts, bn) if facts.started == "pretrained" else none(facts, bn)


def linear_probe(
    facts: Facts, bn: BN = "auto", allow_random_features: bool = False, cache: bool = True, cache_views: Size = 0
) -> Policy:
    """The head alone, on standardised features of the frozen backbone (Kornblith et al. 2019).

    cache: compute the features once. cache_views: so many augmented copies of each, where images are augmented.
    Raises LayerlabError where the features would be random, unless that is what is asked for.
    """
    if facts.started == "random" and not allow_random_features:
        raise LayerlabError(
            "freeze=linear_probe: the weights are random, and so would be the features; give model.weights or "
            "model.init_from, or set freeze.allow_random_features=true for that control"
        )
    if bn == "train":
        raise LayerlabError("freeze.bn=train: a frozen backbone keeps its statistics; use freeze.bn=auto")
    large = facts.pixels >= LARGE
    states = _states(facts.stages, lambda i, top: State("none", 1.0, "eval") if top else State("all", 1.0, "train"))
    lr, epochs = (1e-3, 40) if large else (3e-3, 60)
    return Policy("linear_probe", lambda epoch: states, lr, epochs, cache=cache, views=cache_views, probe=True)


def lp_ft(
    facts: Facts,
    bn: Literal["auto", "frozen"] = "auto",
    phase: Literal["both", "probe", "finetune"] = "both",
    head: Positive = 0.1,
    backbone: Positive = 1 / 30,
    cache: bool = True,
    cache_views: Size = 0,
    probe_epochs: Count = 60,
) -> Policy:
    """A linear probe, then everything from its weights at a small lr, statistics kept (Kumar et al. 2022).

    Two runs: phase=both makes both, the probe in the folder `probe` of the run. head, backbone: lr of the second.
    Raises LayerlabError where there is nothing to start from.
    """
    if facts.started == "random":
        raise LayerlabError("freeze=lp_ft: the weights are random; give model.weights or model.init_from=RUN")
    if phase == "finetune" and facts.started != "run":
        raise LayerlabError("freeze.phase=finetune: starts from a probe; give model.init_from=RUN of phase=probe")
    found = linear_probe(facts, cache=cache, cache_views=cache_views)
    probe = replace(found, name="lp_ft, probe", epochs=probe_epochs, patience=10)
    if phase == "probe":
        return probe
    kept: Literal["eval", "frozen"] = "frozen" if bn == "frozen" else "eval"
    states = _states(facts.stages, lambda i, top: State("all", backbone if top else head, kept if top else "train"))
    return Policy("lp_ft", lambda epoch: states, before=probe if phase == "both" else None)


def none(facts: Facts, bn: BN = "auto", backbone: Positive | Literal["auto"] = "auto") -> Policy:
    """Everything trains. backbone: lr of all but the head; auto = 1 where it is random, else 0.1."""
    factor = _backbone(facts, backbone)
    states = _states(facts.stages, lambda i, top: State("all", factor if top else 1.0, _bn(bn, facts, top)))
    return Policy("none", lambda epoch: states)


def first_n(facts: Facts, n: Count = 5, bn: BN = "auto", backbone: Positive | Literal["auto"] = "auto") -> Policy:
    """All but the first n stages; the stem counts as one."""
    if n >= len(facts.stages):
        raise LayerlabError(
            f"freeze.n={n}: the stages are {', '.join(facts.stages)}; give 1 to {len(facts.stages) - 1}"
        )
    factor = _backbone(facts, backbone)

    def state(i: int, top: int) -> State:
        if i < n:
            return State("none", 1.0, "eval")
        return State("all", factor if top else 1.0, _bn(bn, facts, top))

    states = _states(facts.stages, state)
    return Policy("first_n", lambda epoch: states)


def gradual(facts: Facts, every: Count = 1, decay: Annotated[float, ">= 1"] = 2.6, bn: BN = "auto") -> Policy:
    """The head, then one stage more from the top every so many epochs, at 1/decay of the lr above it.

    every: epochs between two stages. Howard & Ruder 2018.
    """

    def states(epoch: int) -> dict[str, State]:
        open_stages = 1 + epoch // every

        def state(i: int, top: int) -> State:
            factor = decay**-top
            return State("all", factor, _bn(bn, facts, top)) if top < open_stages else State("none", factor, "eval")

        return _states(facts.stages, state)

    return Policy("gradual", states, epochs=max(EPOCHS, every * len(facts.stages) + 2))


def discriminative(facts: Facts, early: Positive = 0.01, late: Positive = 0.1, bn: BN = "auto") -> Policy:
    """Everything; the first half of the stages at `early`, the second at `late`, the head at 1 times the lr."""
    half = (len(facts.stages) - 1) / 2

    def state(i: int, top: int) -> State:
        return State("all", (early if i < half else late) if top else 1.0, _bn(bn, facts, top))

    states = _states(facts.stages, state)
    return Policy("discriminative", lambda epoch: states)


def layer_decay(
    facts: Facts, gamma: Annotated[float, "> 0", "<= 1"] = 0.75, minimum: Fraction = 0.0, bn: BN = "auto"
) -> Policy:
    """Everything; gamma times the lr for each layer further from the head (Bao et al. 2022, BEiT)."""
    states = _states(facts.layers, lambda i, top: State("all", max(gamma**top, minimum), _bn(bn, facts, top)))
    return Policy("layer_decay", lambda epoch: states, fine=True)


def norm_only(facts: Facts, bn: Literal["auto", "train"] = "auto") -> Policy:
    """Gains and biases of normalisations, and the head; batch statistics are kept."""
    return _only("norm", facts, bn)


def bias_only(facts: Facts, bn: BN = "auto") -> Policy:
    """Biases, those of normalisations among them, and the head (Ben Zaken et al. 2022); batch statistics are kept."""
    return _only("bias", facts, bn)


def scratch(facts: Facts, bn: Literal["auto", "train"] = "auto") -> Policy:
    """The control: random weights, everything trains, until validation no longer improves.

    Raises LayerlabError where pretrained weights are given.
    """
    if facts.started != "random":
        raise LayerlabError("freeze=scratch: starts from random weights; leave out model.weights and model.init_from")
    states = _states(facts.stages, lambda i, top: State("all", 1.0, "train"))
    return Policy("scratch", lambda epoch: states, 2e-3, 60, patience=15)


def _only(what: Literal["norm", "bias"], facts: Facts, bn: BN) -> Policy:
    mode: Literal["train", "eval", "frozen"] = "eval" if bn == "auto" else bn
    states = _states(facts.stages, lambda i, top: State(what, 1.0, mode) if top else State("all", 1.0, "train"))
    return Policy(f"{what}_only", lambda epoch: states, 1e-2)


def _states(stages: tuple[str, ...], state: Callable[[int, int], State]) -> dict[str, State]:
    """state(number from the input, number from the head) of each stage."""
    return {stage: state(i, len(stages) - 1 - i) for i, stage in enumerate(stages)}


def _backbone(facts: Facts, factor: float | Literal["auto"]) -> float:
    if factor == "auto":
        return 1.0 if facts.started == "random" else 0.1
    return factor


def _bn(bn: BN, facts: Facts, top: int) -> Literal["train", "eval", "frozen"]:
    """BN mode of a stage that trains."""
    if not top or bn == "train":
        return "train"
    if bn == "frozen":
        return "frozen"
    return "eval" if facts.started != "random" and facts.batch_size < SMALL_BATCH else "train"


# --- a policy applied


class Freeze:
    """A policy on one model, for a run of so many epochs. Holds no state of the run: everything follows from the epoch.

    Raises LayerlabError where the policy leaves nothing to train.
    """

    def __init__(self, policy: Policy, model: Model, epochs: int):
        self.policy, self.model, self.epochs = policy, model, epochs
        self.stages = model.stage_parameters(policy.fine)
        self.modules = model.stage_modules(policy.fine)
        norms = [m for m in model.modules() if "norm" in type(m).__name__.lower()]
        self.norms = {p for m in norms for p in m.parameters(recurse=False)}
        self.batch_norm_parameters = {p for m in norms if _estimates(m) for p in m.parameters(recurse=False)}
        self.states = [states for states, _ in groupby(map(policy.state, range(epochs)))]  # each as long as it lasts
        self.ever = set().union(*map(self._trainable, self.states))
        if not self.ever and any(self.stages.values()):
            raise LayerlabError(f"freeze={policy.name}: nothing would train")

    @property
    def trivial(self) -> bool:
        """Whether everything trains alike in every epoch, as without a strategy."""
        return all(s == ALL_ALIKE for states in self.states for s in states.values())

    @property
    def head_only(self) -> bool:
        """Whether the head alone trains, in every epoch."""
        head = {p for _, p in self.stages.get("head", [])}
        return bool(head) and all(self._trainable(states) == head for states in self.states)

    def trainable(self, epoch: int) -> set[nn.Parameter]:
        """The parameters that change in an epoch."""
        return self._trainable(self.policy.state(epoch))

    def _trainable(self, states: dict[str, State]) -> set[nn.Parameter]:
        return {p for stage, named in self.stages.items() for n, p in named if self._trains(n, p, states[stage])}

    def _trains(self, name: str, parameter: nn.Parameter, state: State) -> bool:
        if state.bn == "frozen" and parameter in self.batch_norm_parameters:
            return False
        if state.trainable == "norm":
            return parameter in self.norms
        last = name.rsplit(".", 1)[-1]  # bias, bias_hh_l0, q_bias
        return state.trainable == "all" or (
            state.trainable == "bias" and (last.startswith("bias") or last.endswith("_bias"))
        )

    def begin(self) -> None:
        """Switch off, for good, the parameters that never train; before the model goes to its processes."""
        for parameter in self.model.parameters():
            parameter.requires_grad_(parameter in self.ever)

    def groups(self, lr: float | None) -> list[dict[str, Any]]:
        """Parameter groups, stage x (decay | no decay), of what ever trains, with a real lr each.

        Where all stages train alike they are one, `all`: a group costs an optimizer as much as a small model's step.
        Weight decay is for tensors of 2 and more dimensions: biases and the gains of norms would only be pulled to 0.
        Raises LayerlabError for multiples of an lr that the optimizer does not state.
        """
        states = self.policy.state(0)
        stages = self.stages
        if self.trivial:
            stages, states = {"all": [pair for named in stages.values() for pair in named]}, {"all": ALL_ALIKE}
        found = []
        for stage, named in stages.items():
            for decays in (True, False):
                parameters = [p for _, p in named if p in self.ever and (p.ndim >= 2) == decays]
                if not parameters:
                    continue
                group: dict[str, Any] = {"params": parameters, "name": f"{stage}/{'decay' if decays else 'no_decay'}"}
                if lr is not None:
                    group |= {"lr": lr * states[stage].lr, "multiplier": states[stage].lr}
                elif states[stage].lr != 1:
                    raise LayerlabError(f"freeze={self.policy.name}: needs optimizer.lr; give the optimizer an lr")
                found.append(group if decays else group | {"weight_decay": 0.0})
        return found

    def enter(self, epoch: int, optimizer: Any, scheduler: Any, alone: bool) -> None:
        """Put the model and the optimizer where the policy wants them in this epoch; twice is the same as once.

        alone: one process. With several, every rank must see the same gradients: they are dropped instead (`rest`).
        """
        states = self.policy.state(epoch)
        self.model.kept_in_eval = self._in_eval(states)
        self.model.train(self.model.training)
        if alone:
            now = self.trainable(epoch)
            for parameter in self.ever:
                parameter.requires_grad_(parameter in now)
        for i, group in enumerate(optimizer.param_groups):
            factor = states[group["name"].rpartition("/")[0]].lr
            if factor != group.get("multiplier", factor):
                scale = factor / group["multiplier"]
                group["multiplier"] = factor
                group["lr"] *= scale
                if "initial_lr" in group:  # what the closed forms of the step start from
                    group["initial_lr"] *= scale
                    scheduler.base_lrs[i] = group["initial_lr"]

    def _in_eval(self, states: dict[str, State]) -> list[nn.Module]:
        kept = []
        for stage, names in self.modules.items():
            modules = [self.model.get_submodule(name) for name in names]  # now: sync_batchnorm replaces some
            if states[stage].trainable == "none":
                kept += modules
            elif states[stage].bn != "train":
                kept += [m for m in modules if _estimates(m)]
        return kept

    def rest(self, epoch: int) -> list[nn.Parameter]:
        """Parameters of the optimizer that do not train in this epoch: without a gradient it leaves them alone."""
        return list(self.ever - self.trainable(epoch))

    def figures(self, epoch: int, optimizer: Any) -> dict[str, float]:
        """What is logged of an epoch: numbers that train, frozen stages, lr of each stage."""
        frozen = sum(s.trainable == "none" for s in self.policy.state(epoch).values())
        lrs = {f"lr/{g['name'].rpartition('/')[0]}": g["lr"] for g in optimizer.param_groups}
        count = sum(p.numel() for p in self.trainable(epoch))
        return {"freeze/trainable_params": float(count), "freeze/frozen_stages": float(frozen)} | lrs

    def table(self, lr: float | None) -> str:
        """Epoch x stage: what trains, at which multiple of the lr, and whether batch statistics move."""
        rows = []
        for _, same in groupby(range(self.epochs), key=self.policy.state):
            epochs = list(same)
            span = f"{epochs[0]}" if len(epochs) == 1 else f"{epochs[0]}-{epochs[-1]}"
            cells = [self._cell(stage, s) for stage, s in self.policy.state(epochs[0]).items()]
            count = sum(p.numel() for p in self.trainable(epochs[0]))
            rows.append(("epoch " + span, cells, f"{count:,}"))
        columns = []  # stages that are alike in every epoch stand together
        for stage, *cells in zip(self.stages, *(r[1] for r in rows), strict=True):
            if columns and columns[-1][1] == cells:
                columns[-1] = (f"{columns[-1][0].split(' .. ')[0]} .. {stage}", cells)
            else:
                columns.append((stage, cells))
        grid = [["", *(name for name, _ in columns), "trainable"]]
        grid += [[r[0], *(cells[i] for _, cells in columns), r[2]] for i, r in enumerate(rows)]
        widths = [max(map(len, column)) for column in zip(*grid, strict=True)]
        lines = ["  ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)).rstrip() for row in grid]
        unit = "" if lr is None else f" (x1 = lr {lr:g}; - = frozen, kept in eval; bn = batch statistics that are kept)"
        return "\n".join([f"freeze   {self.policy.name}{unit}", *(f"         {line}" for line in lines)])

    def _cell(self, stage: str, state: State) -> str:
        if state.trainable == "none":
            return "-"
        kept = state.bn != "train" and any(_estimates(self.model.get_submodule(m)) for m in self.modules[stage])
        return f"{state.trainable} x{state.lr:.2g}" + (f" bn {state.bn}" if kept else "")

    def never(self) -> list[str]:
        """Stages in which nothing ever trains, though the strategy would open them in a longer run."""
        later = self.policy.state(10**6)
        closed = [n for n, named in self.stages.items() if named and not any(p in self.ever for _, p in named)]
        return [n for n in closed if later[n].trainable != "none"]


def _estimates(module: nn.Module) -> bool:
    """Whether a module keeps statistics of the batches it sees."""
    return getattr(module, "running_mean", None) is not None
