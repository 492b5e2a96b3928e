"""Scenes of handwritten digits whose classes can only be told by looking far enough.

Pure functions of NumPy arrays and a seeded generator. A scene is a noisy ground with scraps of
strokes, on which whole digits lie; each digit is labelled not by its ink but by the ellipse around
it, so that a pixel's class depends on strokes up to a digit's size away.

The digits are scikit-learn's 1,797 (8x8 pixels, the test part of UCI's "Optical Recognition of
Handwritten Digits"), in their order: the first 1,397 make training scenes, the last 400 validation
scenes. The set was written by 13 people and is ordered writer by writer: its labels run 14 times
through the same text of some 130 digits, and a run begins at index 1,415. So 382 of the 400
validation digits come from runs that have no digit in training; the first 18 of them end a run
whose beginning is in training. Writers are not identified in the data, so nothing stronger can
be said.

Coordinates are (y, x) in pixels. The *scale* s of a digit is the height in pixels of its 8x8 box.
"""

import functools
from typing import Any

import cv2
import numpy as np

from rfjax import _checks
from rfjax._checks import choose
from rfjax.data.dataset import VOID

CLASS_NAMES = ("background", *"0123456789")
MAX_INSTANCES = 64
TRAIN_DIGITS = 1397  # of 1,797

_MARGIN = 1.25  # patch width over scale: eight pixels of digit and one of padding on either side
_INK = 0.25  # ink above this counts for the bounding box
_SEMI_AXIS = 0.62  # of the ellipse, in heights and widths of the ink's bounding box
_MAX_OVERLAP = 0.05  # of the smaller of two ellipses
_MAX_COVER = 0.55  # of the scene
_TRIES = 20  # places tried for a digit, in a scene of 64x64
_MAX_DISTRACTORS = 5  # in a scene of 64x64
_NOISE_CELLS = (2, 6, 16)  # pixels
_NOISE = 0.05  # standard deviation of the ground at each cell size
_PIXEL_NOISE = 0.03
# Of the map of depth, in logarithms of meters.
_GROUND_DEPTH = float(np.log(3.0))
_TILT = 0.1  # the largest, from the middle of the scene to its border
_NEARER = (0.15, 0.75)  # than the ground: the first digit to be laid at least, the last one
_RELIEF = 0.1  # by which ink stands out of its ellipse
_DEPTH_NOISE = 0.02  # standard deviation at each cell size
DEPTHS = (0.0, float(np.log(4.0)))  # of the levels 0 and 255


@functools.cache
def _all_digits() -> tuple[np.ndarray, np.ndarray]:
    from sklearn.datasets import load_digits  # a second to import: only when scenes are drawn

    bunch = load_digits()
    images = (bunch.images / 16.0).astype(np.float32)
    return images, bunch.target.astype(np.uint8)


def digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    """The digits of a split: ink in 0..1, float32 [M, 8, 8], and what they are, uint8 [M].

    Args:
        split: "train" (1,397 digits) or "val" (400 others).

    Example:
        >>> images, values = digits("val")
        >>> images.shape, values[:5].tolist()
        ((400, 8, 8), [4, 4, 7, 2, 8])
    """
    part = choose("split", split, {"train": slice(TRAIN_DIGITS), "val": slice(TRAIN_DIGITS, None)})
    images, values = _all_digits()
    return images[part], values[part]


def check_options(size: int, min_scale: float, max_scale: float) -> None:
    """Raises a ValueError unless digits of these scales can be seen and fit into the scene."""
    _checks.integer("size", size, least=16)
    for name, value in (("min_scale", min_scale), ("max_scale", max_scale)):
        _checks.number(name, value, above=0)
    if not 4 <= min_scale <= max_scale <= size / _MARGIN:
        raise ValueError(
            f"scales need 4 <= min_scale <= max_scale <= size / {_MARGIN} = {size / _MARGIN:g};"
            f" got {min_scale} and {max_scale}"
        )


