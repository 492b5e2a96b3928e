"""Pictures of one digit each, at many scales, for classification; drawn when they are read.

The digits are those of the scenes, see `rfjax.data.scenes`: what a network learns of them here, it
can begin with there.
"""

from typing import Any

import numpy as np

from rfjax import _checks
from rfjax.data.dataset import Dataset, enlarged
from rfjax.data.digit_scenes import MEAN, PALETTE, STD
from rfjax.data.scenes import check_options, compose_digit, digits

SPLITS = ("train", "val")
OPTIONS = ("size", "min_scale", "max_scale", "train_images", "val_images", "seed", "enlargement")
CLASS_NAMES = tuple("0123456789")


class _Pictures:
    """Random access to pictures that are drawn, each from a generator of its own."""

    def __init__(self, split: str, count: int, seed: int, **options: Any):
        self._split, self._count, self._seed, self._options = split, count, seed, options
        self._digits = digits(split)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._count:
            raise IndexError(f"{index} of {self._count} pictures")
        rng = np.random.default_rng([self._seed, SPLITS.index(self._split), index])
        picture = compose_digit(rng, *self._digits, **self._options)
        return {"id": f"{self._split}_{index:05d}", **picture}

    def shape(self, index: int) -> tuple[int, int]:
        return (self._options["size"],) * 2


def load(
    split: str,
    data_dir: str | None,
    *,
    size: int = 64,
    min_scale: float = 20.0,
    max_scale: float = 48.0,
    train_images: int = 4096,
    val_images: int = 1024,
    seed: int = 0,
    enlargement: int = 1,
) -> Dataset:
    """A split of the pictures; nothing is written.

    Args:
        split: "train" or "val", of other digits.
        data_dir: has no effect, there are no files.
        size: height and width in pixels.
        min_scale, max_scale: limits of the digits' scale in pixels.
        train_images, val_images: numbers of pictures.
        seed: 0 or more; another seed gives other pictures of the same digits.
        enlargement: whole factor by which pictures are enlarged as they are read.
    """
    check_options(size, min_scale, max_scale)
    counts = {"train": train_images, "val": val_images}
    for name, value in counts.items():
        _checks.integer(f"{name}_images", value)
    seed = _checks.integer("seed", seed, least=0)
    scales = {"min_scale": min_scale, "max_scale": max_scale}
    source = _Pictures(split, counts[split], seed, size=size, **scales)
    return Dataset(
        name="digit_images",
        split=split,
        source=enlarged(source, enlargement),
        num_classes=len(CLASS_NAMES),
        class_names=CLASS_NAMES,
        palette=PALETTE[1:],
        mean=MEAN,
        std=STD,
    )
