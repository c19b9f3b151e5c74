"""makemore's names.txt, with the test set of its protocol."""

import torch

from layerlab.contract import Count
from layerlab.data import files
from layerlab.data.names import Names

NAME = "names.txt"
URL = "https://raw.githubusercontent.com/karpathy/makemore/master/names.txt"
SHA256 = "0a30b5557f192f32ab962680889aac5f6fda0f4cecf40a6d0b5694f58ea8cc4d"


class Makemore(Names):
    """32,033 names: the last 1,000 of a permutation with seed 3407 are test, the 1,000 before them val.

    path: a local copy; without it the file is downloaded once into data/. Its SHA-256 is checked either way.
    Source: karpathy/makemore @988aa59 (MIT; the names are public domain).
    """

    carved = True

    def __init__(self, batch_size: Count = 128, path: str | None = None):
        super().__init__(batch_size)
        self.path = path

    def parts(self) -> tuple[dict[str, list[str]], str]:
        instead = "for a list of your own use data=names data.path=..."
        words = files.read_text(files.checked(self.path, name=NAME, url=URL, digest=SHA256, instead=instead)).split()
        order = torch.randperm(len(words), generator=torch.Generator().manual_seed(3407)).tolist()
        cuts = {"train": order[:-2000], "val": order[-2000:-1000], "test": order[-1000:]}
        return {part: [words[i] for i in index] for part, index in cuts.items()}, "makemore"
