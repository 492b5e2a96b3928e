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

from rfjax import _checks, grids
from rfjax._engine import native, reads
from rfjax._engine.conv import Pair, check_kernel, convolve, operands
from rfjax._engine.conv import output_size as output_size
from rfjax._engine.meshes import partitioned
from rfjax._engine.plan import READERS, Reading

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


@partitioned("coordinates", channels="x")
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


@partitioned(channels="kernel")
def sampled_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    positions: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    stride: Pair = 1,
    algorithm: str = "auto",
) -> jax.Array:
    """The convolution whose taps read the map at arbitrary positions about each output's center.

    y[i, j] = sum_k theta_k^T m_k v((stride_y i, stride_x j) + p_k)
    v the bilinear interpolation of x, zero outside

    The samples are never stored as a whole: a block of outputs is read and multiplied at a time,
    and the gradient reads the map again. Both modes of differentiation work, to any order; forward
    mode and second derivatives read one tap of all outputs at a time.

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] weights of the K = kh * kw taps in reading order; used in the
        dtype of `x`. A kernel of fewer channels, [kh, kw, C_in / groups, C_out], is a convolution
        of channel groups: of as many equal parts of the channels, in order, each of which makes the
        same part of the outputs.
      positions: [K, 2] (y, x) in pixels of `x`, the same at all outputs, or
        [*batch, H', W', K, 2], those of each output. Relative to the output's center; any real
        numbers. With an axis in front of K, [G, K, 2] or [*batch, H', W', G, K, 2], each of G equal
        parts of the channels (offset groups) has positions of its own. Traced.
      mask: [*batch, H', W', K] or, with offset groups, [*batch, H', W', G, K] factors m on the
        samples; None for 1. Traced.
      stride: the distance of neighbouring centers in pixels, one number or (y, x); static, at
        least 1.
      algorithm: auto | gather | pallas | native, static: how the map is read at positions of each
        output. The results agree to rounding. Kernels in Pallas are those of GPUs: a CPU interprets
        them, slowly. Native ones are those of a CPU, which `python -m rfjax.native` builds; where
        they do not serve, as channel groups and other dtypes, samples are gathered. Asked for, both
        also serve positions that all outputs share.

    Returns:
      [*batch, H', W', C_out], H' = (H - 1) // stride + 1, in the dtype of `x`; sums in float32 at
      least. The gradient with respect to positions is that of the interpolation: on integer
      positions the right-sided one, and zero for taps that lie wholly outside the map.

    Raises:
      ValueError: the shapes do not fit together, `stride` is less than 1, or `algorithm` is none of
        these.
      TypeError: an argument does not hold floating-point numbers, or `stride` is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> half_a_pixel_right = jnp.array([[0.0, 0.5]])
      >>> print(sampled_conv(x, jnp.ones((1, 1, 1, 1)), half_a_pixel_right)[0, :, 0])
      [0.5 1.5 2.5 1.5]

    Reference: Dai et al., "Deformable Convolutional Networks", 2017, equation 2; Zhu et al.,
      "Deformable ConvNets v2", 2019, equation 1 (the mask).
    """
    x = _checks.float_array("x", x, min_ndim=3, layout=_LAYOUT)
    kernel = _checks.float_array("kernel", kernel).astype(x.dtype)
    positions = _checks.float_array("positions", positions)
    strides = _checks.pair("stride", stride)
    how = Reading(_checks.choose("algorithm", algorithm, READERS))
    native.check_algorithm(algorithm)
    output = output_size(x.shape[-3:-1], strides)
    groups = check_kernel(x, kernel)
    if 0 in x.shape[-3:]:
        raise ValueError(f"x must have pixels and channels, {_LAYOUT}; got shape {x.shape}")
    _check_positions(positions, x, kernel, output)
    if mask is not None:
        mask = _checked_mask(mask, x, kernel, output)
    parts = _parts(positions, mask, x, kernel)
    batch = x.shape[:-3]
    if 0 in batch:
        return jnp.zeros((*batch, *output, kernel.shape[-1]), x.dtype)
    maps = x.reshape(math.prod(batch), *x.shape[-3:])
    weights = _weights(kernel, groups, parts)
    positions = positions.astype(_checks.accumulation_dtype(x, positions))
    if positions.ndim == 2 and mask is None and algorithm in ("auto", "gather"):
        y = reads.shared(maps, weights, positions, strides=strides)
    else:
        places = _places(positions, mask, (*batch, *output), parts)
        y = reads.free(maps, weights, places, strides=strides, how=how)
    return y.reshape(*batch, *y.shape[1:])


@partitioned(channels="kernel")
def affine_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    affine: ArrayLike,
    *,
    stride: Pair = 1,
    dilation: Pair = 1,
    padding: str = "zero",
) -> jax.Array:
    """A static spatial transformer: the map seen through one affinity, then a convolution.

    y = f * x_A,   x_A(q) = x(c + (I + D) (q - c) + t),   (D | t) = affine

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filter f, odd sizes; or of channel groups, as in
        `sampled_conv`. Used in the dtype of `x`.
      affine: [2, 3] the affinity minus the identity, see `affine_coordinates`: one for all
        examples, channels and filters. Traced.
      stride: distance of the outputs in pixels, one number or (y, x), static.
      dilation: distance of the kernel's taps in pixels, one number or (y, x), static.
      padding: what the transformed map reads outside, as in `bilinear_sample`. The kernel reads
        zeros.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`. The gradient with respect to `affine` is that of
      the interpolation; on whole pixels that of the slope on the right.

    Raises:
      ValueError: a shape, a size or an option is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(4.0).reshape(1, 4, 1)
      >>> one_pixel_right = jnp.zeros((2, 3)).at[1, 2].set(1.0)
      >>> print(affine_conv(x, jnp.ones((1, 1, 1, 1)), one_pixel_right)[0, :, 0])
      [1. 2. 3. 0.]

    Reference: Jaderberg et al., "Spatial Transformer Networks", 2015, section 3.2.
    """
    x, kernel = operands(x, kernel)
    if kernel.shape[:2] == (1, 1):
        # Linear both: interpolating scores is interpolating features, and cheaper.
        return _transformed(convolve(x, kernel, 1, dilation), affine, padding, stride)
    return convolve(_transformed(x, affine, padding, 1), kernel, stride, dilation)


