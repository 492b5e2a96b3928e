"""Gaussian filtering of all axes of a map, for traced sigmas of any size.

One pass along each axis, the last one first: a pass that ends in the next one's padding is
contiguous in it. The smallest filter of two axes is a single pass over the map, since most of the
time goes into memory; from a half size of 2 on, the sums cost more than a second pass. A switch
between the two ways follows the traced sigmas, and so does the form of each pass
(`rfjax._separable`).
"""

from functools import partial

import jax
import jax.numpy as jnp

from rfjax._separable import Axis, filter_axis, pull_axis
from rfjax._stencil import product, stencil
from rfjax._switch import size_switch
from rfjax.gaussian import half_size, half_taps

# The half size up to which the filter of two axes is one pass.
_FUSED = 1


@partial(jax.custom_vjp, nondiff_argnums=(2,))
def filter_all(x: jax.Array, sigmas: jax.Array, axes: tuple[Axis, ...]) -> jax.Array:
    """The map [N, *spatial, C] filtered along its axes by sigmas [N | 1, C | 1, axes]."""

    def passes(x, sigmas, taps):
        return _one_by_one(axes, x, sigmas)[-1]

    return _switch(axes, sigmas, _at_once, passes, x, sigmas, _taps(sigmas, axes))


def _forward(x, sigmas, axes):
    """The maps between the passes are kept: matrix products take too long to be repeated."""
    renormalized = axes[0].padding == "renormalized"

    def at_once(x, sigmas, taps):
        return _at_once(x, sigmas, taps), [jnp.zeros_like(x)]  # which nobody reads

    def passes(x, sigmas, taps):
        _, *between, y = _one_by_one(axes, x, sigmas)
        return y, between

    y, between = _switch(axes, sigmas, at_once, passes, x, sigmas, _taps(sigmas, axes))
    return y, (x, sigmas, between, y if renormalized else None)


def _backward(axes, residuals, cotangent):
    def passes(x, sigmas, cotangent, taps, slopes, between, y):
        return _pull_one_by_one(axes, [x, *between, y], sigmas, cotangent)

    x, sigmas, *kept = residuals
    return _pull(axes, passes, x, sigmas, cotangent, *kept)


filter_all.defvjp(_forward, _backward)


def pull_again(x, sigmas, axes, cotangent):
    """The cotangents of x and sigmas in `filter_all`, of which nothing was kept."""

    def passes(x, sigmas, cotangent, *_):
        return _pull_one_by_one(axes, _one_by_one(axes, x, sigmas), sigmas, cotangent)

    return _pull(axes, passes, x, sigmas, cotangent)


def _pull(axes, passes, x, sigmas, cotangent, *kept):
    taps, slopes = jax.jvp(partial(_taps, axes=axes), (sigmas,), (jnp.ones_like(sigmas),))
    operands = x, sigmas, cotangent, taps, slopes, *kept
    return _switch(axes, sigmas, _pull_at_once, passes, *operands)


def _switch(axes, sigmas, at_once, passes, *operands):
    """What `at_once` makes of the operands if it may, or else what `passes` makes of them."""
    fits = len(axes) == 2 and all(_FUSED in axis.half_sizes for axis in axes)
    if not fits or axes[0].padding != "zero":
        return passes(*operands)
    largest = jnp.max(half_size(sigmas, truncate=axes[0].window.truncate))
    return size_switch((largest > _FUSED).astype(jnp.int32), [at_once, passes], *operands)


# One pass along each axis


def _one_by_one(axes, x, sigmas) -> list[jax.Array]:
    """x, and the map after each pass."""
    stages = [x]
    for k in reversed(range(len(axes))):
        y = filter_axis(stages[-1].reshape(axes[k].shape), sigmas[..., k], axes[k])
        stages.append(y.reshape(x.shape))
    return stages


def _pull_one_by_one(axes, stages, sigmas, cotangent):
    changes = []
    for k, axis in enumerate(axes):
        before, after = stages[-2 - k].reshape(axis.shape), None
        if axis.padding == "renormalized":
            after = stages[-1 - k].reshape(axis.shape)
        residuals = before, after, sigmas[..., k]
        cotangent, change = pull_axis(axis, residuals, cotangent.reshape(axis.shape))
        changes.append(change)
    return cotangent.reshape(stages[0].shape), jnp.stack(changes, -1)


# One pass along both


def _taps(sigmas: jax.Array, axes: tuple[Axis, ...]) -> list[jax.Array]:
    """The taps [n, c, 2] along each axis, formed outside of the switch as those of the passes."""
    return [half_taps(sigmas[..., k], _FUSED, axis.window) for k, axis in enumerate(axes)]


def _at_once(x, sigmas, taps) -> jax.Array:
    return stencil(x, _outer(*taps))


def _pull_at_once(x, sigmas, cotangent, taps, slopes, *_):
    """With zeros outside the filter and its derivatives are their own adjoints."""
    grad_x = stencil(cotangent, _outer(*taps))
    derivatives = _outer(slopes[0], taps[1]), _outer(taps[0], slopes[1])
    changes = [product(cotangent, taps, x, sigmas[..., 0]) for taps in derivatives]
    return grad_x, jnp.stack(changes, -1)


def _outer(y: jax.Array, x: jax.Array) -> jax.Array:
    """Half taps [n, c, R + 1] along two axes as taps [n, c, 2 R + 1, 2 R + 1]."""
    y, x = (jnp.concatenate([taps[..., :0:-1], taps], -1) for taps in (y, x))
    return y[..., :, None] * x[..., None, :]
