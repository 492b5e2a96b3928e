"""Inflation: a map enlarged by a learned factor in front of a layer, and brought back behind it.

A kernel whose taps are d pixels apart spans d / factor pixels of the map before inflation, so that
one number, with a gradient, moves the receptive field of a layer.

Coordinates are (y, x) in pixels from the center of the first pixel, which stays where it is. The
size of an inflated map depends on the factor, and sizes of arrays must be known: an inflated map
lies in the first rows and columns of a canvas, with zeros behind it.
"""

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfjax import _checks
from rfjax._engine.devices import is_known
from rfjax._engine.lines import Lines, read_lines
from rfjax._engine.meshes import partitioned

_PARTS = 4096  # of 1, so that factors such as 1.5 are whole numbers of them
_LAYOUT = "[*batch, H, W, C]"


@partitioned(spatial=False)
def inflate(
    x: ArrayLike, factor: ArrayLike, *, max_factor: float = 4.0
) -> tuple[jax.Array, jax.Array]:
    """A map enlarged about its first pixel, on a canvas, and its size.

    canvas(y) = x(y / factor) for y < size, and 0 beyond,   x its bilinear interpolation
    size = floor(factor (H - 1, W - 1)) + 1

    Args:
      x: [*batch, H, W, C] map.
      factor: of the enlargement, a scalar above 0 and at most `max_factor`; beyond it the canvas
        has what fits. Traced.
      max_factor: the largest factor, at least 1. It decides the size of the canvas, static.

    Returns:
      (canvas, size). canvas [*batch, floor(max_factor (H - 1)) + 1, floor(max_factor (W - 1)) + 1,
      C] in the dtype of `x`; size int32 [2], its rows and columns in use. The gradient with respect
      to the factor is that of the interpolation, at whole places the slope on the right. The size
      has none.

    Raises:
      ValueError: a shape or a number is wrong.
      TypeError: an argument does not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([0.0, 4.0, 6.0]).reshape(1, 3, 1)
      >>> canvas, size = inflate(x, 2.0, max_factor=2.5)
      >>> print(canvas[0, :, 0], size)
      [0. 2. 4. 5. 6. 0.] [1 5]

    Reference: Wei et al., "Learning Adaptive Receptive Fields for Deep Image Parsing Network",
      CVPR 2017, equations 1 and 2.
    """
    x, factor = _operands(x, factor)
    largest = _checks.number("max_factor", max_factor, least=1)
    sums = _checks.accumulation_dtype(x, factor)
    scale = factor.astype(sums)
    lines, sizes = [], []
    for length in x.shape[-3:-1]:
        size, places = _inflated(scale, length), jnp.arange(_canvas(largest, length), dtype=sums)
        # V(y) = sum_n U(n) max(0, 1 - |y / f - n|), of the rows in use
        pixels, weights = _interpolation(places / scale, length - 1)
        used = places.astype(jnp.int32) < size
        lines.append(Lines(pixels, jnp.where(used[:, None], weights, 0)))
        sizes.append(size)
    return read_lines(x, *lines), jnp.stack(sizes)


@partitioned(spatial=False)
def interpolate(
    x: ArrayLike, factor: ArrayLike, size: ArrayLike, target: tuple[int, int]
) -> jax.Array:
    """A map read back from an inflated one.

    y(o) = x(min(factor o, size - 1)),   x its bilinear interpolation

    Args:
      x: [*batch, H, W, C] canvas, of which the first rows and columns are in use.
      factor: pixels of `x` per pixel of the result, a scalar above 0. Traced.
      size: [2] the rows and columns of `x` in use, whole numbers. Traced.
      target: (height, width) of the result, static.

    Returns:
      [*batch, *target, C] in the dtype of `x`. The gradient with respect to the factor is that of
      the interpolation, at whole places the slope on the right; it is zero where a place is cut.
      What lies beyond `size` is not read.

    Raises:
      ValueError: a shape or a size is wrong.
      TypeError: an argument is not of the right type.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(6.0).reshape(1, 6, 1)
      >>> print(interpolate(x, 1.5, jnp.array([1, 5]), (1, 4))[0, :, 0])
      [0.  1.5 3.  4. ]

    Reference: Wei et al., "Learning Adaptive Receptive Fields for Deep Image Parsing Network",
      CVPR 2017, section 3.
    """
    x, factor = _operands(x, factor)
    targets: Any = target  # two of them, where they are symbols of an exported program
    if is_known(*np.ravel(np.asarray(target, object))):
        targets = _checks.pair("target", target)
    size = jnp.asarray(size)
    if size.shape != (2,) or not jnp.issubdtype(size.dtype, jnp.integer):
        raise ValueError(f"size must be two integers; got {size.dtype} {size.shape}")
    sums = _checks.accumulation_dtype(x, factor)
    lines = []
    for axis, length in enumerate(targets):
        places = jnp.arange(length, dtype=sums) * factor.astype(sums)
        lines.append(_interpolation(places, (size[axis] - 1).astype(sums)))
    return read_lines(x, *lines)


