"""Images of which only the objects, only what is around them, or only their outlines are left."""

import dataclasses
from typing import Any

import numpy as np

from rfjax._checks import choose
from rfjax.data.dataset import Dataset, Source

MASKS = ("foreground", "background", "both")


def masked(dataset: Dataset, mask: str | None) -> Dataset:
    """A data set for segmentation whose images lack what a mask hides.

    Foreground are all pixels whose label is not class 0, void ones among them. What is hidden has
    the mean color of the data set, which is 0 once it is subtracted. Where both are hidden the
    image is the mask itself, white where there is foreground and black elsewhere.

    Args:
        dataset: of images and labels.
        mask: foreground | background | both, what is hidden; None for nothing.

    Raises:
        ValueError: there is no such mask.

    Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019,
        section 2.5.1.
    """
    if mask is None:
        return dataset
    choose("mask", mask, MASKS)
    hidden = np.rint(255 * np.asarray(dataset.mean)).astype(np.uint8)
    return dataclasses.replace(dataset, source=_Masked(dataset.source, mask, hidden))


class _Masked:
    """The examples of a source, masked."""

    def __init__(self, source: Source, mask: str, hidden: np.ndarray):
        self._source, self._mask, self._hidden = source, mask, hidden

    def __len__(self) -> int:
        return len(self._source)

    def __getitem__(self, index: int) -> dict[str, Any]:
        example = self._source[index]
        foreground = (example["label"] != 0)[:, :, None]
        if self._mask == "both":
            image = np.broadcast_to(255 * foreground, example["image"].shape).astype(np.uint8)
        else:
            hides = foreground if self._mask == "foreground" else ~foreground
            image = np.where(hides, self._hidden, example["image"])
        return {**example, "image": image}

    def shape(self, index: int) -> tuple[int, ...]:
        return self._source.shape(index)
