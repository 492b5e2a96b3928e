"""Gaussian filtering of the axes of a map, one after the other, for traced sigmas of any size.

The last axis comes first. On a CPU a large map is worked off in blocks, and within a block a switch
picks the form of each pass by the traced half size:

    shift and add     a few static half sizes; the pass is a handful of multiply-adds on contiguous
                      rows, and wins while the filter is short
    Toeplitz product  beyond them

Elsewhere the map is filtered as a whole by Toeplitz products, which run on matrix units and leave
no choice to be made on the device.

Where no gradient is wanted, the smallest filter of two axes is a single pass over the map, since
most of the time goes into memory; from a half size of 2 on, its sums cost more than a second pass.
Gradients need the map between the passes, and then one pass saves nothing.

The gradient is written out: a symmetric filter is its own adjoint, and the gradient with respect to
sigma is a pass with the taps' derivative, which costs as much as the forward pass. Automatic
differentiation would reduce over the map once per tap.
"""

from functools import partial

import jax
import jax.numpy as jnp

from rfjax._engine.blocks import filter_in_blocks, pull_in_blocks
from rfjax._engine.derivatives import operator
from rfjax._engine.devices import alike, by_device
from rfjax._engine.layout import in_order
from rfjax._engine.plan import Axis, Filter
from rfjax._engine.profile import half_size, half_taps
from rfjax._engine.shift_add import half_taps_of, in_rows, pull_shift_add, shift_add
from rfjax._engine.stencil import stencil
from rfjax._engine.switch import size_switch
from rfjax._engine.toeplitz import filter_by_matrix

# The half size up to which the filter of two axes is one pass.
_FUSED = 1


def filter_axes(x: jax.Array, sigmas: jax.Array, how: Filter) -> jax.Array:
    """The map [N, *spatial, C] filtered along its axes by sigmas [N | 1, C | 1, axes]."""
    steps = (partial(step, how) for step in (_forward, _backward, _plain, _keeping))
    return operator(*steps)(*alike(x, sigmas))


def _forward(how: Filter, x: jax.Array, sigmas: jax.Array) -> jax.Array:
    def run(platform, x, sigmas):
        return filter_all(x, sigmas, how.axes(x.shape, platform))

    cpu = partial(run, "cpu")
    if how.limits.splits(x.shape):
        cpu = partial(filter_in_blocks, cpu, how.limits)
    return by_device(x, sigmas, cpu=cpu, default=partial(run, "default"), like=lambda x, _: x)


