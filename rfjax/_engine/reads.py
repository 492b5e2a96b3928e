"""The engine of `sampling.sampled_conv`: reads of shifted taps joined to matrix products.

Outputs are worked off in blocks and each block tap by tap: four rows of contiguous channels are
gathered from a zero-bordered map, blended, and multiplied by the tap's weights. Memory beyond the
operands is one tap's samples of one block. Derivatives read the map again. Reading and multiplying
commute, so where all taps' outputs are fewer numbers than the channels of the map, it is first
multiplied ("projected") and the narrow products are read.

The map's gradient under positions that all outputs share is a convolution of the cotangent at the
negative positions; one sweep over it gives all gradients. Under free positions samples are added to
the map ("splatted").

What is fast differs by platform, so there is a plan for each: small blocks that stay in the cache
on a CPU, large ones elsewhere; splats by a loop over 2x2 windows on a CPU, where scatters are slow,
by scatter-add elsewhere; sums as matrix products on a CPU, where reductions of fused expressions
are slow. Under vmap a CPU takes one example after the other. Where XLA partitions the program, each
example is read from its own map, so that none leaves its device.

Maps are [N, H, W, C], weights [K, C_in, C_out], positions [K, 2] or [N, H', W', K, 2], (y, x).
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rfjax import _checks
from rfjax._engine import tuning
from rfjax._engine.derivatives import operator
from rfjax._engine.devices import alike, by_device, is_known, zeros_for

# Zeros around the map: positions outside fall into a cell all of whose four corners are zero, so
# that neither their values nor their slopes need a mask.
_BORDER = 2


class _Cells(NamedTuple):
    """Each tap's cell: the row of its top-left corner in the bordered map, and the place inside."""

    row: jax.Array
    y: jax.Array
    x: jax.Array


class _Rows(NamedTuple):
    """A bordered map of `width` pixels a line, a pixel a row: [pixels * groups, features].

    A projected map has a group of features for each tap; a map that is read as it is has one.
    """

    values: jax.Array
    width: int
    groups: int = 1

    def index(self, cells: _Cells, tap: jax.Array) -> list[jax.Array]:
        """The rows of the cells' corners: top left, top right, bottom left, bottom right."""
        corners = (cells.row + offset for offset in (0, 1, self.width, self.width + 1))
        return [corner * self.groups + self.group(tap) for corner in corners]

    def group(self, tap: jax.Array) -> jax.Array:
        """The group that a tap reads."""
        return tap if self.groups > 1 else jnp.zeros_like(tap)


class _Plan(NamedTuple):
    """How to work on a platform."""

    block_elements: int
    splat: Callable
    row_sums: Callable
    dot: Callable


def shared(x: jax.Array, weights: jax.Array, positions: jax.Array, *, stride: int) -> jax.Array:
    """[N, H', W', C_out] for positions [K, 2] that all outputs share."""
    return _shared_operator(stride)(*alike(x, weights, positions))


def free(x: jax.Array, weights: jax.Array, positions: jax.Array, *, stride: int) -> jax.Array:
    """[N, H', W', C_out] for positions [N, H', W', K, 2] of each output."""
    return _free_operator(stride)(*alike(x, weights, positions))


