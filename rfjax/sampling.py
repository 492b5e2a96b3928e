"""Bilinear reads of feature maps, and convolutions whose taps lie at arbitrary positions.

Coordinates and positions are (y, x), y down, in pixels: the centre of pixel (i, j) lies at (i, j).
Between the centres a map is the bilinear interpolation of its four neighbours, which is piecewise
bilinear and has a kink at every integer coordinate. The gradient with respect to a position is the
slope of the cell that the position lies in; on a kink it is the slope on the right (of the cell
that starts there). It sees the two pixels on either side along an axis and nothing beyond them, and
it is zero where the map is constant, so outside a zero-padded map too.

Coordinates are kept in float32 at least, whatever the dtype of the map.
"""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rfjax import _checks
from rfjax._engine import reads
from rfjax._engine.conv import check_kernel
from rfjax._engine.conv import output_size as output_size

_LAYOUT = "[..., H, W, C]"


class _Boundary(NamedTuple):
    """Where a neighbour outside of an axis of `size` pixels is read, and what its value counts."""

    index: Callable[[jax.Array, int], jax.Array]
    outside: float = 1.0


def _clip(index: jax.Array, size: int) -> jax.Array:
    return jnp.clip(index, 0, size - 1)


def _reflect(index: jax.Array, size: int) -> jax.Array:
    period = max(2 * (size - 1), 1)
    index = jnp.mod(index, period)
    return jnp.minimum(index, period - index) if size > 1 else jnp.zeros_like(index)


_BOUNDARIES = {
    "zero": _Boundary(_clip, outside=0.0),
    "edge": _Boundary(_clip),
    "reflect": _Boundary(_reflect),
    "wrap": _Boundary(lambda index, size: jnp.mod(index, size)),
}


def bilinear_sample(x: ArrayLike, coordinates: ArrayLike, *, padding: str = "zero") -> jax.Array:
    """The values of a map at real-valued coordinates.

    v = (1-a)(1-b) x[i, j] + (1-a) b x[i, j+1] + a (1-b) x[i+1, j] + a b x[i+1, j+1],
    i = floor(y), j = floor(x), a = y - i, b = x - j

    Args:
      x: [*batch, H, W, C] map.
      coordinates: [*batch, *points, 2] (y, x) in pixels, any real numbers. Each example is read at
        its own points; without batch axes in `x` all axes but the last are points. Traced.
      padding: what lies outside: "zero"; "edge", the nearest pixel; "reflect", the mirror image
        about the outermost pixels' centres; "wrap", the map again. Static.

    Returns:
      [*batch, *points, C] in the dtype of `x`; weights and sums in float32 at least. The gradient
      with respect to the coordinates is that of the interpolation, on integers the right-sided one.

    Raises:
      ValueError: `padding` is none of these, or the shapes do not fit together.
      TypeError: an argument does not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.array([[0.0, 1.0], [2.0, 3.0]])[..., None]
      >>> print(bilinear_sample(x, jnp.array([[0.5, 0.5], [1.0, 1.5]]))[:, 0])
      [1.5 1.5]

    Reference: Jaderberg et al., "Spatial Transformer Networks", 2015, equation 5.
    """
    boundary = _checks.choose("padding", padding, _BOUNDARIES)
    x = _checks.float_array("x", x, min_ndim=3, layout=_LAYOUT)
    coordinates = _checks.float_array("coordinates", coordinates, min_ndim=1, layout="[..., 2]")
    batch, points = x.shape[:-3], coordinates.shape[x.ndim - 3 : -1]
    if coordinates.shape[-1] != 2 or coordinates.shape[: len(batch)] != batch:
        raise ValueError(
            f"coordinates must have shape [*batch, *points, 2] with the batch axes {batch} of x "
            f"{x.shape}; got {coordinates.shape}"
        )
    if 0 in x.shape[-3:]:
        raise ValueError(f"x must have pixels and channels, {_LAYOUT}; got shape {x.shape}")
    maps = x.reshape(math.prod(batch), *x.shape[-3:])
    places = coordinates.reshape(maps.shape[0], math.prod(points), 2)
    samples = jax.vmap(functools.partial(_read_map, boundary))(maps, places)
    return samples.reshape(*batch, *points, x.shape[-1])