def _transformed(x: jax.Array, affine: ArrayLike, padding: str, stride: Pair) -> jax.Array:
    """The map seen through an affinity, at every `stride`-th pixel."""
    places = grids.affine_coordinates(affine, x.shape[-3:-1], stride=stride)
    places = jnp.broadcast_to(places, (*x.shape[:-3], *places.shape))
    return bilinear_sample(x, places, padding=padding)


def _check_positions(
    positions: jax.Array, x: jax.Array, kernel: jax.Array, output: tuple[int, int]
) -> None:
    taps = kernel.shape[0] * kernel.shape[1]
    shared, free = (taps, 2), (*x.shape[:-3], *output, taps, 2)
    if _without_groups(positions.shape, (len(shared), len(free)), 2) not in (shared, free):
        raise ValueError(
            f"positions must have shape {shared}, the same at all outputs, or {free}, for x "
            f"{x.shape} and the {kernel.shape[0]} x {kernel.shape[1]} taps of kernel, or one axis "
            f"of offset groups more before the taps; got {positions.shape}"
        )


def _checked_mask(
    mask: ArrayLike, x: jax.Array, kernel: jax.Array, output: tuple[int, int]
) -> jax.Array:
    mask = _checks.float_array("mask", mask)
    wanted = (*x.shape[:-3], *output, kernel.shape[0] * kernel.shape[1])
    if _without_groups(mask.shape, (len(wanted),), 1) != wanted:
        raise ValueError(
            f"mask must have shape {wanted}, a factor for each tap of each output, or one axis of "
            f"offset groups more before the taps; got {mask.shape}"
        )
    return mask


def _without_groups(shape: tuple[int, ...], lengths: tuple[int, ...], last: int) -> tuple[int, ...]:
    """A shape less its axis of offset groups, which lies in front of the `last` axes."""
    if len(shape) - 1 in lengths and len(shape) not in lengths:
        return shape[: -last - 1] + shape[-last:]
    return shape


def _parts(positions: jax.Array, mask: jax.Array | None, x: jax.Array, kernel: jax.Array) -> int:
    """The number of offset groups."""
    found = {positions.shape[-3] if positions.ndim in (3, x.ndim + 2) else 1}
    if mask is not None and mask.ndim == x.ndim + 1:
        found.add(mask.shape[-2])
    found -= {1}
    parts = max(found, default=1)
    if len(found) > 1 or x.shape[-1] % max(parts, 1) or parts < 1:
        raise ValueError(
            f"offset groups must be equal parts of the {x.shape[-1]} channels of x {x.shape}, as "
            f"many in positions as in mask; got {' and '.join(map(str, sorted(found)))}"
        )
    return parts


def _places(
    positions: jax.Array, mask: jax.Array | None, outputs: tuple[int, ...], parts: int
) -> jax.Array:
    """Positions, and the mask beside them, of each output: [N, H', W', parts * K, 2 | 3]."""
    examples = math.prod(outputs[:-2])
    if mask is None and positions.ndim == len(outputs) + 2:
        return positions.reshape(examples, *positions.shape[-4:])
    if positions.ndim not in (3, len(outputs) + 3):
        positions = positions[..., None, :, :]
    taps = positions.shape[-2]
    if positions.ndim == 3:
        positions = positions.reshape((1,) * len(outputs) + positions.shape)
    positions = jnp.broadcast_to(positions, (*outputs, parts, taps, 2))
    if mask is not None:
        mask = mask if mask.ndim == len(outputs) + 2 else mask[..., None, :]
        mask = jnp.broadcast_to(mask.astype(positions.dtype), (*outputs, parts, taps))
        positions = jnp.concatenate([positions, mask[..., None]], -1)
    return positions.reshape(examples, *outputs[-2:], parts * taps, positions.shape[-1])


def _weights(kernel: jax.Array, groups: int, parts: int) -> jax.Array:
    """The kernel as the engine takes it; taps that read parts of the channels part by part."""
    kernel = kernel.reshape(-1, *kernel.shape[2:])
    taps, own, features = kernel.shape
    if groups > 1:
        kernel = kernel.reshape(taps, own, groups, -1).swapaxes(1, 2)
    if parts == 1:
        return kernel
    if groups > 1:  # every part makes all outputs, most of them by weights of 0
        same = jnp.eye(groups, dtype=bool)[None, :, None, :, None]
        kernel = jnp.where(same, kernel[:, :, :, None, :], jnp.zeros((), kernel.dtype))
    kernel = kernel.reshape(taps, parts, -1, features)
    return kernel.swapaxes(0, 1).reshape(parts * taps, -1, features)
