"""Gaussian filtering of the axes of a map by a sigma for each, in the way that suits a platform.

On a CPU a large map is worked off in blocks of examples and channels: what a pass writes is still
in the cache when the next one reads it, and no intermediate result is as large as the map. The
gradient is worked off in the same blocks. Within a block the form follows the traced sigma
(`rfjax._passes`).

Elsewhere the map is filtered as a whole by matrix products, which run on matrix units and leave no
choice to be made on the device.
"""

import math
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfjax._passes import filter_all, pull_again
from rfjax._separable import Axis
from rfjax.gaussian import Window

ALGORITHMS = ("auto", "shift_add", "toeplitz")

# Maps of up to `_WHOLE` numbers a CPU filters at once, others in blocks of examples of at most that
# size. Only a larger example is split by channels, into blocks of about `_BLOCK`: rows get shorter.
_WHOLE, _BLOCK = 2**21, 5 * 2**17


class Filter(NamedTuple):
    """How a map is filtered; static."""

    padding: str
    window: Window
    algorithm: str = "auto"

    def half_sizes(self, length: int, platform: str) -> tuple[int, ...]:
        """The static half sizes that are filtered by shift-and-add on an axis of `length`.

        Beyond the largest of them the Toeplitz product serves. On a CPU it costs about as much as
        `length` / 4 taps, and on long axes about as much as 64.
        """
        if self.algorithm == "toeplitz" or (self.algorithm == "auto" and platform != "cpu"):
            return ()
        largest = length // 2
        if self.algorithm == "auto":
            largest = min(length // 4, 16) if length < 256 else 32
        return tuple(size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= largest)

    def axes(self, shape: tuple[int, ...], platform: str) -> tuple[Axis, ...]:
        """The spatial axes of a map [N, *spatial, C]."""
        n, *spatial, channels = shape
        sides = [
            (n * math.prod(spatial[:k]), length, math.prod(spatial[k + 1 :]) * channels)
            for k, length in enumerate(spatial)
        ]
        return tuple(
            Axis(side, self.padding, self.window, self.half_sizes(side[1], platform))
            for side in sides
        )


def filter_axes(x: jax.Array, sigmas: jax.Array, how: Filter) -> jax.Array:
    """The map [N, *spatial, C] filtered along its axes by sigmas [N | 1, C | 1, axes]."""
    return jax.lax.platform_dependent(
        x,
        sigmas,
        cpu=partial(_in_blocks, how),
        default=lambda x, sigmas: filter_all(x, sigmas, how.axes(x.shape, "default")),
    )


def block_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """The examples and channels of a block in which a CPU filters a map [N, *spatial, C]."""
    n, *spatial, channels = shape
    pixels = math.prod(spatial)
    if pixels * channels <= _WHOLE:
        return _largest_divisor(n, _WHOLE // (pixels * channels)), channels
    return 1, _largest_divisor(channels, _BLOCK // pixels)


def _largest_divisor(number: int, limit: int) -> int:
    """The largest divisor that is no larger than `limit`, at least 1."""
    return max(
        size for size in range(1, number + 1) if number % size == 0 and size <= max(1, limit)
    )


def _in_blocks(how: Filter, x: jax.Array, sigmas: jax.Array) -> jax.Array:
    block = block_shape(x.shape)
    if block == (x.shape[0], x.shape[-1]):
        return filter_all(x, sigmas, how.axes(x.shape, "cpu"))
    return _blocked(x, sigmas, how, block)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _blocked(x: jax.Array, sigmas: jax.Array, how: Filter, block: tuple[int, int]) -> jax.Array:
    def filter_block(y, start):
        part, of_block = _take(x, start, block), _take_sigmas(sigmas, start, block)
        return _put(y, filter_all(part, of_block, how.axes(part.shape, "cpu")), start), None

    return jax.lax.scan(filter_block, jnp.zeros_like(x), _starts(x, block))[0]


def _blocked_forward(x, sigmas, how, block):
    return _blocked(x, sigmas, how, block), (x, sigmas)


def _blocked_backward(how, block, residuals, cotangent):
    x, sigmas = residuals

    def pull_block(totals, start):
        grad_x, grad_sigmas = totals
        part, of_block = _take(x, start, block), _take_sigmas(sigmas, start, block)
        axes = how.axes(part.shape, "cpu")
        part, change = pull_again(part, of_block, axes, _take(cotangent, start, block))
        change += _take_sigmas(grad_sigmas, start, block)
        corner = _corner_of_sigmas(sigmas, start)
        grad_sigmas = jax.lax.dynamic_update_slice(grad_sigmas, change, corner)
        return (_put(grad_x, part, start), grad_sigmas), None

    zeros = jnp.zeros_like(x), jnp.zeros_like(sigmas)
    return jax.lax.scan(pull_block, zeros, _starts(x, block))[0]


_blocked.defvjp(_blocked_forward, _blocked_backward)


def _starts(x: jax.Array, block: tuple[int, int]) -> jax.Array:
    """The first example and channel of every block: [blocks, 2]."""
    n, k = (jnp.arange(0, x.shape[a], size) for a, size in zip((0, -1), block, strict=True))
    return jnp.stack(jnp.meshgrid(n, k, indexing="ij"), -1).reshape(-1, 2)


def _corner(x: jax.Array, start: jax.Array) -> list:
    return [start[0], *[0] * (x.ndim - 2), start[1]]


def _take(x: jax.Array, start: jax.Array, block: tuple[int, int]) -> jax.Array:
    return jax.lax.dynamic_slice(x, _corner(x, start), (block[0], *x.shape[1:-1], block[1]))


def _put(x: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(x, part, _corner(x, start))


def _corner_of_sigmas(sigmas: jax.Array, start: jax.Array) -> list:
    """An axis of one is shared by all blocks."""
    return [start[k] if sigmas.shape[k] > 1 else 0 for k in (0, 1)] + [0]


def _take_sigmas(sigmas: jax.Array, start: jax.Array, block: tuple[int, int]) -> jax.Array:
    sizes = [min(size, whole) for size, whole in zip(block, sigmas.shape, strict=False)]
    corner = _corner_of_sigmas(sigmas, start)
    return jax.lax.dynamic_slice(sigmas, corner, (*sizes, sigmas.shape[2]))
