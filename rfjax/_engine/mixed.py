"""Taps at several dilations, mixed at every output, then one convolution.

    y(p) = sum_m W_m^T u_m(p),   u_m(p) = sum_n w_n(p) x(stride p + d_n m)

All dilations share the weights W_m, so the map is mixed first and multiplied once, whatever the
number of dilations. With v_m = W_m g, of the cotangent g, the gradients are

    dW_m = sum_p u_m(p) g(p)^T,   dw_n(p) = sum_m x(stride p + d_n m) . v_m(p)
    dx(q) = sum_m sum_n w_n(p) v_m(p)   over the outputs p with stride p + d_n m = q

A CPU works off an example, or some of its rows, at a time: the mixed maps of all taps stay in its
caches, and beyond the operands and the result there is memory for a block alone. The gradient mixes
the map again.

Maps are [N, H, W, C], weights of a tap as in `products`, w is [N, H', W', D].
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rfjax import _checks
from rfjax._engine import mixes, tuning
from rfjax._engine.derivatives import operator
from rfjax._engine.devices import alike, by_device, is_known, zeros_for
from rfjax._engine.products import outer_product, tap_product, tap_weights

Pair = tuple[int, int]


class Taps(NamedTuple):
    """Where a kernel's taps lie: what is static.

    Attributes:
      size: (kh, kw) of the kernel, odd.
      dilations: distances d_n of taps.
      strides: of the outputs.
      groups: of channels.
    """

    size: Pair
    dilations: tuple[int, ...]
    strides: Pair
    groups: int

    @property
    def lattice(self) -> list[Pair]:
        """The taps (y, x) about the center, in reading order."""
        (height, width), (down, right) = self.size, (self.size[0] // 2, self.size[1] // 2)
        return [(y - down, x - right) for y in range(height) for x in range(width)]

    @property
    def reach(self) -> Pair:
        """How far the outermost taps lie from the center."""
        farthest = max(self.dilations)
        return farthest * (self.size[0] // 2), farthest * (self.size[1] // 2)

    def starts(self, tap: Pair) -> list[Pair]:
        """Where a tap of the first output lies in a map with a border of `reach`, by dilation."""
        down, right = self.reach
        return [(down + d * tap[0], right + d * tap[1]) for d in self.dilations]


def mixed(x: jax.Array, kernel: jax.Array, weights: jax.Array, taps: Taps) -> jax.Array:
    """[N, H', W', O] of a map, a kernel [kh, kw, C / groups, O] and w [N, H', W', D]."""
    return _operator(taps)(*alike(x, tap_weights(kernel, taps.groups), weights))


@functools.cache
def _operator(taps: Taps) -> Callable:
    def forward(*operands):
        blocked = functools.partial(_blocked_forward, taps)
        whole = functools.partial(_whole_forward, taps)
        native = _native(_native_forward, taps, *operands)
        return by_device(*operands, cpu=blocked, default=whole, native=native)

    def backward(operands, kept, cotangent):
        blocked = functools.partial(_blocked_backward, taps)
        whole = functools.partial(_whole_backward, taps)
        native = _native(_native_backward, taps, *operands)
        return by_device(*operands, cotangent, cpu=blocked, default=whole, native=native)

    return jax.jit(operator(forward, backward, functools.partial(_whole_forward, taps)))


# A part of the map


def _forward(taps: Taps, window: jax.Array, kernel: jax.Array, weights: jax.Array) -> jax.Array:
    """The outputs [N, h, w, O] of a window of the bordered map that holds all that they read."""
    y = None
    for tap, matrix in zip(taps.lattice, kernel, strict=True):
        # y(p) += W_m^T u_m(p)
        part = _product(_mix(taps, window, weights, tap), matrix)
        y = part if y is None else y + part
    assert y is not None
    return y.astype(window.dtype)


def _mix(taps: Taps, window: jax.Array, weights: jax.Array, tap: Pair) -> jax.Array:
    """u_m(p) = sum_n w_n(p) x(stride p + d_n m)"""
    sums = _checks.accumulation_dtype(window, weights)
    shifts = _shifts(taps, window, weights.shape[1:3], tap)
    terms = (weights[..., n, None].astype(sums) * x.astype(sums) for n, x in enumerate(shifts))
    return functools.reduce(jnp.add, terms).astype(window.dtype)


def _shifts(taps: Taps, window: jax.Array, size: tuple[int, ...], tap: Pair) -> list[jax.Array]:
    """x(stride p + d_n m) at all outputs p, of each dilation; once, where all read the same."""
    (height, width), (down, right) = size, taps.strides

    def shift(y: int, x: int) -> jax.Array:
        end = (y + (height - 1) * down + 1, x + (width - 1) * right + 1)
        return window[:, y : end[0] : down, x : end[1] : right]

    return [shift(*start) for start in taps.starts(tap)]


def _backward(taps: Taps, window, kernel, weights, cotangent) -> tuple[jax.Array, ...]:
    """The cotangents of a window, of the kernel, and of w."""
    sums = _checks.accumulation_dtype(window, weights)
    grad_kernel, grad_window = [], zeros_for(window.shape, sums, window)
    grad_weights: list = [None] * len(taps.dilations)
    for tap, matrix in zip(taps.lattice, kernel, strict=True):
        grad_kernel.append(_outer(_mix(taps, window, weights, tap), cotangent, matrix))
        v = _product(cotangent, matrix.swapaxes(-1, -2)).astype(sums)
        for n, shift in enumerate(_shifts(taps, window, weights.shape[1:3], tap)):
            # dw_n(p) += x(stride p + d_n m) . v_m(p), summed over channels at the end
            term = shift.astype(sums) * v
            grad_weights[n] = term if grad_weights[n] is None else grad_weights[n] + term
        grad_window = _splat(taps, v, weights.astype(sums), tap, grad_window)
    grad_weights = [_channel_sums(term) for term in grad_weights]
    return (
        grad_window.astype(window.dtype),
        jnp.stack(grad_kernel),
        jnp.stack(grad_weights, -1).astype(weights.dtype),
    )


def _splat(taps: Taps, v: jax.Array, weights: jax.Array, tap: Pair, total: jax.Array) -> jax.Array:
    """A window `total` to which dx(stride p + d_n m) += w_n(p) v_m(p) was added."""
    for n, start in enumerate(taps.starts(tap)):
        term = weights[..., n, None] * v
        if taps.strides == (1, 1):
            # An update in place, since a sum of padded terms would read the whole window.
            corner = (0, *start, 0)
            term += lax.dynamic_slice(total, corner, v.shape)
            total = lax.dynamic_update_slice(total, term, corner)
        else:
            total += lax.pad(term, jnp.zeros((), v.dtype), _gaps(taps, start, v.shape, total.shape))
    return total


def _gaps(taps: Taps, start: Pair, shape: tuple, window: tuple) -> list[tuple[int, int, int]]:
    """The zeros around and between strided outputs that begin at `start` of a window."""
    gaps = [(0, 0, 0)] * 4
    for axis, before, stride in zip((1, 2), start, taps.strides, strict=True):
        covered = (shape[axis] - 1) * stride + 1
        gaps[axis] = (before, window[axis] - before - covered, stride - 1)
    return gaps


def _product(rows: jax.Array, matrix: jax.Array) -> jax.Array:
    """Maps [N, h, w, C] by the weights of a tap."""
    y = tap_product(rows.reshape(-1, rows.shape[-1]), matrix)
    return y.reshape(*rows.shape[:-1], y.shape[-1])


def _outer(a: jax.Array, b: jax.Array, like: jax.Array) -> jax.Array:
    """The gradient by the weights of a tap."""
    return outer_product(a.reshape(-1, a.shape[-1]), b.reshape(-1, b.shape[-1]), like)


def _channel_sums(values: jax.Array) -> jax.Array:
    """Sums over the last axis, as a product: a CPU takes long for reductions of expressions."""
    ones = jnp.ones((values.shape[-1], 1), values.dtype)
    return jnp.matmul(values, ones, precision=lax.Precision.HIGHEST)[..., 0]


# The whole map


def _whole_forward(taps: Taps, x, kernel, weights) -> jax.Array:
    return _forward(taps, _bordered(taps, x), kernel, weights)


def _whole_backward(taps: Taps, x, kernel, weights, cotangent) -> tuple[jax.Array, ...]:
    window = _bordered(taps, x)
    grad_x, grad_kernel, grad_weights = _backward(taps, window, kernel, weights, cotangent)
    return _unbordered(taps, grad_x, x.shape), grad_kernel.astype(kernel.dtype), grad_weights


def _bordered(taps: Taps, x: jax.Array, more: int = 0) -> jax.Array:
    """The map with zeros as far as taps reach, and `more` rows below."""
    down, right = taps.reach
    return jnp.pad(x, ((0, 0), (down, down + more), (right, right), (0, 0)))


def _unbordered(taps: Taps, x: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    (down, right), (height, width) = taps.reach, shape[1:3]
    return x[:, down : down + height, right : right + width]


# Kernels in C++


def _native(function: Callable, taps: Taps, x, kernel, weights) -> Callable | None:
    """`function` where kernels serve; under vmap one example after the other."""
    if not mixes.serves(x, kernel, weights):
        return None
    return jax.custom_batching.sequential_vmap(functools.partial(function, taps))


def _native_forward(taps: Taps, x, kernel, weights) -> jax.Array:
    bordered = _bordered(taps, x)
    return mixes.mix_in_blocks(_grid(taps, bordered), bordered, kernel, weights)


def _native_backward(taps: Taps, x, kernel, weights, cotangent) -> tuple[jax.Array, ...]:
    bordered = _bordered(taps, x)
    operands = bordered, kernel, weights, cotangent
    grad_x, *others = mixes.pull_in_blocks(_grid(taps, bordered), *operands)
    return _unbordered(taps, grad_x, x.shape), *others


def _grid(taps: Taps, bordered: jax.Array) -> mixes.Grid:
    places = tuple(tuple((d * y, d * x) for d in taps.dilations) for y, x in taps.lattice)
    return mixes.Grid(bordered.shape, taps.reach, taps.strides, places)


# Blocks of its rows


class _Blocks(NamedTuple):
    """Equal numbers of rows of outputs, example by example.

    Attributes:
      rows: of outputs in a block.
      filler: rows that fill the last block.
      starts: [blocks, 2], the example and the first row of outputs of each.
    """

    rows: int
    filler: int
    starts: jax.Array

    def take(self, array: jax.Array, start: jax.Array, rows: int, stride: int = 1) -> jax.Array:
        """So many rows of an example [1, rows, W, F]."""
        sizes = (1, rows, *array.shape[2:])
        return lax.dynamic_slice(array, (start[0], start[1] * stride, 0, 0), sizes)

    def fill(self, array: jax.Array) -> jax.Array:
        """A map of outputs with the rows that fill the last block."""
        return jnp.pad(array, ((0, 0), (0, self.filler), (0, 0), (0, 0)))

    def join(self, blocks: jax.Array, shape: tuple[int, ...]) -> jax.Array:
        """The map of outputs [N, H', W', F] of its blocks [blocks, 1, rows, W', F]."""
        joined = blocks.reshape(shape[0], -1, *blocks.shape[3:])
        return joined[:, : shape[1]]


def _blocks(x: jax.Array, weights: jax.Array) -> _Blocks | None:
    """The blocks of a map; None where it is a block by itself, or its sizes are symbols."""
    examples, height, width = weights.shape[:3]
    if not is_known(*x.shape) or examples * height * width * x.shape[-1] <= tuning.MIXED_BLOCK:
        return None
    # As few blocks as hold no more than the largest, and all of them equal.
    largest = max(1, tuning.MIXED_BLOCK // (width * x.shape[-1]))
    count = -(-height // largest)
    rows = -(-height // count)
    grid = jnp.meshgrid(jnp.arange(examples), rows * jnp.arange(count), indexing="ij")
    return _Blocks(rows, rows * count - height, jnp.stack(grid, -1).reshape(-1, 2))


def _blocked_forward(taps: Taps, x, kernel, weights) -> jax.Array:
    blocks = _blocks(x, weights)
    if blocks is None:
        return _whole_forward(taps, x, kernel, weights)
    down = taps.strides[0]
    rows_in = (blocks.rows - 1) * down + 1 + 2 * taps.reach[0]
    bordered = _bordered(taps, x, blocks.filler * down)
    filled = blocks.fill(weights)

    def block(_, start):
        window = blocks.take(bordered, start, rows_in, down)
        return None, _forward(taps, window, kernel, blocks.take(filled, start, blocks.rows))

    _, y = lax.scan(block, None, blocks.starts)
    return blocks.join(y, weights.shape)


def _blocked_backward(taps: Taps, x, kernel, weights, cotangent) -> tuple[jax.Array, ...]:
    blocks = _blocks(x, weights)
    if blocks is None:
        return _whole_backward(taps, x, kernel, weights, cotangent)
    down, sums = taps.strides[0], _checks.accumulation_dtype(x, weights)
    rows_in = (blocks.rows - 1) * down + 1 + 2 * taps.reach[0]
    bordered = _bordered(taps, x, blocks.filler * down)
    operands = blocks.fill(weights), blocks.fill(cotangent)

    def block(totals, start):
        grad_x, grad_kernel = totals
        window = blocks.take(bordered, start, rows_in, down)
        parts = [blocks.take(array, start, blocks.rows) for array in operands]
        add_x, add_kernel, grad_weights = _backward(taps, window, kernel, *parts)
        # Windows overlap: what a block adds to a row is added to what those before have.
        add_x = add_x.astype(sums) + blocks.take(grad_x, start, rows_in, down)
        grad_x = lax.dynamic_update_slice(grad_x, add_x, (start[0], start[1] * down, 0, 0))
        return (grad_x, grad_kernel + add_kernel), grad_weights

    zeros = zeros_for(bordered.shape, sums, x), zeros_for(kernel.shape, sums, x)
    (grad_x, grad_kernel), grad_weights = lax.scan(block, zeros, blocks.starts)
    return (
        _unbordered(taps, grad_x, x.shape).astype(x.dtype),
        grad_kernel.astype(kernel.dtype),
        blocks.join(grad_weights, weights.shape),
    )
