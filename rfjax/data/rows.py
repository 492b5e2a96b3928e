"""Rows of a batch from examples of images: augmented, and normalised."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from rfjax.data.dataset import VOID
from rfjax.data.normalization import Normalization

Row = dict[str, np.ndarray]
Augmentation = Callable[..., tuple[np.ndarray, np.ndarray]]


def segmentation_row(
    example: Mapping[str, Any],
    normalization: Normalization,
    rng: np.random.Generator | None = None,
    augmentation: Augmentation | None = None,
) -> Row:
    """{"image": float32 [H, W, 3], "label": int32 [H, W]} of an image with a class at every pixel.

    Of an example with maps, see `rfjax.data.cache_features`, the row has these in place of the
    image, as they lie on disk.

    Args:
        example: "image" uint8 [H, W, 3], "label" [H, W] integers.
        normalization: of the image.
        rng, augmentation: the function of (rng, image, label) that varies both; None for neither.

    Raises:
        ValueError: an example with maps is to be varied, so that its image fits them no more.
    """
    image, label = example["image"], example["label"]
    maps = {name: array for name, array in example.items() if name.startswith("map/")}
    if maps:
        if augmentation is not None and augmentation(rng, image, label)[0] is not image:
            raise ValueError("cached maps are of whole images: train without augmentation")
        return {"label": label.astype(np.int32), **maps}
    if augmentation is not None:
        image, label = augmentation(rng, image, label)
    return {"image": normalization(image), "label": label.astype(np.int32)}


def classification_row(
    example: Mapping[str, Any],
    normalization: Normalization,
    num_classes: int,
    rng: np.random.Generator | None = None,
    augmentation: Augmentation | None = None,
) -> Row:
    """{"image": float32 [H, W, 3], "label": int32 []} of an image with one class.

    Args:
        example: "image" uint8 [H, W, 3]; "label" an integer in 0..num_classes-1, or 255 for none.
        normalization, rng, augmentation: as in `segmentation_row`; what augmentation makes of the
            label's pixels is left out.

    Raises:
        ValueError: the label is none of the classes.
    """
    image, label = example["image"], int(example["label"])
    if not (0 <= label < num_classes or label == VOID):
        raise ValueError(
            f"{example.get('id', 'an example')} has the label {label}; want 0 to "
            f"{num_classes - 1}, or {VOID} for none"
        )
    if augmentation is not None:
        image, _ = augmentation(rng, image, np.zeros(image.shape[:2], np.uint8))
    return {"image": normalization(image), "label": np.asarray(label, np.int32)}


def flow_row(
    example: Mapping[str, Any],
    normalization: Normalization,
    rng: np.random.Generator | None = None,
    augmentation: Augmentation | None = None,
) -> Row:
    """The row of a pair of images: "first", "second", "flow" and "valid", 1 where it is known.

    Args:
        example: "first" and "second" uint8 [H, W, 3]; "flow" float32 [H, W, 2], (right, down), not
            finite where it is not known.
        normalization: of both images.
        rng, augmentation: what varies examples of images; a crop and a mirror image are taken over
            to pairs, and nothing else is.

    Raises:
        ValueError: sizes differ, or examples are to be varied in another way.
    """
    pair = [example[name] for name in ("first", "second", "flow")]
    height, width = pair[0].shape[:2]
    if pair[1].shape != pair[0].shape or pair[2].shape != (height, width, 2):
        raise ValueError(
            f"{example.get('id', 'an example')}: images and flow must have one size; got "
            f"{pair[0].shape}, {pair[1].shape} and {pair[2].shape}"
        )
    if augmentation is not None and rng is not None:
        pair = _varied_pair(rng, pair, augmentation)
    first, second, flow = pair
    valid = np.isfinite(flow).all(-1)
    return {
        "first": normalization(first),
        "second": normalization(second),
        "flow": np.where(valid[..., None], flow, 0).astype(np.float32),
        "valid": valid.astype(np.float32),
    }


def _varied_pair(
    rng: np.random.Generator, pair: list[np.ndarray], augmentation: Any
) -> list[np.ndarray]:
    """Two images and a flow, all cut alike, and all mirrored left to right in half of the cases."""
    plain = dataclasses.replace(augmentation, crop=None, flip=False)
    if plain != type(augmentation)():
        raise ValueError("pairs of images can be cropped and flipped, and varied in no other way")
    height, width = pair[0].shape[:2]
    if augmentation.crop is not None:
        rows, columns = augmentation.crop
        if rows > height or columns > width:
            raise ValueError(
                f"the crop {rows}x{columns} is larger than the images {height}x{width}"
            )
        top, left = rng.integers(0, height - rows + 1), rng.integers(0, width - columns + 1)
        pair = [array[top : top + rows, left : left + columns] for array in pair]
    if augmentation.flip and rng.random() < 0.5:
        pair = [array[:, ::-1] for array in pair]
        pair[2] = pair[2] * np.array([-1.0, 1.0], np.float32)  # what went right goes left
    return pair


def blank(row: Row) -> Row:
    """A row that counts for nothing: zeros, and 255 (void) for the label."""
    return {name: np.full_like(array, _nothing(name)) for name, array in row.items()}


def padded(row: Row, size: tuple[int, int], name: str) -> Row:
    """A row whose maps have a height and width of `size`, by what counts for nothing.

    Below and on the right come zeros, which is the mean of normalised images, and void labels. The
    pixels of the row keep their coordinates, and so do the cells of every map of a network.

    Args:
        row: arrays, of which those with two axes or more are maps [H, W, ...].
        size: height and width.
        name: of the example, for the error.

    Raises:
        ValueError: a map is larger than `size`.

    Example:
        >>> padded({"label": np.zeros((1, 2), np.int32)}, (2, 3), "a")["label"].tolist()
        [[0, 0, 255], [255, 255, 255]]
    """
    maps = {key: array for key, array in row.items() if np.ndim(array) >= 2}
    for array in maps.values():
        if any(n > largest for n, largest in zip(array.shape[:2], size, strict=True)):
            raise ValueError(
                f"example {name} has {array.shape[0]}x{array.shape[1]} pixels; want at most "
                f"pad={size[0]}x{size[1]}"
            )
    return row | {key: _padded(array, size, _nothing(key)) for key, array in maps.items()}


def _padded(array: np.ndarray, size: tuple[int, int], value: int) -> np.ndarray:
    below, right = (largest - n for n, largest in zip(array.shape[:2], size, strict=True))
    around = [(0, below), (0, right), *[(0, 0)] * (array.ndim - 2)]
    return np.pad(array, around, constant_values=value)


def _nothing(name: str) -> int:
    """What counts for nothing in the array of this name of a row."""
    return VOID * (name.split("/")[0] == "label")
