"""Filtering of a map in blocks of examples and channels, as it suits the caches of a CPU.

What one operation on a block writes is still in the cache when the next one reads it, and no
intermediate result is as large as the map. The gradient is worked off in the same blocks.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp

from rfjax._engine import tuning
from rfjax._engine.devices import is_known, zeros_for

# A filter maps (x [N, *spatial, C], params [N | 1, C | 1, F]) to a map like x, and its pullback
# (x, params, cotangent) to the cotangents of the two.
Run = Callable[[jax.Array, jax.Array], jax.Array]
Pullback = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


class Limits(NamedTuple):
    """How many numbers a CPU filters at a time.

    Examples that together hold up to `whole` are filtered at once. Only an example that is larger
    is split by channels, into blocks of about `split`: its rows get shorter.
    """

    whole: int
    split: int

    def block(self, shape: tuple[int, ...]) -> tuple[int, int]:
        """The examples and channels of a block of a map [N, *spatial, C].

        A map whose sizes are not known is a block.
        """
        n, *spatial, channels = shape
        # Symbols of an exported program have no divisors.
        if not is_known(*shape):
            return n, channels
        pixels = math.prod(spatial)
        # Small examples: as many at a time as fit, and all of their channels.
        if pixels * channels <= self.whole:
            most = self.whole // (pixels * channels)
            return max(size for size in _divisors(n) if size <= most), channels
        # A large example: part of its channels, but no fewer than a cache line likes.
        wide = [
            size for size in _divisors(channels) if size >= min(tuning.LEAST_CHANNELS, channels)
        ]
        return 1, max((size for size in wide if size * pixels <= self.split), default=wide[0])

    def on(self, platform: str, shape: tuple[int, ...]) -> tuple[int, int]:
        """The block on a platform; elsewhere than on a CPU the whole map."""
        return self.block(shape) if platform == "cpu" else (shape[0], shape[-1])

    def splits(self, shape: tuple[int, ...]) -> bool:
        """Whether a map [N, *spatial, C] is more than one block."""
        return self.block(shape) != (shape[0], shape[-1])


def filter_in_blocks(run: Run, limits: Limits, x: jax.Array, params: jax.Array) -> jax.Array:
    """`run(x, params)` by blocks."""
    block = limits.block(x.shape)

    def filter_block(y, start):
        # y[block] = run(x[block], params[block]); blocks do not overlap.
        part = run(_take(x, start, block), _take_params(params, start, block))
        return _put(y, part, start), None

    start = zeros_for(x.shape, x.dtype, x)
    return jax.lax.scan(filter_block, start, _starts(x, block))[0]


def pull_in_blocks(
    pull: Pullback, limits: Limits, x: jax.Array, params: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """`pull(x, params, cotangent)` by blocks."""
    block = limits.block(x.shape)

    def pull_block(totals, start):
        grad_x, grad_params = totals
        operands = _take(x, start, block), _take_params(params, start, block)
        part, change = pull(*operands, _take(cotangent, start, block))
        # Blocks that share parameters add to the same cotangent.
        change += _take_params(grad_params, start, block)
        corner = _corner_of_params(params, start)
        grad_params = jax.lax.dynamic_update_slice(grad_params, change, corner)
        return (_put(grad_x, part, start), grad_params), None

    zeros = zeros_for(x.shape, x.dtype, x), zeros_for(params.shape, params.dtype, x)
    return jax.lax.scan(pull_block, zeros, _starts(x, block))[0]


def _divisors(number: int) -> list[int]:
    return [size for size in range(1, number + 1) if number % size == 0]


def _starts(x: jax.Array, block: tuple[int, int]) -> jax.Array:
    """The first example and channel of every block: [blocks, 2]."""
    n, k = (jnp.arange(0, x.shape[a], size) for a, size in zip((0, -1), block, strict=True))
    return jnp.stack(jnp.meshgrid(n, k, indexing="ij"), -1).reshape(-1, 2)


def _corner(x: jax.Array, start: jax.Array) -> list:
    # All of the spatial axes: a block has whole examples or whole channels.
    return [start[0], *[0] * (x.ndim - 2), start[1]]


def _take(x: jax.Array, start: jax.Array, block: tuple[int, int]) -> jax.Array:
    return jax.lax.dynamic_slice(x, _corner(x, start), (block[0], *x.shape[1:-1], block[1]))


def _put(x: jax.Array, part: jax.Array, start: jax.Array) -> jax.Array:
    return jax.lax.dynamic_update_slice(x, part, _corner(x, start))


def _corner_of_params(params: jax.Array, start: jax.Array) -> list:
    """An axis of one is shared by all blocks."""
    return [start[k] if params.shape[k] > 1 else 0 for k in (0, 1)] + [0]


def _take_params(params: jax.Array, start: jax.Array, block: tuple[int, int]) -> jax.Array:
    sizes = [min(size, whole) for size, whole in zip(block, params.shape, strict=False)]
    corner = _corner_of_params(params, start)
    return jax.lax.dynamic_slice(params, corner, (*sizes, params.shape[2]))