def _read_map(boundary: _Boundary, x: jax.Array, places: jax.Array) -> jax.Array:
    """[P, C] values of one map at [P, 2] places."""
    sums = _checks.accumulation_dtype(x)
    places = places.astype(_checks.accumulation_dtype(x, places))
    if boundary.outside == 0.0:  # a finite range, so that infinite coordinates read zeros
        places = jnp.clip(places, -2, jnp.asarray(x.shape[:2], places.dtype)[None] + 1)
    cells = jnp.floor(places)
    total = jnp.zeros((places.shape[0], x.shape[-1]), sums)
    for corner in ((0, 0), (0, 1), (1, 0), (1, 1)):
        index, weight = [], jnp.ones(places.shape[0], places.dtype)
        for axis, side in enumerate(corner):
            inside = places[:, axis] - cells[:, axis]
            neighbour = cells[:, axis] + side
            size = x.shape[axis]
            outside = (neighbour < 0) | (neighbour > size - 1)
            weight *= (inside if side else 1 - inside) * jnp.where(outside, boundary.outside, 1.0)
            index.append(boundary.index(neighbour, size).astype(jnp.int32))
        values = x.at[index[0], index[1]].get(mode="clip").astype(sums)
        total += weight.astype(sums)[:, None] * values
    return total.astype(x.dtype)


def sampled_conv(
    x: ArrayLike, kernel: ArrayLike, positions: ArrayLike, *, stride: int = 1
) -> jax.Array:
    """The convolution whose taps read the map at arbitrary positions about each output's centre.

    y[i, j] = sum_k theta_k^T v(stride (i, j) + p_k)
    v the bilinear interpolation of x, zero outside

    The samples are never stored as a whole: a block of outputs is read and multiplied at a time,
    and the gradient reads the map again. Both modes of differentiation work, to any order; forward
    mode and second derivatives read one tap of all outputs at a time.

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] weights of the K = kh * kw taps in reading order; used in the
        dtype of `x`.
      positions: [K, 2] (y, x) in pixels of `x`, the same at all outputs, or
        [*batch, H', W', K, 2], those of each output. Relative to the output's centre; any real
        numbers. Traced.
      stride: the distance of neighbouring centres, in pixels; static, at least 1.

    Returns:
      [*batch, H', W', C_out], H' = (H - 1) // stride + 1, in the dtype of `x`; sums in float32 at
      least. The gradient with respect to positions is that of the interpolation: on integer
      positions the right-sided one, and zero for taps that lie wholly outside the map.

    Raises:
      ValueError: the shapes do not fit together, or `stride` is less than 1.
      TypeError: an argument does not hold floating-point numbers, or `stride` is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> half_a_pixel_right = jnp.array([[0.0, 0.5]])
      >>> print(sampled_conv(x, jnp.ones((1, 1, 1, 1)), half_a_pixel_right)[0, :, 0])
      [0.5 1.5 2.5 1.5]

    Reference: Dai et al., "Deformable Convolutional Networks", 2017, equation 2.
    """
    x = _checks.float_array("x", x, min_ndim=3, layout=_LAYOUT)
    kernel = _checks.float_array("kernel", kernel).astype(x.dtype)
    positions = _checks.float_array("positions", positions)
    stride = _checks.integer("stride", stride)
    output = output_size(x.shape[-3:-1], stride)
    _check_taps(x, kernel, positions, output)
    batch = x.shape[:-3]
    if 0 in batch:
        return jnp.zeros((*batch, *output, kernel.shape[-1]), x.dtype)
    maps = x.reshape(math.prod(batch), *x.shape[-3:])
    weights = kernel.reshape(-1, *kernel.shape[2:])
    positions = positions.astype(_checks.accumulation_dtype(x, positions))
    if positions.ndim == 2:
        y = reads.shared(maps, weights, positions, stride=stride)
    else:
        positions = positions.reshape(maps.shape[0], *positions.shape[-4:])
        y = reads.free(maps, weights, positions, stride=stride)
    return y.reshape(*batch, *y.shape[1:])


def _check_taps(
    x: jax.Array, kernel: jax.Array, positions: jax.Array, output: tuple[int, int]
) -> None:
    check_kernel(x, kernel)
    if 0 in x.shape[-3:]:
        raise ValueError(f"x must have pixels and channels, {_LAYOUT}; got shape {x.shape}")
    taps = kernel.shape[0] * kernel.shape[1]
    wanted = (taps, 2), (*x.shape[:-3], *output, taps, 2)
    if positions.shape not in wanted:
        raise ValueError(
            f"positions must have shape {wanted[0]}, the same at all outputs, or {wanted[1]}, for "
            f"x {x.shape} and the {kernel.shape[0]} x {kernel.shape[1]} taps of kernel; "
            f"got {positions.shape}"
        )
