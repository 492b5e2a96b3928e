"""Every example of a data set, read once: which classes, which sizes, and what cannot be read."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

from rfjax._progress import counted
from rfjax.data.dataset import VOID, Dataset


@dataclasses.dataclass(frozen=True, eq=False)
class Survey:
    """What the examples of a data set have.

    Attributes:
        dataset: that was read.
        pixels: [K + 1] of each class, then of void.
        images: [K] with a pixel of each class.
        around: [K] pixels of any class in the images with a pixel of each class.
        sizes: how many images have each height and width.
        faults: a line for each example that cannot be read.
    """

    dataset: Dataset
    pixels: np.ndarray
    images: np.ndarray
    around: np.ndarray
    sizes: Counter[tuple[int, int]]
    faults: tuple[str, ...]


def survey(dataset: Dataset) -> Survey:
    """Reads all examples of a data set to be segmented.

    Args:
        dataset: from `rfjax.data.load`. What its source raises for an example, as a ValueError or
            an OSError, becomes a fault.

    Example:
        >>> import tempfile
        >>> from rfjax.data.registry import load
        >>> scenes = {"train_scenes": 2, "val_scenes": 2}
        >>> found = survey(load("digit_scenes", "val", data_dir=tempfile.mkdtemp(), **scenes))
        >>> found.sizes
        Counter({(64, 64): 2})
    """
    count = dataset.num_classes
    pixels, images, around = (np.zeros(n, np.int64) for n in (count + 1, count, count))
    sizes: Counter[tuple[int, int]] = Counter()
    faults = []
    for index in counted(range(len(dataset)), len(dataset), f"examples of {dataset.split}"):
        try:
            label = dataset.source[index]["label"]
        except (ValueError, OSError) as error:
            faults.append(str(error))
            continue
        found = np.bincount(label.ravel(), minlength=VOID + 1)
        pixels += [*found[:count], found[VOID]]
        present = found[:count] > 0
        images += present
        around += present * found[:count].sum()
        sizes[label.shape] += 1
    return Survey(dataset, pixels, images, around, sizes, tuple(faults))


def median_frequency(found: Survey) -> tuple[float, ...]:
    """A weight for each class that balances common and rare ones: median frequency balancing.

        w_k = median over j of f_j / f_k,   f_k = pixels of k / pixels of the images with k

    where pixels of no class (void) count for nothing. A class without pixels weighs 0, and is not
    in the median.

    Args:
        found: of the training data.

    Raises:
        ValueError: an example cannot be read, or there is no pixel of any class.

    Example:
        >>> from collections import Counter
        >>> pixels, around = np.array([6, 2, 0, 1]), np.array([8, 8, 0])
        >>> counts = Survey(None, pixels, np.array([2, 2, 0]), around, Counter(), ())
        >>> [round(weight, 3) for weight in median_frequency(counts)]
        [0.667, 2.0, 0.0]

    Reference: Eigen & Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common
        Multi-Scale Convolutional Architecture", ICCV 2015, on semantic labels.
    """
    if found.faults:
        raise ValueError(found.faults[0])
    share = found.pixels[:-1] / np.maximum(found.around, 1)
    there = share > 0
    if not there.any():
        raise ValueError("class weights cannot be measured, since every training label is void")
    weights = np.median(share[there]) / np.where(there, share, np.inf)
    return tuple(float(weight) for weight in weights)


def tables(surveys: Sequence[Survey]) -> tuple[list[str], list[list[Any]]]:
    """The heading and the rows of a table: of each class its share and its images in each split."""
    first = surveys[0].dataset
    heading = ["class", *(f"{part.dataset.split}: {of}" for part in surveys for of in _COLUMNS)]
    rows = []
    for index, name in enumerate([*first.class_names, "void"]):
        row: list[Any] = [name]
        for part in surveys:
            share = 100 * part.pixels[index] / max(part.pixels.sum(), 1)
            row += [f"{share:.2f}", part.images[index] if index < first.num_classes else ""]
        rows.append(row)
    return heading, rows


_COLUMNS = ("% of pixels", "images")


def warnings(surveys: Sequence[Survey]) -> list[str]:
    """What would make training or its scores worse than they could be, a line each."""
    found = []
    for part in surveys:
        dataset = part.dataset
        missing = [
            name for name, count in zip(dataset.class_names, part.images, strict=True) if not count
        ]
        if missing:
            found.append(f"{dataset.split} has no pixel of {', '.join(missing)}")
        if part.pixels.sum() and part.pixels[-1] > part.pixels.sum() / 2:
            found.append(f"{dataset.split}: more than half of the pixels are void")
    return found
