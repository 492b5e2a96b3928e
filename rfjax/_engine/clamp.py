"""Bounds whose gradient is whole where the value lies on the bound.

`jnp.minimum` and `jnp.maximum` share the gradient of a tie between their arguments. Where a bound
only keeps one branch of a `where` in its domain, the branch that is taken would lose half of it.
"""

import jax
import jax.numpy as jnp


def at_least(value: jax.Array, bound: jax.Array | float) -> jax.Array:
    """max(value, bound)."""
    return jnp.where(value >= bound, value, bound)


def at_most(value: jax.Array, bound: jax.Array | float) -> jax.Array:
    """min(value, bound)."""
    return jnp.where(value <= bound, value, bound)
