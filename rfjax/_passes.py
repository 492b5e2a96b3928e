"""Gaussian filtering of all axes of a map, for traced sigmas of any size.

One pass along each axis, the last one first; the form of each follows the traced sigma
(`rfjax._separable`). Where no gradient is wanted, the smallest filter of two axes is a single pass
over the map, since most of the time goes into memory; from a half size of 2 on, its sums cost more
than a second pass. Gradients need the map between the passes, and then one pass saves nothing.
"""

from functools import partial

import jax
import jax.numpy as jnp

from rfjax._separable import Axis, filter_axis, pull_axis
from rfjax._stencil import stencil
from rfjax._switch import size_switch
from rfjax.gaussian import half_size, half_taps

# The half size up to which the filter of two axes is one pass.
_FUSED = 1


@partial(jax.custom_vjp, nondiff_argnums=(2,))
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


def _forward(x, sigmas, axes):
    """The maps between the passes are kept: matrix products take too long to be repeated."""
    *kept, y = _passes(x, sigmas, axes)
    return y, ([*kept, y if axes[0].padding == "renormalized" else None], sigmas)


def _backward(axes, residuals, cotangent):
    stages, sigmas = residuals
    changes = []
    for k, axis in enumerate(axes):
        before, after = stages[-2 - k].reshape(axis.shape), None
        if axis.padding == "renormalized":
            after = stages[-1 - k].reshape(axis.shape)
        residuals = before, after, sigmas[..., k]
        cotangent, change = pull_axis(axis, residuals, cotangent.reshape(axis.shape))
        changes.append(change)
    return cotangent.reshape(stages[0].shape), jnp.stack(changes, -1)


filter_all.defvjp(_forward, _backward)


def pull_again(x, sigmas, axes, cotangent):
    """The cotangents of x and sigmas in `filter_all`, of which nothing was kept."""
    return _backward(axes, (_passes(x, sigmas, axes), sigmas), cotangent)


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
