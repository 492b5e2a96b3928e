"""Free-form filters composed with Gaussians: the receptive fields whose size and shape is learned.

A composition is one Gaussian filtering and one convolution, or one convolution whose taps the
covariance spreads. Maps are [*batch, H, W, C_in] with any batch axes, kernels [kh, kw, C_in, C_out]
with odd sizes, and results [*batch, H', W', C_out] with H' = (H - 1) // stride + 1, zeros outside
the map. A kernel of fewer channels, [kh, kw, C_in / groups, C_out], is one of channel groups: of as
many equal parts of the channels, in order, each of which makes the same part of the outputs.
Results have the dtype of the map; sums are kept in float32 at least. Blur and kernel act on the
same map, so that sigma and positions are in its pixels whatever the stride.

Convolution is cross-correlation, as in other frameworks. A Gaussian is symmetric, so composing with
it is associative all the same: blurring the map and blurring the kernel are one (away from the
borders, and but for the truncation of the blur at the map's border).
"""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax
from jax.typing import ArrayLike

from rfjax import _checks, grids
from rfjax._engine.blur import Blur, BlurOptions, spelled
from rfjax._engine.conv import Pair, check_dilation, convolve, free_form, operands, output_size
from rfjax._engine.meshes import partitioned
from rfjax.filtering import gaussian_blur
from rfjax.sampling import sampled_conv

MODES = ("residual", "absolute")


def compose_kernel(kernel: ArrayLike, gaussian: ArrayLike) -> jax.Array:
    """The explicit filter g * f, for inspection: filtering by it is blurring, then filtering.

    (g * f)(w) = sum_{u + v = w} f(u) g(v)

    Args:
      kernel: [kh, kw, C_in, C_out] free-form filter f.
      gaussian: [gh, gw] filter g shared by all channels, such as `gaussian_kernel(...)`.

    Returns:
      [kh + gh - 1, kw + gw - 1, C_in, C_out] in the dtype of `kernel`; its sum is the product of
      the sums.

    Raises:
      ValueError: an argument has another number of axes.
      TypeError: an argument does not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> print(compose_kernel(jnp.ones((1, 2, 1, 1)), jnp.array([[0.25, 0.5, 0.25]]))[0, :, 0, 0])
      [0.25 0.75 0.75 0.25]

    Reference: "Blurring the Line between Structure and Learning", section 3.
    """
    kernel = free_form(kernel)
    gaussian = _checks.float_array("gaussian", gaussian)
    if gaussian.ndim != 2:
        raise ValueError(f"gaussian must have shape [gh, gw]; got {gaussian.shape}")
    sums = _checks.accumulation_dtype(kernel, gaussian)
    height, width = gaussian.shape
    filters = kernel.astype(sums).reshape(*kernel.shape[:2], -1)
    # Correlating with the flipped Gaussian under full padding is the full convolution.
    composed = lax.conv_general_dilated(
        jnp.moveaxis(filters, -1, 0)[..., None],
        gaussian.astype(sums)[::-1, ::-1, None, None],
        window_strides=(1, 1),
        padding=[(height - 1, height - 1), (width - 1, width - 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )[..., 0]
    shape = (*composed.shape[1:], *kernel.shape[2:])
    return jnp.moveaxis(composed, 0, -1).reshape(shape).astype(kernel.dtype)


@spelled
@partitioned(channels="kernel")
def blur_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    params: ArrayLike,
    *,
    stride: Pair = 1,
    dilation: Pair = 1,
    blur: Blur | None = None,
    **options: Unpack[BlurOptions],
) -> jax.Array:
    """A blur, then a convolution: a free-form filter seen through a learned Gaussian.

    y = f (g_Sigma * x)

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filter f, odd sizes; used in the dtype of `x`.
      params: [F] log-Cholesky parameters of Sigma in pixels of `x`, F = 1 spherical, 2 diagonal,
        3 full, or with leading axes as in `gaussian_blur`. Traced.
      stride: of the convolution, one number or (y, x), static.
      dilation: distance of the kernel's taps in pixels, one number or (y, x), static.
      blur, truncate, padding, method, support: of the blur, see `Blur`. Static. The convolution
        itself always sees zeros outside.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`. As sigma goes to 0 it becomes the plain
      convolution.

    Raises:
      ValueError: a shape, a size or an option is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 3, 2, 4))
      >>> y = blur_conv(x, kernel, jnp.log(jnp.array([0.5])))
      >>> y.shape, round(float(y[0, 4, 4, 0]), 4)
      ((1, 9, 9, 4), 18.0)

    Reference: "Blurring the Line between Structure and Learning", section 3 ("blur").
    """
    x, kernel = operands(x, kernel)
    return convolve(gaussian_blur(x, params, blur=blur, **options), kernel, stride, dilation)


@spelled
@partitioned(channels="kernel")
def blur_resample_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    params: ArrayLike,
    *,
    mode: str = "residual",
    rate: ArrayLike = 1.0,
    stride: Pair = 1,
    dilation: Pair = 1,
    points: ArrayLike | None = None,
    blur: Blur | None = None,
    **options: Unpack[BlurOptions],
) -> jax.Array:
    """A blur, then a convolution whose taps spread with the same covariance.

    y(p) = sum_k theta_k^T (g_Sigma * x)(p + p_k)
    residual:  p_k = dilation lattice_k + rate U^T c_k
    absolute:  p_k = dilation rate U^T c_k

    Filter and blur grow together, so that no pixel between the taps is missed as sigma grows and
    none is seen twice as it shrinks. As sigma goes to 0, residual is the plain convolution and
    absolute the 1x1 convolution with the summed weights.

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filter theta, odd sizes; used in the dtype of `x`.
      params: [F] log-Cholesky parameters of Sigma in pixels of `x`, F = 1 spherical, 2 diagonal,
        3 full, Sigma = U^T U. Traced.
      mode: "residual" moves the taps of a dense kernel outwards, "absolute" places them by the
        covariance alone. Static.
      rate: scalar; spacing of the points in standard deviations. Static or traced.
      stride: distance of the outputs in pixels, one number or (y, x), static.
      dilation: multiplies the spacing of the lattice (residual) or of all taps (absolute), one
        number or (y, x), static.
      points: [kh * kw, 2] reference points c (y, x); by default `circular_points` of the kernel,
        which are `ring_points()` for 3x3.
      blur, truncate, padding, method, support: of the blur, see `Blur`. Static. The taps read
        zeros outside.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`. The gradient with respect to the covariance is
      the sum of the blur's and that of the taps' positions (bilinear, see `sampled_conv`).

    Raises:
      ValueError: a shape, a size or an option is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 3, 2, 4))
      >>> y = blur_resample_conv(x, kernel, jnp.log(jnp.array([0.5])))
      >>> y.shape, round(float(y[0, 4, 4, 0]), 4)
      ((1, 9, 9, 4), 18.0)

    Reference: "Blurring the Line between Structure and Learning", section 4.1 ("blur-resample").
    """
    x, kernel = operands(x, kernel)
    params = _checks.float_array("params", params, min_ndim=1, layout="[F]")
    if params.ndim != 1:
        raise ValueError(
            "params must have shape [F], one covariance for all taps of all channels; got "
            f"{params.shape} (use jax.vmap for more, gaussian_deformable_conv for one per pixel)"
        )
    positions = tap_positions(kernel, params, mode, rate, dilation, points)
    blurred = gaussian_blur(x, params, blur=blur, **options)
    return sampled_conv(blurred, kernel, positions, stride=stride)


