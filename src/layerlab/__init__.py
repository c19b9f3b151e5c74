"""layerlab: experiments with neural networks that compose, repeat and end in a verdict.

run = layerlab.train("model=lstm", "data=names")
run.model, run.metrics, run.figures, run.predict("mar")
"""

from typing import TYPE_CHECKING

from layerlab import train

if TYPE_CHECKING:
    from layerlab.train.run import Run

__version__ = "0.1.0"
__all__ = ["__version__", "load", "train"]


def load(folder: str, checkpoint: str = "best") -> "Run":
    """A finished run from its folder: model, metrics, figures, predict. Raises LayerlabError where there is none."""
    from layerlab.train.run import load as load_run

    return load_run(folder, checkpoint)