def _keeping(how: Filter, x: jax.Array, sigmas: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """The result and the maps that the gradient reads, or x in their place where it does not."""

    def run(platform, x, sigmas):
        return filter_and_keep(x, sigmas, how.axes(x.shape, platform))

    def like(x, sigmas):
        axes = how.axes(x.shape, "default")
        return x, [x] * (len(axes) - (not is_renormalized(axes)))

    def in_blocks(x, sigmas):
        one_block = partial(run, "cpu")
        y = filter_in_blocks(lambda x, sigmas: one_block(x, sigmas)[0], how.limits, x, sigmas)
        return y, like(x, sigmas)[1]

    cpu = in_blocks if how.limits.splits(x.shape) else partial(run, "cpu")
    return by_device(x, sigmas, cpu=cpu, default=partial(run, "default"), like=like)


def _backward(how: Filter, operands, kept, cotangent) -> tuple[jax.Array, jax.Array]:
    def run(platform, x, sigmas, kept, cotangent):
        return pull_kept(x, sigmas, how.axes(x.shape, platform), kept, cotangent)

    def again(x, sigmas, cotangent):
        return pull_again(x, sigmas, how.axes(x.shape, "cpu"), cotangent)

    def in_blocks(x, sigmas, kept, cotangent):
        return pull_in_blocks(again, how.limits, x, sigmas, cotangent)

    cpu = in_blocks if how.limits.splits(operands[0].shape) else partial(run, "cpu")
    operands = *operands, kept, cotangent
    like = lambda x, sigmas, *_: (x, sigmas)
    return by_device(*operands, cpu=cpu, default=partial(run, "default"), like=like)


def _plain(how: Filter, x: jax.Array, sigmas: jax.Array) -> jax.Array:
    """By matrix products for any sigma, which JAX differentiates to any order."""
    axes = how._replace(algorithm="toeplitz").axes(x.shape, "default")
    return filter_and_keep(x, sigmas, axes)[0]


# All axes


def filter_all(x: jax.Array, sigmas: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """The map [N, *spatial, C] filtered along its axes by sigmas [N | 1, C | 1, axes]."""

    def one_by_one(x, sigmas, taps):
        return _passes(x, sigmas, axes)[-1]

    fits = len(axes) == 2 and all(_FUSED in axis.half_sizes for axis in axes)
    if not fits or axes[0].padding != "zero":
        return one_by_one(x, sigmas, None)
    largest = jnp.max(half_size(sigmas, truncate=axes[0].window.truncate))
    # The taps are formed outside of the switch, as those of the passes are.
    taps = [half_taps(sigmas[..., k], _FUSED, axis.window) for k, axis in enumerate(axes)]
    index = (largest > _FUSED).astype(jnp.int32)
    return size_switch(index, [_at_once, one_by_one], x, sigmas, taps)


def filter_and_keep(
    x: jax.Array, sigmas: jax.Array, axes: tuple[Axis, ...]
) -> tuple[jax.Array, list[jax.Array]]:
    """`filter_all` and what its gradient needs: matrix products take too long to be repeated.

    That is the maps after each pass, but for the last one, if it is not read again.
    """
    stages = _passes(x, sigmas, axes)
    return stages[-1], stages[1:] if is_renormalized(axes) else stages[1:-1]


def is_renormalized(axes: tuple[Axis, ...]) -> bool:
    """Whether the gradient reads the results too."""
    return axes[0].padding == "renormalized"


def pull_kept(
    x: jax.Array,
    sigmas: jax.Array,
    axes: tuple[Axis, ...],
    kept: list[jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and sigmas in `filter_all`, of which maps were kept."""
    stages, changes = [x, *kept, None], []
    for k, axis in enumerate(axes):
        at = len(axes) - 1 - k
        before, after = stages[at].reshape(axis.shape), None
        if is_renormalized(axes):
            after = stages[at + 1].reshape(axis.shape)
        cotangent = cotangent.reshape(axis.shape)
        cotangent, change = pull_axis(before, after, sigmas[..., k], axis, cotangent)
        changes.append(change)
    return cotangent.reshape(x.shape), jnp.stack(changes, -1)


def pull_again(
    x: jax.Array, sigmas: jax.Array, axes: tuple[Axis, ...], cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and sigmas in `filter_all`, of which nothing was kept."""
    return pull_kept(x, sigmas, axes, filter_and_keep(x, sigmas, axes)[1], cotangent)


def _passes(x: jax.Array, sigmas: jax.Array, axes: tuple[Axis, ...]) -> list[jax.Array]:
    """x, and the map after the pass along each axis."""
    stages = [x]
    for k in reversed(range(len(axes))):
        y = filter_axis(stages[-1].reshape(axes[k].shape), sigmas[..., k], axes[k])
        stages.append(y.reshape(x.shape))
    return stages


def _at_once(x: jax.Array, sigmas: jax.Array, taps: list[jax.Array]) -> jax.Array:
    """One pass along both axes by half taps [n, c, R + 1] for each."""
    down, right = (jnp.concatenate([half[..., :0:-1], half], -1) for half in taps)
    return stencil(x, down[..., :, None] * right[..., None, :])


# One axis


def filter_axis(x: jax.Array, sigma: jax.Array, axis: Axis) -> jax.Array:
    """The map [M, L, K] filtered along L by Gaussians of sigma [N | 1, C | 1]."""
    branches = [partial(shift_add, axis, size) for size in axis.half_sizes]
    branches.append(partial(_matrix_branch, axis))
    taps = in_rows(half_taps_of(sigma, axis), axis)
    return size_switch(_branch_index(sigma, axis), branches, x, sigma, taps)


def pull_axis(
    x: jax.Array, y: jax.Array | None, sigma: jax.Array, axis: Axis, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and sigma in y = `filter_axis`, by a switch between the same branches.

    y is read with renormalized boundaries alone.
    """
    (unit,) = alike(jnp.ones_like(sigma), sigma)[:1]
    taps, derivative = jax.jvp(partial(half_taps_of, axis=axis), (sigma,), (unit,))
    branches = [partial(pull_shift_add, axis, size) for size in axis.half_sizes]
    branches.append(partial(_matrix_backward, axis))
    operands = x, y, cotangent, sigma, in_rows(taps, axis), in_rows(derivative, axis)
    return size_switch(_branch_index(sigma, axis), branches, *operands)


def _branch_index(sigma: jax.Array, axis: Axis) -> jax.Array:
    """The first branch whose half size holds every sigma's support."""
    largest = jnp.max(half_size(sigma, truncate=axis.window.truncate))
    return sum(((largest > size).astype(jnp.int32) for size in axis.half_sizes), jnp.int32(0))


def _matrix_branch(axis: Axis, x, sigma, taps) -> jax.Array:
    return in_order(filter_by_matrix(x, sigma, axis.padding, axis.window))


def _matrix_backward(axis: Axis, x, y, cotangent, sigma, taps, derivative):
    by_matrix = partial(filter_by_matrix, padding=axis.padding, window=axis.window)
    grad_x, grad_sigma = jax.vjp(by_matrix, x, sigma)[1](cotangent)
    return in_order(grad_x), grad_sigma
