"""A head on a frozen backbone: features computed once, standardised, and given back to the whole model at the end."""

from __future__ import annotations

import json
import os
from collections.abc import Generator
from contextlib import contextmanager
from hashlib import sha256
from itertools import takewhile
from pathlib import Path
from typing import Any

import torch
from filelock import FileLock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from layerlab.contract import KINDS, DataSpec, LayerlabError, key
from layerlab.data.batches import Split
from layerlab.data.features import Features, Views
from layerlab.models.base import Model
from layerlab.train import checkpoint
from layerlab.train.freeze import Policy

CACHE = Path("data", "cache")
SETTLED = 128  # training examples that set the batch statistics of random features
COMPARED = 8  # examples whose cached logits are compared with those of the whole model, in every run
FLOOR = 0.1  # least standard deviation of a feature, in units of their median
TOLERANCE = 1e-4  # ... relative to the largest


class Probe(Model):
    """The head of a model whose backbone is frozen; reads its features (B, F), or x where there is no cache.

    Shares the head with the model. The backbone is no part of it: it is not trained, moved, saved or counted.
    """

    accepts = tuple(KINDS)
    tasks = ("classify", "regress")
    stages = (("head", r"head\."),)
    mean: Tensor
    std: Tensor

    def __init__(self, spec: DataSpec):
        super().__init__(spec)
        self.register_buffer("mean", torch.zeros(1))
        self.register_buffer("std", torch.ones(1))

    def attach(self, model: Model, cached: bool) -> None:
        """Take the head, task and backbone of a model."""
        self.head, self.task = model.head, model.task
        self.__dict__["backbone"] = None if cached else model  # past nn.Module: not registered

    def features(self, x: Tensor) -> Tensor:
        if (backbone := self.__dict__["backbone"]) is not None:
            with torch.no_grad():
                x = backbone.features(x)
        return (x - self.mean) / self.std

    def on_fit_start(self) -> None:
        if (backbone := self.__dict__["backbone"]) is not None:
            backbone.to(self.device)

    def whole(self, model: Model) -> dict[str, Tensor]:
        """The state of the whole model, the standardisation folded into the first layer of the head."""
        state = {name: value.clone() for name, value in model.state_dict().items()}
        if (found := _first_linear(self.head)) and self.std.numel() > 1:
            name, layer = found
            weight = layer.weight.detach() / self.std
            state[f"head.{name}weight"] = weight
            state[f"head.{name}bias"] = layer.bias.detach() - weight @ self.mean
        return state


def fits(model: Model) -> bool:
    """Whether the model is a head on one vector of features, which can be trained by itself."""
    cut = type(model).forward is Model.forward and type(model).step is Model.step
    return cut and model.spec.task in Probe.tasks and not model.closed_form


def why_not(policy: Policy, augment: dict[str, Any]) -> str | None:
    """Why the features are not cached, in words; None where they are."""
    if not policy.cache:
        return "freeze.cache=false"
    if augment and not policy.views:
        return "training images are augmented, and freeze.cache_views=0"
    if {"mixup", "cutmix"} & set(augment):
        return "mixup and cutmix mix images of one batch"
    return None


def probe(
    model: Model, data: Any, policy: Policy, augment: dict[str, Any], device: torch.device
) -> tuple[Probe, Any, list[str]]:
    """The learner for a run that trains the head alone, its data, and what was done, in lines for the log.

    augment: the config of what changes the training images.
    """
    model.eval()
    lines = []
    if model.started == "random":
        _settle(model, data)
    if policy.views and not augment:
        raise LayerlabError("freeze.cache_views: without effect; it needs images changed by augment=")
    reason = why_not(policy, augment)
    if reason:
        lines.append(f"cache    not used: {reason}")
        learner, source = Probe(model.spec), data
        found = _extract(model, data, ["train"], device)
    else:
        views = policy.views if augment else 0
        found, said = _cached(model, data, views, augment, device)
        lines.append(said)
        x = found["val.x"]
        splits: dict[str, Split] = {
            "train": Views(found["train.x"].reshape(max(views, 1), -1, x.shape[-1]), found["train.y"])
        }
        splits["val"] = Views(x[None], found["val.y"])
        source = Features(data, splits, x.shape[-1])
        source.unchanged = not views
        learner = Probe(source.spec)
    learner.attach(model, cached=reason is None)
    if _first_linear(model.head):
        std, learner.mean = torch.std_mean(found["train.x"], 0, correction=0)
        # a feature that is as good as constant in training would decide alone where it is not: one photo at z = 1208
        learner.std = std.clamp(min=FLOOR * float(std.median())).clamp(min=1e-6)
    learner.train()  # the head stood in eval with the rest of the model
    return learner, source, lines


