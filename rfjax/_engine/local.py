"""Filtering by taps of its own at every pixel: y(p) = sum_d g_p(d) x(p + d)."""

from functools import partial

import jax
import jax.numpy as jnp

from rfjax._engine.devices import alike, zeros_for
from rfjax._engine.plan import PAD_MODES


@partial(jax.jit, static_argnums=(2, 3))
def correlate_locally(x: jax.Array, kernels: jax.Array, size: int, padding: str) -> jax.Array:
    """x [N, H, W, C] under kernels [n, H, W, K, K]: a scan over taps, one shifted map at a time."""
    x, kernels = alike(x, kernels)
    height, width = x.shape[1:3]
    pad = ((0, 0), (size, size), (size, size), (0, 0))
    # Zeros also where the mass of the taps inside the map is counted.
    mode = PAD_MODES.get(padding, "constant")
    padded = jnp.pad(x, pad, mode=mode)
    side = 2 * size + 1
    inside = jnp.pad(jnp.ones((1, height, width, 1), x.dtype), pad)

    def add(carry, tap):
        total, mass = carry
        index, kernel = tap
        row, column = index // side, index % side
        # x(p + d) of all p, and whether p + d is inside the map.
        window = jax.lax.dynamic_slice(padded, (0, row, column, 0), x.shape)
        weight = kernel[..., None]
        seen = jax.lax.dynamic_slice(inside, (0, row, column, 0), (1, height, width, 1))
        return (total + weight * window, mass + weight * seen), None

    # [K^2, n, H, W]: a tap of all pixels is a row of the scan.
    taps = jnp.moveaxis(kernels.reshape(*kernels.shape[:3], -1), -1, 0)
    start = tuple(zeros_for(shape, x.dtype, x) for shape in (x.shape, (*kernels.shape[:3], 1)))
    (total, mass), _ = jax.lax.scan(add, start, (jnp.arange(side * side), taps))
    return total / mass if padding == "renormalized" else total
