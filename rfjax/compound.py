"""Compositions with any number of Gaussians: one for all filters, one for each, or several.

    minimal     one Gaussian for all filters: params [F]
    channel     each filter, which makes one output channel, has its own: params [C_out, F]
    multiple    all filters share a mixture of Gaussians: params [M, F] and weights [M]
    compound    the difference of two: a center and a wider surround

`composed_conv` is any of the first three, by what it is given. `channel_conv` and `mixture_conv`
are the forms of it that take one structure alone, as `blur_conv` and `blur_resample_conv` do.
`dog_conv` is the last.

Maps, kernels and results are those of `rfjax.composition`.
"""

from functools import reduce
from operator import add
from typing import Any, Unpack

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rfjax import _checks, covariance
from rfjax._engine.blur import Blur, BlurOptions, blur_of, spelled
from rfjax._engine.conv import Pair, convolve, operands
from rfjax._engine.meshes import partitioned
from rfjax.composition import blur_conv, blur_resample_conv, check_resampling, tap_positions
from rfjax.filtering import gaussian_blur

# What the parameters of channel structure are.
_EACH = ("C_out, F", "one covariance for each filter")


@spelled
@partitioned(channels="kernel")
def composed_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    params: ArrayLike,
    weights: ArrayLike | None = None,
    *,
    resample: bool = True,
    mode: str = "residual",
    rate: ArrayLike = 1.0,
    stride: Pair = 1,
    dilation: Pair = 1,
    points: ArrayLike | None = None,
    blur: Blur | None = None,
    **options: Unpack[BlurOptions],
) -> jax.Array:
    """Free-form filters composed with Gaussians: one for all, one for each, or a mixture.

    minimal:   y = f (g_Sigma * x)                    params [F]
    channel:   y_o = g_{Sigma_o} * (f_o * x)          params [C_out, F]
    multiple:  y = sum_m w_m f_m (g_{Sigma_m} * x)    params [M, F], weights [M]

    With `resample` the taps of f (f_o, f_m) spread as the Gaussian Sigma (Sigma_o, Sigma_m) does.

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filters, odd sizes; used in the dtype of `x`.
      params: [F], [C_out, F] or [M, F] log-Cholesky parameters in pixels of `x`, F = 1 spherical,
        2 diagonal, 3 full. Traced.
      weights: [M] of a mixture's components, such as a softmax; they need not sum to 1. None where
        there is no mixture. Traced.
      resample: whether the taps spread ("blur-resample") or not ("blur"), static.
      mode, rate, points: of the taps, as in `blur_resample_conv`; without `resample` they have no
        effect.
      stride: distance of the outputs in pixels, one number or (y, x), static.
      dilation: of the taps, one number or (y, x), static.
      blur, truncate, padding, method, support: of the blur, see `Blur`. Static.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`. What each structure costs, and how it sees the
      borders, `blur_conv`, `blur_resample_conv`, `channel_conv` and `mixture_conv` tell.

    Raises:
      ValueError: a shape, a size or an option is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((3, 3, 2, 4))
      >>> one, several = jnp.log(jnp.array([0.5])), jnp.log(jnp.array([[0.3], [0.5]]))
      >>> composed_conv(x, kernel, one).shape
      (1, 9, 9, 4)
      >>> composed_conv(x, kernel, several, weights=jnp.array([0.5, 0.5])).shape
      (1, 9, 9, 4)

    Reference: "Blurring the Line between Structure and Learning", sections 3 and 4.1; Shelhamer,
      "Local and Adaptive Image-to-Image Learning and Inference", 2019, section 5.3 (degrees of
      structure).
    """
    x, kernel = operands(x, kernel)
    params = _checks.float_array("params", params, min_ndim=1, layout="[F] or [C_out, F]")
    blur = blur_of(blur, options)
    check_resampling(mode, rate)
    spreads = _checks.flag("resample", resample)
    taps: dict[str, Any] | None = None
    if spreads:
        taps = {"mode": mode, "rate": rate, "points": points}
    steps: dict[str, Any] = {"stride": stride, "dilation": dilation}
    if weights is not None:
        return _mixture(x, kernel, params, weights, taps, steps, blur)
    if params.ndim > 1:
        return _channels(x, kernel, params, taps, steps, blur)
    if taps is None:
        return blur_conv(x, kernel, params, blur=blur, **steps)
    return blur_resample_conv(x, kernel, params, blur=blur, **taps, **steps)