def compose_scene(
    rng: np.random.Generator,
    images: np.ndarray,
    values: np.ndarray,
    *,
    size: int = 64,
    min_scale: float = 20.0,
    max_scale: float = 48.0,
    depth: np.random.Generator | None = None,
) -> dict[str, Any]:
    """One scene: its image, class and instance masks, and the scale of each instance.

    A ground colour U(.1, .45) per channel with cubic noise at cells of 2, 6 and 16 pixels; up to
    five scraps of strokes; then digits with scales log-uniform in [min_scale, max_scale] at up to
    twenty places, each kept if its ellipse overlaps no other by more than 5 % and all together
    cover at most 55 % of the scene (both counts grow with the scene's area); pixel noise of .03.

    The ellipse of a digit has semi-axes of .62 times height and width of the ink's bounding box.
    Label 255 (void) marks where the class is a matter of drawing: the outermost pixel of each
    ellipse, and pixels in two ellipses. Everything else is decided: `label` is 0 (background)
    just where `instances` is 0, and 1 + the digit inside.

    Depth is measured by a sensor with noise: a tilted ground 3 m away, on which the ellipses lie as
    plates, each nearer than those that it may cover, with the ink of their digits in relief. Scraps
    of strokes are flat, so that depth does not show them.

    Args:
        rng: the source of all randomness.
        images: float [M, 8, 8], ink in 0..1.
        values: integers [M] in 0..9.
        size: height and width of the scene in pixels.
        min_scale, max_scale: limits of the scale in pixels.
        depth: the source of the randomness of depth; None for no depth. The rest of the scene is
            the same with it and without.

    Returns:
        "image" uint8 [size, size, 3]; "label" uint8 [size, size]; "instances" uint8 [size, size],
        0 or the number of the instance from 1 (the later one where two overlap); "scales"
        float32 [64], the scale of instance k at k - 1, then zeros; and with depth "depth" uint8
        [size, size], its logarithm from that of 1 m at 0 to that of 4 m at 255.

    Example:
        >>> scene = compose_scene(np.random.default_rng(0), *digits("val"))
        >>> scene["image"].shape, int(scene["instances"].max()) == int((scene["scales"] > 0).sum())
        ((64, 64, 3), True)
    """
    check_options(size, min_scale, max_scale)
    canvas = littered_ground(rng, images, size, min_scale, max_scale)
    area = (size / 64) ** 2
    masks: list[np.ndarray] = []
    classes, scales, inks = [], [], []
    for _ in range(max(1, round(_TRIES * area))):
        index = rng.integers(len(images))
        scale = log_uniform(rng, min_scale, max_scale)
        ink = digit_ink(images[index], scale)
        top, left = rng.integers(0, size - ink.shape[0] + 1, 2)
        mask = ellipse(ink, top, left, size)
        if len(masks) == MAX_INSTANCES or not fits(mask, masks):
            continue
        _paste(rng, canvas, ink, top, left)
        masks.append(mask)
        classes.append(1 + values[index])
        scales.append(scale)
        inks.append((ink, top, left))
    image = levels(rng, canvas)
    label, instances = label_maps(masks, classes, size)
    padded = np.zeros(MAX_INSTANCES, np.float32)
    padded[: len(scales)] = scales
    scene = {"image": image, "label": label, "instances": instances, "scales": padded}
    return scene if depth is None else {**scene, "depth": _depth(depth, inks, instances)}


def log_uniform(rng: np.random.Generator, low: float, high: float) -> float:
    """A number whose logarithm is uniform between those of low and high."""
    return float(np.exp(rng.uniform(np.log(low), np.log(high))))


def littered_ground(
    rng: np.random.Generator, images: np.ndarray, size: int, min_scale: float, max_scale: float
) -> np.ndarray:
    """The ground of a scene with scraps of strokes, float32 [size, size, 3]."""
    canvas = ground(rng, size)
    for _ in range(rng.integers(0, round(_MAX_DISTRACTORS * (size / 64) ** 2) + 1)):
        _paste_distractor(rng, canvas, images, log_uniform(rng, min_scale, max_scale))
    return canvas


def ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A colour and smooth noise at several sizes of cell, float32 [size, size, 3]."""
    canvas = np.empty((size, size, 3), np.float32)
    canvas[:] = rng.uniform(0.1, 0.45, 3)
    _add_noise(rng, canvas, _NOISE)
    return canvas


def _add_noise(rng: np.random.Generator, canvas: np.ndarray, deviation: float) -> None:
    """Adds smooth noise of a standard deviation at every size of cell to [size, size, C]."""
    size, _, channels = canvas.shape
    for cell in _NOISE_CELLS:
        cells = -(-size // cell) + 1
        noise = rng.normal(0.0, deviation, (cells, cells, channels)).astype(np.float32)
        width = cells * cell
        noise = cv2.resize(noise, (width, width), interpolation=cv2.INTER_CUBIC)
        top, left = rng.integers(0, width - size + 1, 2)
        canvas += noise.reshape(width, width, channels)[top : top + size, left : left + size]


def _depth(
    rng: np.random.Generator,
    inks: list[tuple[np.ndarray, int, int]],
    instances: np.ndarray,
) -> np.ndarray:
    """The levels of depth of a scene, uint8 [size, size].

    Args:
        rng: the source of all randomness.
        inks: of each instance its ink, and where it begins.
        instances: which of them is seen at each pixel, 0 for none.
    """
    size = len(instances)
    across = np.linspace(-1, 1, size, dtype=np.float32)
    down, right = rng.uniform(-_TILT, _TILT, 2) / 2
    canvas = (_GROUND_DEPTH + down * across[:, None] + right * across).astype(np.float32)
    nearest, spread = _NEARER[0], _NEARER[1] - _NEARER[0]
    canvas -= (nearest + spread * instances / len(inks)) * (instances > 0)
    for number, (ink, top, left) in enumerate(inks, 1):
        window = (slice(top, top + ink.shape[0]), slice(left, left + ink.shape[1]))
        canvas[window] -= _RELIEF * ink * (instances[window] == number)
    _add_noise(rng, canvas[..., None], _DEPTH_NOISE)
    low, high = DEPTHS
    return np.rint(np.clip((canvas - low) / (high - low), 0.0, 1.0) * 255.0).astype(np.uint8)


def _padded(ink: np.ndarray) -> np.ndarray:
    return cv2.copyMakeBorder(ink, 1, 1, 1, 1, cv2.BORDER_CONSTANT)


def _resized_ink(ink: np.ndarray, height: float, width: float) -> np.ndarray:
    size = (max(1, round(width)), max(1, round(height)))
    return np.clip(cv2.resize(ink, size, interpolation=cv2.INTER_CUBIC), 0.0, 1.0)


def digit_ink(digit: np.ndarray, scale: float) -> np.ndarray:
    """The ink of a digit at a scale, with a margin that keeps its strokes whole."""
    width = digit.shape[0] * scale * _MARGIN / 8  # 1.25 s for eight pixels
    return _resized_ink(_padded(digit), width, width)


def _paste(
    rng: np.random.Generator, canvas: np.ndarray, ink: np.ndarray, top: int, left: int
) -> None:
    """Blends a random light colour into the canvas with the ink as opacity."""
    blend(canvas, ink, *paint(rng), top, left)


def paint(rng: np.random.Generator) -> tuple[np.ndarray, float]:
    """A light color, and an opacity."""
    return rng.uniform(0.5, 1.0, 3).astype(np.float32), rng.uniform(0.55, 1.0)


def blend(
    canvas: np.ndarray, ink: np.ndarray, color: np.ndarray, opacity: float, top: int, left: int
) -> None:
    """Lays a color over the canvas where there is ink, which is there whole."""
    share = (opacity * ink)[:, :, None].astype(np.float32)
    place = canvas[top : top + ink.shape[0], left : left + ink.shape[1]]
    place += share * (color - place)


def _paste_distractor(
    rng: np.random.Generator, canvas: np.ndarray, images: np.ndarray, scale: float
) -> None:
    """A scrap of a digit, as large as at that scale, faded out towards its borders."""
    height, width = rng.integers(3, 5, 2)
    digit = images[rng.integers(len(images))]
    top, left = rng.integers(0, 9 - height), rng.integers(0, 9 - width)
    window = np.outer(np.hanning(height + 2)[1:-1], np.hanning(width + 2)[1:-1])
    scrap = (digit[top : top + height, left : left + width] * window).astype(np.float32)
    ink = _resized_ink(_padded(scrap), (height + 2) * scale / 8, (width + 2) * scale / 8)
    free_y, free_x = (canvas.shape[a] - ink.shape[a] + 1 for a in (0, 1))
    _paste(rng, canvas, ink, rng.integers(0, free_y), rng.integers(0, free_x))


def ellipse(ink: np.ndarray, top: int, left: int, size: int) -> np.ndarray:
    """The filled ellipse around the ink's bounding box, bool [size, size]."""
    vertical = _squared_distance(ink.max(1) > _INK, top, size)
    horizontal = _squared_distance(ink.max(0) > _INK, left, size)
    return vertical[:, None] + horizontal[None] <= 1.0


