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

Maps are [N, H, W, C] and strides (y, x). Of the T taps

    weights     are [T, C, C_out]; [T, G, C / G, C_out / G], where every group of channels makes
                outputs of its own; or [T, C / D, C_out], where T / D taps after another read the
                same D-th part of the channels
    positions   are [T, 2], (y, x), or [N, H', W', T, 2]; or [N, H', W', T, 3] with a factor, by
                which the sample is multiplied
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import lax

from rfjax import _checks
from rfjax._engine import tap_blocks, tuning
from rfjax._engine.cells import (
    BORDER,
    Cells,
    Pair,
    Rows,
    bordered,
    cells_at,
    places,
    read,
    scaled,
    splat_scatter,
    splat_windows,
    unbordered,
)
from rfjax._engine.derivatives import operator
from rfjax._engine.devices import alike, by_device, zeros_for
from rfjax._engine.plan import Reading
from rfjax._engine.products import matmul, outer_product, tap_product

_NO_KERNELS: dict[str, Callable] = {}


class _Plan(NamedTuple):
    """How to work on a platform."""

    block_elements: int
    splat: Callable
    row_sums: Callable
    dot: Callable


def shared(x: jax.Array, weights: jax.Array, positions: jax.Array, *, strides: Pair) -> jax.Array:
    """[N, H', W', C_out] for positions [T, 2] that all outputs share; weights not of parts."""
    return _shared_operator(strides)(*alike(x, weights, positions))


def free(
    x: jax.Array, weights: jax.Array, positions: jax.Array, *, strides: Pair, how: Reading
) -> jax.Array:
    """[N, H', W', C_out] for positions [N, H', W', T, 2 | 3] of each output."""
    return _free_operator(strides, how)(*alike(x, weights, positions))