def complete(learner: Probe, source: Any, path: Path, model: Model, data: Any, device: torch.device) -> Path:
    """Put a trained head back: load it, write the checkpoint of the whole model beside its own, and return the place.

    Raises RuntimeError where the whole model answers otherwise than the head on cached features did.
    """
    saved = checkpoint.read(path)
    learner.load_state_dict(saved["state_dict"])
    hs, xs = [], []
    for part in ("val", "train") if getattr(source, "unchanged", False) else ("val",):
        index = torch.arange(min(COMPARED, len(data.splits[part])))
        for into, s in ((hs, source), (xs, data)):
            into.append(s.splits[part].read(index, None)[0])
    h, x = torch.cat(hs), torch.cat(xs)
    model.to(device).eval()
    with torch.no_grad(), _full_precision():
        expected = learner.to(device).eval()(h.to(device))
        model.load_state_dict(learner.whole(model))  # the learner shares its head, and is now folded too
        off = float((model(x.to(device)) - expected).abs().max())
    if off > TOLERANCE * max(1.0, float(expected.abs().max())):
        raise RuntimeError(
            f"cached features give other logits than the model does (by {off:.2g}); remove {CACHE}/features-*"
        )
    place = path.with_name(f"whole-{path.name}")
    checkpoint.write(checkpoint.plain_state(model, data, saved["epoch"], saved["global_step"]), place)
    return place


def _settle(model: Model, data: Any) -> None:
    """Set the batch statistics of a random backbone, which are those of nothing yet, from training examples."""
    split = data.splits["train"]
    order = torch.randperm(len(split), generator=torch.Generator().manual_seed(key(data.seed, "settle")))
    norms = [m for m in model.modules() if getattr(m, "running_mean", None) is not None]
    usual = [m.momentum for m in norms]
    for m in norms:
        m.reset_running_stats()  # ty: ignore[not-callable]
        m.momentum = None  # ty: ignore[invalid-assignment]  (the mean over all batches)
    model.train()
    with torch.no_grad():
        for part in order[: max(SETTLED, data.batch_size)].split(data.batch_size):
            model.features(split.read(part, None)[0])
    model.eval()
    for m, momentum in zip(norms, usual, strict=True):
        m.momentum = momentum


@contextmanager
def _full_precision() -> Generator[None]:
    """Without TF32, whose features differ from those of a CPU in the third digit."""
    backends = (torch.backends.cudnn, torch.backends.cuda.matmul)
    before = [b.allow_tf32 for b in backends]
    for b in backends:
        b.allow_tf32 = False
    try:
        yield
    finally:
        for b, value in zip(backends, before, strict=True):
            b.allow_tf32 = value


