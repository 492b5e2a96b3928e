"""Gaussian filtering of feature maps, differentiable in the map and in the covariance.

Maps are [..., H, W, C] (or [..., L, C] and [..., D, H, W, C] with `spatial_ndim` 1 and 3). One
covariance serves all channels and examples, or the leading axes of `params` broadcast against the
map's leading axes and channels: [F] shared, [C, F] per channel, [N, 1, F] per example.

Covariances are traced and unbounded: nothing recompiles and no answer saturates as sigma moves from
1e-3 to beyond the map. Boundaries:

    zero          pixels outside are 0; the filter keeps its mass, so borders darken (the paper's)
    edge          pixels outside repeat the nearest pixel
    reflect       the map is mirrored about its outermost pixels' centres
    wrap          the map repeats
    renormalized  taps outside are dropped and the rest sum to 1: sigma -> infinity is global
                  average pooling

With full covariances, edge, reflect and wrap are exact while the half size along an axis is at most
64 pixels or twice the map's side, whichever is more; beyond, the support is cut there and
renormalised.

Sums are kept in float32 at least, and results have the map's dtype.

Both modes of differentiation work, to any order. Gradients are as quick as the blur; forward mode
and second derivatives take matrix products, or for full covariances transforms, whatever sigma is.

Sizes of a program that is exported may be symbols: the batch always; height and width unless the
covariance is full or the padding is reflect.
"""

import math
from functools import partial
from typing import Any, Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfjax import _checks, covariance
from rfjax._engine import native
from rfjax._engine.blur import Blur as Blur
from rfjax._engine.blur import BlurOptions, blur_of, spelled
from rfjax._engine.correlated import filter_plane
from rfjax._engine.devices import is_known
from rfjax._engine.local import correlate_locally
from rfjax._engine.meshes import partitioned
from rfjax._engine.plan import ALGORITHMS, Filter, Plan, Plane
from rfjax._engine.plan import PADDINGS as PADDINGS
from rfjax._engine.separable import filter_axes
from rfjax.gaussian import Window, check_params_bound, gaussian_kernel, half_size


@spelled
@partitioned()
def gaussian_blur(
    x: ArrayLike,
    params: ArrayLike,
    *,
    blur: Blur | None = None,
    spatial_ndim: int = 2,
    algorithm: str = "auto",
    **options: Unpack[BlurOptions],
) -> jax.Array:
    """The map filtered by a Gaussian: y(p) = sum_d g(d; Sigma) x(p + d).

    Args:
      x: [..., H, W, C] map, any floating-point dtype.
      params: [..., F] log-Cholesky parameters, F = 1 spherical, 2 diagonal, 3 full (two spatial
        axes; 1 or `spatial_ndim` otherwise), in pixels of `x`. Leading axes broadcast against the
        leading axes of `x` and its channels. Traced, unbounded.
      blur, truncate, padding, method, support: see `Blur`. Static.
      spatial_ndim: number of spatial axes, 1, 2 or 3, static.
      algorithm: auto | shift_add | toeplitz | banded | pallas | native, static: how spherical and
        diagonal covariances are computed. The results agree to rounding; `plan` tells what auto
        chooses. Kernels in Pallas are those of GPUs: a CPU interprets them, slowly. Native ones are
        those of a CPU, which `python -m rfjax.native` builds; where they do not serve, as other
        devices and dtypes, auto decides.

    Returns:
      The filtered map, with the shape and dtype of `x`.

    Raises:
      ValueError: a shape or an option is wrong; the message says what was given and what is wanted.
      TypeError: `x` or `params` do not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.zeros((1, 5, 5, 1)).at[0, 2, 2, 0].set(1.0)
      >>> print(gaussian_blur(x, jnp.log(jnp.array([1.0])))[0, 2, :, 0].round(4))
      [0.0219 0.0983 0.1621 0.0983 0.0219]

    Reference: "Blurring the Line between Structure and Learning", sections 3.1 and 4.1.
    """
    blur = blur_of(blur, options)
    x = _map(x, spatial_ndim)
    params = _checks.float_array("params", params, min_ndim=1, layout="[..., F]")
    _check_algorithm(algorithm, params, spatial_ndim)
    batch, _, channels = _split(x, spatial_ndim)
    params = _per_map(params, batch, channels)
    return _blur(
        x, params, how=Filter(blur.padding, blur.window, algorithm), spatial_ndim=spatial_ndim
    )


# Compiled as one function so that calls outside jit do not build the switch anew each time.
@partial(jax.jit, static_argnames=("how", "spatial_ndim"))
def _blur(x: jax.Array, params: jax.Array, *, how: Filter, spatial_ndim: int) -> jax.Array:
    """`gaussian_blur` of checked arguments; params [n, c, F]."""
    batch, spatial, channels = _split(x, spatial_ndim)
    dtype = _checks.accumulation_dtype(x, params)
    params = params.astype(dtype)
    y = x.astype(dtype).reshape(math.prod(batch), *spatial, channels)
    if 0 in batch:
        return x
    if covariance.is_full(params, spatial_ndim=spatial_ndim):
        if not is_known(*spatial):
            raise ValueError(f"full covariances must know the sizes of the map; got {x.shape}")
        height, width = spatial
        y = filter_plane(y, params, Plane(height, width, how.padding, how.window))
    else:
        sigmas = covariance.standard_deviations(params, spatial_ndim=spatial_ndim)
        y = filter_axes(y, sigmas, how)
    return y.reshape(x.shape).astype(x.dtype)


