"""Cells of a map: reading at real-valued positions, and adding there.

A position lies in a cell of four pixels, whose values are blended bilinearly. A map is kept as rows
of contiguous channels, a pixel a row, within a border of zeros.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rfjax import _checks
from rfjax._engine import tuning

Pair = tuple[int, int]

# Zeros around the map: positions outside fall into a cell all of whose four corners are zero, so
# that neither their values nor their slopes need a mask.
BORDER = 2


class Cells(NamedTuple):
    """Each tap's cell: the row of its top-left corner in the bordered map, and the place inside.

    Where there is a factor, samples are multiplied by it.
    """

    row: jax.Array
    y: jax.Array
    x: jax.Array
    factor: jax.Array | None = None


class Rows(NamedTuple):
    """A bordered map of `width` pixels a line, a pixel a row: [pixels * groups, features].

    A projected map has a group of features for each tap, a map of several parts one for each
    `taps` taps; a map that is read as it is has one group.
    """

    values: jax.Array
    width: int
    groups: int = 1
    taps: int = 1

    def index(self, cells: Cells, tap: jax.Array) -> list[jax.Array]:
        """The rows of the cells' corners: top left, top right, bottom left, bottom right."""
        corners = (cells.row + offset for offset in (0, 1, self.width, self.width + 1))
        return [corner * self.groups + self.group(tap) for corner in corners]

    def group(self, tap: jax.Array) -> jax.Array:
        """The group that a tap reads."""
        if self.groups == 1:
            return jnp.zeros_like(tap)
        return tap if self.taps == 1 else lax.div(tap, jnp.int32(self.taps))


def bordered(x: jax.Array) -> jax.Array:
    """The map within zeros, a pixel a row."""
    border = (BORDER, BORDER)
    return jnp.pad(x, ((0, 0), border, border, (0, 0))).reshape(-1, x.shape[-1])


def unbordered(rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    """The map [N, H, W, F] of `shape` out of its rows."""
    batch, height, width, features = shape
    x = rows.reshape(batch, height + 2 * BORDER, width + 2 * BORDER, features)
    return x[:, BORDER:-BORDER, BORDER:-BORDER]


def places(positions: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """The positions' whole pixels, what is left of them, and the factors, if there are any."""
    factor = positions[..., 2] if positions.shape[-1] == 3 else None
    positions = jnp.clip(positions[..., :2], -tuning.FAR_POSITION, tuning.FAR_POSITION)
    whole = lax.stop_gradient(jnp.floor(positions))
    return whole, positions - whole, factor


def cells_at(
    shape: tuple[int, ...],
    whole: jax.Array,
    inside: jax.Array,
    factor: jax.Array | None,
    strides: Pair,
) -> Cells:
    """The cells [N, H', W', T] of taps at whole + inside [N, H', W', T, 2] on a map of `shape`.

    The centre is added to the whole part of a position: the place inside a cell keeps its digits.
    """
    _, height, width, _ = shape
    y, x = (
        jnp.clip(part + stride * lax.broadcasted_iota(part.dtype, part.shape, axis), -BORDER, size)
        for axis, size, part, stride in zip(
            (1, 2), (height, width), (whole[..., 0], whole[..., 1]), strides, strict=True
        )
    )
    # A row of the bordered map is (n (H + 2 B) + y + B) (W + 2 B) + x + B.
    y, x = y.astype(jnp.int32) + BORDER, x.astype(jnp.int32) + BORDER
    example = lax.broadcasted_iota(jnp.int32, y.shape, 0)
    row = (example * (height + 2 * BORDER) + y) * (width + 2 * BORDER) + x
    return Cells(row, inside[..., 0], inside[..., 1], factor)


def read(rows: Rows, cells: Cells, tap: jax.Array) -> tuple[jax.Array, ...]:
    """One tap's samples [P, F] and their slopes along y, x and, if it has one, the factor.

    Unused ones cost nothing.
    """
    sums = _checks.accumulation_dtype(rows.values)
    corners = [
        rows.values.at[index].get(mode="promise_in_bounds").astype(sums)
        for index in rows.index(cells, tap)
    ]
    y, x = cells.y.astype(sums)[:, None], cells.x.astype(sums)[:, None]
    sample, along_y, along_x = blended(corners, y, x)
    # Of f v the slopes are f dv / dy and f dv / dx, and that by f is v.
    if cells.factor is None:
        return sample, along_y, along_x
    return *(scaled(part, cells) for part in (sample, along_y, along_x)), sample


def blended(
    corners: list[jax.Array], y: jax.Array, x: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Samples at (y, x) in cells of these corners, and their slopes along y and x."""
    top_left, top_right, bottom_left, bottom_right = corners
    # v = (1 - y) ((1 - x) v_00 + x v_01) + y ((1 - x) v_10 + x v_11)
    top = (1 - x) * top_left + x * top_right
    bottom = (1 - x) * bottom_left + x * bottom_right
    # dv / dy and dv / dx within the cell
    along_y = (1 - x) * (bottom_left - top_left) + x * (bottom_right - top_right)
    along_x = (1 - y) * (top_right - top_left) + y * (bottom_right - bottom_left)
    return (1 - y) * top + y * bottom, along_y, along_x


def corner_weights(y: jax.Array, x: jax.Array) -> tuple[jax.Array, ...]:
    """What the corners of a cell count at (y, x), in the order of `Rows.index`."""
    return (1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x


def scaled(values: jax.Array, cells: Cells) -> jax.Array:
    """Values [P, F] times the factor, if there is one."""
    return values if cells.factor is None else cells.factor.astype(values.dtype)[:, None] * values


def splat_windows(rows: Rows, cells: Cells, tap: jax.Array, values: jax.Array) -> jax.Array:
    """`rows` with values [P, F] added at the corners of cells, one 2x2 window after the other."""
    features = values.shape[-1]
    top, left = cells.row // rows.width, cells.row % rows.width
    first = (rows.group(tap) * features).astype(jnp.int32)

    def add(i, image):
        y, x = cells.y[i].astype(image.dtype), cells.x[i].astype(image.dtype)
        # The adjoint of the blend: each corner gets its weight times the values.
        weights = jnp.stack([1 - y, y])[:, None] * jnp.stack([1 - x, x])[None]
        window = weights[:, :, None] * values[i][None, None]
        start = top[i], left[i], first
        window += lax.dynamic_slice(image, start, (2, 2, features))
        return lax.dynamic_update_slice(image, window, start)

    image = rows.values.reshape(-1, rows.width, rows.groups * features)
    return lax.fori_loop(0, top.size, add, image, unroll=tuning.SPLAT_UNROLL).reshape(
        rows.values.shape
    )


def splat_scatter(rows: Rows, cells: Cells, tap: jax.Array, values: jax.Array) -> jax.Array:
    """`rows` with values [P, F] added at the corners of cells."""
    total = rows.values
    y, x = (part.astype(total.dtype)[:, None] for part in (cells.y, cells.x))
    for index, weight in zip(rows.index(cells, tap), corner_weights(y, x), strict=True):
        total = total.at[index].add(weight * values, mode="promise_in_bounds")
    return total
