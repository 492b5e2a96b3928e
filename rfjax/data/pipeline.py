"""From a data set to batches: loading by name, the training stream, evaluation in full.

Batches are dicts of NumPy arrays: "image" float32 [B, h, w, 3], normalised by the data set's mean
and standard deviation, and "label" int32 [B, h, w] with 255 for void. Work is done in threads
(decoding and augmentation release Python's lock); OpenCV's own threads are switched off for the
process, because two pools would only get in each other's way.
"""

import importlib
import math
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

import cv2
import grain.python as grain
import numpy as np

from rfjax._checks import choose, integer
from rfjax.data.augment import Augmentation, normalize
from rfjax.data.dataset import VOID, Dataset

_MODULES = {  # imported when asked for: only some of them need tensorflow-datasets
    "digit_scenes": "rfjax.data.digit_scenes",
    "camvid": "rfjax.data.camvid",
    "cityscapes": "rfjax.data.cityscapes",
}


def names() -> tuple[str, ...]:
    """The names that `load` knows."""
    return tuple(_MODULES)


def load(name: str, split: str, *, data_dir: str | None = None, **options: Any) -> Dataset:
    """One split of a data set, prepared first where that is needed.

    Args:
        name: "digit_scenes" (drawn here, nothing to download), "camvid" or "cityscapes".
        split: "train", "val", or, except for the digit scenes, "test".
        data_dir: where the data is or shall be kept; see the data set's module for its default.
        **options: `enlargement` (a whole factor, for every data set), and those of
            `rfjax.data.digit_scenes.DigitScenesConfig` for the digit scenes.

    Raises:
        ValueError: for a name, split, or option that does not exist; lists those that do.
        FileNotFoundError: if files are missing; says which, and where to put them.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> dataset = load("digit_scenes", "val", data_dir=folder, train_scenes=2, val_scenes=2)
        >>> dataset.source[0]["image"].shape
        (64, 64, 3)
    """
    module = importlib.import_module(choose("data set", name, _MODULES))
    choose(f"split of {name}", split, module.SPLITS)
    for option in options:
        choose(f"option of {name}", option, module.OPTIONS)
    return module.load(split, data_dir, **options)


def train_iterator(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    augmentation: Augmentation | None = None,
    process_index: int = 0,
    process_count: int = 1,
    threads: int | None = None,
    prefetch: int | None = None,
) -> grain.DatasetIterator:
    """An endless iterator over augmented batches, which can be stopped and resumed exactly.

    The stream of examples is one shuffle of the whole data set after another, each a new one. Of
    this single stream process p takes every `process_count`-th example from the p-th, so together
    the processes see each example once an epoch, and the same examples, with the same
    augmentation, however many they are. `get_state()` is the number of batches taken (a small
    dict); after `set_state` the next batch is the one that would have come, bit for bit.

    Args:
        dataset: from `load`.
        batch_size: examples in this process's batches.
        seed: of order and augmentation; 0 up to 2**32 - 1.
        augmentation: None for none. Scaling needs a crop, else sizes differ.
        process_index, process_count: this process's share.
        threads: batches made at the same time; None for one for each processor, 16 at most; 0 for
            none beside the caller's.
        prefetch: batches made in advance (each takes memory); None for two more than threads.
            0 makes each batch when it is asked for.
    """
    augmentation = augmentation or Augmentation()
    checked = _check_sharding(batch_size, process_index, process_count)
    batch_size, process_index, process_count = checked
    if not len(dataset):
        raise ValueError(f"the {dataset.split} split of {dataset.name} is empty")
    if augmentation.scale != (1.0, 1.0) and augmentation.crop is None:
        raise ValueError(
            f"scale={augmentation.scale} gives examples of different sizes, which cannot be"
            " batched: set crop as well"
        )
    threads = integer("threads", threads, least=0, optional=True)
    threads = min(16, os.cpu_count() or 1) if threads is None else threads
    prefetch = integer("prefetch", prefetch, least=0, optional=True)
    prefetch = threads + 2 if prefetch is None else prefetch
    seed = integer("seed", seed, least=0)
    cv2.setNumThreads(0)
    stream = grain.MapDataset.source(dataset.source).seed(seed).shuffle().repeat()
    stream = stream.random_map(_TrainingExample(dataset, augmentation))
    stream = stream[process_index::process_count].batch(batch_size, drop_remainder=True)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(stream.to_iter_dataset(options))