@functools.cache
def _shared_operator(stride: int) -> Callable:
    def at_all_outputs(function):
        def spread(x, weights, positions):
            output = [(size - 1) // stride + 1 for size in x.shape[1:3]]
            everywhere = (x.shape[0], *output, *positions.shape)
            return function(stride, x, weights, jnp.broadcast_to(positions, everywhere))

        return spread

    def backward(operands, kept, cotangent):
        return _shared_backward(stride, *operands, cotangent)

    return jax.jit(operator(at_all_outputs(_forward), backward, at_all_outputs(_plain)))


@functools.cache
def _free_operator(stride: int) -> Callable:
    def backward(operands, kept, cotangent):
        return _free_backward(stride, *operands, cotangent)

    forward, plain = (functools.partial(function, stride) for function in (_forward, _plain))
    return jax.jit(operator(forward, backward, plain))


def _by_platform(*, of_each: tuple[bool, ...], added: bool | tuple[bool, ...]) -> Callable:
    """Gives `function(plan, stride, *arrays)` the plan of where it runs.

    Args:
      of_each: which of the arrays have a part for each example; the others are shared by all.
      added: which of the results are sums over the examples.
    """

    def decorate(function):
        @functools.wraps(function)
        def planned(stride, *arrays):
            on_cpu = functools.partial(function, _CPU, stride)
            elsewhere = functools.partial(function, _ACCELERATOR, stride)
            one_by_one = jax.custom_batching.sequential_vmap(on_cpu)
            apart = functools.partial(_one_apart, elsewhere, of_each, added)
            return by_device(*arrays, cpu=one_by_one, default=elsewhere, partitioned=apart)

        return planned

    return decorate


def _one_apart(function: Callable, of_each: tuple, added: bool | tuple, *arrays):
    """`function` of every example by itself, in operations that XLA partitions by examples."""

    def of_one(*arrays):
        single = [a[None] if each else a for a, each in zip(arrays, of_each, strict=True)]
        return jax.tree.map(lambda sums, r: r if sums else r[0], added, function(*single))

    results = jax.vmap(of_one, [0 if each else None for each in of_each])(*arrays)
    return jax.tree.map(lambda sums, r: r.sum(0) if sums else r, added, results)


@_by_platform(of_each=(True, False, True), added=False)
def _forward(plan: _Plan, stride: int, x, weights, positions) -> jax.Array:
    taps, features_in, features_out = weights.shape
    rows, project = _rows_to_read(x, weights)
    cells = _cells(x.shape, *_whole_and_inside(positions), stride)
    size = _block_size(plan, positions, features_out if project else features_in)

    def block(_, cells):
        def add(y, tap):
            index, matrix, cells = tap
            sample = _read(rows, cells, index)[0]
            return y + (sample if project else _matmul(sample.astype(x.dtype), matrix)), None

        y = zeros_for((size, features_out), _checks.accumulation_dtype(x), x)
        y, _ = lax.scan(add, y, (jnp.arange(taps, dtype=jnp.int32), weights, cells))
        return None, y.astype(x.dtype)

    _, y = lax.scan(block, None, _blocked(cells, size))
    return _unblocked(y, positions.shape[:3])


@_by_platform(of_each=(True, False, True, True), added=(False, True, False))
def _free_backward(plan: _Plan, stride: int, x, weights, positions, cotangent):
    """Gradients by map, weights and positions [N, H', W', K, 2]."""
    taps, features_in, features_out = weights.shape
    rows, project = _rows_to_read(x, weights)
    cells = _cells(x.shape, *_whole_and_inside(positions), stride)
    size = _block_size(plan, positions, features_out if project else features_in)
    sums = _checks.accumulation_dtype(x)

    def block(carry, operands):
        cells, cotangent = operands

        def add(rows_gradient, tap):
            index, matrix, cells = tap
            sample, *slopes = _read(rows, cells, index)
            if project:
                sample_gradient, outer = cotangent.astype(sums), zeros_for((), sums, x)
            else:
                sample_gradient = _matmul(cotangent, matrix.T)
                outer = _matmul(sample.astype(x.dtype).T, cotangent)
            slopes = [plan.row_sums(slope * sample_gradient) for slope in slopes]
            target = rows._replace(values=rows_gradient)
            rows_gradient = plan.splat(target, cells, index, sample_gradient)
            return rows_gradient, (outer, jnp.stack(slopes, -1))

        rows_gradient, weights_gradient = carry
        rows_gradient, (outer, slopes) = lax.scan(
            add, rows_gradient, (jnp.arange(taps, dtype=jnp.int32), weights, cells)
        )
        return (rows_gradient, weights_gradient + outer), slopes

    zeros = zeros_for(rows.values.shape, sums, x)
    weights_gradient = zeros_for((taps,) if project else weights.shape, sums, x)
    (map_gradient, weights_gradient), slopes = lax.scan(
        block, (zeros, weights_gradient), (_blocked(cells, size), _block_rows(cotangent, size))
    )
    if project:
        # Both products round their operands to the map's dtype, as those of the samples do.
        narrow = (*x.shape[:3], taps * features_out)
        products = _unbordered(map_gradient, narrow).astype(x.dtype).reshape(-1, narrow[-1])
        map_gradient = _matmul(products, _side_by_side(weights).T).reshape(x.shape)
        weights_gradient = _matmul(x.reshape(-1, features_in).T, products)
        weights_gradient = weights_gradient.reshape(features_in, taps, features_out).swapaxes(0, 1)
    else:
        map_gradient = _unbordered(map_gradient, x.shape)
    slopes = _unblocked(slopes.swapaxes(1, 2).reshape(-1, taps * 2), positions.shape[:3])
    return (
        map_gradient.astype(x.dtype),
        weights_gradient.astype(weights.dtype),
        slopes.reshape(positions.shape).astype(positions.dtype),
    )


@_by_platform(of_each=(True, False, False, True), added=(False, True, True))
def _shared_backward(plan: _Plan, stride: int, x, weights, positions, cotangent):
    """Gradients by map, weights and positions [K, 2], in one sweep over the map's pixels.

    The adjoint of a shift by p is the shift by -p. Its cells are the mirror images of the forward
    ones, so that on integers too the slope is that of the cell which the forward pass reads.
    """
    taps, features_in, features_out = weights.shape
    cotangent = _stuffed(cotangent, x.shape, stride)
    rows = _Rows(_bordered(cotangent), x.shape[2] + 2 * _BORDER)
    whole, inside = _whole_and_inside(jnp.broadcast_to(positions, (*x.shape[:3], taps, 2)))
    cells = _cells(cotangent.shape, -whole - 1, 1 - inside, 1)
    size = _block_size(plan, whole, features_out)
    sums = _checks.accumulation_dtype(x)

    project = _is_narrow(weights)

    def block(carry, operands):
        cells, pixels = operands
        products = _matmul(pixels, _side_by_side(weights)) if project else pixels
        products = products.reshape(size, taps, -1).swapaxes(0, 1) if project else weights

        def add(map_gradient, tap):
            index, matrix, product, cells = tap
            sample, *slopes = _read(rows, cells, index)
            sample = sample.astype(x.dtype)
            if project:
                return map_gradient, (sample, plan.dot(slopes, -product))
            outer = _matmul(pixels.T, sample)
            slope = plan.dot(slopes, -_matmul(pixels, matrix))
            return map_gradient + _matmul(sample, matrix.T), (outer, slope)

        zeros = zeros_for((size, features_in), sums, x)
        taps_in = jnp.arange(taps, dtype=jnp.int32), weights, products, cells
        map_gradient, (outer, slopes) = lax.scan(add, zeros, taps_in)
        if project:
            samples = outer.swapaxes(0, 1).reshape(size, -1)
            map_gradient = _matmul(samples, _side_by_side(weights).T)
            outer = _matmul(pixels.T, samples)
            outer = outer.reshape(features_in, taps, features_out).swapaxes(0, 1)
        return (carry[0] + outer, carry[1] + slopes), map_gradient.astype(x.dtype)

    zeros = zeros_for(weights.shape, sums, x), zeros_for((taps, 2), sums, x)
    (weights_gradient, slopes), map_gradient = lax.scan(
        block, zeros, (_blocked(cells, size), _block_rows(x, size))
    )
    return (
        _unblocked(map_gradient, x.shape[:3]),
        weights_gradient.astype(weights.dtype),
        slopes.astype(positions.dtype),
    )


def _plain(stride: int, x, weights, positions) -> jax.Array:
    """The same value in operations that JAX differentiates to any order, a tap at a time."""
    rows = _Rows(_bordered(x), x.shape[2] + 2 * _BORDER)
    cells = _cells(x.shape, *_whole_and_inside(positions), stride)

    @jax.checkpoint
    def add(y, tap):
        cells, matrix = tap
        sample = _read(rows, cells, jnp.int32(0))[0]
        return y + _matmul(sample.astype(x.dtype), matrix), None

    cells = jax.tree.map(lambda part: part.reshape(-1, weights.shape[0]).T, cells)
    y = zeros_for((cells.row.shape[1], weights.shape[-1]), _checks.accumulation_dtype(x), x)
    y, _ = lax.scan(add, y, (cells, weights))
    return y.astype(x.dtype).reshape(*positions.shape[:3], weights.shape[-1])


def _rows_to_read(x: jax.Array, weights: jax.Array) -> tuple[_Rows, bool]:
    """The map, or where it is narrower its product with all taps' weights (and True)."""
    width = x.shape[2] + 2 * _BORDER
    if not _is_narrow(weights):
        return _Rows(_bordered(x), width), False
    products = _bordered(_matmul(x, _side_by_side(weights)))
    return _Rows(products.reshape(-1, weights.shape[2]), width, weights.shape[0]), True


def _is_narrow(weights: jax.Array) -> bool:
    """Whether all taps' outputs together are no more numbers than the channels that they read."""
    taps, features_in, features_out = weights.shape
    return taps * features_out <= features_in


def _side_by_side(weights: jax.Array) -> jax.Array:
    """All taps' weights as one matrix [C_in, K * C_out]."""
    return weights.swapaxes(0, 1).reshape(weights.shape[1], -1)


def _stuffed(cotangent: jax.Array, shape: tuple[int, ...], stride: int) -> jax.Array:
    """The cotangent of strided outputs at their centres on the map, zeros between."""
    gaps = [(0, 0, 0)] * 4
    for axis in (1, 2):
        covered = (cotangent.shape[axis] - 1) * stride + 1
        gaps[axis] = (0, shape[axis] - covered, stride - 1)
    return lax.pad(cotangent, jnp.zeros((), cotangent.dtype), gaps)


def _bordered(x: jax.Array) -> jax.Array:
    """The map within zeros, a pixel a row."""
    border = (_BORDER, _BORDER)
    return jnp.pad(x, ((0, 0), border, border, (0, 0))).reshape(-1, x.shape[-1])


def _unbordered(rows: jax.Array, shape: tuple[int, ...]) -> jax.Array:
    batch, height, width, features = shape
    x = rows.reshape(batch, height + 2 * _BORDER, width + 2 * _BORDER, features)
    return x[:, _BORDER:-_BORDER, _BORDER:-_BORDER]


def _whole_and_inside(positions: jax.Array) -> tuple[jax.Array, jax.Array]:
    positions = jnp.clip(positions, -tuning.FAR_POSITION, tuning.FAR_POSITION)
    whole = lax.stop_gradient(jnp.floor(positions))
    return whole, positions - whole


def _cells(shape: tuple[int, ...], whole: jax.Array, inside: jax.Array, stride: int) -> _Cells:
    """The cells [N, H', W', K] of taps at whole + inside [N, H', W', K, 2] on a map of `shape`.

    The centre is added to the whole part of a position: the place inside a cell keeps its digits.
    """
    _, height, width, _ = shape
    y, x = (
        jnp.clip(part + stride * lax.broadcasted_iota(part.dtype, part.shape, axis), -_BORDER, size)
        for axis, size, part in ((1, height, whole[..., 0]), (2, width, whole[..., 1]))
    )
    y, x = y.astype(jnp.int32) + _BORDER, x.astype(jnp.int32) + _BORDER
    example = lax.broadcasted_iota(jnp.int32, y.shape, 0)
    row = (example * (height + 2 * _BORDER) + y) * (width + 2 * _BORDER) + x
    return _Cells(row, inside[..., 0], inside[..., 1])


def _read(rows: _Rows, cells: _Cells, tap: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """One tap's samples [P, F] and their slopes along y and x; unused ones cost nothing."""
    sums = _checks.accumulation_dtype(rows.values)
    top_left, top_right, bottom_left, bottom_right = (
        rows.values.at[index].get(mode="promise_in_bounds").astype(sums)
        for index in rows.index(cells, tap)
    )
    y, x = cells.y.astype(sums)[:, None], cells.x.astype(sums)[:, None]
    top = (1 - x) * top_left + x * top_right
    bottom = (1 - x) * bottom_left + x * bottom_right
    along_y = (1 - x) * (bottom_left - top_left) + x * (bottom_right - top_right)
    along_x = (1 - y) * (top_right - top_left) + y * (bottom_right - bottom_left)
    return (1 - y) * top + y * bottom, along_y, along_x


def _block_size(plan: _Plan, positions: jax.Array, features: int) -> int:
    """Outputs in a block: about `block_elements` samples of a tap, in blocks of equal size.

    All of them, where their number is not known.
    """
    batch, height, width = positions.shape[:3]
    outputs = batch * height * width
    if not is_known(outputs):
        return outputs
    largest = max(tuning.LEAST_OUTPUTS, plan.block_elements // features)
    return -(-outputs // -(-outputs // largest))


def _blocked(cells: _Cells, size: int) -> _Cells:
    """Cells [N, H', W', K] as [blocks, K, size]."""
    return jax.tree.map(lambda part: _block_rows(part, size).swapaxes(1, 2), cells)


def _block_rows(rows: jax.Array, size: int) -> jax.Array:
    """[..., F] as [blocks, size, F], filled up with zeros."""
    rows = rows.reshape(-1, rows.shape[-1])
    if not is_known(size):
        return rows[None]
    filler = -rows.shape[0] % size
    return jnp.pad(rows, ((0, filler), (0, 0))).reshape(-1, size, rows.shape[-1])


def _unblocked(blocks: jax.Array, leading: tuple[int, ...]) -> jax.Array:
    count = leading[0] * leading[1] * leading[2]
    return blocks.reshape(-1, blocks.shape[-1])[:count].reshape(*leading, blocks.shape[-1])


def _matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    return jnp.matmul(a, b, preferred_element_type=_checks.accumulation_dtype(a, b))


def _splat_windows(rows: _Rows, cells: _Cells, tap: jax.Array, values: jax.Array) -> jax.Array:
    """`rows` with values [P, F] added at the corners of cells, one 2x2 window after the other."""
    features = values.shape[-1]
    top, left = cells.row // rows.width, cells.row % rows.width
    first = (rows.group(tap) * features).astype(jnp.int32)

    def add(i, image):
        y, x = cells.y[i].astype(image.dtype), cells.x[i].astype(image.dtype)
        weights = jnp.stack([1 - y, y])[:, None] * jnp.stack([1 - x, x])[None]
        window = weights[:, :, None] * values[i][None, None]
        start = top[i], left[i], first
        window += lax.dynamic_slice(image, start, (2, 2, features))
        return lax.dynamic_update_slice(image, window, start)

    image = rows.values.reshape(-1, rows.width, rows.groups * features)
    return lax.fori_loop(0, top.size, add, image, unroll=tuning.SPLAT_UNROLL).reshape(
        rows.values.shape
    )


def _splat_scatter(rows: _Rows, cells: _Cells, tap: jax.Array, values: jax.Array) -> jax.Array:
    """`rows` with values [P, F] added at the corners of cells."""
    total = rows.values
    y, x = (part.astype(total.dtype)[:, None] for part in cells[1:])
    weights = (1 - y) * (1 - x), (1 - y) * x, y * (1 - x), y * x
    for index, weight in zip(rows.index(cells, tap), weights, strict=True):
        total = total.at[index].add(weight * values, mode="promise_in_bounds")
    return total


def _row_products(values: jax.Array) -> jax.Array:
    ones = jnp.ones((values.shape[-1], 1), values.dtype)
    return jnp.matmul(values, ones, precision=lax.Precision.HIGHEST)[:, 0]


def _dot_products(slopes: list[jax.Array], values: jax.Array) -> jax.Array:
    flat = jnp.stack([slope.reshape(-1) for slope in slopes])
    return jnp.matmul(flat, values.reshape(-1), precision=lax.Precision.HIGHEST)


_CPU = _Plan(
    block_elements=tuning.READ_BLOCK_CPU,
    splat=_splat_windows,
    row_sums=_row_products,
    dot=_dot_products,
)
_ACCELERATOR = _Plan(
    block_elements=tuning.READ_BLOCK,
    splat=_splat_scatter,
    row_sums=lambda values: values.sum(-1),
    dot=lambda slopes, values: jnp.stack([jnp.sum(slope * values) for slope in slopes]),
)
