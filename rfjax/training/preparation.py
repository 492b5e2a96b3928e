"""The data of a run, as its processes read them."""

from collections.abc import Iterator
from contextlib import contextmanager

import jax
import numpy as np
from ml_collections import ConfigDict

from rfjax import data, tasks
from rfjax.training import config as configs
from rfjax.training.feed import Feed, faults

EVAL_SPLIT = "val"


def datasets(config: ConfigDict) -> tuple[data.Dataset, data.Dataset]:
    """The training and evaluation data; process 0 prepares them first, where they have to be."""
    options = configs.options(config.data.options)

    def load(split: str) -> data.Dataset:
        return data.load(config.data.name, split, data_dir=config.data.dir or None, **options)

    with faults("data"), first_process("data"):
        try:
            loaded = load("train"), load(EVAL_SPLIT)
        except (TypeError, ValueError) as error:  # an option of the data set
            raise configs.ConfigError(f"data: {error}") from error
        return loaded


@contextmanager
def first_process(name: str) -> Iterator[None]:
    """Lets process 0 do something before the others do."""
    if jax.process_index() > 0:
        _barrier(name)
    yield
    if jax.process_index() == 0:
        _barrier(name)


def _barrier(name: str) -> None:
    """Waits for all processes, if there are several."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        multihost_utils.sync_global_devices(name)


def train_batches(
    config: ConfigDict, dataset: data.Dataset, task: tasks.Task | None = None
) -> Feed:
    """The endless, resumable batches of this process.

    Args:
        config: of a run.
        dataset: to be trained on.
        task: whose rows they consist of; None for segmentation.
    """
    section = config.data.augmentation
    try:
        augmentation = data.Augmentation(
            scale=tuple(section.scale),
            rotation=section.rotation,
            crop=tuple(section.crop) if any(section.crop) else None,
            color=section.color,
            lighting=section.lighting,
            flip=section.flip,
        )
        batches = data.train_iterator(
            dataset,
            batch_size=config.batch_size // jax.process_count(),
            seed=config.seed,
            augmentation=augmentation,
            row=task and task.row,
            pad=tuple(config.data.pad) if any(config.data.pad) else None,
            process_index=jax.process_index(),
            process_count=jax.process_count(),
        )
        return Feed(batches, "data")
    except ValueError as error:
        raise configs.ConfigError(f"data: {error}") from error


def shapes(task: tasks.Task, dataset: data.Dataset) -> tuple:
    """What the network is called with for one example, as shapes and types."""
    row = task.row(dataset.source[0])
    batch = {name: np.asarray(array)[None] for name, array in row.items()}
    return jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), task.inputs(batch))
