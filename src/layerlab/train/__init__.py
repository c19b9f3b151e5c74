"""Everything that happens during a run. The package itself can be called: `layerlab.train("model=lstm")`."""

import sys
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from layerlab.train.run import Run


class _Callable(ModuleType):
    # the folder and the function have the same name: importing layerlab.train.run would hide a function of that name
    def __call__(self, *overrides: str) -> "Run":
        """Train as `python train.py *overrides` does, and return the run."""
        from layerlab.compose import compose
        from layerlab.train.devices import prepare

        composed = compose(*overrides)
        prepare(composed.config)
        from layerlab.train.run import fit

        return fit(composed)


sys.modules[__name__].__class__ = _Callable
