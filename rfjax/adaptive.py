"""Convolutions whose dilation differs from output to output: chosen of several, or continuous.

A dilation is the distance of a kernel's taps in pixels. `adaptive_dilated_conv` mixes the responses
at several whole dilations by weights of every output; `continuous_dilated_conv` reads the map at
any real multiple of the kernel's lattice.

Maps are [*batch, H, W, C_in], kernels [kh, kw, C_in / groups, C_out] with odd sizes, and outside
the map there are zeros. Output (i, j) is centered on input (stride i, stride j).
"""

import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rfjax import _checks, grids
from rfjax._engine import mixed
from rfjax._engine.conv import Pair, check_kernel, operands, output_size
from rfjax._engine.meshes import partitioned
from rfjax.sampling import sampled_conv


@partitioned(channels="kernel")
def adaptive_dilated_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    weights: ArrayLike,
    *,
    dilations: Sequence[int] = (1, 2, 4),
    stride: Pair = 1,
) -> jax.Array:
    """Convolutions of one kernel at several dilations, mixed by weights of every output.

    y(p) = sum_n w_n(p) sum_m theta_m^T x(stride p + d_n m)
         = sum_m theta_m^T u_m(p),   u_m(p) = sum_n w_n(p) x(stride p + d_n m)

    m runs over the kernel's taps about its center. The second line is what is computed: all
    dilations share the kernel, so the inputs are mixed and convolved once, whatever their number.
    The gradient mixes again, and keeps nothing between the passes.

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] weights theta, odd sizes, or of channel groups, as in
        `sampled_conv`; used in the dtype of `x`.
      weights: [*batch, H', W', D], w_n(p) in channel n, of dilations[n]. The output is linear in
        them; they need not sum to one. Traced.
      dilations: D distances of taps in pixels, whole and at least 1, static.
      stride: distance of the outputs in pixels, one number or (y, x), static.

    Returns:
      [*batch, H', W', C_out], H' = (H - 1) // stride + 1, in the dtype of `x`; sums in float32 at
      least. Where w is one at a single n, the plain convolution of dilation d_n.

    Raises:
      ValueError: a shape or a size is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = jnp.arange(5.0).reshape(1, 5, 1), jnp.ones((1, 3, 1, 1))
      >>> near_left_far_right = jnp.array([[[1, 0], [1, 0], [1, 0], [0, 1], [0, 1.0]]])
      >>> print(adaptive_dilated_conv(x, kernel, near_left_far_right, dilations=(1, 2))[0, :, 0])
      [1. 3. 6. 4. 6.]

    Reference: "PAD-Nets: Learning Dynamic Receptive Fields via Pixel-Wise Adaptive Dilation",
      equations 1 and 2.
    """
    x, kernel = operands(x, kernel)
    distances = _checks.integers("dilations", dilations)
    strides = _checks.pair("stride", stride)
    output = output_size(x.shape[-3:-1], strides)
    weights = _checks.float_array("weights", weights)
    _check_map("weights", weights, (*x.shape[:-3], *output, len(distances)))
    batch, height, width = x.shape[:-3], kernel.shape[0], kernel.shape[1]
    if 0 in x.shape:
        return jnp.zeros((*batch, *output, kernel.shape[-1]), x.dtype)
    taps = mixed.Taps((height, width), distances, strides, check_kernel(x, kernel))
    y = mixed.mixed(
        x.reshape(math.prod(batch), *x.shape[-3:]),
        kernel,
        weights.reshape(math.prod(batch), *weights.shape[-3:]),
        taps,
    )
    return y.reshape(*batch, *y.shape[1:])


@partitioned(channels="kernel")
def continuous_dilated_conv(
    x: ArrayLike, kernel: ArrayLike, rates: ArrayLike, *, stride: Pair = 1
) -> jax.Array:
    """A convolution whose dilation is a real number of every output.

    y(p) = sum_m theta_m^T v(stride p + rate(p) m),   v the bilinear interpolation of x

    m runs over the kernel's taps (y, x) about its center.

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] weights theta, odd sizes, or of channel groups, as in
        `sampled_conv`; used in the dtype of `x`.
      rates: [*batch, H', W', 1] distances of taps in pixels of `x`: 1 is the plain convolution, a
        whole number that dilation, 0 reads the center alone; any real number, of any sign. Traced.
      stride: distance of the outputs in pixels, one number or (y, x), static.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`. The gradient with respect to rates is that of the
      interpolation, see `rfjax.sampling`: on whole rates the slope on each tap's right.

    Raises:
      ValueError: a shape or a size is wrong.
      TypeError: an argument does not hold floating-point numbers, or `stride` is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(6.0).reshape(1, 6, 1) ** 2
      >>> sides = jnp.array([1.0, 0.0, 1.0]).reshape(1, 3, 1, 1)
      >>> print(continuous_dilated_conv(x, sides, jnp.full((1, 6, 1), 1.5))[0, 2:4, 0])
      [13. 23.]

    Reference: Chen et al., "Frequency-Adaptive Dilated Convolution for Semantic Segmentation",
      CVPR 2024, section 3.2 (adaptive dilation rate).
    """
    x, kernel = operands(x, kernel)
    rates = _checks.float_array("rates", rates)
    output = output_size(x.shape[-3:-1], _checks.pair("stride", stride))
    _check_map("rates", rates, (*x.shape[:-3], *output, 1))
    rates = rates.astype(_checks.accumulation_dtype(rates))
    lattice = jnp.asarray(grids.lattice_points(kernel.shape[:2]), rates.dtype)
    # p_m = rate(p) m
    positions = rates[..., None] * lattice.reshape((1,) * (rates.ndim - 1) + lattice.shape)
    return sampled_conv(x, kernel, positions, stride=stride)


def _check_map(name: str, array: jax.Array, wanted: tuple[int, ...]) -> None:
    """Raises unless a map of every output has its shape."""
    if array.shape != wanted:
        raise ValueError(
            f"{name} must have shape {wanted}, [*batch, H', W', {wanted[-1]}] of the outputs; got "
            f"{array.shape}"
        )
