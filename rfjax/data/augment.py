"""Augmentation of an image together with its label, as pure functions of a seeded generator.

Images are uint8 [H, W, C], R, G, B first where there are three channels or more, and labels uint8
[H, W] with 255 for void. Whatever moves pixels moves both alike: images are interpolated, labels
take the nearest value, and where there was no picture the image is a reflection and the label void.
`random_*` functions have the signature `f(rng, image, label, amount) -> (image, label)` and change
nothing when their amount is "off". Changes of color leave other channels as they are.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import cv2
import numpy as np

from rfjax import _checks
from rfjax.data.dataset import VOID, by_threes

Pair = tuple[np.ndarray, np.ndarray]

# Eigenvalues (in grey levels) and eigenvectors (columns; rows are R, G, B) of the colours of
# ImageNet's training images, as AlexNet's "fancy PCA" is usually restated.
_PCA_VALUES = np.array([55.46, 4.794, 1.148], np.float32)
_PCA_VECTORS = np.array(
    [[-0.5675, 0.7192, 0.4009], [-0.5808, -0.0045, -0.8140], [-0.5836, -0.6948, 0.4203]],
    np.float32,
)
_LEVELS = np.arange(256, dtype=np.float32)


def rotate(image: np.ndarray, label: np.ndarray, degrees: float) -> Pair:
    """Image and label turned about their centre, anticlockwise as displayed, at the same size.

    The image is interpolated bilinearly and continued by reflection; labels from outside are 255.
    """
    height, width = label.shape
    matrix = cv2.getRotationMatrix2D(((width - 1) / 2, (height - 1) / 2), degrees, 1.0)
    size = (width, height)
    options = {"flags": cv2.INTER_LINEAR, "borderMode": cv2.BORDER_REFLECT_101}
    image = by_threes(lambda part: cv2.warpAffine(part, matrix, size, **options), image)
    label = cv2.warpAffine(
        label,
        matrix,
        size,
        flags=cv2.INTER_NEAREST,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=VOID,
    )
    return image, label


def resize(image: np.ndarray, label: np.ndarray, factor: float) -> Pair:
    """Image and label `factor` times as large, sizes rounded to whole pixels (1 at least).

    Factors below 1 average the area that a new pixel covers, which is what prevents aliasing;
    factors above 1 interpolate cubically. Labels take the nearest value.
    """
    height, width = (max(1, round(n * factor)) for n in label.shape)
    if (height, width) == label.shape:
        return image, label
    interpolation = cv2.INTER_AREA if factor < 1 else cv2.INTER_CUBIC
    return (
        by_threes(
            lambda part: cv2.resize(part, (width, height), interpolation=interpolation), image
        ),
        cv2.resize(label, (width, height), interpolation=cv2.INTER_NEAREST_EXACT),
    )


def pad_to(image: np.ndarray, label: np.ndarray, size: tuple[int, int]) -> Pair:
    """Image and label of at least `size` (height, width): reflected, and 255, on all sides."""
    missing = [max(0, wanted - n) for wanted, n in zip(size, label.shape, strict=True)]
    if not any(missing):
        return image, label
    (top, left), (bottom, right) = [n // 2 for n in missing], [n - n // 2 for n in missing]
    borders = (top, bottom, left, right)
    return (
        by_threes(lambda part: cv2.copyMakeBorder(part, *borders, cv2.BORDER_REFLECT_101), image),
        cv2.copyMakeBorder(label, *borders, cv2.BORDER_CONSTANT, value=VOID),
    )


def random_rotation(
    rng: np.random.Generator,
    image: np.ndarray,
    label: np.ndarray,
    degrees: float,
    *,
    whole: bool = True,
) -> Pair:
    """Turned by an angle uniform in [-degrees, degrees], in whole degrees or in any."""
    if not degrees:
        return image, label
    limit = int(degrees)
    angle = rng.integers(-limit, limit + 1) if whole else rng.uniform(-degrees, degrees)
    return rotate(image, label, float(angle))


def random_scale(
    rng: np.random.Generator, image: np.ndarray, label: np.ndarray, limits: tuple[float, float]
) -> Pair:
    """Scaled by a factor uniform in `limits` (low, high)."""
    if tuple(limits) == (1.0, 1.0):
        return image, label
    return resize(image, label, float(rng.uniform(*limits)))


def random_crop(
    rng: np.random.Generator, image: np.ndarray, label: np.ndarray, size: tuple[int, int] | None
) -> Pair:
    """A window of `size` (height, width) at a uniformly random place, padded first if needed."""
    if size is None:
        return image, label
    image, label = pad_to(image, label, size)
    top = rng.integers(0, label.shape[0] - size[0] + 1)
    left = rng.integers(0, label.shape[1] - size[1] + 1)
    window = (slice(top, top + size[0]), slice(left, left + size[1]))
    return image[window], label[window]


def brightness(image: np.ndarray, factor: float) -> np.ndarray:
    """x -> factor * x, clipped to 0..255."""
    return cv2.LUT(image, _as_levels(_LEVELS * factor))


def contrast(image: np.ndarray, factor: float) -> np.ndarray:
    """x -> m + factor * (x - m) with m the mean grey of the image, clipped to 0..255."""
    mean = cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0]
    return cv2.LUT(image, _as_levels(mean + factor * (_LEVELS - mean)))


def saturation(image: np.ndarray, factor: float) -> np.ndarray:
    """x -> g + factor * (x - g) with g the grey of each pixel, clipped to 0..255."""
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return cv2.addWeighted(image, factor, grey, 1.0 - factor, 0.0)


def random_color(
    rng: np.random.Generator, image: np.ndarray, label: np.ndarray, amount: float
) -> Pair:
    """Contrast, brightness and saturation in random order, factors uniform in [1-amount, 1+amount].

    Reference: A. Howard, "Some improvements on deep convolutional neural network based image
    classification" (2013), with amount .5.
    """
    if not amount:
        return image, label
    changes = (contrast, brightness, saturation)
    for index in rng.permutation(len(changes)):
        factor = float(rng.uniform(1 - amount, 1 + amount))
        image = _of_colors(partial(changes[index], factor=factor), image)
    return image, label


def random_lighting(
    rng: np.random.Generator, image: np.ndarray, label: np.ndarray, std: float
) -> Pair:
    """A shift of all pixels along the principal colours of natural images: sum_i a_i l_i p_i.

    The a_i are normal with standard deviation `std` (.1 in AlexNet's recipe), l_i and p_i the
    eigenvalues and eigenvectors of the colours' covariance.
    """
    if not std:
        return image, label
    shift = _PCA_VECTORS @ (_PCA_VALUES * rng.normal(0.0, std, 3).astype(np.float32))
    table = _as_levels(_LEVELS[:, None] + shift[None])[:, None]
    return _of_colors(lambda colors: cv2.LUT(colors, table), image), label


def random_flip(rng: np.random.Generator, image: np.ndarray, label: np.ndarray, flip: bool) -> Pair:
    """Mirrored left to right in half of the cases."""
    if not flip or rng.random() < 0.5:
        return image, label
    return image[:, ::-1], label[:, ::-1]


def _of_colors(change: Callable[[np.ndarray], np.ndarray], image: np.ndarray) -> np.ndarray:
    """The image with its colors changed, the first three channels; one without is as it was."""
    if image.shape[2] < 3:
        return image
    changed = change(np.ascontiguousarray(image[..., :3]))
    return changed if image.shape[2] == 3 else np.dstack([changed, image[..., 3:]])


def _as_levels(values: np.ndarray) -> np.ndarray:
    return np.rint(np.clip(values, 0.0, 255.0)).astype(np.uint8)


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """What happens to a training example, in this order; every default means "nothing".

    Attributes:
        rotation: largest angle in degrees.
        whole_degrees: draw whole angles (as the reference code does) or any.
        scale: limits of the uniform scale factor.
        crop: height and width of the window cut out, or None for the full example.
        color: half-width of the factors of contrast, brightness and saturation; Howard's is .5.
        lighting: standard deviation of the shift along the principal colours; AlexNet's is .1.
        flip: mirror half of the examples left to right.

    Example:
        >>> image, label = np.zeros((6, 8, 3), np.uint8), np.zeros((6, 8), np.uint8)
        >>> image, label = Augmentation(crop=(4, 4))(np.random.default_rng(0), image, label)
        >>> image.shape, label.shape
        ((4, 4, 3), (4, 4))
    """

    scale: tuple[float, float] = (1.0, 1.0)
    rotation: float = 0.0
    crop: tuple[int, int] | None = None
    color: float = 0.0
    lighting: float = 0.0
    flip: bool = False
    whole_degrees: bool = True

    def __post_init__(self):
        scale = tuple(self.scale) if np.ndim(self.scale) else ()
        numbers = len(scale) == 2 and all(map(_checks.is_number, scale))
        if not numbers or not 0 < scale[0] <= scale[1] < np.inf:
            raise ValueError(f"scale is a pair of factors 0 < low <= high; got {self.scale!r}")
        if self.crop is not None:
            crop = tuple(self.crop) if np.ndim(self.crop) else ()
            if len(crop) != 2 or not all(_checks.is_integer(n) and n > 0 for n in crop):
                raise ValueError(f"crop is None or (height, width) in pixels; got {self.crop!r}")
            object.__setattr__(self, "crop", tuple(map(int, crop)))
        object.__setattr__(self, "scale", (float(scale[0]), float(scale[1])))
        _checks.number("color", self.color, least=0, most=1)
        _checks.number("lighting", self.lighting, least=0)
        _checks.number("rotation", self.rotation, least=0, most=180)
        _checks.flag("flip", self.flip)
        _checks.flag("whole_degrees", self.whole_degrees)
        if 0 < self.rotation < 1 and self.whole_degrees:
            raise ValueError(
                f"no whole angle lies within {self.rotation} degrees: set whole_degrees=False"
            )

    def __call__(self, rng: np.random.Generator, image: np.ndarray, label: np.ndarray) -> Pair:
        """Image and label after all that is switched on."""
        pair = random_rotation(rng, image, label, self.rotation, whole=self.whole_degrees)
        pair = random_scale(rng, *pair, self.scale)
        pair = random_crop(rng, *pair, self.crop)
        pair = random_color(rng, *pair, self.color)
        pair = random_lighting(rng, *pair, self.lighting)
        return random_flip(rng, *pair, self.flip)
