"""Products of rows of channels with the weights of a tap, of all channels or of groups of them."""

import jax
import jax.numpy as jnp

from rfjax import _checks


def matmul(a: jax.Array, b: jax.Array) -> jax.Array:
    """`a @ b`, its sums in float32 at least.

    Example:
      >>> matmul(jnp.ones((2, 3), jnp.bfloat16), jnp.ones((3, 4), jnp.bfloat16)).dtype.name
      'float32'
    """
    return jnp.matmul(a, b, preferred_element_type=_checks.accumulation_dtype(a, b))


def tap_product(rows: jax.Array, matrix: jax.Array) -> jax.Array:
    """Rows [P, C] by a matrix [C, O]; or each group of channels by its own, [G, C / G, O / G].

    Example:
      >>> tap_product(jnp.ones((5, 4)), jnp.ones((2, 2, 3))).shape
      (5, 6)
    """
    if matrix.ndim == 2:
        return matmul(rows, matrix)
    if matrix.shape[1:] == (1, 1):  # a number for each channel
        sums = _checks.accumulation_dtype(rows, matrix)
        return rows.astype(sums) * matrix.reshape(1, -1).astype(sums)
    # [P, G, C / G] as [G, P, C / G]: a product for each group.
    grouped = rows.reshape(-1, *matrix.shape[:2]).swapaxes(0, 1)
    return matmul(grouped, matrix).swapaxes(0, 1).reshape(rows.shape[0], -1)


def outer_product(a: jax.Array, b: jax.Array, like: jax.Array) -> jax.Array:
    """The gradient by a matrix `like` [C, O] or [G, C / G, O / G] of rows a [P, C] and b [P, O].

    Example:
      >>> outer_product(jnp.ones((5, 4)), jnp.ones((5, 6)), jnp.ones((2, 2, 3))).shape
      (2, 2, 3)
    """
    if like.ndim == 2:
        return matmul(a.T, b)
    if like.shape[1:] == (1, 1):
        sums = _checks.accumulation_dtype(a, b)
        return jnp.sum(a.astype(sums) * b.astype(sums), 0).reshape(like.shape)
    a, b = (rows.reshape(a.shape[0], like.shape[0], -1).swapaxes(0, 1) for rows in (a, b))
    return matmul(a.swapaxes(1, 2), b)


def tap_weights(kernel: jax.Array, groups: int) -> jax.Array:
    """A kernel [kh, kw, C / groups, O] by taps: [T, C, O], or [T, G, C / G, O / G] of groups.

    Example:
      >>> tap_weights(jnp.ones((3, 3, 2, 6)), 2).shape
      (9, 2, 2, 3)
    """
    taps = kernel.reshape(-1, *kernel.shape[2:])
    if groups == 1:
        return taps
    return taps.reshape(*taps.shape[:2], groups, -1).swapaxes(1, 2)