@functools.cache
def _shared_operator(strides: Pair) -> Callable:
    def at_all_outputs(function):
        def spread(x, weights, positions):
            sizes = zip(x.shape[1:3], strides, strict=True)
            output = [(size - 1) // stride + 1 for size, stride in sizes]
            everywhere = (x.shape[0], *output, *positions.shape)
            return function(strides, x, weights, jnp.broadcast_to(positions, everywhere))

        return spread

    def backward(operands, kept, cotangent):
        return _shared_backward(strides, *operands, cotangent)

    return jax.jit(operator(at_all_outputs(_forward), backward, at_all_outputs(_plain)))


@functools.cache
def _free_operator(strides: Pair, how: Reading) -> Callable:
    def forward(*operands):
        return _forward(strides, *operands, kernels=_kernels(_forward_by_kernel, how, *operands))

    def backward(operands, kept, cotangent):
        kernels = _kernels(_backward_by_kernel, how, *operands)
        return _free_backward(strides, *operands, cotangent, kernels=kernels)

    return jax.jit(operator(forward, backward, functools.partial(_plain, strides)))


def _by_platform(
    *, of_each: tuple[bool, ...], added: bool | tuple[bool, ...]
) -> Callable[[Callable], Callable]:
    """Gives `function(plan, strides, *arrays)` the plan of where it runs.

    Args:
      of_each: which of the arrays have a part for each example; the others are shared by all.
      added: which of the results are sums over the examples.

    What it returns takes as `kernels` what runs in place of the function on some platforms.
    """

    def decorate(function: Callable) -> Callable[..., Any]:
        @functools.wraps(function)
        def planned(strides, *arrays, kernels=_NO_KERNELS):
            on_cpu = functools.partial(function, _CPU, strides)
            elsewhere = functools.partial(function, _ACCELERATOR, strides)
            # Under vmap a CPU keeps its blocks, one example after the other.
            one_by_one = jax.custom_batching.sequential_vmap(on_cpu)
            apart = functools.partial(_one_apart, elsewhere, of_each, added)
            run = {"cpu": one_by_one, "gpu": elsewhere}
            run |= {name: functools.partial(one, strides) for name, one in kernels.items()}
            if "native" in run:
                run["native"] = jax.custom_batching.sequential_vmap(run["native"])
            return by_device(*arrays, **run, default=elsewhere, partitioned=apart)

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
def _forward(plan: _Plan, strides: Pair, x, weights, positions) -> jax.Array:
    taps, features_in, features_out = _sizes(weights)
    rows, project = _rows_to_read(x, weights)
    cells = cells_at(x.shape, *places(positions), strides)
    size = _block_size(plan, positions, features_out if project else features_in)

    def block(_, cells):
        def add(y, tap):
            index, matrix, cells = tap
            sample = read(rows, cells, index)[0]
            # y(p) += theta_k^T v(p + p_k)
            return y + (sample if project else tap_product(sample.astype(x.dtype), matrix)), None

        y = zeros_for((size, features_out), _checks.accumulation_dtype(x), x)
        y, _ = lax.scan(add, y, (jnp.arange(taps, dtype=jnp.int32), weights, cells))
        return None, y.astype(x.dtype)

    # Blocks one after the other, and the taps of each one after the other.
    _, y = lax.scan(block, None, _blocked(cells, size))
    return _unblocked(y, positions.shape[:3])


@_by_platform(of_each=(True, False, True, True), added=(False, True, False))
def _free_backward(plan: _Plan, strides: Pair, x, weights, positions, cotangent):
    """Gradients by map, weights and positions [N, H', W', T, 2 | 3]."""
    taps, features_in, features_out = _sizes(weights)
    rows, project = _rows_to_read(x, weights)
    cells = cells_at(x.shape, *places(positions), strides)
    size = _block_size(plan, positions, features_out if project else features_in)
    sums = _checks.accumulation_dtype(x)

    def block(carry, operands):
        cells, cotangent = operands

        def add(rows_gradient, tap):
            index, matrix, cells = tap
            sample, *slopes = read(rows, cells, index)
            if project:
                # Samples are outputs already; the weights' gradient follows from the map's, below.
                sample_gradient, outer = cotangent.astype(sums), zeros_for((), sums, x)
            else:
                # dv = theta_k dy, and dtheta_k += v^T dy
                sample_gradient = tap_product(cotangent, matrix.swapaxes(-1, -2))
                outer = outer_product(sample.astype(x.dtype), cotangent, matrix)
            # dp_k = sum over channels of (dv / dp) times the samples' gradient
            slopes = [plan.row_sums(slope * sample_gradient) for slope in slopes]
            target = rows._replace(values=rows_gradient)
            # Each sample's gradient goes back to the four pixels that it was blended from.
            rows_gradient = plan.splat(target, cells, index, scaled(sample_gradient, cells))
            return rows_gradient, (outer, jnp.stack(slopes, -1))

        rows_gradient, weights_gradient = carry
        rows_gradient, (outer, slopes) = lax.scan(
            add, rows_gradient, (jnp.arange(taps, dtype=jnp.int32), weights, cells)
        )
        return (rows_gradient, weights_gradient + outer), slopes

    zeros = zeros_for(rows.values.shape, sums, x)
    weights_gradient = zeros_for((taps,) if project else weights.shape, sums, x)
    (map_gradient, weights_gradient), slopes = lax.scan(
        block,
        (zeros, weights_gradient),
        (_blocked(cells, size), tap_blocks.block_rows(cotangent, size)),
    )
    if project:
        # Both products round their operands to the map's dtype, as those of the samples do.
        narrow = (*x.shape[:3], taps * features_out)
        products = unbordered(map_gradient, narrow).astype(x.dtype).reshape(-1, narrow[-1])
        map_gradient = matmul(products, _side_by_side(weights).T).reshape(x.shape)
        weights_gradient = matmul(x.reshape(-1, features_in).T, products)
        weights_gradient = weights_gradient.reshape(features_in, taps, features_out).swapaxes(0, 1)
    else:
        map_gradient = unbordered(map_gradient, x.shape)
    slopes = slopes.swapaxes(1, 2).reshape(-1, taps * positions.shape[-1])
    slopes = _unblocked(slopes, positions.shape[:3])
    return (
        map_gradient.astype(x.dtype),
        weights_gradient.astype(weights.dtype),
        slopes.reshape(positions.shape).astype(positions.dtype),
    )


@_by_platform(of_each=(True, False, False, True), added=(False, True, True))
def _shared_backward(plan: _Plan, strides: Pair, x, weights, positions, cotangent):
    """Gradients by map, weights and positions [T, 2], in one sweep over the map's pixels.

    The adjoint of a shift by p is the shift by -p. Its cells are the mirror images of the forward
    ones, so that on integers too the slope is that of the cell which the forward pass reads.
    """
    taps, features_in, features_out = _sizes(weights)
    cotangent = _stuffed(cotangent, x.shape, strides)
    rows = Rows(bordered(cotangent), x.shape[2] + 2 * BORDER)
    # floor(-p) and -p - floor(-p), but for integers: -floor(p) - 1 and 1 - (p - floor(p)).
    whole, inside, _ = places(jnp.broadcast_to(positions, (*x.shape[:3], taps, 2)))
    cells = cells_at(cotangent.shape, -whole - 1, 1 - inside, None, (1, 1))
    size = _block_size(plan, whole, features_out)
    sums = _checks.accumulation_dtype(x)

    project = _is_narrow(x, weights)

    def block(carry, operands):
        cells, pixels = operands
        # Of narrow weights all taps' products x theta_k come first, as one product of matrices.
        products = matmul(pixels, _side_by_side(weights)) if project else pixels
        products = products.reshape(size, taps, -1).swapaxes(0, 1) if project else weights

        def add(map_gradient, tap):
            index, matrix, product, cells = tap
            sample, *slopes = read(rows, cells, index)
            sample = sample.astype(x.dtype)
            if project:
                return map_gradient, (sample, plan.dot(slopes, -product))
            # dtheta_k += x^T c(p - p_k), and dx += c(p - p_k) theta_k^T
            outer = outer_product(pixels, sample, matrix)
            # The position is negated, and so is its slope: dp_k = -sum x theta_k dc(p - p_k) / dp
            slope = plan.dot(slopes, -tap_product(pixels, matrix))
            return map_gradient + tap_product(sample, matrix.swapaxes(-1, -2)), (outer, slope)

        zeros = zeros_for((size, features_in), sums, x)
        taps_in = jnp.arange(taps, dtype=jnp.int32), weights, products, cells
        map_gradient, (outer, slopes) = lax.scan(add, zeros, taps_in)
        if project:
            # Then both gradients too are one product each, over all taps' samples side by side.
            samples = outer.swapaxes(0, 1).reshape(size, -1)
            map_gradient = matmul(samples, _side_by_side(weights).T)
            outer = matmul(pixels.T, samples)
            outer = outer.reshape(features_in, taps, features_out).swapaxes(0, 1)
        return (carry[0] + outer, carry[1] + slopes), map_gradient.astype(x.dtype)

    zeros = zeros_for(weights.shape, sums, x), zeros_for((taps, 2), sums, x)
    (weights_gradient, slopes), map_gradient = lax.scan(
        block, zeros, (_blocked(cells, size), tap_blocks.block_rows(x, size))
    )
    return (
        _unblocked(map_gradient, x.shape[:3]),
        weights_gradient.astype(weights.dtype),
        slopes.astype(positions.dtype),
    )


def _kernels(function: Callable, how: Reading, x, weights, positions) -> dict[str, Callable]:
    """The platforms that read by kernels, and what runs there: `function` with these kernels."""
    operands = positions.shape[:3], x.shape, weights.shape, x.dtype
    found = {
        platform: functools.partial(function, functools.partial(_pallas, platform == "cpu"))
        for platform in ("cpu", "gpu")
        if how.form(*operands, platform) == "pallas"
    }
    serves = tap_blocks.serves(x, weights, positions) and not _is_narrow(x, weights)
    if serves and how.form(*operands, "cpu") == "native":
        found["native"] = functools.partial(function, _native)
    return found


def _pallas(interpret: bool) -> tuple[Callable, Callable]:
    """Kernels of a GPU."""
    # Imported where it is asked for: Pallas takes long to load.
    from rfjax._engine.tap_kernels import pull_by_kernel, read_by_kernel

    read_by, pull_by = (
        functools.partial(kernel, interpret=interpret)
        for kernel in (read_by_kernel, pull_by_kernel)
    )
    return read_by, pull_by


def _native() -> tuple[Callable, Callable]:
    """Kernels of a CPU."""
    return tap_blocks.read_in_blocks, tap_blocks.pull_in_blocks


def _forward_by_kernel(kernels: Callable, strides: Pair, x, weights, positions) -> jax.Array:
    """`_forward` of kernels."""
    rows, cells = _unprojected(x, weights), _flat_cells(x, positions, strides)
    y = kernels()[0](rows, cells, weights)
    return y.reshape(*positions.shape[:3], -1)


def _backward_by_kernel(kernels: Callable, strides: Pair, x, weights, positions, cotangent):
    """`_free_backward` of kernels."""
    rows, cells = _unprojected(x, weights), _flat_cells(x, positions, strides)
    flat = cotangent.reshape(-1, cotangent.shape[-1])
    along_rows, along_weights, slopes = kernels()[1](rows, cells, weights, flat)
    along_map = unbordered(along_rows, x.shape).astype(x.dtype)
    slopes = slopes[..., : positions.shape[-1]].reshape(positions.shape)
    return along_map, along_weights.astype(weights.dtype), slopes.astype(positions.dtype)


def _flat_cells(x: jax.Array, positions: jax.Array, strides: Pair) -> Cells:
    """Cells [P, T] of all outputs."""
    cells = cells_at(x.shape, *places(positions), strides)
    return jax.tree.map(lambda part: part.reshape(-1, part.shape[-1]), cells)


def _plain(strides: Pair, x, weights, positions) -> jax.Array:
    """The same value in operations that JAX differentiates to any order, a tap at a time."""
    taps, _, features_out = _sizes(weights)
    rows = _unprojected(x, weights)
    cells = cells_at(x.shape, *places(positions), strides)

    @jax.checkpoint
    def add(y, tap):
        index, cells, matrix = tap
        sample = read(rows, cells, index)[0]
        return y + tap_product(sample.astype(x.dtype), matrix), None

    # All outputs at once, a row for each tap.
    cells = jax.tree.map(lambda part: part.reshape(-1, taps).T, cells)
    y = zeros_for((cells.row.shape[1], features_out), _checks.accumulation_dtype(x), x)
    y, _ = lax.scan(add, y, (jnp.arange(taps, dtype=jnp.int32), cells, weights))
    return y.astype(x.dtype).reshape(*positions.shape[:3], features_out)


def _sizes(weights: jax.Array) -> tuple[int, int, int]:
    """The numbers of taps, of channels that a tap reads, and of outputs."""
    groups = weights.shape[1] if weights.ndim == 4 else 1
    return weights.shape[0], groups * weights.shape[-2], groups * weights.shape[-1]


def _rows_to_read(x: jax.Array, weights: jax.Array) -> tuple[Rows, bool]:
    """The map, or where it is narrower its product with all taps' weights (and True)."""
    if not _is_narrow(x, weights):
        return _unprojected(x, weights), False
    products = bordered(matmul(x, _side_by_side(weights)))
    width = x.shape[2] + 2 * BORDER
    return Rows(products.reshape(-1, weights.shape[2]), width, weights.shape[0]), True


def _unprojected(x: jax.Array, weights: jax.Array) -> Rows:
    """The map, of which a tap reads all channels or a part."""
    taps, features, _ = _sizes(weights)
    # A pixel is a row, or as many rows as it has parts.
    parts = x.shape[-1] // features
    values = bordered(x)
    values = values.reshape(-1, features) if parts > 1 else values
    return Rows(values, x.shape[2] + 2 * BORDER, parts, taps // parts)


def _is_narrow(x: jax.Array, weights: jax.Array) -> bool:
    """Whether all taps' outputs together are no more numbers than the channels that they read."""
    taps, features_in, features_out = _sizes(weights)
    together = weights.ndim == 3 and x.shape[-1] == features_in
    return together and taps * features_out <= features_in


def _side_by_side(weights: jax.Array) -> jax.Array:
    """All taps' weights as one matrix [C_in, K * C_out]."""
    return weights.swapaxes(0, 1).reshape(weights.shape[1], -1)


def _stuffed(cotangent: jax.Array, shape: tuple[int, ...], strides: Pair) -> jax.Array:
    """The cotangent of strided outputs at their centres on the map, zeros between."""
    gaps = [(0, 0, 0)] * 4
    for axis, stride in zip((1, 2), strides, strict=True):
        covered = (cotangent.shape[axis] - 1) * stride + 1
        # stride - 1 zeros between outputs, and what the last stride left over at the end.
        gaps[axis] = (0, shape[axis] - covered, stride - 1)
    return lax.pad(cotangent, jnp.zeros((), cotangent.dtype), gaps)


def _block_size(plan: _Plan, positions: jax.Array, features: int) -> int:
    """Outputs in a block: about `block_elements` samples of a tap."""
    batch, height, width = positions.shape[:3]
    return tap_blocks.block_size(batch * height * width, features, plan.block_elements)


def _blocked(cells: Cells, size: int) -> Cells:
    """Cells [N, H', W', T] as [blocks, T, size]."""
    return jax.tree.map(lambda part: tap_blocks.block_rows(part, size).swapaxes(1, 2), cells)


def _unblocked(blocks: jax.Array, leading: tuple[int, ...]) -> jax.Array:
    count = leading[0] * leading[1] * leading[2]
    return blocks.reshape(-1, blocks.shape[-1])[:count].reshape(*leading, blocks.shape[-1])


def _row_products(values: jax.Array) -> jax.Array:
    ones = jnp.ones((values.shape[-1], 1), values.dtype)
    return jnp.matmul(values, ones, precision=lax.Precision.HIGHEST)[:, 0]


def _dot_products(slopes: list[jax.Array], values: jax.Array) -> jax.Array:
    flat = jnp.stack([slope.reshape(-1) for slope in slopes])
    return jnp.matmul(flat, values.reshape(-1), precision=lax.Precision.HIGHEST)


_CPU = _Plan(
    block_elements=tuning.READ_BLOCK_CPU,
    splat=splat_windows,
    row_sums=_row_products,
    dot=_dot_products,
)
_ACCELERATOR = _Plan(
    block_elements=tuning.READ_BLOCK,
    splat=splat_scatter,
    row_sums=lambda values: values.sum(-1),
    dot=lambda slopes, values: jnp.stack([jnp.sum(slope * values) for slope in slopes]),
)
