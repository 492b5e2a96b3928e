"""Pictures that are too large for a network at once: by windows that overlap, a band at a time.

    p(y, x) = sum_w  t(y - y_w) t(x - x_w) softmax(s_w(y - y_w, x - x_w)) / sum_w  t t

over the windows w that hold the pixel, with a weight t that falls towards the borders of a window,
where a network sees least. Memory is that of one band of windows, whatever the picture's height.
"""

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np

from rfjax import _options, tasks
from rfjax._faults import ConfigError
from rfjax.training.runs import Trained

Probabilities = Callable[[np.ndarray], np.ndarray]  # uint8 [h, w, C] -> float32 [h, w, K]


def probabilities(trained: Trained) -> Probabilities:
    """The function of a picture that returns the probability of each class at each pixel.

    Args:
        trained: a run of a segmentation with one set of labels.

    Returns:
        A function of images uint8 [H, W, C], which returns float32 [H, W, K], the softmax of the
        scores. Another size compiles the network anew.

    Raises:
        ConfigError: the run is no such segmentation.
    """
    task = trained.task
    if not isinstance(task, tasks.Segmentation) or isinstance(task, tasks.Segmentations):
        raise ConfigError("probabilities are those of a segmentation by one set of labels")
    normalization = task.normalization

    @jax.jit
    def apply(variables: Any, images: jax.Array) -> jax.Array:
        scores = trained.model.apply(variables, normalization.on_device(images), train=False)
        return jax.nn.softmax(scores)[0]

    return lambda image: np.asarray(apply(trained.variables, image[None]))


def bands(
    of: Probabilities, image: np.ndarray, *, window: int, overlap: float = 0.25
) -> Iterator[np.ndarray]:
    """The probabilities of a picture from top to bottom, each band float32 [rows, W, K].

    Args:
        of: the probabilities of a window, float32 [h, w, K].
        image: uint8 [H, W, C].
        window: height and width of the windows in pixels, where the picture has so many. The last
            windows of a row and of a column end with the picture.
        overlap: least share of a window that its neighbor covers as well, from 0 to below 1.

    Raises:
        ValueError: window is no whole number of at least 1, or overlap is out of its range.

    Example:
        >>> white = lambda part: np.ones((*part.shape[:2], 2), np.float32)
        >>> found = list(bands(white, np.zeros((9, 7, 3), np.uint8), window=4))
        >>> [band.shape for band in found]
        [(2, 7, 2), (3, 7, 2), (4, 7, 2)]
        >>> bool(np.allclose(np.concatenate(found), 1))
        True
    """
    window = _options.integer("window", window)
    overlap = _options.number("overlap", overlap, least=0, below=1)
    down, across = (_axis(size, window, overlap) for size in image.shape[:2])
    pending: np.ndarray | None = None
    for top, end in zip(down.starts, (*down.starts[1:], len(image)), strict=True):
        row = _row(of, image[top : top + len(down.weights)], across)
        row *= down.weights[:, None, None]
        if pending is not None:
            row[: len(pending)] += pending
        done, pending = row[: end - top], row[end - top :]
        done /= (down.total[top:end, None] * across.total)[..., None]
        yield done


class _Axis(NamedTuple):
    """Windows along an axis: where they start, the weights of a window, and their sum [size]."""

    starts: tuple[int, ...]
    weights: np.ndarray
    total: np.ndarray


def _axis(size: int, window: int, overlap: float) -> _Axis:
    """As few windows as cover an axis, spread evenly."""
    window = min(window, size)
    step = max(1, int(window * (1 - overlap)))
    starts = np.linspace(0, size - window, 1 + -(-(size - window) // step)).astype(int).tolist()
    distance = np.minimum(np.arange(window), np.arange(window)[::-1]) + 1.0
    weights, total = (distance / distance.max()).astype(np.float32), np.zeros(size, np.float32)
    for start in starts:
        total[start : start + window] += weights
    return _Axis(tuple(starts), weights, total)


def _row(of: Probabilities, strip: np.ndarray, across: _Axis) -> np.ndarray:
    """The weighted sum of the windows of a strip, float32 [h, W, K]."""
    window, total = len(across.weights), np.zeros(())
    for start in across.starts:
        found = of(strip[:, start : start + window])
        if not total.ndim:
            total = np.zeros((*strip.shape[:2], found.shape[-1]), np.float32)
        total[:, start : start + window] += found * across.weights[:, None]
    return total
