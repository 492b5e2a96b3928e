"""Compositions with more Gaussians than one: one for every filter, or a mixture of several.

    minimal     one Gaussian for all filters: `blur_conv`, `blur_resample_conv`
    channel     each filter, which makes one output channel, has its own: `channel_conv`
    multiple    all filters share a mixture of Gaussians: `mixture_conv`

Maps, kernels and results are those of `rfjax.composition`.
"""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rfjax import _checks
from rfjax._engine.conv import convolve, operands
from rfjax.composition import blur_resample_conv, check_resampling, tap_positions
from rfjax.filtering import gaussian_blur


def channel_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    params: ArrayLike,
    *,
    resample: bool = True,
    mode: str = "residual",
    rate: ArrayLike = 1.0,
    stride: int = 1,
    dilation: int = 1,
    truncate: float = 2.0,
    padding: str = "zero",
    method: str = "sampled",
    support: str = "hard",
) -> jax.Array:
    """Free-form filters, each composed with a Gaussian of its own.

    y_o = g_{Sigma_o} * (f_o * x),  where with `resample` the taps of f_o spread as Sigma_o does:
    f_o * x = sum_k theta_ko^T x(p + p_ko)

    Filters commute, so this is f_o * (g_{Sigma_o} * x), but only one channel is blurred for each
    filter. Near the borders it is the responses that are padded, not the map: within the reach of
    the kernel, outputs differ from those of `blur_conv` or `blur_resample_conv` with the same
    covariance for all.

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filters, odd sizes; used in the dtype of `x`.
      params: [C_out, F] log-Cholesky parameters of Sigma_o in pixels of `x`, F = 1 spherical,
        2 diagonal, 3 full. Traced.
      resample: whether the taps spread, static. Without it this is one convolution and one blur;
        with it every tap's responses are moved for each filter by itself, which multiplies the
        memory of a convolution's output and takes a multiple of its time.
      mode, rate: of the taps, as in `blur_resample_conv`; without `resample` they have no effect.
      stride: distance of the outputs in pixels, static; responses are computed at all pixels.
      dilation: of the taps, static.
      truncate, padding, method, support: of the blur, as in `gaussian_blur`.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`. The gradient with respect to the positions is
      that of bilinear interpolation, as in `sampled_conv`.

    Raises:
      ValueError: a shape, a size or an option is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 3, 2, 4))
      >>> sigmas = jnp.log(jnp.array([[0.3], [0.5], [1.0], [2.0]]))
      >>> y = channel_conv(x, kernel, sigmas, resample=False, padding="renormalized")
      >>> y.shape
      (1, 9, 9, 4)

    Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019,
      section 5.3 (channel structure).
    """
    x, kernel = operands(x, kernel)
    params = _several(params, kernel.shape[3], "C_out, F", "one covariance for each filter")
    stride = _checks.integer("stride", stride)
    check_resampling(mode, rate)
    if _checks.flag("resample", resample):
        positions = tap_positions(kernel, params, mode, rate, dilation, None)
        responses = _moved_taps(x, kernel, positions)
    else:
        responses = convolve(x, kernel, 1, dilation)
    options = dict(truncate=truncate, padding=padding, method=method, support=support)
    y = gaussian_blur(responses, params, **options)
    return _thinned(_thinned(y, stride, y.ndim - 3), stride, y.ndim - 2)


