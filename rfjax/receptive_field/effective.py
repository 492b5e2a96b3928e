"""Effective receptive fields: how much an output depends on each input pixel, measured."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfjax import _checks, covariance
from rfjax.receptive_field.functions import theoretical_of_outputs


@dataclass(frozen=True)
class EffectiveField:
    """The effective receptive field of an output.

    Attributes:
      map: [H, W] float64, the mean of |d output / d input| over channels, inputs and outputs; sums
        to 1.
      unit: (y, x) of the output that it belongs to; others' maps were moved there.
      output_size: (H', W') of the outputs.
      draws: how many gradients the mean is of.
    """

    map: np.ndarray
    unit: tuple[int, int]
    output_size: tuple[int, int]
    draws: int

    @property
    def center(self) -> np.ndarray:
        """The mean position (y, x), in input pixels."""
        return np.einsum("hw,hwa->a", self.map, self._pixels())

    @property
    def covariance(self) -> np.ndarray:
        """[2, 2], the second central moment in (y, x) order, in squared input pixels."""
        offsets = self._pixels() - self.center
        return np.einsum("hw,hwa,hwb->ab", self.map, offsets, offsets)

    @property
    def params(self) -> jax.Array:
        """[3], the log-Cholesky parameters of the covariance.

        Raises:
          ValueError: the field is a single pixel, or a line.
        """
        return covariance.log_cholesky(self.covariance)

    @property
    def sigma(self) -> float:
        """The geometric mean of the standard deviations, in input pixels."""
        return float(max(np.linalg.det(self.covariance), 0.0) ** 0.25)

    @property
    def ellipse(self) -> tuple[float, float, float]:
        """(major, minor, angle) of the covariance, as `rfjax.to_ellipse` has them."""
        return tuple(float(part) for part in covariance.to_ellipse(self.params))

    def radius(self, mass: float = 0.95) -> float:
        """The radius in input pixels of the circle about the centre that holds this much of it.

        Args:
          mass: part of the whole, over 0 and at most 1.
        """
        if not 0.0 < mass <= 1.0:
            raise ValueError(f"mass must lie in (0, 1]; got {mass!r}")
        distance = np.linalg.norm(self._pixels() - self.center, axis=-1).ravel()
        order = np.argsort(distance, kind="stable")
        held = np.cumsum(self.map.ravel()[order])
        index = np.searchsorted(held, mass * held[-1] * (1.0 - 1e-12))
        return float(distance[order[min(index, len(order) - 1)]])

    def _pixels(self) -> np.ndarray:
        height, width = self.map.shape
        return np.stack(np.meshgrid(np.arange(height), np.arange(width), indexing="ij"), -1)


def effective(
    apply_fn: Callable[..., jax.Array],
    input_shape: Sequence[int],
    *arguments: Any,
    key: jax.Array | None = None,
    images: ArrayLike | None = None,
    draws: int = 16,
    unit: tuple[int, int] | None = None,
    units: Sequence[tuple[int, int]] | None = None,
    chunk: int = 1,
) -> EffectiveField:
    """The effective receptive field of a function of images.

    E(p) = mean | d (sum_c s_c y_c(u)) / d x(p) |,  s_c random signs

    over the channels of x, over inputs, and over the units u if there are several, whose maps are
    moved by whole pixels onto each other first: by the stride of the `theoretical` field.

    Args:
      apply_fn: function of (x, *arguments), x [N, H, W, C], that returns [N, H', W', K].
      input_shape: (H, W, C) of one image, or (N, H, W, C), of which N is ignored.
      *arguments: trees of arrays, such as a network's variables.
      key: of the random inputs and signs; `jax.random.key(0)` unless given.
      images: [M, H, W, C] inputs to measure on; standard normal ones if None.
      draws: number of gradients for each unit. Inputs are random for each, or take turns.
      unit: (y, x) of the output; None for the one in the middle.
      units: (y, x) of several outputs to average over; None for `unit` alone.
      chunk: gradients that are worked on at a time; memory grows with it.

    Returns:
      An `EffectiveField`.

    Raises:
      ValueError: a shape or number is wrong, or no gradient reaches the input.

    Example:
      >>> import jax.numpy as jnp
      >>> from rfjax import gaussian_blur
      >>> params = jnp.log(jnp.array([2.0, 3.0]))
      >>> blur = lambda x: gaussian_blur(x, params, truncate=5.0)
      >>> effective(blur, (41, 51, 1), draws=1).covariance.round(2) + 0.0
      array([[4., 0.],
             [0., 9.]])

    Reference: Luo et al., "Understanding the Effective Receptive Field in Deep Convolutional Neural
      Networks", NIPS 2016, section 2.
    """
    shape = tuple(input_shape)[-3:]
    if len(shape) != 3 or not all(map(_checks.is_integer, shape)):
        raise ValueError(f"input_shape must be (H, W, C); got {tuple(input_shape)!r}")
    if images is not None:
        images = jnp.asarray(images)
        if images.ndim != 4 or images.shape[1:] != shape or not len(images):
            raise ValueError(f"images must have shape [M, *{shape}]; got {images.shape}")
    draws, chunk = _checks.integer("draws", draws), _checks.integer("chunk", chunk)
    example = jax.ShapeDtypeStruct((1, *shape), jnp.float32 if images is None else images.dtype)
    output = jax.eval_shape(apply_fn, example, *arguments)
    if len(output.shape) != 4:
        raise ValueError(f"the function must return [N, H', W', K]; got {output.shape}")
    size = output.shape[1:3]
    unit = (size[0] // 2, size[1] // 2) if unit is None else tuple(unit)
    places = [unit] if units is None else [tuple(place) for place in units]
    if not places or any(not _inside(place, size) for place in (unit, *places)):
        raise ValueError(f"units must be (y, x) within {size}; got {places}")
    key = jax.random.key(0) if key is None else key
    measure = jax.jit(partial(_mean_gradient, apply_fn, shape, draws, chunk))
    strides = _strides(apply_fn, example, arguments, size) if len(places) > 1 else None
    total = np.zeros(shape[:2])
    for number, place in enumerate(places):
        folded = jax.random.fold_in(key, number)
        found = np.asarray(measure(folded, jnp.asarray(place), images, arguments), np.float64)
        total += found if strides is None else _moved(found, _shift(unit, place, strides))
    if not np.isfinite(total).all() or total.sum() <= 0:
        raise ValueError("no gradient reaches the input from this output, or it is not finite")
    return EffectiveField(total / total.sum(), unit, size, draws * len(places))


def _inside(place: tuple[int, ...], size: tuple[int, int]) -> bool:
    return len(place) == 2 and all(0 <= p < n for p, n in zip(place, size, strict=True))


def _mean_gradient(apply_fn, shape, draws, chunk, key, place, images, arguments) -> jax.Array:
    """[H, W], the mean absolute gradient of one output over `draws` inputs."""

    def one(index):
        image_key, sign_key = jax.random.split(jax.random.fold_in(key, index))
        if images is None:
            image = jax.random.normal(image_key, shape)
        else:
            image = images[index % images.shape[0]]

        def response(image):
            y = apply_fn(image[None], *arguments)[0, place[0], place[1]]
            return jnp.sum(y * jax.random.rademacher(sign_key, y.shape, y.dtype))

        gradient = jax.grad(response)(image)
        return jnp.sum(jnp.abs(gradient.astype(jnp.float32)), -1)

    return jnp.mean(jax.lax.map(one, jnp.arange(draws), batch_size=min(chunk, draws)), 0)


def _strides(apply_fn, example, arguments, size) -> list[float]:
    """Input pixels from one output to the next; by the sizes where the function does not tell."""
    shape, dtype = example.shape, example.dtype
    field = theoretical_of_outputs(apply_fn, shape, *arguments, dtype=dtype)
    strides = []
    for axis, (n, m) in enumerate(zip(shape[1:3], size, strict=True)):
        stride = field.stride[axis] if field else math.nan
        strides.append((round(n / m) or n / m) if math.isnan(stride) else stride)
    return strides


def _shift(unit, place, strides) -> tuple[int, int]:
    """Whole input pixels from the field of `place` to that of `unit`."""
    columns = zip(unit, place, strides, strict=True)
    return tuple(round((u - p) * stride) for u, p, stride in columns)


def _moved(image: np.ndarray, shift: tuple[int, int]) -> np.ndarray:
    """An image moved by whole pixels, zeros where nothing was."""
    result = np.zeros_like(image)
    target, origin = [], []
    for step, size in zip(shift, image.shape, strict=True):
        target.append(slice(max(step, 0), size + min(step, 0)))
        origin.append(slice(max(-step, 0), size - max(step, 0)))
    result[tuple(target)] = image[tuple(origin)]
    return result
