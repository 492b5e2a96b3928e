"""The taps of a full covariance on a grid: G(v; Sigma) at the integers v = (y, x)."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._engine.discrete import discrete_grid
from rfjax._engine.factor import entries
from rfjax._engine.profile import SIGMA_MAX, SIGMA_MIN, Window, pixel_mass, support_weight

# Nodes per pixel of the quadrature along y for integrated taps of a full covariance.
_NODES = 32


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
        return weight * discrete_grid(factor, shape, 9.0 / window.truncate)
    density = {"sampled": _sampled_grid, "integrated": _integrated_grid}[window.method]
    return weight * density(factor, y, x)


def full_factor(params: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(u_yy, u_yx, u_xx) of full covariances, within the bounds on sigma."""
    u_yy, u_yx, u_xx = entries(params)
    return (
        jnp.clip(u_yy, SIGMA_MIN, SIGMA_MAX),
        jnp.clip(u_yx, -SIGMA_MAX, SIGMA_MAX),
        jnp.clip(u_xx, SIGMA_MIN, SIGMA_MAX),
    )


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
        inner = pixel_mass(x - u_yx * z, u_xx)
        return total + weight * 0.5 * (high - low) * jnp.exp(-0.5 * z * z) * inner, None

    nodes = np.stack(np.polynomial.legendre.leggauss(_NODES), -1)
    start = jnp.zeros(jnp.broadcast_shapes(low.shape, (u_yx + x).shape), u_yy.dtype)
    # Recomputing each node's terms keeps the memory of the gradient at one grid.
    total, _ = jax.lax.scan(jax.checkpoint(add), start, jnp.asarray(nodes, u_yy.dtype))
    return total / math.sqrt(2.0 * math.pi)
