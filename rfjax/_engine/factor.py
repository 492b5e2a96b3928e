"""From log-Cholesky parameters to the factor U of a covariance, Sigma = U^T U."""

import jax
import jax.numpy as jnp

from rfjax import _checks
from rfjax._engine import tuning


def wide(array: jax.Array) -> jax.Array:
    """In float32 at least."""
    return array.astype(_checks.accumulation_dtype(array))


def bounded(log_sigma: jax.Array) -> jax.Array:
    """log sigma within its bounds, in float32 at least."""
    return jnp.clip(wide(log_sigma), tuning.LOG_SIGMA_MIN, tuning.LOG_SIGMA_MAX)


def sigma_of(log_sigma: jax.Array) -> jax.Array:
    """exp(log sigma), in float32 at least."""
    return jnp.exp(bounded(log_sigma))


def entries(params: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """(u_yy, u_yx, u_xx) of any family, in float32 at least."""
    # The first number and the last are log u_yy and log u_xx in every family: of a sphere the same.
    u_yy, u_xx = sigma_of(params[..., 0]), sigma_of(params[..., -1])
    u_yx = wide(params[..., 1]) if params.shape[-1] == 3 else jnp.zeros_like(u_yy)
    return u_yy, u_yx, u_xx