@spelled
@partitioned(channels="kernel")
def channel_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    params: ArrayLike,
    *,
    resample: bool = True,
    mode: str = "residual",
    rate: ArrayLike = 1.0,
    stride: Pair = 1,
    dilation: Pair = 1,
    blur: Blur | None = None,
    **options: Unpack[BlurOptions],
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
      stride: distance of the outputs in pixels, one number or (y, x), static; responses are
        computed at all pixels.
      dilation: of the taps, one number or (y, x), static.
      blur, truncate, padding, method, support: of the blur, see `Blur`. Static.

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
    params = _several(params, kernel.shape[3], *_EACH)
    taps: dict[str, Any] = {"resample": resample, "mode": mode, "rate": rate, "dilation": dilation}
    return composed_conv(x, kernel, params, stride=stride, blur=blur, **taps, **options)


def _channels(
    x: jax.Array,
    kernel: jax.Array,
    params: jax.Array,
    taps: dict[str, Any] | None,
    steps: dict[str, Any],
    blur: Blur,
) -> jax.Array:
    """y_o = g_{Sigma_o} * (f_o * x) of checked operands; `taps` is None where they do not move."""
    params = _several(params, kernel.shape[3], *_EACH)
    down, right = _checks.pair("stride", steps["stride"])
    if taps is None:
        responses = convolve(x, kernel, 1, steps["dilation"])
    else:
        positions = tap_positions(kernel, params, **taps, dilation=steps["dilation"])
        responses = _moved_taps(x, kernel, positions)
    y = gaussian_blur(responses, params, blur=blur)
    return _thinned(_thinned(y, down, y.ndim - 3), right, y.ndim - 2)


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


@spelled
@partitioned(channels="kernel")
def mixture_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    params: ArrayLike,
    weights: ArrayLike,
    *,
    resample: bool = True,
    mode: str = "residual",
    rate: ArrayLike = 1.0,
    stride: Pair = 1,
    dilation: Pair = 1,
    blur: Blur | None = None,
    **options: Unpack[BlurOptions],
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
      stride: distance of the outputs in pixels, one number or (y, x), static.
      dilation: of the taps, one number or (y, x), static.
      blur, truncate, padding, method, support: of the blur, see `Blur`. Static.

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
    weights = _checks.float_array("weights", weights)
    taps: dict[str, Any] = {"resample": resample, "mode": mode, "rate": rate, "dilation": dilation}
    return composed_conv(x, kernel, params, weights, stride=stride, blur=blur, **taps, **options)


def _mixture(
    x: jax.Array,
    kernel: jax.Array,
    params: jax.Array,
    weights: ArrayLike,
    taps: dict[str, Any] | None,
    steps: dict[str, Any],
    blur: Blur,
) -> jax.Array:
    """y = sum_m w_m f_m (g_{Sigma_m} * x) of checked operands; f_m = f where `taps` is None."""
    weights = _checks.float_array("weights", weights)
    if weights.ndim != 1 or not weights.size:
        raise ValueError(f"weights must have shape [M], M at least 1; got {weights.shape}")
    params = _several(params, weights.shape[0], "M, F", "one covariance for each weight")
    if taps is None:
        mixed = _mixed([gaussian_blur(x, each, blur=blur) for each in params], weights)
        return convolve(mixed, kernel, **steps)
    each = [blur_resample_conv(x, kernel, p, blur=blur, **taps, **steps) for p in params]
    return _mixed(each, weights)


@spelled
@partitioned(channels="kernel")
def dog_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    center: ArrayLike,
    surround: ArrayLike,
    *,
    surround_kernel: ArrayLike | None = None,
    resample: bool = True,
    mode: str = "residual",
    rate: ArrayLike = 1.0,
    stride: Pair = 1,
    dilation: Pair = 1,
    blur: Blur | None = None,
    **options: Unpack[BlurOptions],
) -> jax.Array:
    """A center-surround convolution: two compositions, of which the wider one is subtracted.

    contrast:  y = f_1 (g_c * x) - f_2 (g_s * x)    a free-form kernel for each
    shared:    y = f (g_c * x) - f (g_s * x)        one for both

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filters f_1 or f, odd sizes; used in the dtype of `x`.
      center: [F] log-Cholesky parameters of g_c in pixels of `x`, or [C_out, F], one for each
        filter, as in `composed_conv`. Traced.
      surround: [F'] likewise of g_s. That it is the wider one is up to the caller:
        `surround_covariance(center, delta)` always is.
      surround_kernel: f_2, like `kernel`; None for shared.
      resample, mode, rate: of the taps, as in `composed_conv`.
      stride: distance of the outputs in pixels, one number or (y, x), static.
      dilation: of the taps, one number or (y, x), static.
      blur, truncate, padding, method, support: of the blurs, see `Blur`. Static.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`.

    Raises:
      ValueError: a shape, a size or an option is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> x, kernel = jnp.ones((1, 9, 9, 2)), jnp.ones((1, 1, 2, 4))
      >>> center, surround = jnp.log(jnp.array([0.5])), jnp.log(jnp.array([1.0]))
      >>> y = dog_conv(x, kernel, center, surround, padding="edge")  # a constant has no contrast
      >>> y.shape, bool(jnp.abs(y).max() < 1e-5)
      ((1, 9, 9, 4), True)

    Reference: "Blurring the Line between Structure and Learning", section 4.1 (compound structure).
    """
    same: dict[str, Any] = {"resample": resample, "mode": mode, "rate": rate, "stride": stride}
    same |= {"dilation": dilation, "blur": blur_of(blur, options)}
    other = kernel if surround_kernel is None else surround_kernel
    return composed_conv(x, kernel, center, **same) - composed_conv(x, other, surround, **same)