def _squared_distance(inked: np.ndarray, start: int, size: int) -> np.ndarray:
    """Of each coordinate from the middle of the ink along one axis, in squared semi-axes."""
    found = inked.nonzero()[0]
    first, last = start + int(found[0]), start + int(found[-1])
    semi_axis = _SEMI_AXIS * (last - first + 1)
    return np.square((np.arange(size, dtype=np.float32) - (first + last) / 2) / semi_axis)


def fits(mask: np.ndarray, masks: list[np.ndarray]) -> bool:
    """Whether the ellipse leaves the others visible and the scene open."""
    area = np.count_nonzero(mask)
    covered = mask
    for other in masks:
        allowed = _MAX_OVERLAP * min(area, np.count_nonzero(other))
        if np.count_nonzero(mask & other) > allowed:
            return False
        covered = covered | other
    return np.count_nonzero(covered) <= _MAX_COVER * mask.size


def label_maps(
    masks: list[np.ndarray], classes: list[int], size: int
) -> tuple[np.ndarray, np.ndarray]:
    """The class and the instance of each pixel, uint8 [size, size]; void as in `compose_scene`."""
    label = np.zeros((size, size), np.uint8)
    instances = np.zeros((size, size), np.uint8)
    void = np.zeros((size, size), bool)
    cross = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
    for number, (mask, value) in enumerate(zip(masks, classes, strict=True), 1):
        inner = cv2.erode(mask.astype(np.uint8), cross).astype(bool)
        void |= (mask & ~inner) | (mask & (instances > 0))
        label[mask] = value
        instances[mask] = number
    label[void] = VOID
    return label, instances


def compose_digit(
    rng: np.random.Generator,
    images: np.ndarray,
    values: np.ndarray,
    *,
    size: int = 64,
    min_scale: float = 20.0,
    max_scale: float = 48.0,
) -> dict[str, Any]:
    """A picture of one digit, on the ground of a scene and among its scraps of strokes.

    Args:
        rng, images, values, size, min_scale, max_scale: as in `compose_scene`.

    Returns:
        "image" uint8 [size, size, 3]; "label", the digit; "scale", its scale in pixels.

    Example:
        >>> picture = compose_digit(np.random.default_rng(0), *digits("val"))
        >>> picture["image"].shape, 0 <= picture["label"] <= 9
        ((64, 64, 3), True)
    """
    check_options(size, min_scale, max_scale)
    canvas = littered_ground(rng, images, size, min_scale, max_scale)
    index, scale = rng.integers(len(images)), log_uniform(rng, min_scale, max_scale)
    ink = digit_ink(images[index], scale)
    _paste(rng, canvas, ink, *rng.integers(0, size - ink.shape[0] + 1, 2))
    return {"image": levels(rng, canvas), "label": int(values[index]), "scale": scale}


def levels(rng: np.random.Generator, canvas: np.ndarray) -> np.ndarray:
    """The canvas with the noise of pixels, uint8."""
    canvas += np.float32(_PIXEL_NOISE) * rng.standard_normal(canvas.shape, np.float32)
    return np.rint(np.clip(canvas, 0.0, 1.0) * 255.0).astype(np.uint8)
