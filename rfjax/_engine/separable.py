"""Gaussian filtering of the axes of a map, one after the other, for traced sigmas of any size.

The last axis comes first. On a CPU a large map is worked off in blocks, and within a block a switch
picks the form of each pass by the traced half size:

    shift and add     a few static half sizes; the pass is a handful of multiply-adds on contiguous
                      rows, and wins while the filter is short
    Toeplitz product  beyond them

Elsewhere the map is filtered as a whole by Toeplitz products, which run on matrix units and leave
no choice to be made on the device. On a GPU long axes of large maps are an exception: there sums
serve short filters, and products of bands those in between.

On a CPU, where no gradient is wanted, the smallest filter of two axes is a single pass over the
map, since most of the time goes into memory; from a half size of 2 on, its sums cost more than a
second pass. Gradients need the map between the passes, and then one pass saves nothing.

Where kernels were built for it, a CPU filters both axes at once, see `rfjax._engine.fused`.

The gradient is written out: a symmetric filter is its own adjoint, and the gradient with respect to
sigma is a pass with the taps' derivative, which costs as much as the forward pass. Automatic
differentiation would reduce over the map once per tap.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from rfjax._engine import tuning
from rfjax._engine.blocks import filter_in_blocks, pull_in_blocks
from rfjax._engine.derivatives import operator
from rfjax._engine.devices import alike, by_device
from rfjax._engine.fused import filter_fused, pull_fused
from rfjax._engine.layout import in_order
from rfjax._engine.plan import Axis, Filter
from rfjax._engine.profile import half_size, half_taps
from rfjax._engine.shift_add import in_rows, line_taps, pull_shift_add, shift_add, stencil
from rfjax._engine.switch import size_switch
from rfjax._engine.toeplitz import filter_by_bands, filter_by_matrix


def filter_axes(x: jax.Array, sigmas: jax.Array, how: Filter) -> jax.Array:
    """The map [N, *spatial, C] filtered along its axes by sigmas [N | 1, C | 1, axes]."""
    steps = (partial(step, how) for step in (_forward, _backward, _plain, _keeping))
    return operator(*steps)(*alike(x, sigmas))


# The four functions of the operator, see `rfjax._engine.derivatives`


def _forward(how: Filter, x: jax.Array, sigmas: jax.Array) -> jax.Array:
    run = _on_devices(_filter, how)
    if how.limits.splits(x.shape):
        # A map of one block needs no loop.
        run["cpu"] = partial(filter_in_blocks, run["cpu"], how.limits)
    if how.is_fused(x.shape, x.dtype):
        run["native"] = partial(filter_fused, how, run["cpu"])
    return by_device(x, sigmas, **run, like=lambda x, _: x)


def _keeping(how: Filter, x: jax.Array, sigmas: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """The result and the maps that the gradient reads, or x in their place where it does not."""

    def like(x, sigmas):
        # As many maps as `_filter_and_keep` keeps, all of the size of x.
        passes = x.ndim - 2
        return x, [x] * (passes if how.padding == "renormalized" else passes - 1)

    def one_block(x, sigmas):
        return _filter_and_keep(how, "cpu", x, sigmas)[0]

    def in_blocks(x, sigmas):
        return filter_in_blocks(one_block, how.limits, x, sigmas), like(x, sigmas)[1]

    def at_once(x, sigmas):
        return _forward(how, x, sigmas), like(x, sigmas)[1]

    run = _on_devices(_filter_and_keep, how)
    if how.limits.splits(x.shape):
        run["cpu"] = in_blocks
    if how.is_pulled_fused(x.shape, x.dtype):
        run["native"] = at_once
    return by_device(x, sigmas, **run, like=like)


def _backward(how: Filter, operands, kept, cotangent) -> tuple[jax.Array, jax.Array]:
    def again(x, sigmas, cotangent):
        kept = _filter_and_keep(how, "cpu", x, sigmas)[1]
        return _pull(how, "cpu", x, sigmas, kept, cotangent)

    def in_blocks(x, sigmas, cotangent):
        return pull_in_blocks(again, how.limits, x, sigmas, cotangent)

    def fused(x, sigmas, kept, cotangent):
        return pull_fused(how, in_blocks if splits else again, x, sigmas, cotangent)

    run, x = _on_devices(_pull, how), operands[0]
    if splits := how.limits.splits(x.shape):
        run["cpu"] = lambda x, sigmas, kept, cotangent: in_blocks(x, sigmas, cotangent)
    if how.is_pulled_fused(x.shape, x.dtype):
        run["native"] = fused
    like = lambda x, sigmas, *_: (x, sigmas)
    return by_device(*operands, kept, cotangent, **run, like=like)


def _plain(how: Filter, x: jax.Array, sigmas: jax.Array) -> jax.Array:
    """By matrix products for any sigma, which JAX differentiates to any order."""
    return _filter_and_keep(how._replace(algorithm="toeplitz"), "default", x, sigmas)[0]


def _on_devices(function: Callable, how: Filter) -> dict[str, Callable]:
    """`function` on a CPU, on a GPU, and elsewhere."""
    return {platform: partial(function, how, platform) for platform in ("cpu", "gpu", "default")}


# All axes of a map [N, *spatial, C] by sigmas [N | 1, C | 1, axes]


def _filter(how: Filter, platform: str, x: jax.Array, sigmas: jax.Array) -> jax.Array:
    """The filtered map, where no gradient is wanted."""
    axes = how.axes(x.shape, platform)
    size = tuning.FUSED
    # The taps of one pass over both axes hold no boundary but zeros.
    fits = len(axes) == 2 and all(axis.on_cpu and size in axis.half_sizes for axis in axes)
    if not fits or how.padding != "zero":
        return _one_by_one(axes, x, sigmas)
    # Two branches: the smallest filter in one pass, any other in one after the other.
    largest = jnp.max(half_size(sigmas, truncate=how.window.truncate))
    # The taps are formed outside of the switch, as those of the passes are.
    taps = [half_taps(sigmas[..., k], size, how.window) for k in (0, 1)]
    branches = [_at_once, partial(_one_by_one, axes)]
    return size_switch(branches)((largest > size).astype(jnp.int32), x, sigmas, taps)


def _at_once(x: jax.Array, sigmas: jax.Array, taps: list[jax.Array]) -> jax.Array:
    """One pass along both axes: g(d_y, d_x) = g(d_y) g(d_x), by half taps [n, c, R + 1] of each."""
    down, right = (jnp.concatenate([half[..., :0:-1], half], -1) for half in taps)
    return stencil(x, down[..., :, None] * right[..., None, :])


def _one_by_one(axes: tuple[Axis, ...], x: jax.Array, sigmas: jax.Array, taps=None) -> jax.Array:
    """A pass along each axis, the last one first."""
    for k in reversed(range(len(axes))):
        x = filter_axis(x, sigmas[..., k], axes[k])
    return x


def _filter_and_keep(
    how: Filter, platform: str, x: jax.Array, sigmas: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
    """The filtered map and what its gradient needs: the maps after each pass.

    That of the last pass is read again with renormalized boundaries alone.
    """
    axes, stages = how.axes(x.shape, platform), [x]
    for k in reversed(range(len(axes))):
        stages.append(filter_axis(stages[-1], sigmas[..., k], axes[k]))
    return stages[-1], stages[1:] if how.padding == "renormalized" else stages[1:-1]


def _pull(
    how: Filter,
    platform: str,
    x: jax.Array,
    sigmas: jax.Array,
    kept: list[jax.Array],
    cotangent: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and sigmas, given what `_filter_and_keep` kept."""
    axes, stages, changes = how.axes(x.shape, platform), [x, *kept, None], []
    # The first axis was the last to be filtered.
    # stages[at] is the map before the pass along axis k, stages[at + 1] the one after it.
    for k, axis in enumerate(axes):
        at = len(axes) - 1 - k
        before, after = stages[at].reshape(axis.shape), None
        if how.padding == "renormalized":
            after = stages[at + 1].reshape(axis.shape)
        cotangent = cotangent.reshape(axis.shape)
        cotangent, change = pull_axis(before, after, sigmas[..., k], axis, cotangent)
        changes.append(change)
    return cotangent.reshape(x.shape), jnp.stack(changes, -1)


