"""Full covariances tap by tap, by the kernels of `native` where they were built.

A kernel reads a tile of the map from the caches for all taps, whose half sizes are traced. That is
faster than Fourier transforms up to a number of taps; beyond it, a switch leaves the map to them.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from rfjax._engine import native, tuning
from rfjax._engine.grid import needed_half_sizes, plane_taps
from rfjax._engine.plan import Plane
from rfjax._engine.switch import size_switch


def filter_direct(plane: Plane, otherwise: Callable, x: jax.Array, params: jax.Array) -> jax.Array:
    """The filtered map, or what `otherwise` makes of it."""

    def by_kernel(x, params):
        taps = plane_taps(plane, plane.direct_sizes(), params)
        return native.plane_filter(x, taps[:, 0], _sizes(plane, params))

    return size_switch([by_kernel, otherwise])(_index(plane, params), x, params)


def pull_direct(
    plane: Plane, otherwise: Callable, x: jax.Array, params: jax.Array, kept, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and params in y = `filter_direct`."""

    def by_kernel(x, params, kept, cotangent):
        taps, pull = jax.vjp(partial(plane_taps, plane, plane.direct_sizes()), params)
        sizes = _sizes(plane, params)
        grad_x, grad_taps = native.plane_pull(x, cotangent, taps[:, 0], sizes)
        return grad_x, pull(grad_taps[:, None])[0]

    operands = x, params, kept, cotangent
    return size_switch([by_kernel, otherwise])(_index(plane, params), *operands)


def _needed(plane: Plane, params: jax.Array) -> jax.Array:
    """The largest half sizes of all covariances, int32 [2], within the map."""
    sizes = jnp.stack([jnp.max(size) for size in needed_half_sizes(params, plane.window)])
    return jnp.minimum(sizes, jnp.array([plane.height, plane.width])).astype(jnp.int32)


def _sizes(plane: Plane, params: jax.Array) -> jax.Array:
    return jnp.minimum(_needed(plane, params), jnp.array(plane.direct_sizes()))


def _index(plane: Plane, params: jax.Array) -> jax.Array:
    """0 where the kernels serve all covariances, 1 where they do not."""
    needed = _needed(plane, params)
    beyond = jnp.any(needed > jnp.array(plane.direct_sizes()))
    return (beyond | (jnp.prod(2 * needed + 1) > tuning.DIRECT_TAPS)).astype(jnp.int32)
