"""Rows of a batch from examples of images: augmented, and normalised."""

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

    Args:
        example: "image" uint8 [H, W, 3], "label" [H, W] integers.
        normalization: of the image.
        rng, augmentation: the function of (rng, image, label) that varies both; None for neither.
    """
    image, label = example["image"], example["label"]
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


def blank(row: Row) -> Row:
    """A row that counts for nothing: zeros, and 255 (void) for the label."""
    return {name: np.full_like(array, VOID * (name == "label")) for name, array in row.items()}
