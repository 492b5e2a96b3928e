"""Taps at several dilations, mixed at every output, by the kernels of `native` on a CPU.

    y(p) = sum_m W_m^T u_m(p),   u_m(p) = sum_n w_n(p) x(stride p + d_n m)

As in `tap_blocks`: a block of outputs at a time, a kernel mixes the samples of all taps side by
side, and one product of matrices with all weights makes the outputs. Backward the kernel mixes
again, and adds the samples' gradient to the map and to that of w.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from rfjax._engine import native, tuning
from rfjax._engine.devices import is_known, zeros_for
from rfjax._engine.products import matmul
from rfjax._engine.tap_blocks import block_rows, block_size

Pair = tuple[int, int]


def serves(x: jax.Array, kernel: jax.Array, weights: jax.Array) -> bool:
    """Whether kernels mix a float32 map for weights [T, C, O] of all channels together."""
    alike = all(array.dtype == jnp.float32 for array in (x, kernel, weights))
    known = is_known(*x.shape) and weights.size > 0
    return kernel.ndim == 3 and alike and known and native.is_loaded()


class Grid(NamedTuple):
    """Where the outputs of a bordered map [N, H, W, C] and their taps lie, in its rows; static.

    Attributes:
      shape: of the bordered map.
      center: (y, x) of the first output in it.
      strides: of the outputs.
      taps: (y, x) of the taps for each dilation, [T][D].
    """

    shape: tuple[int, ...]
    center: Pair
    strides: Pair
    taps: tuple[tuple[Pair, ...], ...]

    def centers(self, output: tuple[int, ...]) -> np.ndarray:
        """The rows of the outputs' centers, int32 [P]."""
        n, height, width, _ = self.shape
        y, x = (
            first + stride * np.arange(size)
            for first, stride, size in zip(self.center, self.strides, output, strict=True)
        )
        rows = (np.arange(n)[:, None, None] * height + y[:, None]) * width + x
        return rows.reshape(-1).astype(np.int32)

    def distances(self) -> np.ndarray:
        """How many rows lie between a center and its taps, int32 [T, D]."""
        width = self.shape[2]
        rows = [[y * width + x for y, x in places] for places in self.taps]
        return np.asarray(rows, np.int32)


def mix_in_blocks(grid: Grid, bordered, kernel, weights) -> jax.Array:
    """[N, H', W', O] of a bordered map, weights [T, C, O] and w [N, H', W', D]."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    rows = bordered.reshape(-1, bordered.shape[-1])
    distances = jnp.asarray(grid.distances())

    def block(_, operands):
        mixes = native.read_mixes(rows, operands[0][:, 0], distances, operands[1])
        return None, matmul(mixes.reshape(-1, matrix.shape[0]), matrix)

    _, y = lax.scan(block, None, _blocks(grid, weights, matrix.shape[0]))
    count = weights.size // weights.shape[-1]
    return y.reshape(-1, y.shape[-1])[:count].reshape(*weights.shape[:3], -1)


def pull_in_blocks(grid: Grid, bordered, kernel, weights, cotangent) -> tuple[jax.Array, ...]:
    """The cotangents of the bordered map, of the kernel's weights, and of w."""
    matrix = kernel.reshape(-1, kernel.shape[-1])
    rows = bordered.reshape(-1, bordered.shape[-1])
    distances = jnp.asarray(grid.distances())

    def block(carry, operands):
        rows_gradient, matrix_gradient = carry
        centers, weights, cotangent = operands
        # v_m = W_m g, and dW_m += u_m^T g, for all taps at once
        gradient = matmul(cotangent, matrix.T).reshape(-1, *kernel.shape[:2])
        rows_gradient, mixes, by_weight = native.pull_mixes(
            rows, rows_gradient, gradient, centers[:, 0], distances, weights
        )
        matrix_gradient += matmul(mixes.reshape(-1, matrix.shape[0]).T, cotangent)
        return (rows_gradient, matrix_gradient), by_weight

    centers, w = _blocks(grid, weights, matrix.shape[0])
    flat = cotangent.reshape(-1, cotangent.shape[-1])
    blocks = centers, w, block_rows(flat, w.shape[1])
    zeros = tuple(zeros_for(array.shape, array.dtype, rows) for array in (rows, matrix))
    (grad_rows, grad_matrix), by_weight = lax.scan(block, zeros, blocks)
    count = flat.shape[0]
    by_weight = by_weight.reshape(-1, weights.shape[-1])[:count].reshape(weights.shape)
    return grad_rows.reshape(bordered.shape), grad_matrix.reshape(kernel.shape), by_weight


def _blocks(grid: Grid, weights: jax.Array, samples: int) -> tuple[jax.Array, jax.Array]:
    """Centers [blocks, size, 1] and w [blocks, size, D]; those that fill the last block weigh 0."""
    size = block_size(math.prod(weights.shape[:3]), samples, tuning.READ_BLOCK_CPU)
    w = block_rows(weights, size)
    centers = np.resize(grid.centers(weights.shape[1:3]), w.shape[0] * size)
    return jnp.asarray(centers.reshape(-1, size, 1)), w
