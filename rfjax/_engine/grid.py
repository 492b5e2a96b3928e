"""The taps of a full covariance on a grid: G(v; Sigma) at the integers v = (y, x).

sampled     exp(-v^T Sigma^-1 v / 2)
integrated  the integral of the density over the pixel at v
discrete    the analogue of covariance Sigma, see `rfjax._engine.discrete`
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from rfjax._engine import tuning
from rfjax._engine.clamp import at_most
from rfjax._engine.discrete import discrete_grid
from rfjax._engine.factor import entries
from rfjax._engine.plan import Plane
from rfjax._engine.profile import Window, half_size, pixel_mass, support_weight

Numbers = np.ndarray | jax.Array


def full_taps(params: jax.Array, half: tuple[int, int], window: Window) -> jax.Array:
    """The taps of full covariances on the static grid of half sizes `half`, summing to 1."""
    profile = full_profile(params, half, window)
    return profile / jnp.sum(profile, (-2, -1), keepdims=True)


def full_profile(params: jax.Array, half: tuple[int, int], window: Window) -> jax.Array:
    """Unnormalised weights [..., 2 R_y + 1, 2 R_x + 1] of full covariances."""
    factor = full_factor(params)
    y, x = (np.arange(-size, size + 1) for size in half)
    # The deviations along y and x are the roots of Sigma's diagonal: u_yy and |(u_yx, u_xx)|.
    sigma_y, sigma_x = factor[0], jnp.hypot(factor[1], factor[2])
    weight = (
        support_weight(sigma_y, y, window)[..., :, None]
        * support_weight(sigma_x, x, window)[..., None, :]
    )
    if window.method == "discrete":
        # The transform's period holds the far deviations from the far end of the support.
        shape, margin = (len(y), len(x)), tuning.FAR_DEVIATIONS / window.truncate
        return weight * discrete_grid(factor, shape, margin)
    density = {"sampled": _sampled_grid, "integrated": _integrated_grid}[window.method]
    return weight * density(factor, y, x)


def full_factor(params: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(u_yy, u_yx, u_xx) of full covariances, within the bounds on sigma."""
    u_yy, u_yx, u_xx = entries(params)
    return (
        jnp.clip(u_yy, tuning.SIGMA_MIN, tuning.SIGMA_MAX),
        jnp.clip(u_yx, -tuning.SIGMA_MAX, tuning.SIGMA_MAX),
        jnp.clip(u_xx, tuning.SIGMA_MIN, tuning.SIGMA_MAX),
    )


