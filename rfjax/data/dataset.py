"""What every data set looks like: random access to uint8 examples, and the facts about them.

An example is a dict. For segmentation it has "image" uint8 [H, W, 3] (RGB), "label" uint8 [H, W]
(class indices, 255 where no class is known) and "id", a string that names it in error messages and
predictions; other tasks want other entries. Examples of one data set may differ in size.
"""

import dataclasses
import functools
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

import cv2
import numpy as np

from rfjax import _checks

VOID = 255  # the label of a pixel whose class is unknown: no loss, no score
_BAD = 254  # marks, inside a look-up table, the label values that must not occur


class Source(Protocol):
    """Random access to examples.

    A source may also have a method `shape(index)`, which returns height and width of an example
    without reading its pixels; evaluation is quicker to begin with it.
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
        mean, std: of the images' R, G, B in units where white is 1.
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
    mean: tuple[float, float, float] = (0.0, 0.0, 0.0)
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
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


def _shape(source: Source, index: int) -> tuple[int, ...]:
    """Height and width of an example."""
    if hasattr(source, "shape"):
        return source.shape(index)
    return size_of(source[index])


def size_of(example: Mapping[str, Any]) -> tuple[int, ...]:
    """Height and width of an example: those of its label's pixels, of its image or of its flow.

    () for an example without any, of a data set whose examples are all alike.
    """
    label, *images = (np.shape(example.get(name)) for name in ("label", "image", "flow"))
    shapes = (label, *(shape[:2] for shape in images))
    return next((shape for shape in shapes if len(shape) == 2), ())


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
        for key, interpolation in (
            ("image", cv2.INTER_LINEAR),
            ("label", cv2.INTER_NEAREST),
            ("instances", cv2.INTER_NEAREST),
        ):
            if key in example:
                size = (example[key].shape[1] * self._factor, example[key].shape[0] * self._factor)
                example[key] = cv2.resize(example[key], size, interpolation=interpolation)
        if "scales" in example:
            example["scales"] = example["scales"] * np.float32(self._factor)
        return example

    def shape(self, index: int) -> tuple[int, int]:
        height, width = _shape(self._source, index)
        return height * self._factor, width * self._factor


def enlarged(source: Source, factor: int) -> Source:
    """`source` itself for factor 1, else its examples enlarged `factor` times."""
    factor = _checks.integer("enlargement", factor)
    return source if factor == 1 else EnlargedSource(source, factor)


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
