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

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc
from jax.typing import ArrayLike

from rfjax import _checks, _discrete, covariance
from rfjax._clamp import at_least, at_most

METHODS = ("sampled", "integrated", "discrete")
SUPPORTS = ("hard", "faded")

# Taps are formed with sigma in these bounds: below, the filter is the identity to the last bit;
# above, it is flat over any map.
SIGMA_MIN, SIGMA_MAX = 1e-6, 1e6

# The standard deviation up to which a pixel's mass is a difference of two error functions.
_NARROW = 6.0

# Nodes per pixel of the quadrature along y for integrated taps of a full covariance.
_NODES = 32


class Window(NamedTuple):
    """How a Gaussian becomes taps: the static options that every filter shares."""

    truncate: float = 2.0
    method: str = "sampled"
    support: str = "hard"

    def checked(self) -> "Window":
        """This window, after its options were found valid."""
        _checks.choose("method", self.method, METHODS)
        _checks.choose("support", self.support, SUPPORTS)
        return self._replace(truncate=_checks.number("truncate", self.truncate, above=0))


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
    sigma = jax.lax.stop_gradient(sigma.astype(_checks.accumulation_dtype(sigma)))
    reach = jnp.clip(sigma, SIGMA_MIN, SIGMA_MAX) * truncate
    # exp(log 2) may come out an ulp above 2: a whole tap must not hang on that.
    reach = reach * (1.0 - 8.0 * jnp.finfo(reach.dtype).eps)
    return jnp.maximum(1, jnp.ceil(reach).astype(jnp.int32))


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
    half = half_taps(sigma.astype(_checks.accumulation_dtype(sigma)), max_half_size, window)
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
        return full_taps(params, (max_half_size, max_half_size), window).astype(dtype)
    taps = half_taps(covariance.standard_deviations(params), max_half_size, window)
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


def half_taps(sigma: jax.Array, max_half_size: int, window: Window) -> jax.Array:
    """The taps at distances 0 ... R, [..., R + 1]: the right half of a symmetric filter."""
    profile = half_profile(sigma, np.arange(max_half_size + 1), window)
    total = profile[..., :1] + 2.0 * jnp.sum(profile[..., 1:], -1, keepdims=True)
    return profile / total


def half_profile(sigma: jax.Array, distance: np.ndarray | jax.Array, window: Window) -> jax.Array:
    """Unnormalised weights [..., D] at integer distances [D], for sigma [...]."""
    sigma = jnp.clip(sigma, SIGMA_MIN, SIGMA_MAX)
    weight = support_weight(sigma, distance, window)
    if window.method == "discrete":
        density = _discrete.discrete_profile(distance, sigma, truncate=window.truncate)
        return weight * density
    size = jnp.asarray(abs(distance), sigma.dtype).reshape((1,) * sigma.ndim + (-1,))
    if window.method == "sampled":
        return weight * jnp.exp(-0.5 * (size / sigma[..., None]) ** 2)
    return weight * _pixel_mass(size, sigma[..., None])


def _pixel_mass(offset: jax.Array, sigma: jax.Array) -> jax.Array:
    """The mass of a Gaussian of `sigma` on the pixel at `offset` from its mean."""
    size = jnp.abs(offset)
    narrow = at_most(sigma, _NARROW)
    scale = 1.0 / (math.sqrt(2.0) * narrow)
    # On the tail's side erfc keeps the digits of a difference, where erf cancels.
    near = 0.5 * (erfc((size - 0.5) * scale) - erfc((size + 0.5) * scale))
    # A wide Gaussian's two terms are too alike for float32: there, Taylor's series over the pixel.
    wide = at_least(sigma, _NARROW)
    inverse, z = 1.0 / (wide * wide), (size / wide) ** 2
    series = 1.0 + inverse / 24.0 * (z - 1.0) + inverse**2 / 1920.0 * (z * z - 6.0 * z + 3.0)
    far = jnp.exp(-0.5 * z) * series / (math.sqrt(2.0 * math.pi) * wide)
    return jnp.where(sigma < _NARROW, near, far)