def surround_covariance(
    center: ArrayLike, delta: ArrayLike, *, max_surround: float | None = 8.0
) -> jax.Array:
    """The parameters of a surround that is wider than its center, whatever the parameters are.

    Sigma_s = Sigma_c + U^T U, each entry of U the parameter's u in
    u / (1 + (u / max_surround)^4)^(1/4),

    which leaves small spreads as they are and keeps the surround from growing to the whole map.

    Args:
      center: [..., F] log-Cholesky parameters of Sigma_c. Traced.
      delta: [..., F] log-Cholesky parameters of what the surround is wider by. Traced.
      max_surround: bound in pixels on an entry of U, static; None for no bound.

    Returns:
      [..., F] log-Cholesky parameters.

    Raises:
      ValueError: a shape is wrong, or `max_surround` is not a positive number.
      TypeError: `center` or `delta` do not hold floating-point numbers.

    Example:
      >>> print(jnp.exp(surround_covariance(jnp.log(jnp.array([3.0])), jnp.log(jnp.array([1e6])),
      ...                                   max_surround=4.0)).round(3))
      [5.]

    Reference: "Blurring the Line between Structure and Learning", section 4.1 (compound structure).
    """
    _checks.number("max_surround", max_surround, above=0, optional=True)
    delta = _checks.float_array("delta", delta, min_ndim=1, layout="[..., F]")
    if max_surround is not None:
        # Of log u the bound is log u - log(1 + (u / m)^4) / 4, without an overflow for any u.
        excess = 4.0 * (delta - jnp.log(max_surround))
        bounded = delta - 0.25 * jax.nn.softplus(excess)
        if delta.shape[-1] == 3:
            ratio = delta[..., 1] / max_surround
            shear = delta[..., 1] / (1.0 + ratio**4) ** 0.25
            bounded = jnp.stack([bounded[..., 0], shear, bounded[..., 2]], -1)
        delta = bounded
    return covariance.cascade(center, delta)


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
    total = reduce(add, (weights[m] * each.astype(dtype) for m, each in enumerate(maps)))
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
        response = _pointwise(x, weights[k], dtype)
        down = _shifts(positions[:, k, 0], x.shape[-3]).astype(dtype)
        right = _shifts(positions[:, k, 1], x.shape[-2]).astype(dtype)
        moved = jnp.einsum("opq,...qwo->...pwo", down, response, **exact)
        total = total + jnp.einsum("ouv,...hvo->...huo", right, moved, **exact)
    return total.astype(x.dtype)


def _pointwise(x: jax.Array, weights: jax.Array, dtype: Any) -> jax.Array:
    """The 1x1 convolution with weights [C_in, C_out], or [C_in / groups, C_out]."""
    own, features = weights.shape
    if own == x.shape[-1]:
        return jnp.einsum("...hwi,io->...hwo", x, weights, preferred_element_type=dtype)
    grouped = x.reshape(*x.shape[:-1], -1, own)
    weights = weights.reshape(own, x.shape[-1] // own, -1)
    y = jnp.einsum("...hwgi,igo->...hwgo", grouped, weights, preferred_element_type=dtype)
    return y.reshape(*x.shape[:-1], features)


def _shifts(offsets: jax.Array, size: int) -> jax.Array:
    """[C, size, size] matrices that read an axis at pixels + offset, linearly, zeros outside."""
    cell = jnp.floor(offsets)
    inside = (offsets - cell)[:, None, None]
    pixels = jnp.arange(size, dtype=offsets.dtype)
    away = (pixels[None, :] - pixels[:, None])[None] - cell[:, None, None]
    return jnp.where(away == 0, 1.0 - inside, 0.0) + jnp.where(away == 1, inside, 0.0)
