"""Filtering of two axes of a map at once, as a sum of shifted maps."""

import jax
import jax.numpy as jnp


def stencil(x: jax.Array, taps: jax.Array, *, extended: bool = False) -> jax.Array:
    """x [N, H, W, C] filtered by point-symmetric taps [n, c, 2 R_y + 1, 2 R_x + 1].

    Outside of x lie zeros; or it is `extended` by the half sizes, which the result does not keep.
    """
    half = [size // 2 for size in taps.shape[-2:]]
    if not extended:
        x = jnp.pad(x, ((0, 0), *((size, size) for size in half), (0, 0)))
    n, _, _, channels = x.shape
    height, width = (s - 2 * h for s, h in zip(x.shape[1:3], half, strict=True))
    rows = x.reshape(n, height + 2 * half[0], -1)  # runs of contiguous numbers

    def shifted(down, right):
        start = (0, half[0] + down, (half[1] + right) * channels)
        return jax.lax.slice(rows, start, (n, start[1] + height, start[2] + width * channels))

    def weight(down, right):
        values = taps[..., half[0] + down, half[1] + right]
        return jnp.tile(values, (1, width if values.shape[1] > 1 else 1))[:, None]

    total = weight(0, 0) * shifted(0, 0)
    for down in range(half[0] + 1):
        for right in range(-half[1] if down else 1, half[1] + 1):
            total += weight(down, right) * (shifted(down, right) + shifted(-down, -right))
    return total.reshape(n, height, width, channels)
