"""Reads at any positions and their products, by kernels for GPUs in Pallas for Triton.

    y(p) = sum_k theta_k^T v(p + p_k), v the bilinear interpolation of x

Each program of the forward kernel makes a tile of outputs and features: tap by tap, some channels
at a time, it reads the four corners of every output's cell, blends them, and multiplies the samples
by the tap's weights. Samples are never written to memory.

Backward there are two kernels. A program of the first takes a tile of outputs and one tap: the
samples' gradient is added to the four corners, by atomic additions (so that sums vary by rounding
from run to run), and joined to the slopes, which gives the positions' gradient. A program of the
second takes some outputs and a part of a tap's weights, and gives its share of their gradient; the
shares are summed afterwards.

On a CPU the kernels are interpreted, which is slow, and meant for tests.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.ref import addupdate

from rfjax import _checks
from rfjax._engine import tuning
from rfjax._engine.cells import Cells, Rows, blended, corner_weights
from rfjax._engine.devices import shaped, zeros_for


def read_by_kernel(rows: Rows, cells: Cells, weights: jax.Array, *, interpret: bool) -> jax.Array:
    """[P, C_out] of cells [P, T] on a map, by weights as in `rfjax._engine.reads`."""
    operands, sizes = _operands(rows, cells, weights)
    tiles = pl.cdiv(sizes.outputs, sizes.tile[0])
    call = pl.pallas_call(
        partial(_forward_kernel, sizes),
        out_shape=shaped((sizes.outputs, sizes.groups * sizes.features), rows.values),
        grid=(tiles, sizes.groups, pl.cdiv(sizes.features, sizes.tile[2])),
        **_options(interpret),
    )
    return call(*operands)


def pull_by_kernel(
    rows: Rows, cells: Cells, weights: jax.Array, cotangent: jax.Array, *, interpret: bool
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients by the rows, the weights, and each tap's (y, x, factor) [P, T, 3]."""
    operands, sizes = _operands(rows, cells, weights)
    sums = _checks.accumulation_dtype(rows.values)
    tiles = pl.cdiv(sizes.outputs, sizes.tile[0])
    padded = operands[1].shape[1]
    zeros = zeros_for(rows.values.shape, sums, rows.values)
    pull = pl.pallas_call(
        partial(_pull_kernel, sizes),
        out_shape=(shaped(zeros.shape, zeros), shaped((3, sizes.taps, padded), zeros)),
        grid=(tiles, sizes.taps),
        input_output_aliases={5: 0},
        **_options(interpret, warps=8),  # four of them would run out of registers
    )
    along_rows, slopes = pull(*operands, cotangent, zeros)
    outer = pl.pallas_call(
        partial(_outer_kernel, sizes),
        out_shape=shaped((sizes.shares, *sizes.weights), zeros),
        grid=(sizes.shares * sizes.taps * sizes.groups, *sizes.parts),
        **_options(interpret),
    )
    shares = outer(*operands[:3], cotangent)
    along_weights = shares.sum(0).reshape(weights.shape)
    return along_rows, along_weights, slopes[:, :, : sizes.outputs].transpose(2, 1, 0)


class _Sizes(NamedTuple):
    """What a kernel knows before it runs."""

    outputs: int
    taps: int
    groups: int
    channels: int  # that a tap of a group reads
    features: int  # that a group makes
    right: int  # rows from a corner to the next one, and to the one below
    below: int
    tile: tuple[int, int, int]  # outputs, channels, features; powers of two, as Triton wants them
    shares: int  # parts of the outputs whose weights' gradients are summed afterwards

    @property
    def weights(self) -> tuple[int, int, int, int]:
        """The shape of the weights."""
        return self.taps, self.groups, self.channels, self.features

    @property
    def parts(self) -> tuple[int, int]:
        """Tiles of channels and of features."""
        _, channels, features = self.tile
        return pl.cdiv(self.channels, channels), pl.cdiv(self.features, features)

    @property
    def tiles_of_share(self) -> int:
        """Tiles of outputs in a share."""
        return pl.cdiv(pl.cdiv(self.outputs, self.tile[0]), self.shares)