@partitioned(channels="kernel")
def gaussian_deformable_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    params_map: ArrayLike,
    *,
    mode: str = "residual",
    rate: ArrayLike = 1.0,
    stride: Pair = 1,
    dilation: Pair = 1,
    points: ArrayLike | None = None,
    means: ArrayLike | None = None,
) -> jax.Array:
    """A convolution whose taps spread by a covariance of its own at every output. It does not blur.

    y(p) = sum_k theta_k^T x(p + p_k(p))
    residual:  p_k(p) = m(p) + dilation lattice_k + rate U(p)^T c_k
    absolute:  p_k(p) = m(p) + dilation rate U(p)^T c_k

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filter theta, odd sizes; used in the dtype of `x`.
      params_map: [*batch, H', W', F] log-Cholesky parameters at each output, in pixels of `x`,
        F = 1 spherical, 2 diagonal, 3 full. In both modes 0 is a standard deviation of 1. Traced.
      mode, rate, stride, dilation, points: as in `blur_resample_conv`.
      means: [*batch, H', W', 2] (y, x) centre m of the taps relative to each output, in pixels of
        `x`; None for 0, as in the paper. Traced.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`. A constant map of parameters gives the static
      convolution at the same positions.

    Raises:
      ValueError: a shape, a size or an option is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 3, 2, 4))
      >>> gaussian_deformable_conv(x, kernel, jnp.zeros((1, 9, 9, 1))).shape
      (1, 9, 9, 4)

    Reference: "Blurring the Line between Structure and Learning", section 4.2.
    """
    x, kernel = operands(x, kernel)
    params = _checks.float_array("params_map", params_map, min_ndim=1, layout="[*batch, H', W', F]")
    wanted = (*x.shape[:-3], *output_size(x.shape[-3:-1], stride))
    if params.shape[:-1] != wanted:
        raise ValueError(
            f"params_map must have shape [*batch, H', W', F] with axes {wanted} for x {x.shape} at "
            f"stride {stride}; got {params.shape}"
        )
    positions = tap_positions(kernel, params, mode, rate, dilation, points)
    if means is not None:
        means = _checks.float_array("means", means)
        if means.shape != (*wanted, 2):
            raise ValueError(f"means must have shape {(*wanted, 2)}; got {means.shape}")
        positions += means[..., None, :].astype(positions.dtype)
    return sampled_conv(x, kernel, positions, stride=stride)