def support_weight(
    sigma: jax.Array, distance: np.ndarray | jax.Array, window: Window
) -> jax.Array:
    """The support's weight [..., D], 0 to 1, at integer distances [D], for sigma [...]."""
    size = abs(distance).reshape((1,) * sigma.ndim + (-1,))
    if window.support == "hard":
        reach = half_size(sigma, truncate=window.truncate)
        return (jnp.asarray(size, reach.dtype) <= reach[..., None]).astype(sigma.dtype)
    reach = window.truncate * sigma[..., None]
    return jnp.clip(reach + 1.0 - jnp.asarray(size, sigma.dtype), 0.0, 1.0)


def full_taps(params: jax.Array, half: tuple[int, int], window: Window) -> jax.Array:
    """The taps of full covariances on the static grid of half sizes `half`, summing to 1."""
    profile = full_profile(params, half, window)
    return profile / jnp.sum(profile, (-2, -1), keepdims=True)


def full_profile(params: jax.Array, half: tuple[int, int], window: Window) -> jax.Array:
    """Unnormalised weights [..., 2 R_y + 1, 2 R_x + 1] of full covariances."""
    factor = full_factor(params)
    y, x = (np.arange(-size, size + 1) for size in half)
    sigma_y, sigma_x = factor[0], jnp.hypot(factor[1], factor[2])
    weight = (
        support_weight(sigma_y, y, window)[..., :, None]
        * support_weight(sigma_x, x, window)[..., None, :]
    )
    if window.method == "discrete":
        # The transform's period holds 9 standard deviations from the far end of the support.
        shape = (len(y), len(x))
        return weight * _discrete.discrete_grid(factor, shape, 9.0 / window.truncate)
    density = {"sampled": _sampled_grid, "integrated": _integrated_grid}[window.method]
    return weight * density(factor, y, x)


def full_factor(params: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(u_yy, u_yx, u_xx) of full covariances, within the bounds on sigma."""
    factor = covariance.cholesky_factor(params)
    u_yy = jnp.clip(factor[..., 0, 0], SIGMA_MIN, SIGMA_MAX)
    u_yx = jnp.clip(factor[..., 0, 1], -SIGMA_MAX, SIGMA_MAX)
    u_xx = jnp.clip(factor[..., 1, 1], SIGMA_MIN, SIGMA_MAX)
    return u_yy, u_yx, u_xx


def _grid_axes(factor: tuple, y: np.ndarray, x: np.ndarray) -> tuple[jax.Array, jax.Array]:
    dtype, leading = factor[0].dtype, (1,) * factor[0].ndim
    return (
        jnp.asarray(y, dtype).reshape((*leading, -1, 1)),
        jnp.asarray(x, dtype).reshape((*leading, 1, -1)),
    )


def _sampled_grid(factor: tuple, y: np.ndarray, x: np.ndarray) -> jax.Array:
    """exp(-|U^-T v|^2 / 2): v^T Sigma^-1 v by one forward substitution."""
    u_yy, u_yx, u_xx = (entry[..., None, None] for entry in factor)
    y, x = _grid_axes(factor, y, x)
    z_y = y / u_yy
    z_x = (x - u_yx * z_y) / u_xx
    return jnp.exp(-0.5 * (z_y * z_y + z_x * z_x))


def _integrated_grid(factor: tuple, y: np.ndarray, x: np.ndarray) -> jax.Array:
    """The density's integral over each pixel: exact along x, Gauss-Legendre along y."""
    u_yy, u_yx, u_xx = (entry[..., None, None] for entry in factor)
    y, x = _grid_axes(factor, y, x)
    # Beyond 9 standard deviations nothing is left to integrate.
    low, high = (jnp.clip((y + side) / u_yy, -9.0, 9.0) for side in (-0.5, 0.5))

    def add(total, node):
        position, weight = node
        z = 0.5 * (high + low) + 0.5 * (high - low) * position
        inner = _pixel_mass(x - u_yx * z, u_xx)
        return total + weight * 0.5 * (high - low) * jnp.exp(-0.5 * z * z) * inner, None

    nodes = np.stack(np.polynomial.legendre.leggauss(_NODES), -1)
    start = jnp.zeros(jnp.broadcast_shapes(low.shape, (u_yx + x).shape), u_yy.dtype)
    # Recomputing each node's terms keeps the memory of the gradient at one grid.
    total, _ = jax.lax.scan(jax.checkpoint(add), start, jnp.asarray(nodes, u_yy.dtype))
    return total / math.sqrt(2.0 * math.pi)