def _operands(rows: Rows, cells: Cells, weights: jax.Array) -> tuple[tuple, _Sizes]:
    """(values, corners, places, weights) as the kernels take them, and their sizes."""
    weights = weights if weights.ndim == 4 else weights[:, None]
    taps, groups, channels, features = weights.shape
    outputs = cells.row.shape[0]
    outputs_tile, channels_tile, features_tile = tuning.READ_TILE
    # Products of matrix units have sides of at least 16.
    tile = (
        outputs_tile,
        min(channels_tile, max(16, pl.next_power_of_2(channels))),
        min(features_tile, max(16, pl.next_power_of_2(features))),
    )
    shares = min(pl.cdiv(outputs, tuning.SHARE_OUTPUTS), tuning.MOST_SHARES)
    sizes = _Sizes(
        outputs,
        taps,
        groups,
        channels,
        features,
        rows.groups,
        rows.width * rows.groups,
        tile,
        shares,
    )
    # What fills the last tile reads row 0, a zero of the border.
    filler = (0, 0), (0, shares * sizes.tiles_of_share * outputs_tile - outputs)
    corners = rows.index(cells, jnp.arange(taps, dtype=jnp.int32)[None])[0].T
    factor = jnp.ones_like(cells.y) if cells.factor is None else cells.factor
    places = jnp.stack([cells.y.T, cells.x.T, factor.T])
    return (
        rows.values,
        jnp.pad(corners, filler),
        jnp.pad(places, ((0, 0), *filler)),
        weights,
    ), sizes


def _options(interpret: bool, warps: int = 4) -> dict:
    if interpret:
        return {"interpret": True}
    return {"compiler_params": triton.CompilerParams(num_warps=warps, num_stages=2)}


# What kernels read, a tile each. Arrays are references.


class _Reader:
    """A tap's cells at a tile of outputs: its samples, and rows of what belongs to outputs."""

    def __init__(self, sizes: _Sizes, corners, places, tap: jax.Array, tile: jax.Array):
        self.sizes, self.sums = sizes, places.dtype
        self.outputs = tile * sizes.tile[0] + jnp.arange(sizes.tile[0], dtype=jnp.int32)
        self.corner = triton.load(corners.at[tap, self.outputs])
        self.y, self.x, self.factor = (
            triton.load(places.at[k, tap, self.outputs])[:, None] for k in range(3)
        )

    def rows(self) -> list[jax.Array]:
        """The rows of the four corners, in the order of `Rows.index`."""
        right, below = self.sizes.right, self.sizes.below
        return [self.corner[:, None] + away for away in (0, right, below, below + right)]

    def read(self, values, columns: "_Columns") -> tuple[jax.Array, ...]:
        """Samples [outputs, channels] and their slopes along y and x, without the factor."""
        corners = [
            triton.load(values.at[row, columns.at[None]], mask=columns.mask[None], other=0.0)
            for row in self.rows()
        ]
        return blended([corner.astype(self.sums) for corner in corners], self.y, self.x)

    def sample(self, values, columns: "_Columns") -> jax.Array:
        """Samples times the factor, in the dtype of the map."""
        return (self.factor * self.read(values, columns)[0]).astype(values.dtype)

    def cotangent(self, array, columns: "_Columns") -> jax.Array:
        """[outputs, features]; zeros beyond the last output."""
        mask = (self.outputs < self.sizes.outputs)[:, None] & columns.mask[None]
        row = jnp.minimum(self.outputs, self.sizes.outputs - 1)[:, None]
        return triton.load(array.at[row, columns.at[None]], mask=mask, other=0.0)


class _Columns:
    """A part of the channels or features of a group; reads stay within it, masks cut stores."""

    def __init__(self, group: jax.Array, part: jax.Array, tile: int, size: int):
        self.stored = part * tile + jnp.arange(tile, dtype=jnp.int32)
        self.own = jnp.minimum(self.stored, size - 1)
        self.mask = self.stored < size
        self.before = group * size  # in the groups before

    @property
    def at(self) -> jax.Array:
        """Places among the columns of all groups."""
        return self.before + self.own


def _theta(weights, tap, group, channels: _Columns, features: _Columns) -> jax.Array:
    """A part [channels, features] of a tap's weights."""
    mask = channels.mask[:, None] & features.mask[None]
    place = weights.at[tap, group, channels.own[:, None], features.own[None]]
    return triton.load(place, mask=mask, other=0.0)