def plan(
    shape: tuple[int, ...],
    params: ArrayLike,
    *,
    truncate: float = 2.0,
    padding: str = "zero",
    spatial_ndim: int = 2,
    algorithm: str = "auto",
    platform: str | None = None,
) -> Plan:
    """What `gaussian_blur` does with a map of this shape and covariances of these values.

    The choice follows the traced covariances while the program runs; this function makes it for
    known ones.

    Args:
      shape: of the map, [..., H, W, C].
      params: [..., F] log-Cholesky parameters, known numbers; the largest of them decide.
      truncate, padding, spatial_ndim, algorithm: as in `gaussian_blur`.
      platform: cpu | gpu | tpu; the default backend's if None.

    Returns:
      `algorithms`, for each axis shift_add (sums of shifted maps), toeplitz (a matrix product),
      banded (one of blocks of rows), pallas (a kernel for GPUs) or native (one for both axes on a
      CPU, where it was built), or for both axes of a full covariance shift_add, fourier or native;
      `half_sizes` that the covariances need along each axis, in pixels, and `static_half_sizes`
      that are computed for them: of the form or of the transform's grid, for a matrix the whole
      axis; `block`, the examples and channels that are worked off at a time.

    Raises:
      ValueError: a shape or an option is wrong, or `params` are traced.

    Example:
      >>> import jax.numpy as jnp
      >>> made = plan((1, 128, 128, 64), jnp.log(jnp.array([1.5, 20.0])), platform="cpu")
      >>> made.algorithms, made.half_sizes, made.static_half_sizes
      (('shift_add', 'toeplitz'), (3, 40), (4, 127))
    """
    if _checks.known(params) is None:
        raise ValueError("params must be known numbers to plan with; got traced ones")
    _checks.spatial_axes(spatial_ndim)
    shape = _checks.integers("shape", shape)
    x = jax.ShapeDtypeStruct(shape, jnp.float32)
    if len(shape) < spatial_ndim + 1:
        raise ValueError(f"shape must have {spatial_ndim} spatial axes and channels; got {shape}")
    batch, spatial, channels = _split(x, spatial_ndim)
    params = jnp.asarray(params)
    _check_algorithm(algorithm, params, spatial_ndim)
    _checks.choose("padding", padding, PADDINGS)
    window = Window(truncate).checked()
    if platform is not None:
        _checks.choose("platform", platform, ("cpu", "gpu", "tpu"))
    platform = platform or jax.default_backend()
    sigmas = covariance.standard_deviations(params, spatial_ndim=spatial_ndim)
    needed = np.asarray(half_size(sigmas, truncate=truncate)).reshape(-1, spatial_ndim).max(0)
    needed = tuple(map(int, needed))
    merged = (math.prod(batch), *spatial, channels)
    if covariance.is_full(params, spatial_ndim=spatial_ndim):
        height, width = spatial
        covariances = _per_map(params, batch, channels).shape[:2]
        return Plane(height, width, padding, window).plan(merged, needed, platform, covariances)
    return Filter(padding, window, algorithm).plan(merged, needed, platform)


def _check_algorithm(algorithm: str, params: jax.Array, spatial_ndim: int) -> None:
    _checks.choose("algorithm", algorithm, ALGORITHMS)
    if covariance.is_full(params, spatial_ndim=spatial_ndim) and algorithm != "auto":
        raise ValueError(
            "full covariances have no axes to choose for: algorithm must be 'auto'; "
            f"got {algorithm!r}"
        )
    native.check_algorithm(algorithm)


@spelled
@partitioned()
def difference_of_gaussians(
    x: ArrayLike,
    center: ArrayLike,
    surround: ArrayLike,
    *,
    blur: Blur | None = None,
    spatial_ndim: int = 2,
    **options: Unpack[BlurOptions],
) -> jax.Array:
    """The map filtered by a difference of Gaussians: (g_center - g_surround) * x.

    The filter sums to 0: away from the borders constants vanish, and equal covariances give 0.

    Args:
      x: [..., H, W, C] map, any floating-point dtype.
      center: [..., F] log-Cholesky parameters of the positive Gaussian, as in `gaussian_blur`.
      surround: [..., F'] of the negative one. That it is the wider one is up to the caller:
        `cascade(center, delta)` always is.
      blur, truncate, padding, method, support: see `Blur`. Static.
      spatial_ndim: number of spatial axes, 1, 2 or 3, static.

    Returns:
      The filtered map, with the shape and dtype of `x`.

    Raises:
      ValueError: a shape or an option is wrong; the message says what was given and what is wanted.
      TypeError: `x`, `center` or `surround` do not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.ones((1, 9, 9, 1))
      >>> y = difference_of_gaussians(x, jnp.zeros(1), jnp.log(jnp.array([2.0])), padding="edge")
      >>> bool(jnp.abs(y).max() < 1e-6)
      True

    Reference: "Blurring the Line between Structure and Learning", section 4.1 (compound structure).
    """
    same: dict[str, Any] = {"blur": blur_of(blur, options), "spatial_ndim": spatial_ndim}
    wide = _checks.accumulation_dtype(_map(x, spatial_ndim))
    # Subtracting before rounding keeps the digits of low-precision maps.
    y = jnp.asarray(x).astype(wide)
    y = gaussian_blur(y, center, **same) - gaussian_blur(y, surround, **same)
    return y.astype(jnp.asarray(x).dtype)