def _thinned(x: jax.Array, stride: int, axis: int) -> jax.Array:
    """Every so many of the pixels on an axis.

    Not by a slice with a stride: of a sharded axis, XLA takes the first pixel where another one is
    asked for and only one is left.
    """
    if stride == 1:
        return x
    padding = [(0, -x.shape[axis] % stride if k == axis else 0) for k in range(x.ndim)]
    wide = jnp.pad(x, padding)
    shape = (*x.shape[:axis], wide.shape[axis] // stride, stride, *x.shape[axis + 1 :])
    return jax.lax.index_in_dim(wide.reshape(shape), 0, axis + 1, keepdims=False)


def mixture_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    params: ArrayLike,
    weights: ArrayLike,
    *,
    resample: bool = True,
    mode: str = "residual",
    rate: ArrayLike = 1.0,
    stride: int = 1,
    dilation: int = 1,
    truncate: float = 2.0,
    padding: str = "zero",
    method: str = "sampled",
    support: str = "hard",
) -> jax.Array:
    """Free-form filters composed with a mixture of Gaussians, the same for all of them.

    y = sum_m w_m f_m * (g_{Sigma_m} * x),  f_m = f, its taps spread by Sigma_m with `resample`

    Without `resample` the blurred maps are mixed and convolved once.

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filters, odd sizes; used in the dtype of `x`.
      params: [M, F] log-Cholesky parameters of Sigma_m in pixels of `x`, F = 1 spherical,
        2 diagonal, 3 full. Traced.
      weights: [M] of the components, such as a softmax; they need not sum to 1. Traced.
      resample: whether the taps spread, static.
      mode, rate: of the taps, as in `blur_resample_conv`; without `resample` they have no effect.
      stride: distance of the outputs in pixels, static.
      dilation: of the taps, static.
      truncate, padding, method, support: of the blur, as in `gaussian_blur`.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`.

    Raises:
      ValueError: a shape, a size or an option is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> x, kernel = jnp.ones((1, 19, 19, 2)), jnp.ones((3, 3, 2, 4))
      >>> sigmas, weights = jnp.log(jnp.array([[0.5], [2.0]])), jnp.array([0.5, 0.5])
      >>> y = mixture_conv(x, kernel, sigmas, weights)
      >>> y.shape, round(float(y[0, 9, 9, 0]), 3)
      ((1, 19, 19, 4), 18.0)

    Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019,
      section 5.3 (multiple structure).
    """
    x, kernel = operands(x, kernel)
    weights = _checks.float_array("weights", weights)
    if weights.ndim != 1 or not weights.size:
        raise ValueError(f"weights must have shape [M], M at least 1; got {weights.shape}")
    params = _several(params, weights.shape[0], "M, F", "one covariance for each weight")
    blur = dict(truncate=truncate, padding=padding, method=method, support=support)
    check_resampling(mode, rate)
    if not _checks.flag("resample", resample):
        mixed = _mixed([gaussian_blur(x, each, **blur) for each in params], weights)
        return convolve(mixed, kernel, stride, dilation)
    taps = dict(mode=mode, rate=rate, stride=stride, dilation=dilation)
    return _mixed([blur_resample_conv(x, kernel, each, **taps, **blur) for each in params], weights)


def _several(params: ArrayLike, number: int, layout: str, meaning: str) -> jax.Array:
    """Parameters of `number` covariances."""
    params = _checks.float_array("params", params, min_ndim=1, layout=f"[{layout}]")
    if params.ndim != 2 or params.shape[0] != number:
        raise ValueError(
            f"params must have shape [{layout}] with {number} rows, {meaning}; got {params.shape}"
        )
    return params


def _mixed(maps: list[jax.Array], weights: jax.Array) -> jax.Array:
    """The weighted sum of maps, in float32 at least."""
    dtype = _checks.accumulation_dtype(maps[0], weights)
    weights = weights.astype(dtype)
    total = sum(weights[m] * each.astype(dtype) for m, each in enumerate(maps))
    return total.astype(maps[0].dtype)


def _moved_taps(x: jax.Array, kernel: jax.Array, positions: jax.Array) -> jax.Array:
    """sum_k theta_ko^T x(p + p_ko) for positions [C_out, K, 2] that differ between filters.

    A 1x1 convolution for each tap, whose outputs are moved: interpolation commutes with it.
    """
    dtype = _checks.accumulation_dtype(x, positions)
    weights = kernel.reshape(-1, *kernel.shape[2:])
    exact = {"precision": jax.lax.Precision.HIGHEST, "preferred_element_type": dtype}
    total = jnp.zeros((), dtype)
    for k in range(weights.shape[0]):
        response = jnp.einsum("...hwi,io->...hwo", x, weights[k], preferred_element_type=dtype)
        down = _shifts(positions[:, k, 0], x.shape[-3]).astype(dtype)
        right = _shifts(positions[:, k, 1], x.shape[-2]).astype(dtype)
        moved = jnp.einsum("opq,...qwo->...pwo", down, response, **exact)
        total = total + jnp.einsum("ouv,...hvo->...huo", right, moved, **exact)
    return total.astype(x.dtype)


def _shifts(offsets: jax.Array, size: int) -> jax.Array:
    """[C, size, size] matrices that read an axis at pixels + offset, linearly, zeros outside."""
    cell = jnp.floor(offsets)
    inside = (offsets - cell)[:, None, None]
    pixels = jnp.arange(size, dtype=offsets.dtype)
    away = (pixels[None, :] - pixels[:, None])[None] - cell[:, None, None]
    return jnp.where(away == 0, 1.0 - inside, 0.0) + jnp.where(away == 1, inside, 0.0)
