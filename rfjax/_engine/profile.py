"""The taps of a Gaussian on a line: g(d) at the integers d, cut to a support.

    sampled     exp(-d^2 / 2 sigma^2)
    integrated  the integral of the density over the pixel at d
    discrete    exp(-sigma^2) I_d(sigma^2), see `rfjax._engine.discrete`

A profile holds taps before they are divided by their sum.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erfc

from rfjax import _checks
from rfjax._engine import tuning
from rfjax._engine.clamp import at_least, at_most
from rfjax._engine.discrete import discrete_profile

METHODS = ("sampled", "integrated", "discrete")
SUPPORTS = ("hard", "faded")


class Window(NamedTuple):
    """How a Gaussian becomes taps: the static options that every filter shares."""

    truncate: float = 2.0
    method: str = "sampled"
    support: str = "hard"

    def checked(self) -> "Window":
        """This window, after its options were found valid."""
        _checks.choose("method", self.method, METHODS)
        _checks.choose("support", self.support, SUPPORTS)
        return self._replace(truncate=_checks.number("truncate", self.truncate, above=0))


def half_size(sigma: jax.Array, *, truncate: float) -> jax.Array:
    """max(1, ceil(truncate * sigma)) as int32, without a gradient: [...] for sigma [...]."""
    sigma = jax.lax.stop_gradient(sigma.astype(_checks.accumulation_dtype(sigma)))
    # tau = truncate sigma, within the bounds of sigma
    reach = jnp.clip(sigma, tuning.SIGMA_MIN, tuning.SIGMA_MAX) * truncate
    # exp(log 2) may come out an ulp above 2: a whole tap must not hang on that.
    reach = reach * (1.0 - tuning.REACH_SLACK * jnp.finfo(reach.dtype).eps)
    return jnp.maximum(1, jnp.ceil(reach).astype(jnp.int32))


def half_taps(sigma: jax.Array, max_half_size: int, window: Window) -> jax.Array:
    """The taps at distances 0 ... R, [..., R + 1]: the right half of a symmetric filter."""
    profile = half_profile(sigma, np.arange(max_half_size + 1), window)
    # g(0) + 2 sum_(d > 0) g(d), the sum over both halves
    total = profile[..., :1] + 2.0 * jnp.sum(profile[..., 1:], -1, keepdims=True)
    return profile / total


def half_profile(sigma: jax.Array, distance: np.ndarray | jax.Array, window: Window) -> jax.Array:
    """Unnormalised weights [..., D] at integer distances [D], for sigma [...]."""
    sigma = jnp.clip(sigma, tuning.SIGMA_MIN, tuning.SIGMA_MAX)
    weight = support_weight(sigma, distance, window)
    if window.method == "discrete":
        density = discrete_profile(distance, sigma, truncate=window.truncate)
        return weight * density
    # The other two are functions of |d| in the dtype of sigma.
    size = jnp.asarray(abs(distance), sigma.dtype).reshape((1,) * sigma.ndim + (-1,))
    if window.method == "sampled":
        return weight * jnp.exp(-0.5 * (size / sigma[..., None]) ** 2)
    return weight * pixel_mass(size, sigma[..., None])


def pixel_mass(offset: jax.Array, sigma: jax.Array) -> jax.Array:
    """The mass of a Gaussian of `sigma` on the pixel at `offset` from its mean."""
    size = jnp.abs(offset)
    # Each form within its range: the gradient of what is not taken must be finite.
    narrow = at_most(sigma, tuning.NARROW)
    scale = 1.0 / (math.sqrt(2.0) * narrow)
    # On the tail's side erfc keeps the digits of a difference, where erf cancels.
    near = 0.5 * (erfc((size - 0.5) * scale) - erfc((size + 0.5) * scale))
    # A wide Gaussian's two terms are too alike for float32: there, Taylor's series over the pixel.
    wide = at_least(sigma, tuning.NARROW)
    inverse, z = 1.0 / (wide * wide), (size / wide) ** 2
    series = 1.0 + inverse / 24.0 * (z - 1.0) + inverse**2 / 1920.0 * (z * z - 6.0 * z + 3.0)
    far = jnp.exp(-0.5 * z) * series / (math.sqrt(2.0 * math.pi) * wide)
    return jnp.where(sigma < tuning.NARROW, near, far)


def support_weight(sigma: jax.Array, distance: np.ndarray | jax.Array, window: Window) -> jax.Array:
    """The support's weight [..., D], 0 to 1, at integer distances [D], for sigma [...]."""
    size = abs(distance).reshape((1,) * sigma.ndim + (-1,))
    if window.support == "hard":
        # |d| <= max(1, ceil(tau))
        reach = half_size(sigma, truncate=window.truncate)
        return (jnp.asarray(size, reach.dtype) <= reach[..., None]).astype(sigma.dtype)
    # clip(tau + 1 - |d|, 0, 1) with tau = truncate sigma
    reach = window.truncate * sigma[..., None]
    return jnp.clip(reach + 1.0 - jnp.asarray(size, sigma.dtype), 0.0, 1.0)
