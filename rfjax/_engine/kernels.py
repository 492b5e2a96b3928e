"""Filtering of one axis of a map by a kernel for GPUs that is written out, in Pallas for Triton.

    y[i] = w_0 x[i] + sum_(k <= R) w_k (x[i - k] + x[i + k])

The half size R is read on the device: one program serves every sigma, no switch asks the host, and
a wide static bound costs nothing. Each program of the grid computes a tile of the result. The map
is read once from memory and again from the caches, and written once. The backward kernel reads the
cotangent and the map, and gives the map's gradient and, for each tile, its share of sigma's.

On a CPU the kernels are interpreted, which is slow, and meant for tests.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton

from rfjax._engine import tuning
from rfjax._engine.devices import shaped
from rfjax._engine.layout import in_order
from rfjax._engine.plan import PAD_MODES, Axis
from rfjax._engine.profile import half_size, half_taps
from rfjax._engine.shift_add import extended, mass_inside, multiplied


def filter_by_kernel(axis: Axis, size: int, x: jax.Array, sigma: jax.Array) -> jax.Array:
    """x [M, L, K] filtered along L by sigma [N | 1, C | 1] of half sizes up to `size`, static."""
    taps, reach = half_taps(sigma, size, axis.window), _reach(sigma, axis, size)
    if axis.padding in PAD_MODES and axis.padding != "zero":
        wide = extended(x, size, axis.padding)
        return in_order(_filter(axis, reach, taps, wide)[:, size : size + axis.length])
    y = _filter(axis, reach, taps, x)
    if axis.padding == "renormalized":
        y = multiplied(y, 1.0 / mass_inside(taps, axis.length))
    return in_order(y)


def pull_by_kernel(
    axis: Axis,
    size: int,
    x: jax.Array,
    y: jax.Array | None,
    cotangent: jax.Array,
    sigma: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and sigma in y = `filter_by_kernel`, which is read if renormalized."""
    taps, change = jax.jvp(
        partial(half_taps, max_half_size=size, window=axis.window), (sigma,), (unit_like(sigma),)
    )
    reach, loss = _reach(sigma, axis, size), 0.0
    if axis.padding in PAD_MODES and axis.padding != "zero":
        # The adjoint spreads over the extended map, and the boundary's adjoint folds it back.
        extend = partial(extended, size=size, padding=axis.padding)
        wide = extended(cotangent, size, "zero")
        along, grad_sigma = _pull(axis, reach, taps, change, extend(x), wide)
        (grad_x,) = jax.linear_transpose(extend, x)(along)
        return in_order(grad_x), grad_sigma
    if axis.padding == "renormalized":
        assert y is not None  # it is kept for this
        # y = s / m with the sum s and the mass m of the taps: dy = (ds - y dm) / m.
        cotangent = multiplied(cotangent, 1.0 / mass_inside(taps, axis.length))
        lost = multiplied(cotangent * y, mass_inside(change, axis.length))
        loss = _summed(lost, sigma)
    grad_x, grad_sigma = _pull(axis, reach, taps, change, x, cotangent)
    return in_order(grad_x), grad_sigma - loss


def unit_like(sigma: jax.Array) -> jax.Array:
    """Ones that vary over the axes of a mesh that sigma varies over."""
    return sigma * 0 + 1


def _reach(sigma: jax.Array, axis: Axis, size: int) -> jax.Array:
    """R, the largest half size, as an array of one number."""
    largest = jnp.max(half_size(sigma, truncate=axis.window.truncate))
    return jnp.minimum(largest, size)[None]


def _summed(values: jax.Array, sigma: jax.Array) -> jax.Array:
    """[M, tiles or L, K] summed over all axes that sigma [N | 1, C | 1] shares."""
    n, c = sigma.shape
    return values.reshape(n, -1, c).sum(1)


# The calls


