"""Both axes of a map in one reading of it, by the kernels of `native` where they were built.

The kernels read a traced half size, so that one of them serves all up to a bound; beyond it, a
switch leaves the map to what serves it without kernels, whose gradient then filters once more.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

from rfjax._engine import native
from rfjax._engine.devices import alike
from rfjax._engine.plan import Filter
from rfjax._engine.profile import half_size, half_taps
from rfjax._engine.switch import size_switch


def filter_fused(how: Filter, otherwise: Callable, x: jax.Array, sigmas: jax.Array) -> jax.Array:
    """x [N, H, W, C] filtered by sigmas [N | 1, C | 1, 2], or what `otherwise` makes of them."""

    def by_kernel(x, sigmas):
        taps = _taps(how, x.shape, sigmas)
        return native.blur_filter(x, *taps, _sizes(how, sigmas), padding=how.padding)

    return size_switch([by_kernel, otherwise])(_index(how, x.shape, sigmas), x, sigmas)


def pull_fused(
    how: Filter, otherwise: Callable, x: jax.Array, sigmas: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and sigmas in y = `filter_fused`, with zeros outside of the map."""

    def by_kernel(x, sigmas, cotangent):
        ones = alike(jnp.ones_like(sigmas), sigmas)[0]
        taps, changes = jax.jvp(partial(_taps, how, x.shape), (sigmas,), (ones,))
        return native.blur_pull(x, cotangent, taps, changes, _sizes(how, sigmas))

    index = _index(how, x.shape, sigmas)
    return size_switch([by_kernel, otherwise])(index, x, sigmas, cotangent)


def _taps(how: Filter, shape: tuple[int, ...], sigmas: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Those along y and x at distances up to the bounds: [N | 1, C | 1, bound + 1]."""
    down, across = how.fused_sizes(shape)
    return (
        half_taps(sigmas[..., 0], down, how.window),
        half_taps(sigmas[..., 1], across, how.window),
    )


def _sizes(how: Filter, sigmas: jax.Array) -> jax.Array:
    """The largest half size along either axis, int32 [2]."""
    return jnp.max(half_size(sigmas, truncate=how.window.truncate), (0, 1))


def _index(how: Filter, shape: tuple[int, ...], sigmas: jax.Array) -> jax.Array:
    """0 where the kernels serve all sigmas, 1 where they do not."""
    bounds = jnp.asarray(how.fused_sizes(shape), jnp.int32)
    return jnp.any(_sizes(how, sigmas) > bounds).astype(jnp.int32)
