"""Filtering of a map in blocks of examples and channels, as it suits the caches of a CPU.

What one operation on a block writes is still in the cache when the next one reads it, and no
intermediate result is as large as the map. The gradient is worked off in the same blocks.
"""

import math
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

# Maps of up to `_WHOLE` numbers a CPU filters at once, others in blocks of examples of at most that
# size. Only a larger example is split by channels, into blocks of about `_BLOCK`: rows get shorter.
_WHOLE, _BLOCK = 2**21, 5 * 2**17

# A filter maps (x [N, *spatial, C], params [N | 1, C | 1, F]) to a map like x, and its pullback
# (x, params, cotangent) to the cotangents of the two.
Filter = Callable[[jax.Array, jax.Array], jax.Array]
Pullback = Callable[[jax.Array, jax.Array, jax.Array], tuple[jax.Array, jax.Array]]


def filter_in_blocks(run: Filter, pull: Pullback, x: jax.Array, params: jax.Array) -> jax.Array:
    """`run(x, params)` by blocks, or at once where x is small, by its own derivative."""
    block = block_shape(x.shape)
    if block == (x.shape[0], x.shape[-1]):
        return run(x, params)
    return _blocked(x, params, run, pull, block)


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


@partial(jax.custom_vjp, nondiff_argnums=(2, 3, 4))
def _blocked(x, params, run: Filter, pull: Pullback, block: tuple[int, int]) -> jax.Array:
    def filter_block(y, start):
        part = run(_take(x, start, block), _take_params(params, start, block))
        return _put(y, part, start), None

    return jax.lax.scan(filter_block, jnp.zeros_like(x), _starts(x, block))[0]


def _forward(x, params, run, pull, block):
    return _blocked(x, params, run, pull, block), (x, params)


def _backward(run, pull, block, residuals, cotangent):
    x, params = residuals

    def pull_block(totals, start):
        grad_x, grad_params = totals
        operands = _take(x, start, block), _take_params(params, start, block)
        part, change = pull(*operands, _take(cotangent, start, block))
        change += _take_params(grad_params, start, block)
        corner = _corner_of_params(params, start)
        grad_params = jax.lax.dynamic_update_slice(grad_params, change, corner)
        return (_put(grad_x, part, start), grad_params), None

    zeros = jnp.zeros_like(x), jnp.zeros_like(params)
    return jax.lax.scan(pull_block, zeros, _starts(x, block))[0]


_blocked.defvjp(_forward, _backward)


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


def _corner_of_params(params: jax.Array, start: jax.Array) -> list:
    """An axis of one is shared by all blocks."""
    return [start[k] if params.shape[k] > 1 else 0 for k in (0, 1)] + [0]


def _take_params(params: jax.Array, start: jax.Array, block: tuple[int, int]) -> jax.Array:
    sizes = [min(size, whole) for size, whole in zip(block, params.shape, strict=False)]
    corner = _corner_of_params(params, start)
    return jax.lax.dynamic_slice(params, corner, (*sizes, params.shape[2]))