def _tile(length: int, step: int) -> tuple[int, int]:
    """Pixels and numbers of a tile; powers of two, as Triton wants them."""
    wide = min(tuning.TILE_NUMBERS, pl.next_power_of_2(step))
    return min(tuning.TILE // wide, pl.next_power_of_2(length)), wide


def _call(axis: Axis, kernel, x: jax.Array, shares: bool):
    """The Pallas call of a kernel over the tiles of [M, L, K]; with `shares` a row of each."""
    rows, length, step = x.shape
    tile = _tile(length, step)
    grid = rows, pl.cdiv(length, tile[0]), pl.cdiv(step, tile[1])
    results = shaped(x.shape, x), shaped((rows, grid[1], step), x)
    return pl.pallas_call(
        partial(kernel, rows=rows, tile=tile),
        out_shape=results if shares else results[0],
        grid=grid,
        interpret=axis.on_cpu,
        compiler_params=None if axis.on_cpu else triton.CompilerParams(num_warps=4, num_stages=2),
    )


def _filter(axis: Axis, reach: jax.Array, taps: jax.Array, x: jax.Array) -> jax.Array:
    return _call(axis, _filter_kernel, x, False)(reach, taps, x)


def _pull(axis: Axis, reach, taps, change, x, cotangent) -> tuple[jax.Array, jax.Array]:
    """The map's gradient and sigma's, with zeros outside of the cotangent."""
    call = _call(axis, _pull_kernel, x, True)
    grad_x, shares = call(reach, taps, change, x, cotangent)
    return grad_x, _summed(shares, taps[..., 0])


# The kernels, one tile each. Arrays are references; taps are [n, c, R + 1].


class _Tile:
    """The pixels and the numbers of a tile, and reads of what lies there and around."""

    def __init__(self, shape: tuple[int, int, int], tile: tuple[int, int]):
        self.row = pl.program_id(0)
        self.length, self.step = shape[1:]
        self.pixels = pl.program_id(1) * tile[0] + jnp.arange(tile[0], dtype=jnp.int32)[:, None]
        self.numbers = pl.program_id(2) * tile[1] + jnp.arange(tile[1], dtype=jnp.int32)[None]
        self.inside = self.numbers < self.step

    def read(self, array, away=0) -> jax.Array:
        """The tile `away` pixels further, with zeros outside of the map."""
        pixels = self.pixels + away
        mask = (pixels >= 0) & (pixels < self.length) & self.inside
        at = jnp.clip(pixels, 0, self.length - 1), jnp.minimum(self.numbers, self.step - 1)
        return triton.load(array.at[self.row, *at], mask=mask, other=0.0)

    def tap(self, taps, k, rows: int) -> jax.Array:
        """The k-th tap of each channel of the tile's example, beside the tile."""
        n, c, _ = taps.shape
        example = self.row // (rows // n)
        # Channels are the fastest of the numbers of a pixel.
        return triton.load(taps.at[example, self.numbers % c, k])

    def pair(self, array, k) -> jax.Array:
        """x[i - k] + x[i + k]."""
        return self.read(array, -k) + self.read(array, k)

    def write(self, array, values: jax.Array) -> None:
        mask = (self.pixels < self.length) & self.inside
        triton.store(array.at[self.row, self.pixels, self.numbers], values, mask=mask)


def _filter_kernel(reach, taps, x, y, *, rows: int, tile: tuple[int, int]) -> None:
    here = _Tile(x.shape, tile)

    def add(k, total):
        return total + here.tap(taps, k, rows) * here.pair(x, k)

    first = here.tap(taps, 0, rows) * here.read(x)
    here.write(y, jax.lax.fori_loop(1, reach[0] + 1, add, first))


def _pull_kernel(
    reach, taps, change, x, cotangent, grad_x, shares, *, rows: int, tile: tuple[int, int]
) -> None:
    here = _Tile(x.shape, tile)

    def add(k, totals):
        pair = here.pair(cotangent, k)
        along, slope = totals
        return along + here.tap(taps, k, rows) * pair, slope + here.tap(change, k, rows) * pair

    own = here.read(cotangent)
    first = here.tap(taps, 0, rows) * own, here.tap(change, 0, rows) * own
    along, slope = jax.lax.fori_loop(1, reach[0] + 1, add, first)
    # With zeros outside, the filter and its derivative are their own adjoints: grad_x = g * c and
    # grad_sigma = sum (dg / dsigma * c) x, of which this is the tile's share.
    here.write(grad_x, along)
    share = jnp.sum(slope * here.read(x), 0, keepdims=True)
    place = shares.at[here.row, pl.program_id(1), here.numbers]
    triton.store(place, share, mask=here.inside)
