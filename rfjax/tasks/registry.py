"""Tasks by name."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from rfjax import _names
from rfjax._options import choose
from rfjax._registry import Registry
from rfjax.tasks.classification import Classification
from rfjax.tasks.flow import Flow
from rfjax.tasks.guided import Guided
from rfjax.tasks.segmentation import Segmentation
from rfjax.tasks.several import Segmentations
from rfjax.tasks.task import Task

TASKS: Registry[Callable[..., Task]] = Registry(
    "task",
    {
        "segmentation": Segmentation,
        "classification": Classification,
        "segmentations": Segmentations,
        "guided": Guided,
        "flow": Flow,
    },
    _names.TASKS,
)


def names() -> tuple[str, ...]:
    """The names of all tasks.

    Example:
      >>> names()[:2]
      ('segmentation', 'classification')
    """
    return tuple(TASKS)


def register(name: str, make: Callable[..., Task], options: Iterable[str] = ()) -> None:
    """Makes a task known by its name, to configs and to all programs.

    Args:
      name: not taken.
      make: the class, or a function of (facts, **options) that returns an instance.
      options: keyword arguments of `make` that a config may set, as keys of its section "task".

    Raises:
      ValueError: the name is taken.
    """
    TASKS.register(name, make, options)


def create(name: str, facts: Mapping[str, Any], **options: Any) -> Task:
    """The task of this name for data of which `facts` are known.

    Args:
      name: one of `names()`.
      facts: of the data set, as `Dataset.facts` returns them; JSON can hold them, so that a
        checkpoint of a run tells all that its task wants to know.
      **options: of the task; `normalize` is one of every task.

    Raises:
      ValueError: there is no such task.

    Example:
      >>> create("segmentation", {"num_classes": 3}).score
      'mean_iu'
    """
    return choose("task", name, TASKS)(facts, **options)
