"""Gaussian filtering of two axes at once, for full covariances of any size.

A correlated Gaussian is no product of two one-dimensional filters, so its taps are formed on a
grid. A switch picks the smallest of a few static grids that holds the traced support. On the small
ones the filter is a sum of shifted maps; on the others it is applied by the Fourier transform,
whose cost hardly depends on the size. Both have their gradients written out.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._engine.blocks import filter_in_blocks, pull_in_blocks
from rfjax._engine.derivatives import operator
from rfjax._engine.devices import alike, by_device
from rfjax._engine.direct import filter_direct, pull_direct
from rfjax._engine.fourier import filter_by_transforms, filtered_and_kept
from rfjax._engine.grid import cropped, needed_half_sizes, plane_taps
from rfjax._engine.layout import sum_to
from rfjax._engine.plan import PAD_MODES, Plane, is_dense
from rfjax._engine.shift_add import stencil, stencil_product
from rfjax._engine.switch import size_switch

# Where a program runs: see `rfjax._engine.devices.by_device`.
_DEVICES = ("cpu", "default", "partitioned")


def filter_plane(x: jax.Array, params: jax.Array, plane: Plane) -> jax.Array:
    """The map [N, H, W, C] filtered by Gaussians of full params [N | 1, C | 1, 3]."""
    steps = (partial(step, plane) for step in (_forward, _backward, _plain, _keeping))
    return operator(*steps)(*alike(x, params))


# The four functions of the operator, see `rfjax._engine.derivatives`


def _forward(plane: Plane, x: jax.Array, params: jax.Array) -> jax.Array:
    run: dict[str, Callable] = {
        device: partial(_filter, plane._replace(device=device)) for device in _DEVICES
    }
    if plane.limits.splits(x.shape):
        run["cpu"] = partial(filter_in_blocks, run["cpu"], plane.limits)
    if plane.is_direct(x.shape, params.shape, x.dtype):
        run["native"] = partial(filter_direct, plane, run["cpu"])
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

    x = operands[0]
    run: dict[str, Callable] = {
        device: partial(_pull, plane._replace(device=device)) for device in _DEVICES
    }
    if plane.limits.splits(x.shape):
        run["cpu"] = in_blocks
    if plane.is_direct(x.shape, operands[1].shape, x.dtype):
        run["native"] = partial(pull_direct, plane, run["cpu"])
    like = lambda x, params, *_: (x, params)
    return by_device(*operands, kept, cotangent, **run, like=like)


def _plain(plane: Plane, x: jax.Array, params: jax.Array) -> jax.Array:
    """By transforms on the largest grid, which JAX differentiates to any order."""

    def apply(*arguments):
        return filtered_and_kept(*arguments)[0]

    plane = plane._replace(device="default")
    return _by_transforms(plane, plane.half_sizes()[-1], x, params, apply)


# The switch between grids


def _filter(plane: Plane, x: jax.Array, params: jax.Array) -> jax.Array:
    branches = [partial(_on_grid, plane, grid) for grid in plane.half_sizes()]
    taps = _dense_taps(params, plane)
    return size_switch(branches)(_branch_index(params, plane), x, params, taps)


def _pull(plane: Plane, x, params, kept, cotangent) -> tuple[jax.Array, jax.Array]:
    """Cotangents of x and params, by a switch between the same branches."""
    # The taps are formed once, and their three derivatives by the linear map about them.
    taps, linear = jax.linearize(partial(_dense_taps, plane=plane), params)
    # dtaps / dparams_k for each of the three parameters.
    units = (jnp.broadcast_to(unit, params.shape) for unit in np.eye(3)[:, None, None])
    slopes = [linear(alike(unit.astype(params.dtype), params)[0]) for unit in units]
    branches = [partial(_pull_on_grid, plane, grid) for grid in plane.half_sizes()]
    operands = x, kept, cotangent, params, taps, slopes
    return size_switch(branches)(_branch_index(params, plane), *operands)


def _branch_index(params: jax.Array, plane: Plane) -> jax.Array:
    """The first grid that holds every covariance's support."""
    # The largest support of all covariances decides, along each axis.
    need_y, need_x = map(jnp.max, needed_half_sizes(params, plane.window))
    grids = plane.half_sizes()
    # An axis at its bound needs no larger grid for its own sake.
    too_small = [
        ((need_y > y) & (y < grids[-1][0])) | ((need_x > x) & (x < grids[-1][1]))
        for y, x in grids[:-1]
    ]
    return sum((small.astype(jnp.int32) for small in too_small), jnp.int32(0))


