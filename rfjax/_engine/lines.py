"""A map read between its pixels along both axes: y = A x B^T, A and B with two entries a row.

    y(i, j) = sum_a sum_b u_(i, a) w_(j, b) x(m_(i, a), n_(j, b)),   a, b = 0, 1

As products with both matrices, or where they were built by the kernels of `native`, which read four
pixels for each of the result instead of all of a line.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfjax import _checks
from rfjax._engine import native
from rfjax._engine.derivatives import operator
from rfjax._engine.devices import alike, by_device, is_known


class Lines(NamedTuple):
    """What the places of an axis read.

    Attributes:
      pixels: [P, 2] whole numbers, in floating point. What the axis does not have counts nothing.
      weights: [P, 2] what the pixels count; traced, with derivatives.
    """

    pixels: jax.Array
    weights: jax.Array


def read_lines(x: jax.Array, down: Lines, across: Lines) -> jax.Array:
    """A map [*batch, H, W, C] at the places of both axes: [*batch, I, J, C] in its dtype."""
    single = all(array.dtype == jnp.float32 for array in (x, *down, *across))
    if not (single and is_known(*x.shape) and x.size and native.is_loaded()):
        return _by_matrices(x, *down, *across)
    merged = x.reshape(-1, *x.shape[-3:])
    y = _read(*alike(merged, *down, *across))
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def _by_matrices(x: jax.Array, rows, row_weights, columns, column_weights) -> jax.Array:
    """By two products."""
    for axis, lines in enumerate((Lines(rows, row_weights), Lines(columns, column_weights))):
        matrix = _matrix(lines, x.shape[axis - 3]).astype(x.dtype)
        spec = "ih,...hwc->...iwc" if axis == 0 else "jw,...hwc->...hjc"
        sums = _checks.accumulation_dtype(x)
        x = jnp.einsum(spec, matrix, x, preferred_element_type=sums).astype(x.dtype)
    return x


def _matrix(lines: Lines, length: int) -> jax.Array:
    """[places, length]."""
    pixels = jnp.arange(length, dtype=lines.pixels.dtype)[None, None]
    found = lines.pixels[..., None] == pixels  # [P, 2, length]
    return jnp.where(found, lines.weights[..., None], 0).sum(1)


def _by_kernel(x: jax.Array, *lines: jax.Array) -> jax.Array:
    return native.read_lines(x, *_indexed(x, *lines))


def _pull_by_kernel(x: jax.Array, *operands: jax.Array) -> tuple[jax.Array, ...]:
    *lines, cotangent = operands
    rows, _, columns, _ = lines
    grad_x, *by_weights = native.pull_lines(x, cotangent, *_indexed(x, *lines))
    # Pixels that are not there have no weight, whose gradient is none.
    by_rows, by_columns = (
        jnp.where(_inside(pixels, length), by[0], 0)
        for pixels, by, length in zip((rows, columns), by_weights, x.shape[1:3], strict=True)
    )
    return grad_x, jnp.zeros_like(rows), by_rows, jnp.zeros_like(columns), by_columns


def _indexed(x: jax.Array, rows, row_weights, columns, column_weights) -> tuple[jax.Array, ...]:
    """Pixels as integers and weights, both [1, P, 2], of each axis."""
    found = []
    pairs = ((rows, row_weights), (columns, column_weights))
    for (pixels, weights), length in zip(pairs, x.shape[1:3], strict=True):
        there = _inside(pixels, length)
        found += [jnp.where(there, pixels, 0).astype(jnp.int32), jnp.where(there, weights, 0)]
    return tuple(array[None] for array in found)


def _inside(pixels: jax.Array, length: int) -> jax.Array:
    return (pixels >= 0) & (pixels < length)


def _forward(*operands: jax.Array) -> jax.Array:
    return by_device(*operands, cpu=_by_matrices, default=_by_matrices, native=_by_kernel)


def _backward(operands: tuple[jax.Array, ...], _, cotangent: jax.Array) -> tuple[jax.Array, ...]:
    def by_matrices(*operands):
        *operands, cotangent = operands
        return jax.vjp(_by_matrices, *operands)[1](cotangent)

    run = partial(by_device, *operands, cotangent)
    return run(cpu=by_matrices, default=by_matrices, native=_pull_by_kernel)


_read = operator(_forward, _backward, _by_matrices)
