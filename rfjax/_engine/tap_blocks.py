"""Reads at any positions and their products on a CPU, by the kernels of `native`.

    y(p) = sum_k theta_k^T v(p + p_k), v the bilinear interpolation of x

A block of outputs at a time, a kernel reads the samples of all taps side by side, [P, T C], and one
product of matrices with all weights [T C, C_out] makes the outputs. Backward one product makes the
samples' gradient; a kernel reads again, adds that gradient to the four corners of every cell and
joins it to the slopes; and one product more makes the weights' gradient.
"""

import jax
import jax.numpy as jnp
from jax import lax

from rfjax._engine import native, tuning
from rfjax._engine.cells import Cells, Rows
from rfjax._engine.devices import zeros_for
from rfjax._engine.products import matmul


def serves(x: jax.Array, weights: jax.Array, positions: jax.Array) -> bool:
    """Whether taps that each read all channels of a float32 map are read by kernels."""
    together = weights.ndim == 3 and weights.shape[1] == x.shape[-1]
    alike = all(array.dtype == jnp.float32 for array in (x, weights, positions))
    return together and alike and positions.size > 0 and native.is_loaded()


def read_in_blocks(rows: Rows, cells: Cells, weights: jax.Array) -> jax.Array:
    """[P, C_out] of cells [P, T] on a map, by weights [T, C, C_out]."""
    matrix, count = weights.reshape(-1, weights.shape[-1]), cells.row.shape[0]

    def block(_, cells):
        samples = native.read_taps(rows.values, *cells, width=rows.width)
        return None, matmul(samples.reshape(-1, matrix.shape[0]), matrix)

    _, y = lax.scan(block, None, _blocks(cells, matrix.shape[0]))
    return y.reshape(-1, y.shape[-1])[:count]


def pull_in_blocks(
    rows: Rows, cells: Cells, weights: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The gradients by the rows, the weights, and each tap's (y, x, factor) [P, T, 3]."""
    matrix, (count, taps) = weights.reshape(-1, weights.shape[-1]), cells.row.shape

    def block(carry, operands):
        rows_gradient, matrix_gradient = carry
        cells, cotangent = operands
        # dv_k = theta_k dy, and dtheta_k += v_k^T dy, for all taps at once
        gradient = matmul(cotangent, matrix.T).reshape(*cells[0].shape, -1)
        rows_gradient, samples, slopes = native.pull_taps(
            rows.values, rows_gradient, gradient, *cells, width=rows.width
        )
        matrix_gradient += matmul(samples.reshape(-1, matrix.shape[0]).T, cotangent)
        return (rows_gradient, matrix_gradient), slopes

    zeros = [zeros_for(a.shape, a.dtype, rows.values) for a in (rows.values, matrix)]
    blocks = _blocks(cells, matrix.shape[0])
    number, size, _ = blocks[0].shape
    cotangent = filled(cotangent, (number, size))
    gradients, slopes = lax.scan(block, tuple(zeros), (blocks, cotangent))
    return gradients[0], gradients[1].reshape(weights.shape), slopes.reshape(-1, taps, 3)[:count]


def _blocks(cells: Cells, samples: int) -> tuple[jax.Array, ...]:
    """Rows, y, x and factors [P, T] as [blocks, size, T], of so many samples an output."""
    sides = sides_of(cells.row.shape[0], samples)
    factor = jnp.ones_like(cells.y) if cells.factor is None else cells.factor
    return tuple(filled(part, sides) for part in (cells.row, cells.y, cells.x, factor))


def sides_of(count: int, samples: int) -> tuple[int, int]:
    """How many blocks hold so many outputs, of so many samples each, and how many outputs each."""
    most = max(tuning.LEAST_OUTPUTS, tuning.READ_BLOCK_CPU // samples)
    # As few blocks as hold no more than the largest, and all of them equal.
    blocks = -(-count // most)
    return blocks, -(-count // blocks)


def filled(array: jax.Array, sides: tuple[int, int]) -> jax.Array:
    """[P, F] as [blocks, size, F], filled up with zeros: a tap of row 0 reads nothing but zeros."""
    filler = sides[0] * sides[1] - array.shape[0]
    return jnp.pad(array, ((0, filler), (0, 0))).reshape(*sides, array.shape[-1])