def _dense_taps(params: jax.Array, plane: Plane) -> jax.Array:
    """The taps of all sums of shifted maps, on the largest of their grids.

    They are formed outside of the switch: inside, XLA would fuse their arithmetic into the loop
    over the map.
    """
    return plane_taps(plane, max(g for g in plane.half_sizes() if is_dense(g)), params)


# One grid


def _on_grid(plane: Plane, grid: tuple[int, int], x, params, taps) -> jax.Array:
    """y = g * x, or with renormalized boundaries (g * x) / (g * 1)."""
    if not is_dense(grid):
        return _by_transforms(plane, grid, x, params)
    taps = cropped(taps, grid)
    extended = _extend(plane, grid, x)
    y = stencil(extended, taps, extended=extended is not x)
    return y / _mass(plane, taps) if plane.padding == "renormalized" else y


def _pull_on_grid(plane: Plane, grid: tuple[int, int], x, kept, cotangent, params, taps, slopes):
    """The cotangents of x and params in y = `_on_grid`."""
    if not is_dense(grid):
        return jax.vjp(partial(_by_transforms, plane, grid), x, params)[1](cotangent)
    taps, slopes = cropped(taps, grid), [cropped(slope, grid) for slope in slopes]
    share = params[..., 0]
    added = partial(stencil_product, share=share, on_cpu=plane.device == "cpu")
    if plane.padding not in ("zero", "renormalized"):
        # The adjoint spreads over the extended map, and the extension's adjoint folds it back.
        grad_wide = stencil(_extend(plane, grid, cotangent, "zero"), taps)
        (grad_x,) = jax.linear_transpose(partial(_extend, plane, grid), x)(grad_wide)
        wide = _extend(plane, grid, x)
        changes = [added(wide, slope, cotangent, extended=True) for slope in slopes]
        return grad_x, jnp.stack(changes, -1)
    if plane.padding == "renormalized":
        cotangent = cotangent / _mass(plane, taps)
    # With zeros outside the filter and its derivatives are their own adjoints: grad_x = g * c and
    # grad_k = sum (dg / dparams_k * c) x.
    grad_x = stencil(cotangent, taps)
    changes = [added(cotangent, slope, x) for slope in slopes]
    if plane.padding == "renormalized":
        # y = s / m with the sum s and the mass m of the taps: dy = (ds - y dm) / m.
        rows = (x.shape[0], plane.height, -1)
        losses = [(cotangent * kept[0] * _mass(plane, slope)).reshape(rows) for slope in slopes]
        changes = [c - sum_to(loss, share) for c, loss in zip(changes, losses, strict=True)]
    return grad_x, jnp.stack(changes, -1)


def _by_transforms(
    plane: Plane, grid: tuple[int, int], x, params, apply: Callable = filter_by_transforms
) -> jax.Array:
    """y = g * x on a grid, or with renormalized boundaries (g * x) / (g * 1)."""
    if plane.padding == "renormalized":
        n, c = params.shape[:2]
        ones = jnp.ones((n, plane.height, plane.width, c), x.dtype)
        return apply(plane, grid, x, params) / apply(plane, grid, ones, params)
    return apply(plane, grid, _extend(plane, grid, x), params)


def _extend(plane: Plane, grid: tuple[int, int], x: jax.Array, padding: str = "") -> jax.Array:
    """x with what lies outside of it, where that is not zero, as far as the grid reaches."""
    mode = PAD_MODES.get(padding or plane.padding, "constant")
    if mode == "constant" and not padding:
        return x
    return jnp.pad(x, ((0, 0), *((size, size) for size in grid), (0, 0)), mode=mode)


def _mass(plane: Plane, taps: jax.Array) -> jax.Array:
    """The sum of the taps that fall inside the map, g * 1: [n, H, W, c]."""
    n, c = taps.shape[:2]
    return stencil(jnp.ones((n, plane.height, plane.width, c), taps.dtype), taps)