class _TrainingExample(grain.RandomMapTransform):
    """Augments and normalises one example."""

    def __init__(self, dataset: Dataset, augmentation: Augmentation):
        self._dataset = dataset
        self._augmentation = augmentation
        self._shape = augmentation.crop or dataset.source[0]["label"].shape

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
        image, label = self._augmentation(rng, example["image"], example["label"])
        _check_shape(
            example | {"label": label},
            self._shape,
            "the others of its batch have {}x{}: train with a crop, which pads smaller images",
        )
        return {
            "image": normalize(image, self._dataset.mean, self._dataset.std),
            "label": label.astype(np.int32),
        }


def eval_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    process_index: int = 0,
    process_count: int = 1,
    threads: int = 2,
    devices: int | None = None,
) -> Iterator[dict[str, Any]]:
    """Full images without augmentation, each exactly once over all processes.

    Images of different sizes go into different batches: nothing is scaled or padded, so a network
    scores each as if it came alone, and is compiled once for each size. Sizes come in the order of
    their first images; of the images of one size, process p takes every `process_count`-th from the
    p-th. All processes yield the same number of batches of the same shapes, so that collective
    operations match; rows that remain are zero images with label 255 everywhere and the id "".

    Args:
        dataset: from `load`.
        batch_size: rows of this process's batches.
        process_index, process_count: this process's share.
        threads: batches made at the same time, and in advance.
        devices: among how many, of this process, the rows of a batch are dealt: a size of which
            there are few images then gets batches of fewer rows, a multiple of these. None: all
            batches have `batch_size` rows.

    Returns:
        An iterator of batches with "id", a list of strings, as a third entry.

    Raises:
        ValueError: if `batch_size` is not a multiple of `devices`, or an image cannot be read.
    """
    _check_sharding(batch_size, process_index, process_count)
    threads = integer("threads", threads, least=0)
    if devices is not None and (devices < 1 or batch_size % devices):
        raise ValueError(f"batch_size is a multiple of devices={devices}; got {batch_size}")
    cv2.setNumThreads(0)
    parts = [
        _Part(shape, rows, members[process_index:][::process_count])
        for shape, rows, members in _by_shape(dataset, batch_size, process_count, devices)
    ]
    batches = grain.MapDataset.range(len(parts)).map(lambda n: _eval_batch(dataset, parts[n]))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return iter(batches.to_iter_dataset(options))


class _Part(NamedTuple):
    """What one batch is made of: so many rows, of which `indices` fill the first."""

    shape: tuple[int, int]
    rows: int
    indices: list[int]


def _by_shape(
    dataset: Dataset, batch_size: int, process_count: int, devices: int | None
) -> Iterator[_Part]:
    """The batches of all processes together: the rows of one of them, and the examples of all."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, shape in enumerate(dataset.shapes):
        groups.setdefault(shape, []).append(index)
    for shape, members in groups.items():
        rows = batch_size
        if devices is not None:
            rows = min(rows, math.ceil(len(members) / (process_count * devices)) * devices)
        for start in range(0, len(members), rows * process_count):
            yield _Part(shape, rows, members[start : start + rows * process_count])


def _eval_batch(dataset: Dataset, part: _Part) -> dict[str, Any]:
    images = np.zeros((part.rows, *part.shape, 3), np.float32)
    labels = np.full((part.rows, *part.shape), VOID, np.int32)
    ids = [""] * part.rows
    for row, index in enumerate(part.indices):
        example = dataset.source[index]
        _check_shape(example, part.shape, "it was said to have {}x{}")
        images[row] = normalize(example["image"], dataset.mean, dataset.std)
        labels[row] = example["label"]
        ids[row] = example["id"]
    return {"image": images, "label": labels, "id": ids}


def _check_shape(example: dict[str, Any], wanted: tuple[int, int], why: str) -> None:
    height, width = example["label"].shape
    if (height, width) != wanted:
        raise ValueError(
            f"example {example['id']} has {height}x{width} pixels where {why.format(*wanted)}"
        )


def _check_sharding(batch_size: int, process_index: int, process_count: int) -> tuple[int, ...]:
    batch_size = integer("batch_size", batch_size)
    process_count = integer("process_count", process_count)
    process_index = integer("process_index", process_index, least=0)
    if process_index >= process_count:
        raise ValueError(
            f"process_index is between 0 and process_count - 1;"
            f" got {process_index} of {process_count}"
        )
    return batch_size, process_index, process_count
