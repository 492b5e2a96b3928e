"""Trained runs, ready for use."""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from flax import linen
from ml_collections import ConfigDict

from rfjax import tasks
from rfjax.training import checkpoints, composed
from rfjax.training import config as configs


@dataclasses.dataclass(frozen=True, eq=False)
class Trained:
    """The network of a run.

    Attributes:
        step: of the checkpoint.
        config: of the run.
        task: that was learned; its facts are those of the data.
        model: the network, a Linen module.
        variables: of the network, NumPy arrays.
    """

    step: int
    config: ConfigDict
    task: tasks.Task
    model: linen.Module
    variables: dict[str, Any]

    @functools.cached_property
    def _predict(self) -> Callable:
        return self.task.predictor(self.model)

    def predict(self, examples: Sequence[Mapping[str, Any]]) -> tuple[Any, dict[str, np.ndarray]]:
        """What the network makes of examples of one size, and by layer its scale maps, NumPy.

        Args:
            examples: as the data set of the run gives them; labels are not needed where the task
                takes pictures.
        """
        return self._predict(self.variables, examples)

    def __call__(self, *images: np.ndarray) -> tuple[Any, dict[str, np.ndarray]]:
        """What it makes of pictures [H, W, C] uint8, as many as the task takes.

        Of a segmentation these are of one picture the classes [H, W].

        Raises:
            ValueError: the task takes another number of pictures.
        """
        names = self.task.pictures
        if len(images) != len(names):
            wanted = ", ".join(names) or "more than pictures, see predict"
            raise ValueError(f"the task takes {wanted}; got {len(images)} pictures")
        example = dict(zip(names, map(np.asarray, images), strict=True))
        return jax.tree.map(lambda array: array[0], self.predict([example]))


def load(workdir: str | Path, *, step: int | None = None) -> Trained:
    """The network of a training run, ready for use.

    Args:
        workdir: the run's directory.
        step: which checkpoint; None for the one of the highest score.

    Raises:
        CheckpointError: if there is no such run or checkpoint.
    """
    variables, meta, step = checkpoints.load(workdir, step=step)
    config = configs.from_dict(meta["config"])
    task = composed.create_task(config, meta["dataset"])
    return Trained(step, config, task, composed.build(config, task), variables)