@partitioned(channels="kernel")
def deformable_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    offsets: ArrayLike,
    *,
    mask: ArrayLike | None = None,
    stride: Pair = 1,
    dilation: Pair = 1,
    algorithm: str = "auto",
) -> jax.Array:
    """A convolution whose taps are displaced freely at every output.

    y(p) = sum_k theta_k^T m_k(p) x(p + l_k + o_k(p))
    l_k = dilation lattice_k; along an axis of n taps, dilation k - floor(dilation (n - 1) / 2)

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filter theta, or of channel groups, see the module;
        used in the dtype of `x`. The taps of an even size reach one pixel further down (to the
        right) than up, where dilation (n - 1) is odd, as under "SAME" padding at stride 1.
      offsets: [*batch, H', W', kh * kw, 2] (y, x) in pixels of `x`, added to the lattice, taps in
        reading order; or [kh * kw, 2], the same at all outputs. With an axis in front of the taps,
        [*batch, H', W', G, kh * kw, 2] or [G, kh * kw, 2], each of G equal parts of the channels
        (offset groups) is read at places of its own. Traced.
      mask: [*batch, H', W', kh * kw] or, with offset groups, [*batch, H', W', G, kh * kw] factors
        m on the samples ("modulated" deformation); None for 1. Traced.
      stride: distance of the outputs in pixels, one number or (y, x), static.
      dilation: distance of the lattice's taps in pixels, one number or (y, x), static.
      algorithm: as in `sampled_conv`.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`; the plain convolution where all offsets are 0.
      Offset groups together with channel groups take the time of a convolution without the latter.

    Raises:
      ValueError: a shape, a size or `algorithm` is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 3, 2, 4))
      >>> deformable_conv(x, kernel, jnp.zeros((1, 9, 9, 9, 2))).shape
      (1, 9, 9, 4)

    Reference: Dai et al., "Deformable Convolutional Networks", 2017, section 2.1; Zhu et al.,
      "Deformable ConvNets v2", 2019, section 3.2 (the mask).
    """
    x, kernel = operands(x, kernel, even=True)
    offsets = _checks.float_array("offsets", offsets, min_ndim=2, layout="[..., kh * kw, 2]")
    offsets = offsets.astype(_checks.accumulation_dtype(offsets))
    lattice = grids.dilated_lattice(kernel.shape[:2], check_dilation(dilation))
    if offsets.shape[-2:] != lattice.shape:
        raise ValueError(
            f"offsets must have shape [..., {lattice.shape[0]}, 2] for the {kernel.shape[0]} x "
            f"{kernel.shape[1]} taps of kernel; got {offsets.shape}"
        )
    positions = _moved(lattice, offsets)
    return sampled_conv(x, kernel, positions, mask=mask, stride=stride, algorithm=algorithm)


def _moved(lattice: np.ndarray, offsets: jax.Array) -> jax.Array:
    """Lattice [K, 2] plus offsets [..., K, 2]."""
    points = jnp.asarray(lattice, offsets.dtype)
    return points.reshape((1,) * (offsets.ndim - 2) + points.shape) + offsets


def tap_positions(
    kernel: jax.Array,
    params: jax.Array,
    mode: str,
    rate: ArrayLike,
    dilation: Pair,
    points: ArrayLike | None,
) -> jax.Array:
    """Where a kernel's taps lie about each output, [..., K, 2] for params [..., F].

    Args:
      kernel: [kh, kw, C_in, C_out], of which only the size matters.
      params, mode, rate, dilation, points: as in `blur_resample_conv`.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel, params = jnp.ones((1, 3, 1, 1)), jnp.log(jnp.array([0.5]))
      >>> print(tap_positions(kernel, params, "residual", 1.0, 1, None)[:, 1])
      [-1.5  0.   1.5]
    """
    _checks.choose("mode", mode, MODES)
    params = params.astype(_checks.accumulation_dtype(params))
    size = kernel.shape[:2]
    points = grids.circular_points(size) if points is None else points
    offsets = grids.sampling_offsets(params, points, rate=rate)
    if offsets.shape[-2] != size[0] * size[1]:
        raise ValueError(
            f"points must have shape [{size[0] * size[1]}, 2], one for each of the {size[0]} x "
            f"{size[1]} taps of kernel; got {offsets.shape[-2]} points"
        )
    dilations = check_dilation(dilation)
    if mode == "absolute":
        factors = jnp.asarray(dilations, offsets.dtype)
        return factors.reshape((1,) * (offsets.ndim - 1) + (2,)) * offsets
    return _moved(grids.dilated_lattice(size, dilations), offsets)


def check_resampling(mode: str, rate: ArrayLike) -> None:
    """Raises unless they are a mode and a rate of `tap_positions`, also where they have no effect.

    Example:
      >>> check_resampling("residual", 1.0)
    """
    _checks.choose("mode", mode, MODES)
    _checks.finite_scalar("rate", rate)
