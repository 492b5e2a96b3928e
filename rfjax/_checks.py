"""Checks of arguments at the public boundary: what was given, what is wanted, where."""

from typing import Any

import jax
import jax.core
import jax.numpy as jnp
import numpy as np

from rfjax._options import WrongKind as WrongKind
from rfjax._options import choose as choose
from rfjax._options import flag as flag
from rfjax._options import integer as integer
from rfjax._options import integers as integers
from rfjax._options import is_integer as is_integer
from rfjax._options import is_number as is_number
from rfjax._options import number as number
from rfjax._options import pair as pair
from rfjax._options import positive_pair as positive_pair
from rfjax._options import refused
from rfjax._options import spatial_axes as spatial_axes


def float_array(name: str, value: Any, *, min_ndim: int = 0, layout: str = "") -> jax.Array:
    """`value` as a floating-point array of at least `min_ndim` axes."""
    try:
        array = jnp.asarray(value)
    except (TypeError, ValueError) as error:
        if isinstance(value, jax.Array | np.ndarray):
            raise
        raise WrongKind(f"{name} must be numbers; got {value!r}") from error
    if jnp.issubdtype(array.dtype, jnp.integer) and not isinstance(value, jax.Array):
        array = array.astype(jnp.result_type(float))
    if not jnp.issubdtype(array.dtype, jnp.floating):
        raise TypeError(f"{name} must have a floating-point dtype; got {array.dtype}")
    if array.ndim < min_ndim:
        raise ValueError(f"{name} must have shape {layout}; got {array.shape}")
    return array


def accumulation_dtype(*arrays: jax.Array) -> jnp.dtype:
    """The dtype that sums are kept in: float32 at least."""
    return common_dtype(jnp.float32, *arrays)


def common_dtype(*arrays: Any) -> jnp.dtype:
    """The narrowest dtype that holds those of all arrays, under strict promotion as well."""
    with jax.numpy_dtype_promotion("standard"):
        return jnp.result_type(*(getattr(array, "dtype", array) for array in arrays))


def known(value: Any) -> np.ndarray | None:
    """The numbers of `value` where they are known now, None where they are traced."""
    if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves(value)):
        return None
    return np.asarray(value)


def finite_scalar(name: str, value: Any) -> jax.Array:
    """`value` as a floating-point scalar, finite where it is known now and not traced."""
    array = float_array(name, value)
    if array.ndim:
        raise ValueError(f"{name} must be a scalar; got shape {array.shape}")
    if (now := known(value)) is not None and not np.isfinite(now):
        raise ValueError(f"{name} must be a finite number; got {value!r}")
    return array


def float_dtype(name: str, value: Any) -> None:
    """Raises unless `value` is None or names a floating-point type."""
    try:
        fine = value is None or jnp.issubdtype(jnp.dtype(value), jnp.floating)
    except TypeError:
        fine = False
    if not fine:
        raise refused(name, value, "a floating-point dtype or None", kind=True)
