"""Sums over maps in forms that XLA's CPU backend does fast.

Fused into the pass that feeds it, a sum becomes scalar code and takes twenty times as long. So sums
are matrix products with ones, and a few rows are added up by name before: what is then written to
memory and read again is that much less.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

# Rows of fewer numbers than this are read as one.
FLAT = 1024

# Expressions of more reads than this are no longer fused well.
_READS = 80


def precise(function):
    """A product of arrays in full precision, which accelerators do not give unasked."""
    return partial(function, precision=jax.lax.Precision.HIGHEST)


def in_order(x: jax.Array) -> jax.Array:
    """x with its axes in their order in memory.

    Matrix products and transforms would like another order, and since the branches of a switch
    agree on one, the others would have to copy. Two axes in between leave no choice.
    """
    return jax.lax.optimization_barrier(x.reshape(x.shape[0], -1)).reshape(x.shape)


def sum_to(values: jax.Array, sigma: jax.Array) -> jax.Array:
    """The sum of [M, L, K] over all axes that sigma [N | 1, C | 1] shares."""
    rows, length, step = values.shape
    n, c = sigma.shape
    if c == 1:
        # Rows of some thousand numbers are the quickest to add up.
        shape = (rows * length, step) if step >= FLAT else (rows, length * step)
        sums = precise(jnp.dot)(values.reshape(shape), jnp.ones(shape[1], values.dtype))
        return jnp.sum(sums.reshape(n, -1), 1)[:, None]
    shape = (n, -1, step) if step >= FLAT else (n, rows // n, length * step)
    values = values.reshape(shape)
    # With a single row of ones XLA would transpose the map, in the middle of the pass before.
    ones = jnp.ones((n, 2, values.shape[1]), values.dtype)
    sums = precise(jnp.matmul)(ones, values)[:, 0]
    return jnp.sum(sums.reshape(n, -1, c), 1)


def sum_of_products(
    filtered: Callable[[int, int], jax.Array],
    other: jax.Array,
    sigma: jax.Array,
    *,
    along: int,
    reads: int,
    on_cpu: bool,
) -> jax.Array:
    """`sum_to` of a filtered map times an `other`, both of rows [M, (L,) K].

    `filtered(first, every)` are every so many of the rows on the axis `along`, each number of which
    takes so many `reads`.
    """
    every = _every(other.shape[along], reads) if on_cpu else 1
    total = 0.0
    for first in range(every):
        rows = jax.lax.slice_in_dim(other, first, None, every, along)
        total += rows * filtered(first, every)
    return sum_to(total.reshape(total.shape[0], -1, total.shape[-1]), sigma)


def _every(count: int, reads: int) -> int:
    """How many of `count` rows are added up by name.

    On one CPU alone. Slices with a stride must not occur where XLA partitions a program: of an axis
    that is sharded it takes the first row where another one is asked for and only one is left.
    """
    return max(k for k in (1, 2, 4, 8) if k == 1 or (count % k == 0 and k * reads <= _READS))
