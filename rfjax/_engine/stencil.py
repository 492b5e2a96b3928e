"""Filtering of two axes of a map at once, as a sum of shifted maps."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfjax._engine.layout import sum_of_products


def stencil(x: jax.Array, taps: jax.Array, *, extended: bool = False) -> jax.Array:
    """x [N, H, W, C] filtered by point-symmetric taps [n, c, 2 R_y + 1, 2 R_x + 1].

    Outside of x lie zeros; or it is `extended` by the half sizes, which the result does not keep.
    """
    shifts = _shifts(x, taps, extended)
    n, height, _ = shifts.shape
    return shifts.filtered(taps).reshape(n, height, -1, x.shape[-1])


def product(
    x: jax.Array,
    taps: jax.Array,
    other: jax.Array,
    *,
    share: jax.Array,
    on_cpu: bool,
    extended: bool = False,
) -> jax.Array:
    """The sum of `stencil(x, taps) * other` over all axes that `share` [N | 1, C | 1] shares."""
    shifts = _shifts(x, taps, extended)
    filtered = partial(shifts.filtered, taps)
    other = other.reshape(shifts.shape)
    reads = taps.shape[-1] * taps.shape[-2] + 1
    return sum_of_products(filtered, other, share, along=1, reads=reads, on_cpu=on_cpu)


class _Shifts(NamedTuple):
    """A padded map as rows [N, H, W * C] of contiguous numbers, to be read at offsets."""

    padded: jax.Array
    shape: tuple[int, int, int]  # without the padding
    half: tuple[int, int]  # pixels of padding along y and x
    channels: int

    def filtered(self, taps: jax.Array, first: int = 0, every: int = 1) -> jax.Array:
        """The rows filtered by the taps, or every so many of them."""
        up, left = self.half

        def weight(down, right):
            values, width = taps[..., up + down, left + right], self.shape[2] // self.channels
            return jnp.tile(values, (1, width if values.shape[1] > 1 else 1))[:, None]

        total = weight(0, 0) * self._read(0, 0, first, every)
        for down in range(up + 1):
            for right in range(-left if down else 1, left + 1):
                pair = self._read(down, right, first, every)
                pair += self._read(-down, -right, first, every)
                total += weight(down, right) * pair
        return total

    def _read(self, down: int, right: int, first: int, every: int) -> jax.Array:
        """Every so many of the rows, from so many pixels further."""
        n, height, width = self.shape
        top, left = self.half[0] + down, (self.half[1] + right) * self.channels
        start, end = (0, top + first, left), (n, top + height, left + width)
        return jax.lax.slice(self.padded, start, end, (1, every, 1))


def _shifts(x: jax.Array, taps: jax.Array, extended: bool) -> _Shifts:
    half = tuple(size // 2 for size in taps.shape[-2:])
    if not extended:
        x = jnp.pad(x, ((0, 0), *((size, size) for size in half), (0, 0)))
    n, height, width, channels = x.shape
    shape = n, height - 2 * half[0], (width - 2 * half[1]) * channels
    return _Shifts(x.reshape(n, height, -1), shape, half, channels)
