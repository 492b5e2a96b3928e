"""Gaussian filtering of two axes at once, for full covariances of any size.

A correlated Gaussian is no product of two one-dimensional filters, so its taps are formed on a
grid. A switch picks the smallest of a few static grids that holds the traced support. On the small
ones the filter is a sum of shifted maps; on the others it is applied by the Fourier transform,
whose cost hardly depends on the size. Both have their gradients written out.
"""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from rfjax._engine.blocks import filter_in_blocks, pull_in_blocks
from rfjax._engine.clamp import at_most
from rfjax._engine.derivatives import operator
from rfjax._engine.devices import alike, by_device
from rfjax._engine.fourier import irfft2, rfft2, scaled
from rfjax._engine.grid import full_factor, full_profile
from rfjax._engine.layout import in_order, sum_to
from rfjax._engine.plan import PAD_MODES, Plane, is_dense
from rfjax._engine.profile import Window, half_size
from rfjax._engine.stencil import product, stencil
from rfjax._engine.switch import size_switch

# The discrete analogue and the integrated density meet the sampled one beyond this sigma.
_LARGE_SIGMA = 32.0

# Where a program runs: see `rfjax._engine.devices.by_device`.
_DEVICES = ("cpu", "default", "partitioned")


def filter_plane(x: jax.Array, params: jax.Array, plane: Plane) -> jax.Array:
    """The map [N, H, W, C] filtered by Gaussians of full params [N | 1, C | 1, 3]."""
    steps = (partial(step, plane) for step in (_forward, _backward, _plain, _keeping))
    return operator(*steps)(*alike(x, params))


def _forward(plane: Plane, x: jax.Array, params: jax.Array) -> jax.Array:
    run = {device: partial(_filter, plane._replace(device=device)) for device in _DEVICES}
    if plane.limits.splits(x.shape):
        run["cpu"] = partial(filter_in_blocks, run["cpu"], plane.limits)
    return by_device(x, params, **run, like=lambda x, _: x)


