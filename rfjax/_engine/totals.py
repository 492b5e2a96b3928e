"""Sums of Gaussian taps over supports of any size: totals, and taps folded onto a period.

A blur of an L-pixel map by a sigma far beyond it needs sums over taps whose number is traced. Up to
a sigma of 8 periods they are added one by one (a static number of terms); beyond, the taps are so
smooth that three terms of the Euler-Maclaurin formula are exact to rounding. There each method is
its density times a short series in Hermite polynomials, which integrate and differentiate in
closed form.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np
from jax.scipy.special import erf

from rfjax._engine import tuning
from rfjax._engine.clamp import at_least, at_most
from rfjax._engine.devices import is_known
from rfjax._engine.profile import Window, half_profile, half_size

# Euler-Maclaurin at midpoints: (order of the derivative, coefficient).
_CORRECTIONS = ((1, -1.0 / 24.0), (3, 7.0 / 5760.0), (5, -31.0 / 967680.0))


def folded_profile(sigma: jax.Array, period: int, window: Window) -> jax.Array:
    """sum_m f(r + m * period) over the support, for the residues r = 0 ... period - 1.

    f are the unnormalised taps of `half_profile`; sigma [...] gives [..., period].
    """
    sigma = jnp.clip(sigma, tuning.SIGMA_MIN, tuning.SIGMA_MAX)
    copies = math.ceil(tuning.SMOOTH_PERIODS * window.truncate) + 1
    residues = counted(period)
    step = period if is_known(period) else jnp.asarray(period)
    distance = residues[:, None] + step * np.arange(-copies, copies + 1)[None]
    length = jnp.asarray(step, sigma.dtype)
    largest = tuning.SMOOTH_PERIODS * length
    # Few: the copies m = -copies ... copies hold the support of every sigma up to `largest`.
    few = half_profile(at_most(sigma, largest), distance.ravel(), window)
    few = jnp.sum(few.reshape(*sigma.shape, *distance.shape), -1)
    # Many: by the formula of Euler and Maclaurin.
    many = _smooth_sum(at_least(sigma, largest)[..., None], residues, length, window)
    return jnp.where(sigma[..., None] <= largest, few, many)


def counted(number: int) -> np.ndarray | jax.Array:
    """0 ... number - 1: as known numbers, where `number` is known."""
    return np.arange(number) if is_known(number) else jnp.arange(number)


def total_profile(sigma: jax.Array, window: Window) -> jax.Array:
    """The sum of all unnormalised taps of the support: [...] for sigma [...]."""
    return folded_profile(sigma, 1, window)[..., 0]


def _smooth_sum(
    sigma: jax.Array, residues: np.ndarray | jax.Array, period: jax.Array, window: Window
) -> jax.Array:
    """`folded_profile` for sigma [..., 1] of many periods."""
    residues = jnp.asarray(residues, sigma.dtype).reshape((1,) * (sigma.ndim - 1) + (-1,))
    if window.support == "hard":
        reach = half_size(sigma, truncate=window.truncate).astype(sigma.dtype)
        return _strided_sum(sigma, residues, period, reach, window)
    # A faded support is a hard one plus one partly weighted tap at either end.
    tau = window.truncate * sigma
    reach = jnp.floor(jax.lax.stop_gradient(tau))
    end = reach + 1.0
    partial = (tau - reach) * _derivative(end / sigma, sigma, 0, window)
    ends = [jnp.mod(sign * end - residues, period) == 0 for sign in (-1, 1)]
    hits = sum(hit.astype(sigma.dtype) for hit in ends)
    return _strided_sum(sigma, residues, period, reach, window) + partial * hits


def _strided_sum(
    sigma: jax.Array, residues: jax.Array, period: jax.Array, reach: jax.Array, window: Window
) -> jax.Array:
    """The sum of f over d = r modulo `period`, |d| <= reach, by Euler-Maclaurin at midpoints."""
    # The first and the last tap of each residue within the reach.
    last = residues + period * jnp.floor((reach - residues) / period)
    first = residues - period * jnp.floor((reach + residues) / period)
    # Half a period beyond them, in deviations: there the integral begins and ends.
    z_high, z_low = (last + 0.5 * period) / sigma, (first - 0.5 * period) / sigma
    # sum f = (1 / period) int f + corrections at both ends
    total = _integral(z_high, sigma, window) - _integral(z_low, sigma, window)
    total = total / period
    for order, coefficient in _CORRECTIONS:
        step = _derivative(z_high, sigma, order, window) - _derivative(z_low, sigma, order, window)
        total += coefficient * period**order * step
    return total


def _series(sigma: jax.Array, method: str) -> dict[int, jax.Array]:
    """Coefficients c_n of f = scale * exp(-z^2 / 2) * sum_n c_n He_n(z), by n; z = d / sigma."""
    if method == "sampled":
        return {0: jnp.ones_like(sigma)}
    inverse = 1.0 / (sigma * sigma)
    if method == "integrated":  # the mean over a pixel, by Taylor's series
        scale = 1.0 / (math.sqrt(2.0 * math.pi) * sigma)
        terms = {0: 1.0, 2: inverse / 24.0, 4: inverse**2 / 1920.0, 6: inverse**3 / 322560.0}
    else:  # Edgeworth's series: all even cumulants of the discrete analogue are sigma^2
        scale = 1.0 / sigma  # as `discrete_profile` scales its taps
        terms = {0: 1.0, 4: inverse / 24.0, 6: inverse**2 / 720.0}
        terms |= {8: inverse**2 / 1152.0 + inverse**3 / 40320.0}
        terms |= {10: inverse**3 / 17280.0, 12: inverse**3 / 82944.0}
    return {order: scale * term for order, term in terms.items()}


def _hermite(z: jax.Array, count: int) -> list[jax.Array]:
    """The probabilists' Hermite polynomials He_0 ... He_(count - 1)."""
    values = [jnp.ones_like(z), z]
    for n in range(1, count - 1):
        values.append(z * values[n] - n * values[n - 1])
    return values


def _derivative(z: jax.Array, sigma: jax.Array, order: int, window: Window) -> jax.Array:
    """The derivative of f of this order in d, at d = z sigma."""
    series = _series(sigma, window.method)
    hermite = _hermite(z, max(series) + order + 2)
    total = sum(term * hermite[n + order] for n, term in series.items())
    # d/dz of exp(-z^2 / 2) He_n is -exp(-z^2 / 2) He_(n + 1), and dz / dd = 1 / sigma.
    return (-1.0 / sigma) ** order * total * jnp.exp(-0.5 * z * z)


def _integral(z: jax.Array, sigma: jax.Array, window: Window) -> jax.Array:
    """The integral of f over d from 0 to z sigma."""
    series = _series(sigma, window.method)
    hermite = _hermite(z, max(series) + 2)
    density = jnp.exp(-0.5 * z * z)
    total = series[0] * math.sqrt(math.pi / 2.0) * erf(z / math.sqrt(2.0))
    for n, term in series.items():
        if n > 0:  # He_(n - 1) is odd for the even n that occur, so nothing is left at z = 0
            total -= term * hermite[n - 1] * density
    return sigma * total
