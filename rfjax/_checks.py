"""Checks of arguments at the public boundary: what was given, what is wanted, where."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._choose import choose as choose


def float_array(name: str, value: Any, *, min_ndim: int = 0, layout: str = "") -> jax.Array:
    """`value` as a floating-point array of at least `min_ndim` axes."""
    array = jnp.asarray(value)
    if jnp.issubdtype(array.dtype, jnp.integer) and not isinstance(value, jax.Array):
        array = array.astype(jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must have a floating-point dtype; got {array.dtype}")
    if array.ndim < min_ndim:
        raise ValueError(f"{name} must have shape {layout}; got {array.shape}")
    return array


def accumulation_dtype(*arrays: jax.Array) -> jnp.dtype:
    """The dtype that sums are kept in: float32 at least."""
    return jnp.result_type(jnp.float32, *(a.dtype for a in arrays))


def known(value: Any) -> np.ndarray | None:
    """The numbers of `value` where they are known now, None where they are traced."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
        return None
    return np.asarray(value)