def weighted_gradient(x: ArrayLike, weights: ArrayLike) -> jax.Array:
    """The map itself, whose gradient is multiplied at every pixel.

    y = x,   dL/dx(p) = weights(p) dL/dy(p)

    Behind the branches of several inflations it breaks their symmetry: where the weights are W > 1
    at pixels whose label is in a branch's own set of classes, and 1 elsewhere, branches that start
    alike drift apart.

    Args:
      x: [*batch, H, W, C] map.
      weights: [*batch, H, W] factors on the gradient at every pixel. Traced; they have no gradient.

    Returns:
      `x` in its dtype.

    Raises:
      ValueError: the shapes do not fit together.
      TypeError: an argument does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> weights = jnp.array([[1.0, 2.0]])
      >>> loss = lambda x: weighted_gradient(x, weights).sum()
      >>> print(jax.grad(loss)(jnp.ones((1, 2, 1)))[0, :, 0])
      [1. 2.]

    Reference: Wei et al., "Learning Adaptive Receptive Fields for Deep Image Parsing Network",
      CVPR 2017, section 3 (weighted gradient layer).
    """
    x = _checks.float_array("x", x, min_ndim=3, layout=_LAYOUT)
    weights = _checks.float_array("weights", weights)
    if weights.shape != x.shape[:-1]:
        raise ValueError(f"weights must have shape {x.shape[:-1]}, of pixels; got {weights.shape}")
    return scale_gradient(x, weights[..., None].astype(x.dtype))


def scale_gradient(x: jax.Array, scale: ArrayLike) -> jax.Array:
    """`x`, exactly, with a gradient that is multiplied by `scale`, which has none.

    Example:
      >>> print(jax.grad(lambda x: scale_gradient(x, 3.0))(1.0))
      3.0
    """
    fixed = jax.lax.stop_gradient(x)
    return fixed + jax.lax.stop_gradient(scale) * (x - fixed)


def _operands(x: ArrayLike, factor: ArrayLike) -> tuple[jax.Array, jax.Array]:
    x = _checks.float_array("x", x, min_ndim=3, layout=_LAYOUT)
    if 0 in x.shape[-3:]:
        raise ValueError(f"x must have pixels and channels, {_LAYOUT}; got shape {x.shape}")
    factor = _checks.finite_scalar("factor", factor)
    if (now := _checks.known(factor)) is not None and now <= 0:
        raise ValueError(f"factor must be above 0; got {factor}")
    return x, factor


def _inflated(factor: jax.Array, length: int) -> jax.Array:
    """floor(factor (length - 1)) + 1, where a product just below a whole number counts as it."""
    product = jax.lax.stop_gradient(factor) * (length - 1)
    slack = 4 * jnp.finfo(product.dtype).eps * length
    return jnp.floor(product + slack).astype(jnp.int32) + 1


def _canvas(largest: float, length: int) -> int:
    """floor(largest (length - 1)) + 1; where the length is a symbol, perhaps a little more.

    Symbols are multiplied and divided by whole numbers alone.
    """
    if is_known(length):
        return math.floor(largest * (length - 1)) + 1
    return math.ceil(_PARTS * largest) * (length - 1) // _PARTS + 1


def _interpolation(places: jax.Array, last: ArrayLike) -> Lines:
    """What a line of pixels is read at, at places that are cut at the `last` one.

    A place in the cell of the pixels m and m + 1 reads (m + 1 - place) and (place - m) of them.
    """
    last = jnp.asarray(last, places.dtype)
    cut = jnp.where(places < last, places, last)
    cell = jax.lax.stop_gradient(jnp.floor(cut))
    inside = cut - cell
    pixels = jnp.stack([cell, jnp.minimum(cell + 1, last)], -1)
    return Lines(pixels, jnp.stack([1 - inside, inside], -1))
