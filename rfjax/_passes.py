"""Gaussian filtering of all axes of a map, for traced sigmas of any size.

One pass along each axis, the last one first; the form of each follows the traced sigma
(`rfjax._separable`). Where no gradient is wanted, the smallest filter of two axes is a single pass
over the map, since most of the time goes into memory; from a half size of 2 on, its sums cost more
than a second pass. Gradients need the map between the passes, and then one pass saves nothing.
"""

import jax
import jax.numpy as jnp

from rfjax._separable import Axis, filter_axis, pull_axis
from rfjax._stencil import stencil
from rfjax._switch import size_switch
from rfjax.gaussian import half_size, half_taps

# The half size up to which the filter of two axes is one pass.
_FUSED = 1


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
