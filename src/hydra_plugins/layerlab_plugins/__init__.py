"""What Hydra looks for under this name: thin, for it is imported with every command."""

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn
from hydra.plugins.launcher import Launcher
from hydra.plugins.sweeper import Sweeper


class Forkserver(Launcher):
    """`hydra/launcher=forkserver`: each job in a child of its own."""

    varied: Sequence[str] = ()  # keys that make a job another than the others; set by our sweepers

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from layerlab.sweep.engine import launch

        return launch(self.context.config_loader, self.config, [list(o) for o in job_overrides], self.varied)


class Grid(Sweeper):
    """`hydra/sweeper=grid`: every combination of the values given; ends in one table."""

    def __init__(self, params: dict[str, Any] | None = None):
        self.params = params or {}

    def setup(self, *, hydra_context: Any, task_function: Any, config: Any) -> None:
        self.context, self.task, self.config = hydra_context, task_function, config

    def sweep(self, arguments: list[str]) -> Any:
        from layerlab.sweep.engine import sweep

        if "experiment" in self.params:  # one that names others in its place
            arguments = [a for a in arguments if not a.startswith("experiment=")]
        return sweep(self.context, self.task, self.config, [*(f"{k}={v}" for k, v in self.params.items()), *arguments])


class Optuna(Grid):
    """`hydra/sweeper=optuna`: a search over intervals and choices, stored, continued by the same command."""

    def __init__(self, trials: int, sampler: str = "tpe", prune: bool = False, params: dict[str, Any] | None = None):
        super().__init__(params)
        self.trials, self.sampler, self.prune = trials, sampler, prune

    def sweep(self, arguments: list[str]) -> Any:
        from layerlab.sweep.search import search

        arguments = [*(f"{k}={v}" for k, v in self.params.items()), *arguments]
        return search(self.context, self.task, self.config, arguments, self.trials, self.sampler, self.prune)
