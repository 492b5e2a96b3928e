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
from rfjax._engine.devices import is_known, zeros_for
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
    cotangent = block_rows(cotangent, blocks[0].shape[1])
    gradients, slopes = lax.scan(block, tuple(zeros), (blocks, cotangent))
    return gradients[0], gradients[1].reshape(weights.shape), slopes.reshape(-1, taps, 3)[:count]


def _blocks(cells: Cells, samples: int) -> tuple[jax.Array, ...]:
    """Rows, y, x and factors [P, T] as [blocks, size, T], of so many samples an output."""
    size = block_size(cells.row.shape[0], samples, tuning.READ_BLOCK_CPU)
    factor = jnp.ones_like(cells.y) if cells.factor is None else cells.factor
    return tuple(block_rows(part, size) for part in (cells.row, cells.y, cells.x, factor))


# Outputs in blocks, whatever reads them


def block_size(outputs: int, features: int, elements: int) -> int:
    """Outputs in a block: about `elements` numbers of `features` each, in blocks of equal size.

    All of them, where their number is not known.
    """
    if not is_known(outputs):
        return outputs
    # As few blocks as hold no more than the largest, and all of them equal.
    largest = max(tuning.LEAST_OUTPUTS, elements // features)
    return -(-outputs // -(-outputs // largest))


def block_rows(rows: jax.Array, size: int) -> jax.Array:
    """[..., F] as [blocks, size, F], filled up with zeros."""
    rows = rows.reshape(-1, rows.shape[-1])
    if not is_known(size):
        return rows[None]
    # What fills the last block reads row 0, a zero of the border; it is cut off afterwards.
    filler = -rows.shape[0] % size
    return jnp.pad(rows, ((0, filler), (0, 0))).reshape(-1, size, rows.shape[-1])