def _dot(a: jax.Array, b: jax.Array, axes: tuple[int, int], dtype) -> jax.Array:
    """The product of matrices over one axis of each."""
    numbers = ((axes[:1], axes[1:]), ((), ()))
    return lax.dot_general(a, b, numbers, preferred_element_type=dtype)


# The kernels


def _forward_kernel(sizes: _Sizes, values, corners, places, weights, y) -> None:
    tile, group, part = (pl.program_id(axis) for axis in range(3))
    features = _Columns(group, part, sizes.tile[2], sizes.features)
    parts, _ = sizes.parts

    def add(step, total):
        tap = lax.div(step, jnp.int32(parts))
        channels = _Columns(group, step - tap * parts, sizes.tile[1], sizes.channels)
        sample = _Reader(sizes, corners, places, tap, tile).sample(values, channels)
        theta = _theta(weights, tap, group, channels, features)
        return total + _dot(sample, theta, (1, 0), total.dtype)

    total = jnp.zeros((sizes.tile[0], sizes.tile[2]), places.dtype)
    total = lax.fori_loop(0, sizes.taps * parts, add, total)
    outputs = tile * sizes.tile[0] + jnp.arange(sizes.tile[0], dtype=jnp.int32)
    mask = (outputs < sizes.outputs)[:, None] & features.mask[None]
    place = y.at[outputs[:, None], (features.before + features.stored)[None]]
    triton.store(place, total.astype(y.dtype), mask=mask)


def _pull_kernel(
    sizes: _Sizes, values, corners, places, weights, cotangent, _, along_rows, slopes
) -> None:
    tap = pl.program_id(1)
    here = _Reader(sizes, corners, places, tap, pl.program_id(0))
    parts, feature_parts = sizes.parts

    def add(step, totals):
        group = lax.div(step, jnp.int32(parts))
        channels = _Columns(group, step - group * parts, sizes.tile[1], sizes.channels)

        def product(part, total):
            features = _Columns(group, part, sizes.tile[2], sizes.features)
            theta = _theta(weights, tap, group, channels, features)
            return total + _dot(here.cotangent(cotangent, features), theta, (1, 1), total.dtype)

        # df v = theta_k dy
        zeros = jnp.zeros((sizes.tile[0], sizes.tile[1]), places.dtype)
        change = lax.fori_loop(0, feature_parts, product, zeros)
        sample, along_y, along_x = here.read(values, channels)
        for row, weight in zip(here.rows(), corner_weights(here.y, here.x), strict=True):
            # Beyond the last channel these are zeros.
            addupdate(along_rows, (row, channels.at[None]), weight * here.factor * change)
        # dp_k = sum over channels of f (dv / dp) dy, and df = sum of v dy
        return tuple(
            total + jnp.sum(slope * change, 1)
            for total, slope in zip(
                totals, (here.factor * along_y, here.factor * along_x, sample), strict=True
            )
        )

    zeros = jnp.zeros(sizes.tile[0], places.dtype)
    totals = lax.fori_loop(0, sizes.groups * parts, add, (zeros, zeros, zeros))
    for k, total in enumerate(totals):
        triton.store(slopes.at[k, tap, here.outputs], total)


def _outer_kernel(sizes: _Sizes, values, corners, places, cotangent, shares) -> None:
    of, taps = pl.program_id(0), jnp.int32(sizes.taps)
    share, tap = lax.div(of, taps * sizes.groups), lax.rem(of, taps)
    group = lax.rem(lax.div(of, taps), jnp.int32(sizes.groups))
    channels = _Columns(group, pl.program_id(1), sizes.tile[1], sizes.channels)
    features = _Columns(group, pl.program_id(2), sizes.tile[2], sizes.features)

    def add(step, total):
        here = _Reader(sizes, corners, places, tap, share * sizes.tiles_of_share + step)
        # dtheta_k += (f v)^T dy
        sample, change = here.sample(values, channels), here.cotangent(cotangent, features)
        return total + _dot(sample, change, (0, 0), total.dtype)

    total = jnp.zeros(sizes.tile[1:], places.dtype)
    total = lax.fori_loop(0, sizes.tiles_of_share, add, total)
    place = shares.at[share, tap, group, channels.stored[:, None], features.stored[None]]
    triton.store(place, total, mask=channels.mask[:, None] & features.mask[None])
