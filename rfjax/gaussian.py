"""Gaussian filter taps from covariance parameters.

Taps are the Gaussian at the integers, cut to a support and divided by their sum. Three methods:

    sampled     exp(-d^2 / 2 sigma^2), the density at each pixel's centre (the paper's)
    integrated  the density's integral over each pixel
    discrete    exp(-sigma^2) I_d(sigma^2), the discrete analogue, whose variance is sigma^2 exactly

and two supports, with tau = truncate * sigma of each axis (marginal sigma for full covariances):

    hard        |d| <= ceil(tau), at least 1 (the paper's); the size has no gradient
    faded       taps weighted by clip(tau + 1 - |d|, 0, 1): the same size, continuous in sigma

Near the identity (sigma < 0.3) the sampled taps no longer depend on sigma and neither does their
gradient; the discrete analogue learns from there.

Arrays of taps need a static bound `max_half_size`. A known sigma that needs more raises; a traced
one saturates: the support is cut to the bound and renormalised.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfjax import _checks, covariance
from rfjax._engine import grid, profile
from rfjax._engine.profile import METHODS as METHODS
from rfjax._engine.profile import SUPPORTS as SUPPORTS
from rfjax._engine.profile import Window as Window


def half_size(sigma: ArrayLike, *, truncate: float = 2.0) -> jax.Array:
    """The half size of a Gaussian's support: max(1, ceil(truncate * sigma)).

    Args:
      sigma: [...] standard deviations in pixels. Traced; the result carries no gradient.
      truncate: how many standard deviations the support reaches, static.

    Returns:
      [...] int32, in pixels. A filter has 2 * half_size + 1 taps along the axis.

    Raises:
      ValueError: `truncate` is not a positive number.
      TypeError: `sigma` does not hold floating-point numbers.

    Example:
      >>> half_size(jnp.array([0.1, 0.5, 0.6, 2.0])).tolist()
      [1, 1, 2, 4]

    Reference: "Blurring the Line between Structure and Learning", section 3.1.
    """
    truncate = _checks.number("truncate", truncate, above=0)
    sigma = _checks.float_array("sigma", sigma)
    return profile.half_size(sigma, truncate=truncate)


def gaussian_kernel1d(
    sigma: ArrayLike,
    *,
    max_half_size: int,
    truncate: float = 2.0,
    method: str = "sampled",
    support: str = "hard",
) -> jax.Array:
    """The taps of a one-dimensional Gaussian filter, which sum to 1.

    Args:
      sigma: [...] standard deviations in pixels. Traced.
      max_half_size: static bound R on the half size; taps beyond the support are 0.
      truncate: how many standard deviations the support reaches, static.
      method: sampled | integrated | discrete, see the module's docstring.
      support: hard | faded, likewise.

    Returns:
      [..., 2 R + 1], symmetric about the middle. A traced sigma beyond the bound saturates.

    Raises:
      ValueError: a known sigma needs more than `max_half_size`, or an option is unknown.
      TypeError: `sigma` does not hold floating-point numbers.

    Example:
      >>> print(gaussian_kernel1d(1.0, max_half_size=2))
      [0.05448868 0.24420135 0.40261996 0.24420135 0.05448868]

    Reference: "Blurring the Line between Structure and Learning", section 3.1; Lindeberg,
      "Discrete approximations of Gaussian smoothing", arXiv 2311.11317.
    """
    window = Window(truncate, method, support).checked()
    _check_bound(_checks.known(sigma), max_half_size, window)
    sigma = _checks.float_array("sigma", sigma)
    half = profile.half_taps(sigma.astype(_checks.accumulation_dtype(sigma)), max_half_size, window)
    return jnp.concatenate([half[..., :0:-1], half], -1).astype(sigma.dtype)


def gaussian_kernel(
    params: ArrayLike,
    *,
    max_half_size: int,
    truncate: float = 2.0,
    method: str = "sampled",
    support: str = "hard",
) -> jax.Array:
    """The taps of a two-dimensional Gaussian filter, which sum to 1.

    G(v; Sigma) = exp(-v^T Sigma^-1 v / 2) at integer v = (y, x), cut to the rectangle of the
    marginal half sizes. Spherical and diagonal kernels are outer products of one-dimensional ones.

    Args:
      params: [..., F] log-Cholesky parameters, F = 1 spherical, 2 diagonal, 3 full. Traced.
      max_half_size: static bound R on the half size along both axes.
      truncate: how many standard deviations the support reaches, static.
      method: sampled | integrated | discrete, see the module's docstring. For full covariances
        "integrated" is a quadrature of 32 nodes a pixel, and "discrete" the product of the
        analogues along Selling's integer directions, non-negative and of covariance Sigma.
      support: hard | faded, likewise.

    Returns:
      [..., 2 R + 1, 2 R + 1], point-symmetric, y down. A traced sigma beyond the bound saturates.

    Raises:
      ValueError: a known covariance needs more than `max_half_size`, or an option is unknown.
      TypeError: `params` do not hold floating-point numbers.

    Example:
      >>> import jax.numpy as jnp
      >>> kernel = gaussian_kernel(jnp.array([0.0, -2.0, jnp.log(2.0)]), max_half_size=6)
      >>> kernel.shape, round(float(kernel[6, 6]), 4), round(float(kernel[7, 4]), 4)
      ((13, 13), 0.0817, 0.0496)

    Reference: "Blurring the Line between Structure and Learning", section 3.1.
    """
    window = Window(truncate, method, support).checked()
    check_params_bound(params, max_half_size, window)
    params = _checks.float_array("params", params, min_ndim=1, layout="[..., 1 | 2 | 3]")
    dtype, params = params.dtype, params.astype(_checks.accumulation_dtype(params))
    if covariance.is_full(params):
        return grid.full_taps(params, (max_half_size, max_half_size), window).astype(dtype)
    taps = profile.half_taps(covariance.standard_deviations(params), max_half_size, window)
    taps = jnp.concatenate([taps[..., :0:-1], taps], -1)
    return (taps[..., 0, :, None] * taps[..., 1, None, :]).astype(dtype)


def check_params_bound(params: ArrayLike, max_half_size: int, window: Window) -> None:
    """Raises where known covariances need a half size above `max_half_size`."""
    known = _checks.known(params)
    if known is not None:
        with jax.ensure_compile_time_eval():
            known = np.asarray(covariance.standard_deviations(known))
    _check_bound(known, max_half_size, window)


def _check_bound(sigma: np.ndarray | None, max_half_size: int, window: Window) -> None:
    _checks.integer("max_half_size", max_half_size)
    if sigma is None or not sigma.size:
        return
    largest = float(sigma.max())
    with jax.ensure_compile_time_eval():
        needed = int(half_size(largest, truncate=window.truncate))
    if needed > max_half_size:
        raise ValueError(
            f"sigma = {largest:g} with truncate = {window.truncate:g} needs a half size of "
            f"{needed}; max_half_size is {max_half_size}"
        )
