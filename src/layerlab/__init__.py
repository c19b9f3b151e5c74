"""layerlab: experiments with neural networks that compose, repeat and end in a verdict.

run = layerlab.train("model=lstm", "data=names")
run.model, run.metrics, run.figures, run.predict("mar")
"""

from typing import TYPE_CHECKING

from layerlab import train

if TYPE_CHECKING:
    from collections.abc import Sequence

    from layerlab.train.run import Run

__version__ = "0.1.0"
__all__ = ["__version__", "load", "train"]


def load(folder: str, checkpoint: str = "best", paths: "Sequence[str]" = (), targets: "Sequence[str]" = ()) -> "Run":
    """A finished run from its folder: model, metrics, figures, predict. Raises LayerlabError where there is none.

    paths, targets: of code of your own that it was trained with, as in user.paths and user.targets.
    """
    from layerlab.build import trust
    from layerlab.train.run import load as load_run

    trust(paths, targets)
    return load_run(folder, checkpoint)
