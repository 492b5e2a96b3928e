"""From a data set to batches: the training stream, and evaluation in full.

Batches are dicts of NumPy arrays, rows stacked. For images with a class at every pixel they are
"image" float32 [B, h, w, 3], normalised by the data set's mean and standard deviation, and "label"
int32 [B, h, w] with 255 for void; a task can ask for others. Work is done in threads
(decoding and augmentation release Python's lock); OpenCV's own threads are switched off for the
process, because two pools would only get in each other's way.
"""

import math
import os
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import cv2
import grain.python as grain
import numpy as np

from rfjax._checks import integer, pair
from rfjax.data import rows
from rfjax.data.augment import Augmentation
from rfjax.data.dataset import Dataset, size_of
from rfjax.data.normalization import Normalization

# The arrays of one example: of (example, rng, augmentation), the last two None in evaluation.
MakeRow = Callable[..., rows.Row]


def train_iterator(
    dataset: Dataset,
    *,
    batch_size: int,
    seed: int,
    augmentation: Augmentation | None = None,
    row: MakeRow | None = None,
    pad: tuple[int, int] | None = None,
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
        row: the function of (example, rng, augmentation) that returns the arrays of an example, as
            `rfjax.tasks.Task.row`; None for those of images with a class at every pixel.
        pad: height and width that all rows are brought to, see `rfjax.data.rows.padded`: images of
            many sizes then train at their own, and one program serves all of them.
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
    make = row or default_row(dataset)
    if pad is not None:
        make = partial(_padded_row, make, pair("pad", pad))
    transform = _TrainingRow(dataset, make, augmentation)
    stream = stream.random_map(transform)
    stream = stream[process_index::process_count].batch(batch_size, drop_remainder=True)
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=prefetch)
    return iter(stream.to_iter_dataset(options))


def default_row(dataset: Dataset) -> MakeRow:
    """Rows of images with a class at every pixel."""
    return partial(_segmentation_row, Normalization.of(dataset.facts))


def _segmentation_row(normalization, example, rng=None, augmentation=None) -> rows.Row:
    return rows.segmentation_row(example, normalization, rng, augmentation)


def _padded_row(make: MakeRow, size: tuple[int, int], example, rng=None, augmentation=None):
    return rows.padded(make(example, rng, augmentation), size, str(example.get("id", "")))


class _TrainingRow(grain.RandomMapTransform):
    """Augments one example and makes its row; all rows have the shapes of the first one's."""

    def __init__(self, dataset: Dataset, row: MakeRow, augmentation: Augmentation):
        self._row, self._augmentation = row, augmentation
        first = row(dataset.source[0], np.random.default_rng(0), augmentation)
        self._shapes = {name: np.shape(array) for name, array in first.items()}

    def random_map(self, example: dict[str, Any], rng: np.random.Generator) -> rows.Row:
        row = self._row(example, rng, self._augmentation)
        _check_shapes(
            row,
            self._shapes,
            example,
            "the others of its batch have {}: train with a crop, or pad to the largest size",
        )
        return row


def eval_batches(
    dataset: Dataset,
    *,
    batch_size: int,
    row: MakeRow | None = None,
    blank: Callable[[rows.Row], rows.Row] | None = None,
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
        row, blank: of a task, see `rfjax.tasks.Task`; None for those of images with a class at
            every pixel.
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
        _Part(shape, count, members[process_index:][::process_count], members[0])
        for shape, count, members in _by_shape(dataset, batch_size, process_count, devices)
    ]
    make = partial(_eval_batch, dataset, row or default_row(dataset), blank or rows.blank)
    batches = grain.MapDataset.range(len(parts)).map(lambda n: make(parts[n]))
    options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads)
    return iter(batches.to_iter_dataset(options))


class _Part(NamedTuple):
    """What one batch is made of: so many rows, of which `indices` fill the first."""

    shape: tuple[int, int]
    rows: int
    indices: list[int]
    alike: int  # an example of this size, which there is even where no row is filled


def _by_shape(
    dataset: Dataset, batch_size: int, process_count: int, devices: int | None
) -> Iterator[tuple[tuple[int, int], int, list[int]]]:
    """The batches of all processes together: size, rows in each process, examples of all."""
    groups: dict[tuple[int, int], list[int]] = {}
    for index, shape in enumerate(dataset.shapes):
        groups.setdefault(shape, []).append(index)
    for shape, members in groups.items():
        count = batch_size
        if devices is not None:
            count = min(count, math.ceil(len(members) / (process_count * devices)) * devices)
        for start in range(0, len(members), count * process_count):
            yield shape, count, members[start : start + count * process_count]


def _eval_batch(
    dataset: Dataset, row: MakeRow, blank: Callable[[rows.Row], rows.Row], part: _Part
) -> dict[str, Any]:
    """Rows of the examples, then blank ones."""
    examples = [dataset.source[index] for index in part.indices]
    for example in examples:
        _check_size(example, part.shape)
    made = [row(example) for example in examples]
    filler = blank(made[0] if made else row(dataset.source[part.alike]))
    made += [filler] * (part.rows - len(made))
    ids = [str(example.get("id", "")) for example in examples]
    batch = {name: np.stack([one[name] for one in made]) for name in filler}
    return batch | {"id": ids + [""] * (part.rows - len(ids))}


def _check_size(example: dict[str, Any], wanted: tuple[int, int]) -> None:
    """Raises unless the example has the size that its source told."""
    if wanted != (found := size_of(example)):
        raise ValueError(
            f"example {example['id']} has {_by(found)} pixels where it was said to have "
            f"{_by(wanted)}"
        )


def _check_shapes(row: rows.Row, wanted: dict[str, tuple], example: dict, why: str) -> None:
    """Raises unless the arrays of a row have the shapes of the others of its batch."""
    for name, array in row.items():
        shape = np.shape(array)
        if shape != wanted[name]:
            of = f"{_by(shape[:2])} pixels" if shape[:2] != wanted[name][:2] else _by(shape)
            raise ValueError(
                f"the {name} of example {example.get('id', '')} has {of} where "
                f"{why.format(_by(wanted[name]))}"
            )


def _by(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "one value"


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
