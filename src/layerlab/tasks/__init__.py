"""What is minimised and what is reported; one file per task."""

from layerlab.tasks.base import Task
from layerlab.tasks.classify import Classify
from layerlab.tasks.forecast import Forecast
from layerlab.tasks.next_token import NextToken
from layerlab.tasks.regress import Regress
from layerlab.tasks.transduce import Transduce

TASKS: dict[str, type[Task]] = {t.__name__: t for t in (Classify, Regress, NextToken, Forecast, Transduce)}


def restore(state: dict) -> Task | None:
    """The task that `Task.to_dict` described; None for a class that is not ours (a checkpoint never names code)."""
    cls = TASKS.get(state["class"])
    return cls(state["spec"], **state["options"]) if cls else None
