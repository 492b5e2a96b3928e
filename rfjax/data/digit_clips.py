"""Clips of handwritten digits that move, at a speed that changes; drawn when they are read.

Digits as in the scenes (see `rfjax.data.scenes`) glide over a ground that stands still, each
straight on until it is thrown back by a border. A clip goes through spans of 4 to 8 frames in which
all of its digits stand, move slowly, or move fast; the noise of the pixels is new on every frame.
Every frame has its label. Digits that meet hide one another, the later one in front, and where
their ellipses overlap the label is void.

The examples are the frames, those of a clip in a row (see `rfjax.data.Dataset.clips`), so that a
network can be trained on them as on stills.
"""

import functools
from typing import Any

import numpy as np

from rfjax import _checks
from rfjax.data import scenes
from rfjax.data.dataset import Dataset, enlarged
from rfjax.data.digit_scenes import PALETTE

SPLITS = ("train", "val")
OPTIONS = (
    *("size", "min_scale", "max_scale", "train_clips", "val_clips", "length", "fastest", "seed"),
    "enlargement",
)
# Of 946 training frames, every 13th.
MEAN = (0.3147, 0.3092, 0.3111)
STD = (0.1521, 0.1527, 0.1535)
_TRIES = 8  # places tried for a digit in the first frame
_SPANS = (4, 9)  # frames in which the speed is one, and the first number that is too many
_KEPT = 512  # clips that are begun, 0.1 MB each: to draw a ground takes twice as long as a frame
_SPEEDS = (0.0, 0.25, 1.0)  # shares of the fastest


class DrawnClip:
    """A clip, of which any frame can be drawn.

    Args:
        seed: of all that is random, a sequence of integers.
        images, values: digits, as of `rfjax.data.scenes.digits`.
        size: height and width in pixels.
        min_scale, max_scale: limits of the digits' scale in pixels.
        length: number of frames.
        fastest: the highest speed, in pixels per frame.

    Attributes:
        speeds: float [length], pixels that each digit goes from the frame before to this one.

    Example:
        >>> clip = DrawnClip([0], *scenes.digits("val"), length=12)
        >>> frame = clip.frame(11)
        >>> frame["image"].shape, frame["label"].shape
        ((64, 64, 3), (64, 64))
    """

    def __init__(
        self,
        seed: list[int],
        images: np.ndarray,
        values: np.ndarray,
        *,
        size: int = 64,
        min_scale: float = 20.0,
        max_scale: float = 36.0,
        length: int = 24,
        fastest: float = 4.0,
    ):
        rng = np.random.default_rng(seed)
        self._seed, self._size = seed, size
        self._ground = scenes.littered_ground(rng, images, size, min_scale, max_scale)
        self.speeds = _speeds(rng, length, fastest)
        self._digits: list[_Digit] = []
        for _ in range(_TRIES):
            index = rng.integers(len(images))
            scale = scenes.log_uniform(rng, min_scale, max_scale)
            digit = _Digit(rng, images[index], int(values[index]), scale, size)
            if scenes.fits(digit.mask(0.0), [other.mask(0.0) for other in self._digits]):
                self._digits.append(digit)

    def frame(self, t: int) -> dict[str, Any]:
        """Frame t from 0: "image", "label", "instances" and "scales" as of `compose_scene`."""
        canvas, gone = self._ground.copy(), float(self.speeds[: t + 1].sum())
        for digit in self._digits:
            scenes.blend(canvas, digit.ink, *digit.paint, *digit.place(gone))
        masks = [digit.mask(gone) for digit in self._digits]
        classes = [1 + digit.value for digit in self._digits]
        label, instances = scenes.label_maps(masks, classes, self._size)
        image = scenes.levels(np.random.default_rng([*self._seed, t]), canvas)
        scales = np.zeros(scenes.MAX_INSTANCES, np.float32)
        scales[: len(classes)] = [digit.scale for digit in self._digits]
        return {"image": image, "label": label, "instances": instances, "scales": scales}