def needed_half_sizes(params: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """The half sizes (y, x) of each covariance's support: those of its marginal deviations."""
    u_yy, u_yx, u_xx = full_factor(params)
    size = partial(half_size, truncate=window.truncate)
    return size(u_yy), size(jnp.hypot(u_yx, u_xx))


def _grid_axes(factor: tuple, y: Numbers, x: Numbers) -> tuple[jax.Array, jax.Array]:
    dtype, leading = factor[0].dtype, (1,) * factor[0].ndim
    return (
        jnp.asarray(y, dtype).reshape((*leading, -1, 1)),
        jnp.asarray(x, dtype).reshape((*leading, 1, -1)),
    )


def _sampled_grid(factor: tuple, y: Numbers, x: Numbers) -> jax.Array:
    """exp(-|U^-T v|^2 / 2)."""
    u_yy, u_yx, u_xx = (entry[..., None, None] for entry in factor)
    y, x = _grid_axes(factor, y, x)
    # z = U^-T v by forward substitution, since v^T Sigma^-1 v = z^T z.
    z_y = y / u_yy
    z_x = (x - u_yx * z_y) / u_xx
    return jnp.exp(-0.5 * (z_y * z_y + z_x * z_x))


def _integrated_grid(factor: tuple, y: Numbers, x: Numbers) -> jax.Array:
    """The density's integral over each pixel: exact along x, Gauss-Legendre along y."""
    u_yy, u_yx, u_xx = (entry[..., None, None] for entry in factor)
    y, x = _grid_axes(factor, y, x)
    # The pixel's bounds along y in deviations, as far as there is anything to integrate.
    far = tuning.FAR_DEVIATIONS
    low, high = (jnp.clip((y + side) / u_yy, -far, far) for side in (-0.5, 0.5))

    def add(total, node):
        position, weight = node
        z = 0.5 * (high + low) + 0.5 * (high - low) * position
        # At a given y, x is Gaussian about u_yx z with the deviation u_xx.
        inner = pixel_mass(x - u_yx * z, u_xx)
        return total + weight * 0.5 * (high - low) * jnp.exp(-0.5 * z * z) * inner, None

    # Gauss-Legendre along y: sum_m w_m exp(-z_m^2 / 2) times the mass of the pixel along x at z_m.
    nodes = np.stack(np.polynomial.legendre.leggauss(tuning.PIXEL_NODES), -1)
    start = jnp.zeros(jnp.broadcast_shapes(low.shape, (u_yx + x).shape), u_yy.dtype)
    # Recomputing each node's terms keeps the memory of the gradient at one grid.
    total, _ = jax.lax.scan(jax.checkpoint(add), start, jnp.asarray(nodes, u_yy.dtype))
    return total / math.sqrt(2.0 * math.pi)


# Taps that sum to 1 on an unbounded support, though the grid may be smaller


def plane_taps(plane: Plane, grid: tuple[int, int], params: jax.Array) -> jax.Array:
    """Taps [n, c, 2 R_y + 1, 2 R_x + 1] for a map; with zero padding, mass off the map counts."""
    if plane.padding not in ("zero", "renormalized"):
        return full_taps(params, grid, plane.window)
    # Small maps are left behind by sigmas whose taps are not yet smooth: sum those on more pixels.
    least = math.ceil(tuning.LARGE_SIGMA * plane.window.truncate)
    side = (plane.height, plane.width)
    rows, columns = (
        max(size, least) if size >= s else size for size, s in zip(grid, side, strict=True)
    )
    wide = (rows, columns)
    profile = full_profile(params, wide, plane.window)
    total = jnp.sum(profile, (-2, -1), keepdims=True)
    profile = cropped(profile, grid)
    if wide == grid and any(size < s for size, s in zip(grid, side, strict=True)):
        return profile / total
    need_y, need_x = needed_half_sizes(params, plane.window)
    fits = ((need_y <= wide[0]) & (need_x <= wide[1]))[..., None, None]
    return jnp.where(fits, profile / total, _beyond(params, grid, plane.window))


def cropped(taps: jax.Array, grid: tuple[int, int]) -> jax.Array:
    """The middle of taps, as far as the half sizes `grid`."""
    y, x = (slice(s // 2 - g, s // 2 + g + 1) for s, g in zip(taps.shape[-2:], grid, strict=True))
    return taps[..., y, x]


def _beyond(params: jax.Array, grid: tuple[int, int], window: Window) -> jax.Array:
    """Sampled taps over their total on an unbounded support, which is smooth there.

    A sum over pixels is the integral over them and a correction at the ends of the support
    (Euler-Maclaurin):

        sum_d f(d) = int f - (f'(b) - f'(a)) / 24,  b and a half a pixel beyond the ends

    Along x both are in closed form, along y the integral is by Gauss-Legendre. That is exact to
    rounding while the standard deviation along x at a given y is some pixels.
    """
    profile = full_profile(params, grid, window._replace(method="sampled"))
    u_yy, u_yx, u_xx = (entry[..., None] for entry in full_factor(params))
    end_y, correction_y = _end(u_yy, window)
    end_x, correction_x = _end(jnp.hypot(u_yx, u_xx), window)

    def line(y):
        """The sum along x of the taps at y: of a Gaussian of sigma u_xx about u_yx y / u_yy."""
        z = y / u_yy
        low, high = ((end_x + sign * u_yx * z) / u_xx for sign in (1.0, -1.0))
        # int exp(-t^2 / 2) over [-low, high], and the slopes at both ends
        integral = erf(low / math.sqrt(2.0)) + erf(high / math.sqrt(2.0))
        slopes = low * jnp.exp(-0.5 * low * low) + high * jnp.exp(-0.5 * high * high)
        total = math.sqrt(math.pi / 2.0) * u_xx * integral - correction_x * slopes / u_xx
        return jnp.exp(-0.5 * z * z) * total

    nodes, weights = np.polynomial.legendre.leggauss(tuning.LINE_NODES)
    nodes, weights = (jnp.asarray(v, u_yy.dtype).reshape(1, 1, -1) for v in (nodes, weights))
    # Nothing is left to integrate beyond the far deviations.
    reach = at_most(end_y / u_yy, tuning.FAR_DEVIATIONS) * u_yy
    total = reach * jnp.sum(line(reach * nodes) * weights, -1, keepdims=True)
    # The line at y and that at -y are alike, so that the slope counts twice.
    _, slope = jax.jvp(line, (end_y,), (jnp.ones_like(end_y),))
    return profile / (total + 2.0 * correction_y * slope)[..., None]


def _end(sigma: jax.Array, window: Window) -> tuple[jax.Array, jax.Array | float]:
    """Where the integral over a support's pixels ends, and what the slope there counts in a sum."""
    if window.support == "hard":
        return half_size(sigma, truncate=window.truncate).astype(sigma.dtype) + 0.5, -1.0 / 24.0
    reach = window.truncate * sigma
    # The pixel that counts in part is as much of the integral, but for the slope across it.
    part = reach - jax.lax.stop_gradient(jnp.floor(reach))
    return reach + 0.5, 0.5 * part * (1.0 - part) - 1.0 / 24.0
