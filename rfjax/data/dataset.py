"""What every data set looks like: random access to uint8 examples, and the facts about them.

An example is a dict. For segmentation it has "image" uint8 [H, W, 3] (RGB; or other channels, as
many as the data set has means), "label" uint8 [H, W] (class indices, 255 where no class is known)
and "id", a string that names it in error messages and predictions; other tasks want other entries.
Examples of one data set may differ in size.
"""

import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from rfjax import _checks

VOID = 255  # the label of a pixel whose class is unknown: no loss, no score
_ENLARGED = {
    "image": cv2.INTER_LINEAR,
    "label": cv2.INTER_NEAREST,
    "instances": cv2.INTER_NEAREST,
}
_BAD = 254  # marks, inside a look-up table, the label values that must not occur


class Source(Protocol):
    """Random access to examples.

    A source may also have a method `shape(index)`, which returns height and width of an example
    without reading its pixels; evaluation is quicker to begin with it. Of video a method
    `clip(index)` names the clip that a frame is of; the frames of a clip are in a row. What draws
    its examples from images of another source has this one as `frames`, and a method
    `over(frames)`, which returns the same with images that come with something more.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


@dataclasses.dataclass(frozen=True, eq=False)
class Dataset:
    """One split of a data set: `source` gives the examples, the other fields describe them.

    Attributes:
        name: the name that `load` knows it by.
        split: "train", "val" or "test".
        source: examples by index; see the module's docstring.
        num_classes: number of classes K, without the void label 255; 0 where there are none.
        class_names: K names, in the order of the label values.
        palette: uint8 [K, 3], an RGB color for each class.
        mean, std: of the images' R, G, B, or whatever channels there are, in units where white is
            1.
        more: what else a task wants to know, as JSON can hold it.
    """

    name: str
    split: str
    source: Source = dataclasses.field(repr=False)
    num_classes: int = 0
    class_names: tuple[str, ...] = ()
    palette: np.ndarray = dataclasses.field(
        repr=False, default_factory=lambda: np.zeros((0, 3), np.uint8)
    )
    mean: tuple[float, ...] = (0.0, 0.0, 0.0)
    std: tuple[float, ...] = (1.0, 1.0, 1.0)
    more: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.source)

    @property
    def facts(self) -> dict[str, Any]:
        """What a task wants to know of the data, as JSON can hold it; see `rfjax.tasks`."""
        return {
            "name": self.name,
            "num_classes": self.num_classes,
            "class_names": list(self.class_names),
            "palette": np.asarray(self.palette).tolist(),
            "mean": list(map(float, self.mean)),
            "std": list(map(float, self.std)),
            **self.more,
        }

    @functools.cached_property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Height and width of each example, read once."""
        return tuple(_shape(self.source, index) for index in range(len(self.source)))

    @functools.cached_property
    def clips(self) -> tuple[range, ...]:
        """The indices of the frames of each clip, in their order; of stills each is its own."""
        runs = itertools.groupby(range(len(self.source)), partial(clip_of, self.source))
        indices = [list(run) for _, run in runs]
        return tuple(range(run[0], run[-1] + 1) for run in indices)


def _shape(source: Source, index: int) -> tuple[int, ...]:
    """Height and width of an example."""
    if hasattr(source, "shape"):
        return source.shape(index)
    return size_of(source[index])


def clip_of(source: Source, index: int) -> Any:
    """The name of the clip that a frame is of; a still is one of its own."""
    return getattr(source, "clip", lambda index: index)(index)


def size_of(example: Mapping[str, Any]) -> tuple[int, ...]:
    """Height and width of an example: those of its label's pixels, of its image or of its flow.

    () for an example without any, of a data set whose examples are all alike.
    """
    label, *images = (np.shape(example.get(name)) for name in ("label", "image", "flow"))
    shapes = (label, *(shape[:2] for shape in images))
    return next((shape for shape in shapes if len(shape) == 2), ())


