"""Reference points of sampled filters, and the offsets that a covariance makes of them.

Points are (y, x), y down, one row a tap. Their order is the reading order of a kernel's taps, left
to right and top down, where there is one: row k then belongs to `kernel[k // kw, k % kw]`.
"""

from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfjax import _checks, covariance
from rfjax._engine.conv import Pair
from rfjax._engine.devices import is_known

# The outermost of several rings lies at this quantile of the Gaussian before normalisation.
_OUTER_QUANTILE = 0.975


def ring_points(rings: int = 1, points_per_ring: int = 8) -> jax.Array:
    """The origin and points at equal angles on circles around it.

    c = r_i (sin a_j, cos a_j),  a_j = 2 pi j / points_per_ring

    One ring has radius 1. The radii of several rings are the Gaussian's quantiles at equal steps of
    probability from 0.5 up to 0.975, divided by their root mean square, so that the points of all
    rings together have the second moment of the unit circle however many rings there are.

    Args:
      rings: number of circles, static, at least 1.
      points_per_ring: points on each circle, static, at least 1.

    Returns:
      [1 + rings * points_per_ring, 2] (y, x). The 9 points of the default stand in the reading
      order of a 3x3 kernel (the origin fifth). Otherwise the origin comes first, then the rings
      from the inside out, each from +x towards +y (down).

    Raises:
      ValueError: `rings` or `points_per_ring` is less than 1.
      TypeError: one of them is not an integer.

    Example:
      >>> print(ring_points()[:3].round(3))
      [[-0.707 -0.707]
       [-1.     0.   ]
       [-0.707  0.707]]
      >>> ring_points(2, 12).shape
      (25, 2)

    Reference: "Blurring the Line between Structure and Learning", section 4.2 and figure 6.
    """
    rings = _checks.integer("rings", rings)
    points_per_ring = _checks.integer("points_per_ring", points_per_ring)
    if (rings, points_per_ring) == (1, 8):
        return circular_points(3)
    quantiles = np.linspace(0.5, _OUTER_QUANTILE, rings + 1)[1:]
    radii = np.array([NormalDist().inv_cdf(q) for q in quantiles])
    radii /= np.sqrt(np.mean(radii**2))
    angles = 2 * np.pi * np.arange(points_per_ring) / points_per_ring
    circle = np.stack([np.sin(angles), np.cos(angles)], -1)
    circle[np.abs(circle) < 1e-12] = 0.0  # the sine of pi: a point on an axis is exactly there
    points = (radii[:, None, None] * circle[None]).reshape(-1, 2)
    return _float(np.concatenate([np.zeros((1, 2)), points]))


def lattice_points(kernel_size: Pair) -> jax.Array:
    """The integer positions of a dense kernel's taps about its centre.

    Args:
      kernel_size: odd height and width, or one number for both. Static.

    Returns:
      [kh * kw, 2] (y, x) in reading order.

    Raises:
      ValueError: a size is even or less than 1.
      TypeError: a size is not an integer.

    Example:
      >>> print(lattice_points((1, 3)))
      [[ 0. -1.]
       [ 0.  0.]
       [ 0.  1.]]

    Reference: "Blurring the Line between Structure and Learning", section 4.2.
    """
    return _float(dilated_lattice(kernel_extent(kernel_size), (1, 1)))