# One axis


def filter_axis(x: jax.Array, sigma: jax.Array, axis: Axis) -> jax.Array:
    """The map x, seen as [M, L, K], filtered along L by Gaussians of sigma [N | 1, C | 1]."""
    branches = [partial(_FORMS[form.name][0], axis, form.size) for form in axis.forms]
    branches.append(partial(_by_matrix, axis))
    taps = in_rows(line_taps(sigma, axis), axis)
    filtered = size_switch(branches)
    return filtered(_branch_index(sigma, axis), x.reshape(axis.shape), sigma, taps).reshape(x.shape)


def pull_axis(
    x: jax.Array, y: jax.Array | None, sigma: jax.Array, axis: Axis, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x [M, L, K] and sigma in y = `filter_axis`, by the same switch.

    y is read with renormalized boundaries alone.
    """
    (unit,) = alike(jnp.ones_like(sigma), sigma)[:1]
    # dg / dsigma by forward mode, once for all static sizes.
    taps, derivative = jax.jvp(partial(line_taps, axis=axis), (sigma,), (unit,))
    branches = [partial(_FORMS[form.name][1], axis, form.size) for form in axis.forms]
    branches.append(partial(_pull_by_matrix, axis))
    operands = x, y, cotangent, sigma, in_rows(taps, axis), in_rows(derivative, axis)
    return size_switch(branches)(_branch_index(sigma, axis), *operands)


def _branch_index(sigma: jax.Array, axis: Axis) -> jax.Array:
    """The first branch whose half size holds every sigma's support."""
    largest = jnp.max(half_size(sigma, truncate=axis.window.truncate))
    return sum(((largest > form.size).astype(jnp.int32) for form in axis.forms), jnp.int32(0))


def _by_matrix(axis: Axis, x, sigma, taps) -> jax.Array:
    return in_order(filter_by_matrix(x, sigma, axis.padding, axis.window))


def _pull_by_matrix(axis: Axis, x, y, cotangent, sigma, taps, derivative):
    by_matrix = partial(filter_by_matrix, padding=axis.padding, window=axis.window)
    # K^T c, and the trace of (dK / dsigma)^T c x^T, which JAX forms as a product.
    grad_x, grad_sigma = jax.vjp(by_matrix, x, sigma)[1](cotangent)
    return in_order(grad_x), grad_sigma


def _by_bands(axis: Axis, size: int, x, sigma, taps) -> jax.Array:
    return in_order(filter_by_bands(x, sigma, axis.padding, axis.window, size=size))


def _pull_by_bands(axis: Axis, size: int, x, y, cotangent, sigma, taps, derivative):
    by_bands = partial(filter_by_bands, padding=axis.padding, window=axis.window, size=size)
    grad_x, grad_sigma = jax.vjp(by_bands, x, sigma)[1](cotangent)
    return in_order(grad_x), grad_sigma


def _by_kernel(axis: Axis, size: int, x, sigma, taps) -> jax.Array:
    # Imported where it is asked for: Pallas takes long to load.
    from rfjax._engine.kernels import filter_by_kernel

    return filter_by_kernel(axis, size, x, sigma)


def _pull_by_kernel(axis: Axis, size: int, x, y, cotangent, sigma, taps, derivative):
    from rfjax._engine.kernels import pull_by_kernel

    return pull_by_kernel(axis, size, x, y, cotangent, sigma)


# By the name of a form: what filters, and what pulls cotangents back.
_FORMS = {
    "shift_add": (shift_add, pull_shift_add),
    "banded": (_by_bands, _pull_by_bands),
    "pallas": (_by_kernel, _pull_by_kernel),
}