def _extract(model: Model, data: Any, parts: list[str], device: torch.device, views: int = 0) -> dict[str, Tensor]:
    """Features (N, F) and targets of splits; views: so many augmented copies of train, one after the other."""
    found: dict[str, Tensor] = {}
    model.to(device)
    with torch.inference_mode(), _full_precision():
        for part in parts:
            passes = [data.batches(part)]
            if part == "train" and views:
                passes = [data.train_batches(lambda view=view: (view, 0), shuffle=False) for view in range(views)]
            batches = [(model.features(x.to(device)).float().cpu(), y.cpu()) for b in passes for x, y in b]
            xs, ys = zip(*batches, strict=True)
            found[f"{part}.x"], y = torch.cat(xs), torch.cat(ys)
            found[f"{part}.y"] = y[: len(y) // len(passes)]
    return {name: value.clone() for name, value in found.items()}  # inference tensors cannot be saved for backward


def _cached(
    model: Model, data: Any, views: int, augment: dict[str, Any], device: torch.device
) -> tuple[dict[str, Tensor], str]:
    """The features, from their file where there is one for these weights, this data and these settings."""
    options = {k: v for k, v in model.hparams.items() if k != "spec"} | {"shape": model.spec.shape}
    changed = [views, data.seed, augment] if views else []
    facts = {
        "weights": _digest(model),
        "data": data.fingerprint(),
        "preprocessing": json.dumps(_preprocessing(model)),
        "settings": json.dumps([type(model).__name__, options, device.type, changed]),
    }
    name = f"features-{data.spec.name}-{key(*facts.values()):016x}"
    file = CACHE / f"{name}.safetensors"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(CACHE / f".{name}.lock"):  # of several ranks or runs one computes, the others wait
        damaged = ""
        if file.is_file():
            try:
                with safe_open(file, "pt") as f:
                    found, held = {n: f.get_tensor(n) for n in list(f.keys())}, json.loads(f.metadata()["facts"])
                if held == facts | {"sha256": _sha256(found)}:
                    return found, f"cache    features read from {file}"
            except (SafetensorError, OSError, KeyError, ValueError, TypeError):
                pass
            damaged = ": the file was damaged"
        said = damaged or _changed(facts, data.spec.name)
        found = _extract(model, data, ["train", "val"], device, views)
        part = file.with_name(f".{file.name}.{os.getpid()}")
        save_file(found, part, {"facts": json.dumps(facts | {"sha256": _sha256(found)})})
        part.replace(file)
    return found, f"cache    features of {len(found['train.y']) + len(found['val.y']):,} examples computed{said}"


def _changed(facts: dict[str, str], name: str) -> str:
    """What differs from the newest cache of data of this name, in words."""
    files = sorted(CACHE.glob(f"features-{name}-*.safetensors"), key=lambda f: f.stat().st_mtime)
    if not files:
        return ""
    try:
        with safe_open(files[-1], "pt") as f:
            held = json.loads(f.metadata()["facts"])
    except (SafetensorError, OSError, KeyError, ValueError, TypeError):
        return ""
    changed = [what for what, value in facts.items() if held.get(what) != value]
    return f": the {' and '.join(changed)} changed since {files[-1].name}"


def _digest(model: Model) -> str:
    """SHA-256 of everything but the head."""
    digest = sha256()
    for name, value in model.state_dict().items():
        if not name.startswith("head."):
            digest.update(name.encode())
            digest.update(value.cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _preprocessing(model: Model) -> list[list[float]]:
    """How a backbone reads an image: the buffers that are computed anew and not saved."""
    saved = set(model.state_dict())
    return [b.flatten().tolist() for name, b in model.named_buffers() if name not in saved]


def _sha256(found: dict[str, Tensor]) -> str:
    digest = sha256()
    for name in sorted(found):
        digest.update(found[name].contiguous().numpy().data)
    return digest.hexdigest()


def _first_linear(head: nn.Module) -> tuple[str, nn.Linear] | None:
    """The linear layer that reads the features, under the prefix of its name; None where something else does."""
    layers = [("", head)] if isinstance(head, nn.Linear) else list(head.named_children())
    before = len(list(takewhile(lambda m: isinstance(m[1], nn.Dropout | nn.Identity), layers)))
    if before == len(layers) or not isinstance(layers[before][1], nn.Linear) or layers[before][1].bias is None:
        return None
    name, layer = layers[before]
    assert isinstance(layer, nn.Linear)
    return f"{name}." if name else "", layer