@spelled
@partitioned()
def local_gaussian_blur(
    x: ArrayLike,
    params_map: ArrayLike,
    *,
    max_half_size: int,
    blur: Blur | None = None,
    **options: Unpack[BlurOptions],
) -> jax.Array:
    """The map filtered by a Gaussian of its own at every pixel: y(p) = sum_d g(d; Sigma(p)) x(p+d).

    The exact form of dynamic Gaussian structure. Its kernels hold (2 R + 1)^2 numbers a pixel, so
    it is meant for small maps and for reference; sampling by `gaussian_deformable_conv` is the
    sparse approximation.

    Args:
      x: [..., H, W, C] map, any floating-point dtype.
      params_map: [..., H, W, F] log-Cholesky parameters at each pixel, or [H, W, F] for all
        examples. Traced.
      max_half_size: static bound R on the half size.
      blur, truncate, padding, method, support: see `Blur`. Static.

    Returns:
      The filtered map, with the shape and dtype of `x`. A traced covariance beyond the bound
      saturates: its support is cut there and renormalised.

    Raises:
      ValueError: a known covariance needs more than `max_half_size`, or a shape or an option is
        wrong.
      TypeError: `x` or `params_map` do not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> x, params = jnp.ones((1, 6, 6, 2)), jnp.zeros((1, 6, 6, 1))
      >>> y = local_gaussian_blur(x, params, max_half_size=2, padding="renormalized")
      >>> bool(jnp.allclose(y, x))
      True

    Reference: "Blurring the Line between Structure and Learning", section 4.2 (local filtering).
    """
    blur = blur_of(blur, options)
    check_params_bound(params_map, max_half_size, blur.window)
    x = _map(x, 2)
    params = _checks.float_array("params_map", params_map, min_ndim=3, layout="[..., H, W, F]")
    batch, spatial, channels = _split(x, 2)
    if params.shape[:-1] not in ((*batch, *spatial), spatial):
        raise ValueError(
            f"params_map must have shape {(*batch, *spatial)} or {spatial} and one more axis of "
            f"parameters for a map of shape {x.shape}; got {params.shape}"
        )
    dtype = _checks.accumulation_dtype(x, params)
    if 0 in batch:
        return x
    leading = math.prod(params.shape[:-3])
    params = params.astype(dtype).reshape(leading, *spatial, params.shape[-1])
    kernels = gaussian_kernel(params, max_half_size=max_half_size, **blur.window._asdict())
    y = x.astype(dtype).reshape(math.prod(batch), *spatial, channels)
    y = correlate_locally(y, kernels, max_half_size, blur.padding)
    return y.reshape(x.shape).astype(x.dtype)


def _map(x: ArrayLike, spatial_ndim: int) -> jax.Array:
    """`x` as a floating-point map with `spatial_ndim` axes and channels, none of them empty."""
    layouts = {1: "[..., L, C]", 2: "[..., H, W, C]", 3: "[..., D, H, W, C]"}
    layout = layouts[_checks.spatial_axes(spatial_ndim)]
    x = _checks.float_array("x", x, min_ndim=spatial_ndim + 1, layout=layout)
    if 0 in x.shape[-1 - spatial_ndim :]:
        raise ValueError(f"x must have pixels and channels, {layout}; got shape {x.shape}")
    return x


def _split(
    x: jax.Array | jax.ShapeDtypeStruct, spatial_ndim: int
) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """(batch axes, spatial axes, channels) of a map."""
    first = x.ndim - 1 - spatial_ndim
    return x.shape[:first], x.shape[first:-1], x.shape[-1]


def _per_map(params: jax.Array, batch: tuple[int, ...], channels: int) -> jax.Array:
    """params [..., F] as [n, c, F], where n and c are 1 where covariances are shared."""
    wanted = (*batch, channels)
    leading = (1,) * (len(wanted) - params.ndim + 1) + params.shape[:-1]
    fits = len(leading) == len(wanted)
    if not fits or any(size not in (1, full) for size, full in zip(leading, wanted, strict=True)):
        raise ValueError(
            "the leading axes of params must broadcast against the map's leading axes and "
            f"channels {wanted}; got params of shape {params.shape}"
        )
    if any(size > 1 for size in leading[:-1]):
        leading = (*batch, leading[-1])
    params = jnp.broadcast_to(
        params.reshape((1,) * (len(wanted) - params.ndim + 1) + params.shape),
        (*leading, params.shape[-1]),
    )
    return params.reshape(-1, leading[-1], params.shape[-1])