def _keeping(plane: Plane, x: jax.Array, params: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """The result; its gradient reads it again with renormalized boundaries."""
    y = _forward(plane, x, params)
    return y, [y] if plane.padding == "renormalized" else []


def _backward(plane: Plane, operands, kept, cotangent) -> tuple[jax.Array, jax.Array]:
    def again(x, params, cotangent):
        kept = [_filter(plane, x, params)] if plane.padding == "renormalized" else []
        return _pull(plane, x, params, kept, cotangent)

    def in_blocks(x, params, kept, cotangent):
        return pull_in_blocks(again, plane.limits, x, params, cotangent)

    run = {device: partial(_pull, plane._replace(device=device)) for device in _DEVICES}
    if plane.limits.splits(operands[0].shape):
        run["cpu"] = in_blocks
    like = lambda x, params, *_: (x, params)
    return by_device(*operands, kept, cotangent, **run, like=like)


def _plain(plane: Plane, x: jax.Array, params: jax.Array) -> jax.Array:
    """By transforms on the largest grid, which JAX differentiates to any order."""

    def apply(*arguments):
        return _fourier_forward(*arguments)[0]

    plane = plane._replace(device="default")
    return _filter_on_grid(plane, plane.half_sizes()[-1], x, params, apply)


def _filter(plane: Plane, x: jax.Array, params: jax.Array) -> jax.Array:
    branches = [partial(_on_grid, plane, grid) for grid in plane.half_sizes()]
    taps = _dense_taps(params, plane)
    return size_switch(_branch_index(params, plane), branches, x, params, taps)


def _pull(plane: Plane, x, params, kept, cotangent) -> tuple[jax.Array, jax.Array]:
    """Cotangents of x and params, by a switch between the same branches."""
    taps, linear = jax.linearize(partial(_dense_taps, plane=plane), params)
    units = (jnp.broadcast_to(unit, params.shape) for unit in np.eye(3)[:, None, None])
    slopes = [linear(alike(unit.astype(params.dtype), params)[0]) for unit in units]
    branches = [partial(_pull_on_grid, plane, grid) for grid in plane.half_sizes()]
    operands = x, kept, cotangent, params, taps, slopes
    return size_switch(_branch_index(params, plane), branches, *operands)


def _branch_index(params: jax.Array, plane: Plane) -> jax.Array:
    """The first grid that holds every covariance's support."""
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
    return sum((small.astype(jnp.int32) for small in too_small), jnp.int32(0))


def _on_grid(plane: Plane, grid: tuple[int, int], x, params, taps) -> jax.Array:
    if not is_dense(grid):
        return _filter_on_grid(plane, grid, x, params)
    taps = _crop(taps, grid)
    extended = _extend(plane, grid, x)
    y = stencil(extended, taps, extended=extended is not x)
    return y / _mass(plane, taps) if plane.padding == "renormalized" else y


def _pull_on_grid(plane: Plane, grid: tuple[int, int], x, kept, cotangent, params, taps, slopes):
    if not is_dense(grid):
        return jax.vjp(partial(_filter_on_grid, plane, grid), x, params)[1](cotangent)
    taps, slopes = _crop(taps, grid), [_crop(slope, grid) for slope in slopes]
    added = partial(product, share=params[..., 0], on_cpu=plane.device == "cpu")
    if plane.padding in ("zero", "renormalized"):
        if plane.padding == "renormalized":
            cotangent = cotangent / _mass(plane, taps)
        # The filter and its derivatives are their own adjoints.
        grad_x = stencil(cotangent, taps)
        changes = [added(cotangent, slope, x) for slope in slopes]
        if plane.padding == "renormalized":
            rows = (x.shape[0], plane.height, -1)
            losses = [(cotangent * kept[0] * _mass(plane, slope)).reshape(rows) for slope in slopes]
            changes = [c - sum_to(v, params[..., 0]) for c, v in zip(changes, losses, strict=True)]
    else:
        grad_wide = stencil(_extend(plane, grid, cotangent, "zero"), taps)
        (grad_x,) = jax.linear_transpose(partial(_extend, plane, grid), x)(grad_wide)
        wide = _extend(plane, grid, x)
        changes = [added(wide, slope, cotangent, extended=True) for slope in slopes]
    return grad_x, jnp.stack(changes, -1)


def _extend(plane: Plane, grid: tuple[int, int], x: jax.Array, padding: str = "") -> jax.Array:
    """x with what lies outside of it, where that is not zero, as far as the grid reaches."""
    mode = PAD_MODES.get(padding or plane.padding, "constant")
    if mode == "constant" and not padding:
        return x
    return jnp.pad(x, ((0, 0), *((size, size) for size in grid), (0, 0)), mode=mode)


def _is_extended(plane: Plane, x: jax.Array) -> bool:
    return x.shape[1:3] != (plane.height, plane.width)


# Taps


def _dense_taps(params: jax.Array, plane: Plane) -> jax.Array:
    """The taps of all sums of shifted maps, on the largest of their grids.

    They are formed outside of the switch: inside, XLA would fuse their arithmetic into the loop
    over the map.
    """
    grid = max(g for g in plane.half_sizes() if is_dense(g))
    return _taps(plane, grid, params)


def _crop(taps: jax.Array, grid: tuple[int, int]) -> jax.Array:
    y, x = (slice(s // 2 - g, s // 2 + g + 1) for s, g in zip(taps.shape[-2:], grid, strict=True))
    return taps[..., y, x]


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
    profile = _crop(profile, grid)
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

    A sum over pixels is the integral over them and a correction at the ends of the support
    (Euler-Maclaurin). Along x both are in closed form, along y the integral is by Gauss-Legendre.
    That is exact to rounding while the standard deviation along x at a given y is some pixels.
    """
    window = plane.window
    profile = full_profile(params, grid, window._replace(method="sampled"))
    u_yy, u_yx, u_xx = (entry[..., None] for entry in full_factor(params))
    end_y, correction_y = _end(u_yy, window)
    end_x, correction_x = _end(jnp.hypot(u_yx, u_xx), window)

    def line(y):
        """The sum along x of the taps at y."""
        z = y / u_yy
        low, high = ((end_x + sign * u_yx * z) / u_xx for sign in (1.0, -1.0))
        integral = erf(low / math.sqrt(2.0)) + erf(high / math.sqrt(2.0))
        slopes = low * jnp.exp(-0.5 * low * low) + high * jnp.exp(-0.5 * high * high)
        total = math.sqrt(math.pi / 2.0) * u_xx * integral - correction_x * slopes / u_xx
        return jnp.exp(-0.5 * z * z) * total

    nodes, weights = np.polynomial.legendre.leggauss(64)
    nodes, weights = (jnp.asarray(v, u_yy.dtype).reshape(1, 1, -1) for v in (nodes, weights))
    reach = at_most(end_y / u_yy, 9.0) * u_yy  # nothing is left to integrate beyond
    total = reach * jnp.sum(line(reach * nodes) * weights, -1, keepdims=True)
    _, slope = jax.jvp(line, (end_y,), (jnp.ones_like(end_y),))
    return profile / (total + 2.0 * correction_y * slope)[..., None]


def _end(sigma: jax.Array, window: Window) -> tuple[jax.Array, jax.Array]:
    """Where the integral over a support's pixels ends, and what the slope there counts in a sum."""
    if window.support == "hard":
        return half_size(sigma, truncate=window.truncate).astype(sigma.dtype) + 0.5, -1.0 / 24.0
    reach = window.truncate * sigma
    # The pixel that counts in part is as much of the integral, but for the slope across it.
    part = reach - jax.lax.stop_gradient(jnp.floor(reach))
    return reach + 0.5, 0.5 * part * (1.0 - part) - 1.0 / 24.0


# Sums of shifted maps


def _mass(plane: Plane, taps: jax.Array) -> jax.Array:
    """The sum of the taps that fall inside the map: [n, H, W, c]."""
    n, c = taps.shape[:2]
    return stencil(jnp.ones((n, plane.height, plane.width, c), taps.dtype), taps)


# Fourier transforms


def _filter_on_grid(plane: Plane, grid: tuple[int, int], x, params, apply=None) -> jax.Array:
    apply = apply or _filter_fourier
    if plane.padding == "renormalized":
        n, c = params.shape[:2]
        ones = jnp.ones((n, plane.height, plane.width, c), x.dtype)
        return apply(plane, grid, x, params) / apply(plane, grid, ones, params)
    return apply(plane, grid, _extend(plane, grid, x), params)


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _filter_fourier(plane: Plane, grid: tuple[int, int], x: jax.Array, params: jax.Array):
    return _fourier_forward(plane, grid, x, params)[0]


def _fourier_forward(plane, grid, x, params):
    spectrum = _spectrum(plane, grid, x, (0, 0))
    transfer = _transfer(plane, grid, x, _taps(plane, grid, params))
    start = grid if _is_extended(plane, x) else (0, 0)
    y = _inverse(plane, grid, x, scaled(spectrum, transfer), start, (plane.height, plane.width))
    return y, (x, spectrum, params)


def _fourier_backward(plane, grid, residuals, cotangent):
    """The filter is its own adjoint; the taps' cotangent is a correlation, summed as a spectrum."""
    x, spectrum, params = residuals
    taps, pull = jax.vjp(partial(_taps, plane, grid), params)
    start = grid if _is_extended(plane, x) else (0, 0)
    change = _spectrum(plane, grid, x, start, cotangent)
    transfer = _transfer(plane, grid, x, taps)
    grad_x = _inverse(plane, grid, x, scaled(change, transfer), (0, 0), x.shape[1:3])
    shared = [k for k in (0, 1) if params.shape[k] == 1]
    product = jnp.sum(jnp.conj(change) * spectrum, shared, keepdims=True)
    along = _inverse_transform(plane, grid, x, product)
    along = jnp.roll(along, grid, (-2, -1))[..., : taps.shape[-2], : taps.shape[-1]]
    return grad_x, pull(along)[0]


_filter_fourier.defvjp(_fourier_forward, _fourier_backward)


def _period(plane: Plane, grid: tuple[int, int], x: jax.Array) -> tuple[int, int]:
    """The transform's size: what wraps around must land outside the map, or on what is cut off."""
    from scipy.fft import next_fast_len  # here, since it doubles the time that rfjax takes to load

    margin = (0, 0) if _is_extended(plane, x) else grid
    sides = x.shape[1:3]
    least = [max(s + m, 2 * h + 1) for s, m, h in zip(sides, margin, grid, strict=True)]
    return tuple(next_fast_len(size, real=True) for size in least)


def _transform(plane, grid, x, planes) -> jax.Array:
    by_matrix = plane.device == "partitioned"
    return rfft2(planes, _period(plane, grid, x), by_matrix=by_matrix)


def _inverse_transform(plane, grid, x, spectrum) -> jax.Array:
    by_matrix = plane.device == "partitioned"
    return irfft2(spectrum, _period(plane, grid, x), by_matrix=by_matrix)


def _spectrum(plane, grid, x, start, values=None) -> jax.Array:
    """The transform of x, or of `values` at `start` on a map like x, [N, C, ...].

    Planes of contiguous pixels transform fastest.
    """
    values = x if values is None else values
    period = _period(plane, grid, x)
    ends = [p - s - size for p, s, size in zip(period, start, values.shape[1:3], strict=True)]
    planes = jnp.moveaxis(values, -1, 1)
    pad = ((0, 0), (0, 0), *zip(start, ends, strict=True))
    return _transform(plane, grid, x, jnp.pad(planes, pad))


def _transfer(plane, grid, x, taps) -> jax.Array:
    """The transform of point-symmetric taps about the origin, which is real."""
    pad = [(0, p - size) for p, size in zip(_period(plane, grid, x), taps.shape[-2:], strict=True)]
    kernel = jnp.roll(jnp.pad(taps, ((0, 0), (0, 0), *pad)), (-grid[0], -grid[1]), (-2, -1))
    return _transform(plane, grid, x, kernel).real


def _inverse(plane, grid, x, spectrum, start, size) -> jax.Array:
    """The part of `size` from `start` of the inverse transform, [N, *size, C]."""
    planes = _inverse_transform(plane, grid, x, spectrum)
    rows, columns = (slice(s, s + n) for s, n in zip(start, size, strict=True))
    return in_order(jnp.moveaxis(planes[..., rows, columns], 1, -1))