def dilated_lattice(size: Sequence[int], dilation: tuple[int, int]) -> np.ndarray:
    """The positions of a dilated kernel's taps about its output, [kh * kw, 2], as NumPy's floats.

    p_k = d k - floor(d (n - 1) / 2)  along an axis of n taps, k = 0 ... n - 1

    A kernel of odd sizes has a tap at its output. Where d (n - 1) is odd, the taps reach one pixel
    further down (to the right) than up, as under "SAME" padding at stride 1.

    Example:
      >>> print(dilated_lattice((1, 2), (1, 3))[:, 1])
      [-1.  2.]
    """
    axes = (d * np.arange(n) - d * (n - 1) // 2 for n, d in zip(size, dilation, strict=True))
    return np.stack(np.meshgrid(*axes, indexing="ij"), -1).reshape(-1, 2).astype(float)


def circular_points(kernel_size: Pair) -> jax.Array:
    """The taps of a dense kernel moved radially onto circles.

    c = p max|p| / ||p||

    Each square ring of the lattice, at Chebyshev distance r from the centre, becomes the circle of
    radius r. The points on the axes stay; those on the diagonals move inwards.

    Args:
      kernel_size: odd height and width, or one number for both. Static.

    Returns:
      [kh * kw, 2] (y, x) in reading order; `ring_points()` for a 3x3 kernel.

    Raises:
      ValueError: a size is even or less than 1.
      TypeError: a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> print(jnp.linalg.norm(circular_points(5)[:5], axis=1).round(3))  # the top row
      [2. 2. 2. 2. 2.]

    Reference: the table of standard coordinates in "Blurring the Line between Structure and
    Learning", figure 6, continued to larger kernels.
    """
    lattice = dilated_lattice(kernel_extent(kernel_size), (1, 1))
    norm = np.linalg.norm(lattice, axis=-1)
    chebyshev = np.max(np.abs(lattice), axis=-1)
    return _float(lattice * (chebyshev / np.where(norm == 0, 1.0, norm))[:, None])


def sampling_offsets(params: ArrayLike, points: ArrayLike, *, rate: ArrayLike = 1.0) -> jax.Array:
    """The points warped by the covariance's factor, so that they spread as the Gaussian does.

    o_k = rate U^T c_k,  Sigma = U^T U

    Args:
      params: [..., F] log-Cholesky parameters, F = 1 spherical, 2 diagonal, 3 full. Traced.
      points: [K, 2] (y, x) reference points, in standard deviations.
      rate: scalar; the spacing of the taps in standard deviations. Static or traced.

    Returns:
      [..., K, 2] (y, x) offsets in pixels; the dtype of `params`.

    Raises:
      ValueError: a shape is not as above.
      TypeError: an argument does not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> offsets = sampling_offsets(jnp.log(jnp.array([2.0, 1.0])), ring_points())
      >>> print(offsets[1])  # the point above the origin
      [-2.  0.]

    Reference: "Blurring the Line between Structure and Learning", section 4.2.
    """
    params = _checks.float_array("params", params, min_ndim=1, layout="[..., 1 | 2 | 3]")
    sums = _checks.accumulation_dtype(params)
    factor = covariance.cholesky_factor(params.astype(sums))
    points = _points(points).astype(sums)
    rate = _checks.finite_scalar("rate", rate)
    # U^T c written out: a matrix product could round to a lower precision on an accelerator.
    points = points.reshape(*(1,) * (factor.ndim - 2), *points.shape)
    along_y = points[..., :1] * factor[..., :1, :]
    along_x = points[..., 1:] * factor[..., 1:, :]
    return (rate.astype(sums) * (along_y + along_x)).astype(params.dtype)


def affine_coordinates(affine: ArrayLike, size: Pair, *, stride: Pair = 1) -> jax.Array:
    """The places that an affine transformation of a map reads, one for each pixel.

    a(q) = c + (I + D) (q - c) + t,   (D | t) = affine

    with c the center of the map, ((H - 1) / 2, (W - 1) / 2), so that the translation t is the same
    number of pixels on maps of any size, and a rotation is one on maps of any shape.

    Args:
      affine: [2, 3] the affinity (D | t) minus the identity, (y, x), t in pixels: 0 is the
        identity. Traced.
      size: (H, W) of the map, or one number for both, static.
      stride: distance of the pixels q, one number or (y, x), static.

    Returns:
      [H', W', 2] (y, x) coordinates in pixels of the map, H' = (H - 1) // stride + 1, for
      `bilinear_sample`; in the dtype of `affine`, float32 at least.

    Raises:
      ValueError: a shape or a size is wrong.
      TypeError: `affine` does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> half_a_pixel_right = jnp.zeros((2, 3)).at[1, 2].set(0.5)
      >>> print(affine_coordinates(half_a_pixel_right, (1, 3))[0, :, 1])
      [0.5 1.5 2.5]

    Reference: Jaderberg et al., "Spatial Transformer Networks", 2015, equation 1.
    """
    affine = _checks.float_array("affine", affine)
    if affine.shape != (2, 3):
        raise ValueError(f"affine must have shape [2, 3]; got {affine.shape}")
    affine = affine.astype(_checks.accumulation_dtype(affine))
    strides = _checks.pair("stride", stride)
    sizes: Any = size  # two of them, where they are symbols of an exported program
    if is_known(*np.ravel(np.asarray(size, object))):
        sizes = _checks.pair("size", size)
    axes = (
        step * jnp.arange((length - 1) // step + 1, dtype=affine.dtype)
        for length, step in zip(sizes, strides, strict=True)
    )
    pixels = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)
    center = (jnp.asarray(sizes, affine.dtype) - 1) / 2
    moved = jnp.einsum(
        "yxa,ba->yxb",
        pixels - center[None, None],
        affine[:, :2],
        precision=jax.lax.Precision.HIGHEST,
    )
    return pixels + moved + affine[None, None, :, 2]


def kernel_extent(kernel_size: Pair) -> tuple[int, int]:
    """`kernel_size` as an odd (height, width).

    Example:
      >>> kernel_extent(3)
      (3, 3)
    """
    return _checks.pair("kernel_size", kernel_size, odd=True)  # for a tap at the centre


def _points(points: ArrayLike) -> jax.Array:
    points = _checks.float_array("points", points, min_ndim=2, layout="[K, 2]")
    if points.ndim != 2 or points.shape[1] != 2:
        raise ValueError(f"points must have shape [K, 2]; got {points.shape}")
    return points


def _float(table: np.ndarray) -> jax.Array:
    return jnp.asarray(table, dtype=jnp.result_type(float))
