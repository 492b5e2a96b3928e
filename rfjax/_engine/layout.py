"""Arrays laid out as XLA's backends want them, and sums in forms that a CPU does fast.

Fused into the pass that feeds it, a sum becomes scalar code and takes twenty times as long. So sums
are matrix products with ones, and a few rows are added up by name before: what is then written to
memory and read again is that much less.
"""

from functools import partial

import jax
import jax.numpy as jnp

from rfjax._engine import tuning


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
    long = step >= tuning.LONG_ROW
    if c == 1:
        # Rows of some thousand numbers are the quickest to add up.
        shape = (rows * length, step) if long else (rows, length * step)
        # A product with ones adds up each row; what is left is short.
        sums = precise(jnp.dot)(values.reshape(shape), jnp.ones(shape[1], values.dtype))
        return jnp.sum(sums.reshape(n, -1), 1)[:, None]
    # Channels stay apart: they are the fastest axis of a row.
    shape = (n, -1, step) if long else (n, rows // n, length * step)
    values = values.reshape(shape)
    # With a single row of ones XLA would transpose the map, in the middle of the pass before.
    ones = jnp.ones((n, 2, values.shape[1]), values.dtype)
    sums = precise(jnp.matmul)(ones, values)[:, 0]
    return jnp.sum(sums.reshape(n, -1, c), 1)


def rows_at_a_time(count: int, reads: int) -> int:
    """How many of `count` rows are added up by name, where each number takes so many `reads`.

    On one CPU alone. Slices with a stride must not occur where XLA partitions a program: of an axis
    that is sharded it takes the first row where another one is asked for and only one is left.
    """
    fitting = [
        k for k in tuning.ROWS_AT_A_TIME if count % k == 0 and k * reads <= tuning.MOST_READS
    ]
    return max(fitting, default=1)