class _Digit:
    """A digit that glides over a square and is thrown back by its borders."""

    def __init__(
        self, rng: np.random.Generator, digit: np.ndarray, value: int, scale: float, size: int
    ):
        self.value, self.scale, self._size = value, scale, size
        self.ink = scenes.digit_ink(digit, scale)
        self.paint = scenes.paint(rng)
        self._free = np.array([size - extent for extent in self.ink.shape], np.float64)
        self._start = rng.uniform(0, self._free)
        angle = rng.uniform(0, 2 * np.pi)
        self._direction = np.array([np.sin(angle), np.cos(angle)])

    def place(self, gone: float) -> tuple[int, int]:
        """(top, left) after so many pixels of its way."""
        way, twice = self._start + gone * self._direction, 2 * np.maximum(self._free, 0.5)
        top, left = self._free - np.abs(np.mod(way, twice) - self._free)
        return round(max(top, 0.0)), round(max(left, 0.0))

    def mask(self, gone: float) -> np.ndarray:
        """Its ellipse, bool [size, size]."""
        return scenes.ellipse(self.ink, *self.place(gone), self._size)


def _speeds(rng: np.random.Generator, length: int, fastest: float) -> np.ndarray:
    """Pixels per frame, one speed after the other; the first frame has gone nowhere."""
    speeds: list[float] = []
    before = None
    while len(speeds) < length:
        speed = rng.choice([share for share in _SPEEDS if share != before])
        speeds += [fastest * speed] * rng.integers(*_SPANS)
        before = speed
    return np.array([0.0, *speeds[1:length]])


class _Frames:
    """Random access to the frames of all clips."""

    def __init__(self, split: str, count: int, length: int, seed: int, **options: Any):
        self._split, self._count, self._length = split, count, length
        digits = scenes.digits(split)

        @functools.lru_cache(maxsize=_KEPT)
        def clip(index: int) -> DrawnClip:
            drawn = [seed, SPLITS.index(split), index]
            return DrawnClip(drawn, *digits, length=length, **options)

        self._drawn, self._size = clip, options["size"]

    def __len__(self) -> int:
        return self._count * self._length

    def __getitem__(self, index: int) -> dict[str, Any]:
        if not 0 <= index < len(self):
            raise IndexError(f"{index} of {len(self)} frames")
        clip, t = divmod(index, self._length)
        return {"id": f"{self.clip(index)}/{t:03d}", **self._drawn(clip).frame(t)}

    def clip(self, index: int) -> str:
        return f"{self._split}_{index // self._length:05d}"

    def shape(self, index: int) -> tuple[int, int]:
        return self._size, self._size


def load(
    split: str,
    data_dir: str | None,
    *,
    size: int = 64,
    min_scale: float = 20.0,
    max_scale: float = 36.0,
    train_clips: int = 512,
    val_clips: int = 32,
    length: int = 24,
    fastest: float = 4.0,
    seed: int = 0,
    enlargement: int = 1,
) -> Dataset:
    """A split of the clips; nothing is written.

    Args:
        split: "train" or "val", of other digits.
        data_dir: has no effect, there are no files.
        size: height and width in pixels.
        min_scale, max_scale: limits of the digits' scale in pixels.
        train_clips, val_clips: numbers of clips.
        length: frames of a clip.
        fastest: the highest speed in pixels per frame, before enlargement.
        seed: 0 or more; another seed gives other clips of the same digits.
        enlargement: whole factor by which frames are enlarged as they are read.
    """
    scenes.check_options(size, min_scale, max_scale)
    counts = {"train": train_clips, "val": val_clips}
    for name, value in counts.items():
        _checks.integer(f"{name}_clips", value)
    _checks.integer("length", length)
    _checks.number("fastest", fastest, least=0)
    seed = _checks.integer("seed", seed, least=0)
    options = {"size": size, "min_scale": min_scale, "max_scale": max_scale, "fastest": fastest}
    return Dataset(
        name="digit_clips",
        split=split,
        source=enlarged(_Frames(split, counts[split], length, seed, **options), enlargement),
        num_classes=len(scenes.CLASS_NAMES),
        class_names=scenes.CLASS_NAMES,
        palette=PALETTE,
        mean=MEAN,
        std=STD,
    )
