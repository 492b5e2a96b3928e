"""The engine of `sampling.sampled_conv`: reads of shifted taps joined to matrix products.

Outputs are worked off in blocks. For each tap of a block four rows of contiguous channels are
gathered from a zero-bordered map and blended; one matrix product with all taps' weights finishes
the block. Memory beyond the operands is one block of samples. The derivative reads the map again.

What is fast differs by platform, so there is a plan for each: small blocks that stay in the cache on
a CPU, large ones elsewhere; the gradient of the map by a loop over 2x2 windows on a CPU, where
scatters are slow, by scatter-add elsewhere; sums as products with ones on a CPU, where reductions of
fused expressions are slow. Under vmap a CPU takes one example after the other.

Maps are [N, H, W, C], weights [K, C_in, C_out], positions [K, 2] or [N, H', W', K, 2], (y, x).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rfjax import _checks

# Zeros around the map: positions outside fall into a cell all of whose four corners are zero, so
# that neither their values nor their slopes need a mask.
_BORDER = 2

# Positions are cut here: farther out than any map, and small enough for exact integers in float32.
_FAR = 2.0**23


class _Cells(NamedTuple):
    """Each tap's cell: the row of its top-left corner in the bordered map, and the place inside."""

    row: jax.Array
    y: jax.Array
    x: jax.Array


class _Plan(NamedTuple):
    """How to work on a platform."""

    block_elements: int
    splat: Callable
    row_sums: Callable
    dot: Callable


def centres(output: tuple[int, int], stride: int, dtype: jnp.dtype) -> jax.Array:
    """The places [H', W', 2] of the outputs on the map."""
    axes = (stride * jnp.arange(size, dtype=dtype) for size in output)
    return jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)


def shared(x: jax.Array, weights: jax.Array, positions: jax.Array, *, stride: int) -> jax.Array:
    """[N, H', W', C_out] for positions [K, 2] that all outputs share."""
    return _shared_operator(stride)(x, weights, positions)


def free(x: jax.Array, weights: jax.Array, positions: jax.Array, *, stride: int) -> jax.Array:
    """[N, H', W', C_out] for positions [N, H', W', K, 2] of each output."""
    return _free_operator(stride)(x, weights, positions)