def by_threes(function: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """What a function of OpenCV makes of an image, three channels at a time.

    Some of these functions take at most four channels, and all drop the axis of a single one.

    Args:
        function: of an image [H, W, 3], [H, W] or [H, W, 1].
        image: [H, W] or [H, W, C].

    Example:
        >>> by_threes(lambda part: cv2.resize(part, (4, 2)), np.ones((1, 2, 4), np.uint8)).shape
        (2, 4, 4)
    """
    if image.ndim == 2 or image.shape[2] == 3:
        return function(image)
    parts = np.split(image, range(3, image.shape[2], 3), axis=2)
    return np.dstack([function(np.ascontiguousarray(part)) for part in parts])


class EnlargedSource:
    """The examples of `source`, enlarged by a whole factor: images bilinearly, labels by copies.

    The size of each instance, where `source` gives one, grows with the image.
    """

    def __init__(self, source: Source, factor: int):
        self._source = source
        self._factor = factor

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = dict(self._source[index])
        for key in example:
            kind = key.split("/")[0]  # there may be several sets of labels, as "label/geometric"
            if kind in _ENLARGED:
                height, width = example[key].shape[:2]
                size = (width * self._factor, height * self._factor)
                enlarge = partial(cv2.resize, dsize=size, interpolation=_ENLARGED[kind])
                example[key] = by_threes(enlarge, example[key])
        if "scales" in example:
            example["scales"] = example["scales"] * np.float32(self._factor)
        return example

    def shape(self, index: int) -> tuple[int, int]:
        height, width = _shape(self._source, index)
        return height * self._factor, width * self._factor

    def clip(self, index: int) -> Any:
        return clip_of(self._source, index)


def enlarged(source: Source, factor: int) -> Source:
    """`source` itself for factor 1, else its examples enlarged `factor` times."""
    factor = _checks.integer("enlargement", factor)
    return source if factor == 1 else EnlargedSource(source, factor)


class ReducedSource:
    """The examples of `source` at a whole fraction of their size.

    A pixel of an image is the mean of those that it covers, one of a label the nearest of them.
    What does not fill a pixel at the right and below is left out.
    """

    def __init__(self, source: Source, factor: int):
        self._source, self._factor = source, factor

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = dict(self._source[index])
        height, width = _fraction(example["label"].shape, self._factor)
        whole = (slice(height * self._factor), slice(width * self._factor))
        for key, interpolation in (
            ("image", cv2.INTER_AREA),
            ("label", cv2.INTER_NEAREST_EXACT),
        ):
            kept = np.ascontiguousarray(example[key][whole])
            example[key] = cv2.resize(kept, (width, height), interpolation=interpolation)
        return example

    def shape(self, index: int) -> tuple[int, int]:
        return _fraction(_shape(self._source, index), self._factor)


def _fraction(shape: tuple[int, ...], factor: int) -> tuple[int, int]:
    """Height and width after a reduction."""
    height, width = (n // factor for n in shape[:2])
    if not height or not width:
        raise ValueError(f"an image of {shape[0]}x{shape[1]} pixels has none at 1/{factor}")
    return height, width


def reduced(source: Source, factor: int) -> Source:
    """`source` itself for factor 1, else its examples at 1/`factor` of their size."""
    factor = _checks.integer("reduction", factor)
    return source if factor == 1 else ReducedSource(source, factor)


def data_folder(data_dir: str | os.PathLike | None) -> Path:
    """`data_dir` as a path; for None the folder of tensorflow-datasets.

    That is the environment's TFDS_DATA_DIR, or `~/tensorflow_datasets`.
    """
    default = os.environ.get("TFDS_DATA_DIR") or "~/tensorflow_datasets"
    return Path(data_dir or default).expanduser()


def label_table(mapping: dict[int, int]) -> np.ndarray:
    """A look-up table uint8 [256] for `map_labels`; values missing from `mapping` are errors."""
    table = np.full(256, _BAD, np.uint8)
    for value, mapped in mapping.items():
        table[value] = mapped
    return table


def map_labels(label: np.ndarray, table: np.ndarray, name: str) -> np.ndarray:
    """`label` with each value replaced by its entry in `table`.

    Raises:
        ValueError: if a value has no class; names the example and lists the values.
    """
    mapped = cv2.LUT(label, table)
    if (mapped == _BAD).any():
        wrong = np.unique(label[mapped == _BAD]).tolist()
        known = np.flatnonzero(table != _BAD).tolist()
        raise ValueError(f"{name} has label values {wrong} outside the classes; known are {known}")
    return mapped


def check_pair(image: np.ndarray, label: np.ndarray, name: str) -> None:
    """Raises a ValueError if the label does not cover the image pixel by pixel."""
    if image.shape[:2] != label.shape:
        turned = image.shape[1::-1] == label.shape
        raise ValueError(
            f"{name}: the image has {image.shape[0]}x{image.shape[1]} pixels,"
            f" its label {label.shape[0]}x{label.shape[1]}"
            f"{', as stored: an orientation in the metadata turns neither' if turned else ''}"
        )
