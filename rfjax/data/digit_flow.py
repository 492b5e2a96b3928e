"""Pairs of pictures in which digits and their ground move by known amounts.

Each digit and the ground moves by a displacement of its own, a real number of pixels, uniform in a
disk; a digit moves with the ground and then by its own. The flow of a pixel of the first picture is
that of the topmost digit whose ink covers it, or of the ground. Both pictures are drawn from the
same layers, at sub-pixel places, each with noise of its own. Digits are those of
`rfjax.data.scenes`, other ones in "train" and "val". Nothing is written.
"""

from typing import Any

import cv2
import numpy as np

from rfjax import _checks
from rfjax.data import scenes
from rfjax.data.dataset import Dataset
from rfjax.data.digit_scenes import MEAN, STD

SPLITS = ("train", "val")
OPTIONS = ("size", "motion", "digits", "train_pairs", "val_pairs", "seed")
_COVERING = 0.25  # opacity from which a digit's motion is that of the pixel


def compose_pair(
    rng: np.random.Generator, images: np.ndarray, *, size: int, motion: float, digits: int
) -> dict[str, Any]:
    """Two pictures and the flow from the first to the second.

    Args:
        rng: the source of all randomness.
        images: float [M, 8, 8], ink of digits in 0..1.
        size: height and width in pixels.
        motion: largest displacement of the ground, and of a digit against it, in pixels.
        digits: number of digits.

    Returns:
        "first", "second" uint8 [size, size, 3]; "flow" float32 [size, size, 2], (right, down).

    Example:
        >>> options = {"size": 32, "motion": 3.0, "digits": 2}
        >>> pair = compose_pair(np.random.default_rng(0), scenes.digits("val")[0], **options)
        >>> pair["flow"].shape, bool(np.abs(pair["flow"]).max() <= 6)
        ((32, 32, 2), True)
    """
    margin = int(np.ceil(motion)) + 1
    ground = scenes.ground(rng, size + 2 * margin)
    shift = _in_disk(rng, motion)
    pictures = [_window(ground, margin, move, size) for move in (np.zeros(2), shift)]
    flow = np.broadcast_to(shift.astype(np.float32), (size, size, 2)).copy()
    for _ in range(digits):
        ink = scenes.digit_ink(images[rng.integers(len(images))], rng.uniform(0.25, 0.5) * size)
        place = rng.uniform(-0.25 * ink.shape[0], size - 0.75 * ink.shape[0], 2)
        own = shift + _in_disk(rng, motion)
        color, strength = rng.uniform(0.5, 1.0, 3), rng.uniform(0.55, 1.0)
        covers = [_placed(ink, place + move, size) for move in (np.zeros(2), own)]
        for picture, cover in zip(pictures, covers, strict=True):
            opacity = (strength * cover)[..., None]
            picture += (opacity * (color - picture)).astype(np.float32)
        flow[covers[0] > _COVERING] = own
    first, second = (scenes.levels(rng, picture) for picture in pictures)
    return {"first": first, "second": second, "flow": flow}


def _in_disk(rng: np.random.Generator, radius: float) -> np.ndarray:
    """A displacement (right, down) of at most this length, uniform."""
    angle, length = rng.uniform(0, 2 * np.pi), radius * np.sqrt(rng.uniform())
    return length * np.array([np.cos(angle), np.sin(angle)])


def _window(ground: np.ndarray, margin: int, move: np.ndarray, size: int) -> np.ndarray:
    """The middle of a ground that has moved by (right, down)."""
    return _translated(ground, move - margin, size, cv2.BORDER_REFLECT_101)


def _placed(ink: np.ndarray, place: np.ndarray, size: int) -> np.ndarray:
    """Ink whose corner lies at (right, down), float32 [size, size]."""
    return _translated(ink.astype(np.float32), place, size, cv2.BORDER_CONSTANT)


def _translated(picture: np.ndarray, move: np.ndarray, size: int, border: int) -> np.ndarray:
    matrix = np.array([[1, 0, move[0]], [0, 1, move[1]]], np.float32)
    options = {"flags": cv2.INTER_LINEAR, "borderMode": border}
    return cv2.warpAffine(picture, matrix, (size, size), **options)


class _Pairs:
    """Random access to pairs that are drawn, each from a generator of its own."""

    def __init__(self, split: str, count: int, seed: int, **options: Any):
        self._split, self._count, self._seed, self._options = split, count, seed, options
        self._digits, _ = scenes.digits(split)

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < self._count:
            raise IndexError(f"{index} of {self._count} pairs")
        rng = np.random.default_rng([self._seed, SPLITS.index(self._split), index])
        pair = compose_pair(rng, self._digits, **self._options)
        return {"id": f"{self._split}_{index:05d}", **pair}

    def shape(self, index: int) -> tuple[int, int]:
        return (self._options["size"],) * 2


def load(
    split: str,
    data_dir: str | None,
    *,
    size: int = 128,
    motion: float = 6.0,
    digits: int = 3,
    train_pairs: int = 4096,
    val_pairs: int = 256,
    seed: int = 0,
) -> Dataset:
    """A split of the pairs.

    Args:
        split: "train" or "val", of other digits.
        data_dir: has no effect, there are no files.
        size: height and width in pixels, at least 16.
        motion: largest displacement in pixels of the ground, and of a digit against it.
        digits: number of digits, some of them partly outside.
        train_pairs, val_pairs: numbers of pairs.
        seed: 0 or more; another seed gives other pairs of the same digits.
    """
    counts = {"train": train_pairs, "val": val_pairs}
    for name, value in counts.items():
        _checks.integer(f"{name}_pairs", value)
    _checks.integer("size", size, least=16)
    _checks.number("motion", motion, least=0, most=size)
    _checks.integer("digits", digits, least=0)
    seed = _checks.integer("seed", seed, least=0)
    source = _Pairs(split, counts[split], seed, size=size, motion=float(motion), digits=digits)
    return Dataset("digit_flow", split, source, mean=MEAN, std=STD)