@functools.cache
def _shared_operator(stride: int) -> Callable:
    def everywhere(function):
        def at_all_outputs(x, weights, positions, *cotangent):
            output = [(size - 1) // stride + 1 for size in x.shape[1:3]]
            spread = jnp.broadcast_to(positions, (x.shape[0], *output, *positions.shape))
            return function(stride, x, weights, spread, *cotangent)

        return at_all_outputs

    return _operator(
        everywhere(_forward),
        functools.partial(_shared_backward, stride),
        everywhere(_plain),
    )


@functools.cache
def _free_operator(stride: int) -> Callable:
    return _operator(*(functools.partial(f, stride) for f in (_forward, _free_backward, _plain)))


def _operator(forward: Callable, backward: Callable, plain: Callable) -> Callable:
    """`forward` with the derivative `backward`, whose own derivatives are those of `plain`."""

    def plain_gradients(x, weights, positions, cotangent):
        return jax.vjp(plain, x, weights, positions)[1](cotangent)

    @jax.custom_vjp
    def gradients(*operands):
        return backward(*operands)

    gradients.defvjp(
        lambda *operands: (gradients(*operands), operands),
        lambda operands, cotangents: jax.vjp(plain_gradients, *operands)[1](cotangents),
    )

    @jax.custom_vjp
    def operator(x, weights, positions):
        return forward(x, weights, positions)

    operator.defvjp(
        lambda *operands: (operator(*operands), operands),
        lambda operands, cotangent: gradients(*operands, cotangent),
    )
    return jax.jit(operator)


def _by_platform(function: Callable) -> Callable:
    """`function(plan, stride, *arrays)` with the plan of the platform that it is compiled for."""

    @functools.wraps(function)
    def planned(stride, *arrays):
        on_cpu = functools.partial(function, _CPU, stride)
        elsewhere = functools.partial(function, _ACCELERATOR, stride)
        one_by_one = jax.custom_batching.sequential_vmap(on_cpu)
        return lax.platform_dependent(*arrays, cpu=one_by_one, default=elsewhere)

    return planned


def _convolve(plan: _Plan, stride: int, x, weights, positions) -> jax.Array:
    taps, features_in, features_out = weights.shape
    rows, cells = _bordered(x), _cells(x.shape, positions, stride)
    blocks = _blocked(cells, _block_size(plan, positions, features_in))
    matrix = weights.reshape(taps * features_in, features_out)

    def step(_, block):
        samples = _samples(rows, x.shape[2], block)
        return None, _matmul(samples.astype(x.dtype), matrix).astype(x.dtype)

    _, y = lax.scan(step, None, blocks)
    return _unblocked(y, positions.shape[:3])


_forward = _by_platform(_convolve)


@_by_platform
def _free_backward(plan: _Plan, stride: int, x, weights, positions, cotangent):
    """Gradients by map, weights and positions [N, H', W', K, 2]."""
    taps, features_in, features_out = weights.shape
    rows, cells = _bordered(x), _cells(x.shape, positions, stride)
    size = _block_size(plan, positions, features_in)
    matrix = weights.reshape(taps * features_in, features_out)
    sums = _checks.accumulation_dtype(x)

    def step(carry, block):
        map_gradient, matrix_gradient = carry
        cells, cotangent = block
        sample_gradient = _matmul(cotangent, matrix.T).reshape(-1, taps, features_in)
        samples, slopes = [], []
        for tap in range(taps):
            sample, *slope = _read(rows, x.shape[2], _tap(cells, tap))
            samples.append(sample)
            slopes += [plan.row_sums(along * sample_gradient[:, tap]) for along in slope]
        samples = jnp.stack(samples, 1).reshape(-1, taps * features_in).astype(x.dtype)
        matrix_gradient += _matmul(samples.T, cotangent)
        map_gradient = plan.splat(map_gradient, x.shape[2], cells, sample_gradient)
        return (map_gradient, matrix_gradient), jnp.stack(slopes, -1)

    zeros = jnp.zeros(rows.shape, sums), jnp.zeros(matrix.shape, sums)
    blocks = _blocked(cells, size), _block_rows(cotangent, size)
    (map_gradient, matrix_gradient), slopes = lax.scan(step, zeros, blocks)
    return (
        _unbordered(map_gradient, x.shape).astype(x.dtype),
        matrix_gradient.reshape(weights.shape).astype(weights.dtype),
        _unblocked(slopes, positions.shape[:3]).reshape(positions.shape).astype(positions.dtype),
    )


@_by_platform
def _shared_backward(plan: _Plan, stride: int, x, weights, positions, cotangent):
    """Gradients by map, weights and positions [K, 2]."""
    taps, features_in, _ = weights.shape
    spread = jnp.broadcast_to(positions, (*cotangent.shape[:3], *positions.shape))
    rows, cells = _bordered(x), _cells(x.shape, spread, stride)
    size = _block_size(plan, spread, features_in)
    sums = _checks.accumulation_dtype(x)

    def step(carry, block):
        matrix_gradient, position_gradient = carry
        cells, cotangent = block
        samples, slopes = [], []
        for tap in range(taps):
            sample, *slope = _read(rows, x.shape[2], _tap(cells, tap))
            samples.append(sample)
            slopes.append(plan.dot(slope, _matmul(cotangent, weights[tap].T)))
        samples = jnp.stack(samples, 1).reshape(-1, taps * features_in).astype(x.dtype)
        return (
            matrix_gradient + _matmul(samples.T, cotangent),
            position_gradient + jnp.stack(slopes),
        ), None

    zeros = jnp.zeros((taps * features_in, weights.shape[-1]), sums), jnp.zeros((taps, 2), sums)
    blocks = _blocked(cells, size), _block_rows(cotangent, size)
    (matrix_gradient, position_gradient), _ = lax.scan(step, zeros, blocks)
    return (
        _shared_map_gradient(plan, stride, x.shape, weights, positions, cotangent),
        matrix_gradient.reshape(weights.shape).astype(weights.dtype),
        position_gradient.astype(positions.dtype),
    )


def _shared_map_gradient(plan, stride, shape, weights, positions, cotangent) -> jax.Array:
    """The adjoint of a shift by p is the shift by -p: the same convolution of the cotangent."""
    gaps = [(0, 0, 0)] * 4
    for axis in (1, 2):
        covered = (cotangent.shape[axis] - 1) * stride + 1
        gaps[axis] = (0, shape[axis] - covered, stride - 1)
    cotangent = lax.pad(cotangent, jnp.zeros((), cotangent.dtype), gaps)
    back = jnp.broadcast_to(-positions, (*shape[:3], *positions.shape))
    return _convolve(plan, 1, cotangent, weights.swapaxes(1, 2), back)


def _plain(stride: int, x, weights, positions) -> jax.Array:
    """The same value, a tap at a time, in operations that JAX differentiates to any order."""
    rows, cells = _bordered(x), _cells(x.shape, positions, stride)
    sums = _checks.accumulation_dtype(x)

    @jax.checkpoint
    def step(y, tap):
        cell, matrix = tap
        sample, *_ = _read(rows, x.shape[2], cell)
        return y + _matmul(sample.astype(x.dtype), matrix), None

    cells = jax.tree.map(lambda part: part.reshape(-1, weights.shape[0]).T, cells)
    y = jnp.zeros((cells.row.shape[1], weights.shape[-1]), sums)
    y, _ = lax.scan(step, y, (cells, weights))
    return y.astype(x.dtype).reshape(*positions.shape[:3], weights.shape[-1])


def _bordered(x: jax.Array) -> jax.Array:
    """The map within zeros, a pixel a row."""
    border = (_BORDER, _BORDER)
    return jnp.pad(x, ((0, 0), border, border, (0, 0))).reshape(-1, x.shape[-1])


def _unbordered(rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    batch, height, width, features = shape
    x = rows.reshape(batch, height + 2 * _BORDER, width + 2 * _BORDER, features)
    return x[:, _BORDER:-_BORDER, _BORDER:-_BORDER]


def _cells(shape: tuple[int, ...], positions: jax.Array, stride: int) -> _Cells:
    """The cells [N, H', W', K] of the taps; `shape` is the map's.

    The centre is added to the whole part of a position, so the place inside a cell keeps its digits.
    """
    batch, height, width, _ = shape
    positions = jnp.clip(positions, -_FAR, _FAR)
    whole = jnp.floor(positions)
    inside = positions - whole
    centre = centres(positions.shape[1:3], stride, positions.dtype)[None, :, :, None]
    corner = lax.stop_gradient(whole) + jnp.broadcast_to(centre, whole.shape)
    y = jnp.clip(corner[..., 0], -_BORDER, height).astype(jnp.int32) + _BORDER
    x = jnp.clip(corner[..., 1], -_BORDER, width).astype(jnp.int32) + _BORDER
    example = lax.broadcasted_iota(jnp.int32, y.shape, 0)
    row = (example * (height + 2 * _BORDER) + y) * (width + 2 * _BORDER) + x
    return _Cells(row, inside[..., 0], inside[..., 1])


def _read(rows: jax.Array, width: int, cell: _Cells) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One tap's samples [P, C] and their slopes along y and x; unused ones cost nothing."""
    sums = _checks.accumulation_dtype(rows)
    below = width + 2 * _BORDER
    top_left, top_right, bottom_left, bottom_right = (
        rows.at[cell.row + offset].get(mode="promise_in_bounds").astype(sums)
        for offset in (0, 1, below, below + 1)
    )
    y, x = cell.y.astype(sums)[:, None], cell.x.astype(sums)[:, None]
    top = (1 - x) * top_left + x * top_right
    bottom = (1 - x) * bottom_left + x * bottom_right
    along_y = (1 - x) * (bottom_left - top_left) + x * (bottom_right - top_right)
    along_x = (1 - y) * (top_right - top_left) + y * (bottom_right - bottom_left)
    return (1 - y) * top + y * bottom, along_y, along_x


def _samples(rows: jax.Array, width: int, cells: _Cells) -> jax.Array:
    """A block's samples [P, K * C]."""
    taps = cells.row.shape[0]
    samples = [_read(rows, width, _tap(cells, tap))[0] for tap in range(taps)]
    return jnp.stack(samples, 1).reshape(cells.row.shape[1], -1)


def _tap(cells: _Cells, tap: int) -> _Cells:
    return jax.tree.map(lambda part: part[tap], cells)


def _block_size(plan: _Plan, positions: jax.Array, features: int) -> int:
    """Outputs in a block: about `block_elements` samples, in blocks of nearly equal size."""
    batch, height, width, taps, _ = positions.shape
    outputs = max(1, batch * height * width)
    largest = max(256, plan.block_elements // (taps * max(1, features)))
    return -(-outputs // -(-outputs // largest))


def _blocked(cells: _Cells, size: int) -> _Cells:
    """Cells [N, H', W', K] as [blocks, K, size]."""
    taps = cells.row.shape[-1]
    return jax.tree.map(
        lambda part: _block_rows(part.reshape(-1, taps), size).swapaxes(1, 2), cells
    )


def _block_rows(rows: jax.Array, size: int) -> jax.Array:
    """[..., F] as [blocks, size, F], filled up with zeros."""
    rows = rows.reshape(-1, rows.shape[-1])
    filler = -rows.shape[0] % size
    return jnp.pad(rows, ((0, filler), (0, 0))).reshape(-1, size, rows.shape[-1])


def _unblocked(blocks: jax.Array, leading: tuple[int, ...]) -> jax.Array:
    count = leading[0] * leading[1] * leading[2]
    return blocks.reshape(-1, blocks.shape[-1])[:count].reshape(*leading, blocks.shape[-1])


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, preferred_element_type=_checks.accumulation_dtype(a, b))


def _splat_windows(rows, width: int, cells: _Cells, values: jax.Array) -> jax.Array:
    """Add values [P, K, C] to the corners of cells [K, P], one 2x2 window after the other."""
    below, features = width + 2 * _BORDER, values.shape[-1]
    row, y, x = (part.T.reshape(-1) for part in cells)
    top, left = row // below, row % below
    values = values.reshape(-1, features)

    def add(i, image):
        weights = jnp.stack([1 - y[i], y[i]])[:, None] * jnp.stack([1 - x[i], x[i]])[None]
        window = weights.astype(image.dtype)[:, :, None] * values[i][None, None]
        start = top[i], left[i], jnp.int32(0)
        window += lax.dynamic_slice(image, start, (2, 2, features))
        return lax.dynamic_update_slice(image, window, start)

    image = rows.reshape(-1, below, features)
    return lax.fori_loop(0, row.size, add, image, unroll=4).reshape(rows.shape)


def _splat_scatter(rows, width: int, cells: _Cells, values: jax.Array) -> jax.Array:
    """Add values [P, K, C] to the corners of cells [K, P] by scatters."""
    below = width + 2 * _BORDER
    row = cells.row.T
    y, x = (part.T.astype(rows.dtype)[..., None] for part in cells[1:])
    for offset, weight in (
        (0, (1 - y) * (1 - x)),
        (1, (1 - y) * x),
        (below, y * (1 - x)),
        (below + 1, y * x),
    ):
        rows = rows.at[row + offset].add(weight * values, mode="promise_in_bounds")
    return rows


def _row_products(values: jax.Array) -> jax.Array:
    ones = jnp.ones((values.shape[-1], 1), values.dtype)
    return jnp.matmul(values, ones, precision=lax.Precision.HIGHEST)[:, 0]


def _dot_products(slopes: list[jax.Array], values: jax.Array) -> jax.Array:
    flat = jnp.stack([slope.reshape(-1) for slope in slopes])
    return jnp.matmul(flat, values.reshape(-1), precision=lax.Precision.HIGHEST)


_CPU = _Plan(
    block_elements=2**20,
    splat=_splat_windows,
    row_sums=_row_products,
    dot=_dot_products,
)
_ACCELERATOR = _Plan(
    block_elements=2**26,
    splat=_splat_scatter,
    row_sums=lambda values: values.sum(-1),
    dot=lambda slopes, values: jnp.stack([jnp.sum(slope * values) for slope in slopes]),
)
