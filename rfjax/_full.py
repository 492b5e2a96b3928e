"""Gaussian filtering of two axes at once, for full covariances of any size.

A correlated Gaussian is no product of two one-dimensional filters, so the kernel is formed on a
grid and applied by the Fourier transform, whose cost hardly depends on its size. A switch picks the
smallest of a few static grids that holds the traced support.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf
from scipy.fft import next_fast_len

from rfjax._separable import PAD_MODES
from rfjax._switch import size_switch
from rfjax.gaussian import Window, full_factor, full_profile, half_size

# The discrete analogue and the integrated density meet the sampled one beyond this sigma.
_LARGE_SIGMA = 32.0


class Plane(NamedTuple):
    """The two axes of a map and how they are filtered; all static."""

    height: int
    width: int
    padding: str
    window: Window

    def half_sizes(self) -> list[tuple[int, int]]:
        """Half sizes (y, x) of the static grids, from the smallest to the largest needed.

        Zero and renormalized boundaries never read further than the map's side; the others read
        copies of the map, up to two sides or 64 pixels away.
        """
        most = (self.height, self.width)
        if self.padding not in ("zero", "renormalized"):
            most = tuple(max(64, 2 * side) for side in most)
        sizes, size = [], 2
        while size < max(most):
            sizes.append((min(size, most[0]), min(size, most[1])))
            size *= 2 if size < 8 else 3
        return [*sizes, most]


def filter_plane(x: jax.Array, params: jax.Array, plane: Plane) -> jax.Array:
    """The map [N, H, W, C] filtered by Gaussians of full params [N | 1, C | 1, 3]."""
    u_yy, u_yx, u_xx = full_factor(params)
    truncate = plane.window.truncate
    need_y = jnp.max(half_size(u_yy, truncate=truncate))
    need_x = jnp.max(half_size(jnp.hypot(u_yx, u_xx), truncate=truncate))
    grids = plane.half_sizes()
    # An axis at its bound needs no larger grid for its own sake.
    too_small = [
        ((need_y > y) & (y < grids[-1][0])) | ((need_x > x) & (x < grids[-1][1]))
        for y, x in grids[:-1]
    ]
    index = sum((small.astype(jnp.int32) for small in too_small), jnp.int32(0))
    branches = [partial(_filter_on_grid, plane, grid) for grid in grids]
    return size_switch(index, branches, x, params)


def _filter_on_grid(plane: Plane, grid: tuple[int, int], x: jax.Array, params: jax.Array):
    taps = _taps(plane, grid, params)
    if plane.padding == "renormalized":
        ones = jnp.ones((1, plane.height, plane.width, 1), x.dtype)
        return _correlate(x, taps) / _correlate(ones, taps)
    if plane.padding == "zero":
        return _correlate(x, taps)
    pad = ((0, 0), *((size, size) for size in grid), (0, 0))
    return _correlate(jnp.pad(x, pad, mode=PAD_MODES[plane.padding]), taps, valid=True)


def _taps(plane: Plane, grid: tuple[int, int], params: jax.Array) -> jax.Array:
    """Normalised taps [n, c, 2 R_y + 1, 2 R_x + 1]; with zero padding mass off the map counts."""
    if plane.padding not in ("zero", "renormalized"):
        profile = full_profile(params, grid, plane.window)
        return profile / jnp.sum(profile, (-2, -1), keepdims=True)
    # Small maps are left behind by sigmas whose taps are not yet smooth: sum those on more pixels.
    least = math.ceil(_LARGE_SIGMA * plane.window.truncate)
    side = (plane.height, plane.width)
    wide = tuple(
        max(size, least) if size >= s else size for size, s in zip(grid, side, strict=True)
    )
    profile = full_profile(params, wide, plane.window)
    total = jnp.sum(profile, (-2, -1), keepdims=True)
    y, x = (slice(w - g, w + g + 1) for w, g in zip(wide, grid, strict=True))
    profile = profile[..., y, x]
    if wide == grid and any(size < s for size, s in zip(grid, side, strict=True)):
        return profile / total
    return jnp.where(
        _fits(params, wide, plane.window), profile / total, _beyond(params, grid, plane)
    )


def _fits(params: jax.Array, half: tuple[int, int], window: Window) -> jax.Array:
    """Whether the support of each covariance fits the grid: [n, c, 1, 1]."""
    u_yy, u_yx, u_xx = full_factor(params)
    need_y = half_size(u_yy, truncate=window.truncate)
    need_x = half_size(jnp.hypot(u_yx, u_xx), truncate=window.truncate)
    return ((need_y <= half[0]) & (need_x <= half[1]))[..., None, None]


def _beyond(params: jax.Array, grid: tuple[int, int], plane: Plane) -> jax.Array:
    """Sampled taps over their total on an unbounded support, which is smooth there.

    The total is the integral over the support: exact along x, Gauss-Legendre along y. That is
    exact to rounding while the standard deviation along x at a given y is at least a pixel.
    """
    window = plane.window
    profile = full_profile(params, grid, window._replace(method="sampled"))
    u_yy, u_yx, u_xx = full_factor(params)
    reach_y = _reach(u_yy, window) + 0.5
    reach_x = _reach(jnp.hypot(u_yx, u_xx), window) + 0.5
    nodes, weights = np.polynomial.legendre.leggauss(64)
    z_most = jnp.minimum(reach_y / u_yy, 9.0)  # nothing is left to integrate beyond
    z = z_most[..., None] * jnp.asarray(nodes, u_yy.dtype)[None, None]
    scale = 1.0 / (math.sqrt(2.0) * u_xx[..., None])
    mean = u_yx[..., None] * z
    inner = erf((reach_x[..., None] - mean) * scale) + erf((reach_x[..., None] + mean) * scale)
    inner *= math.sqrt(math.pi / 2.0) * u_xx[..., None]
    terms = jnp.exp(-0.5 * z * z) * inner * jnp.asarray(weights, z.dtype)[None, None]
    return profile / (z_most * u_yy * jnp.sum(terms, -1))[..., None, None]


def _reach(sigma: jax.Array, window: Window) -> jax.Array:
    if window.support == "hard":
        return half_size(sigma, truncate=window.truncate).astype(sigma.dtype)
    return window.truncate * sigma


def _correlate(x: jax.Array, taps: jax.Array, *, valid: bool = False) -> jax.Array:
    """x [N, H, W, C] filtered by point-symmetric taps [n, c, 2 R_y + 1, 2 R_x + 1].

    Zeros lie outside x; `valid` leaves out the outputs that would read them.
    """
    sides, half = x.shape[1:3], tuple(size // 2 for size in taps.shape[-2:])
    # What wraps around must land outside the map, or on outputs that are left out.
    margin = (0, 0) if valid else half
    least = [max(s + m, 2 * h + 1) for s, m, h in zip(sides, margin, half, strict=True)]
    period = tuple(next_fast_len(size, real=True) for size in least)
    pad = [(0, p - size) for p, size in zip(period, taps.shape[-2:], strict=True)]
    kernel = jnp.roll(jnp.pad(taps, ((0, 0), (0, 0), *pad)), (-half[0], -half[1]), (-2, -1))
    spectrum = jnp.moveaxis(jnp.fft.rfft2(kernel, axes=(-2, -1)), 1, -1)
    y = jnp.fft.irfft2(jnp.fft.rfft2(x, period, axes=(1, 2)) * spectrum, period, axes=(1, 2))
    first = half if valid else (0, 0)
    last = [s - f for s, f in zip(sides, first, strict=True)]
    return y[:, first[0] : last[0], first[1] : last[1]]
