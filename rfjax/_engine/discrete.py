"""The discrete analogue of the Gaussian, T(n, t) = exp(-t) I_n(t), on a line and on a grid.

It is the kernel whose variance is exactly t and which cascades exactly on the integers. In one
dimension it is evaluated by the ratios of neighbouring Bessel functions for small t and by Debye's
expansion for large t: both are stable in float32 and smooth, so they differentiate. In two
dimensions with correlation it is the product of three such kernels along integer directions.

Reference: Lindeberg, "Scale-space for discrete signals", PAMI 1990; NIST DLMF 10.41 (Debye);
Selling 1874 and Fehrenbach & Mirebeau 2014 for the integer directions.
"""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._engine import tuning
from rfjax._engine.clamp import at_least, at_most

# Numerators of Debye's polynomials U_1 ... U_4 in p^2 (after taking out p^k), and denominators.
_DEBYE = (
    ((3.0, -5.0), 24.0),
    ((81.0, -462.0, 385.0), 1152.0),
    ((30375.0, -369603.0, 765765.0, -425425.0), 414720.0),
    ((4465125.0, -94121676.0, 349922430.0, -446185740.0, 185910725.0), 39813120.0),
)


def discrete_profile(
    distance: np.ndarray | jax.Array, sigma: jax.Array, *, truncate: float
) -> jax.Array:
    """T(|distance|, sigma^2) up to a factor per sigma: [..., D] for sigma [...], distance [D].

    Distances beyond `truncate` standard deviations may read 0 (small sigma) or the true tail.
    """
    order, known = abs(distance), math.ceil(truncate * tuning.DEBYE_SIGMA) + 1
    if isinstance(order, np.ndarray):
        known = min(int(order.max(initial=0)), known)
    # Both forms in the range where they hold; what is not taken still has a finite gradient.
    small = _by_ratios(at_most(sigma, tuning.DEBYE_SIGMA), known)
    within = (order <= known).reshape((1,) * sigma.ndim + (-1,))
    small = jnp.where(within, small[..., order.clip(max=known)], 0.0)
    large = _by_debye(order, at_least(sigma, tuning.DEBYE_SIGMA))
    return jnp.where((sigma < tuning.DEBYE_SIGMA)[..., None], small, large)


def _by_ratios(sigma: jax.Array, known: int) -> jax.Array:
    """I_n(t) / I_0(t) for n = 0 ... known: the product of the ratios r_n = I_(n+1) / I_n.

    r_(n-1) = t / (2 n + t r_n), backwards from far beyond the last order needed; every step
    shrinks the error of the start by r^2.
    """
    t = sigma * sigma
    ratio = t / (2.0 * (known + tuning.BESSEL_START))
    ratios = []
    # From an estimate far beyond the last order, r ~ t / (2 n), downwards.
    for n in range(known + tuning.BESSEL_START, 0, -1):
        ratio = t / (2.0 * n + t * ratio)
        if n <= known:
            ratios.append(ratio)
    # I_n / I_0 = r_0 r_1 ... r_(n - 1)
    ratios = jnp.stack([jnp.ones_like(t), *reversed(ratios)], -1)
    return jnp.cumprod(ratios, -1)


def _by_debye(order: np.ndarray | jax.Array, sigma: jax.Array) -> jax.Array:
    """T(n, t) by Debye's uniform expansion, up to the factor 1 / sqrt(2 pi)."""
    t = (sigma * sigma)[..., None]
    n = jnp.asarray(order, t.dtype).reshape((1,) * (t.ndim - 1) + order.shape)
    s = jnp.sqrt(n * n + t * t)
    # s = sqrt(n^2 + t^2): the exponent s - t - n arcsinh(n / t), with s - t as a quotient.
    exponent = n * n / (s + t) - n * jnp.arcsinh(n / t)
    inverse = 1.0 / s  # whose powers stay in range, where those of s leave it
    # sum_k U_k(p) / n^k with p = n / s: U_k is p^k times a polynomial in q = p^2.
    q = (n * inverse) ** 2
    series = jnp.ones_like(s)
    for k, (numerator, denominator) in enumerate(_DEBYE, 1):
        series += jnp.polyval(jnp.array(numerator[::-1], t.dtype), q) / denominator * inverse**k
    return jnp.exp(exponent) * jnp.sqrt(inverse) * series


def discrete_grid(factor: tuple, shape: tuple[int, int], margin: float) -> jax.Array:
    """The discrete analogue of a full covariance on a grid of odd `shape`: [..., kh, kw].

    Sigma = sum_k lambda_k e_k e_k^T with lambda_k >= 0 and integer e_k (Selling's decomposition);
    the kernel has the transfer function exp(-sum_k lambda_k (1 - cos(e_k . w))), so it is
    non-negative and has exactly the covariance Sigma. `factor` holds (u_yy, u_yx, u_xx), each
    [...]; `margin` is how far, in half sizes, the period of the transform reaches beyond the grid
    so that what wraps around is below rounding.
    """
    u_yy, u_yx, u_xx = factor
    # Sigma = U^T U
    yy, yx, xx = u_yy * u_yy, u_yy * u_yx, u_yx * u_yx + u_xx * u_xx
    weights, directions = _selling(yy, yx, xx)
    period = [2 * (size // 2) + 16 + math.ceil(margin * (size // 2)) for size in shape]
    period = [size + size % 2 for size in period]
    # The frequencies w of the transform, half of them along x since the kernel is real.
    y = 2 * np.pi * np.fft.fftfreq(period[0])
    x = 2 * np.pi * np.fft.rfftfreq(period[1])
    leading = (1,) * yy.ndim
    y = jnp.asarray(y, yy.dtype).reshape((*leading, -1, 1))
    x = jnp.asarray(x, yy.dtype).reshape((*leading, 1, -1))
    exponent = 0.0
    for k in range(3):
        e_y, e_x = (directions[..., k, axis][..., None, None] for axis in (0, 1))
        # 1 - cos(a) = 2 sin(a / 2)^2 does not cancel near zero.
        half = 0.5 * (e_y * y + e_x * x)
        exponent -= 2.0 * weights[..., k][..., None, None] * jnp.sin(half) ** 2
    kernel = jnp.fft.irfft2(jnp.exp(exponent), s=period)
    # The origin to the middle; rounding leaves no negative tap.
    kernel = jnp.roll(kernel, (shape[0] // 2, shape[1] // 2), axis=(-2, -1))
    return jnp.maximum(kernel[..., : shape[0], : shape[1]], 0.0)


def _selling(yy: jax.Array, yx: jax.Array, xx: jax.Array) -> tuple[jax.Array, jax.Array]:
    """(lambda [..., 3], e [..., 3, 2]) of Selling's decomposition of Sigma.

    The directions are piecewise constant in Sigma and carry no gradient; lambda is linear in Sigma.
    """
    fixed = jax.lax.stop_gradient((yy, yx, xx))
    # Products closer to zero than rounding are not worth an exchange: they could cycle.
    tolerance = tuning.EXCHANGE_TOLERANCE * (fixed[0] + fixed[2])

    def acute(base):
        return jnp.max(_pair_products(fixed, base), -1) > tolerance

    def exchange(base):
        # (b_i, b_j, b_k) -> (-b_i, b_j, b_i - b_j) where b_i^T Sigma b_j > 0.
        worst = jnp.argmax(_pair_products(fixed, base), -1)[..., None, None]
        first = jnp.take_along_axis(base, worst, -2)
        second = jnp.take_along_axis(base, (worst + 1) % 3, -2)
        swapped = jnp.concatenate([-first, second, first - second], -2)
        return jnp.where(acute(base)[..., None, None], swapped, base)

    start = jnp.array([[1.0, 0.0], [0.0, 1.0], [-1.0, -1.0]], yy.dtype)
    start = jnp.broadcast_to(start.reshape((1,) * yy.ndim + (3, 2)), (*yy.shape, 3, 2))
    # Each exchange shortens the base; the bound only stops NaN from looping.
    _, base = jax.lax.while_loop(
        lambda carry: (carry[0] < tuning.MOST_EXCHANGES) & jnp.any(acute(carry[1])),
        lambda carry: (carry[0] + 1, exchange(carry[1])),
        (0, start),
    )
    # lambda_k = -b_i^T Sigma b_j for the other two of the three; e_k is b_k turned by 90 degrees.
    base = jax.lax.stop_gradient(base)
    weights = at_least(-jnp.roll(_pair_products((yy, yx, xx), base), -1, -1), 0.0)
    directions = jnp.stack([base[..., 1], -base[..., 0]], -1)
    return weights, directions


def _pair_products(sigma: tuple, base: jax.Array) -> jax.Array:
    """b_i^T Sigma b_j of the three pairs (0, 1), (1, 2), (2, 0) of a superbase [..., 3, 2]."""
    yy, yx, xx = (entry[..., None] for entry in sigma)
    other = jnp.roll(base, -1, -2)
    cross = base[..., 0] * other[..., 1] + base[..., 1] * other[..., 0]
    return yy * base[..., 0] * other[..., 0] + yx * cross + xx * base[..., 1] * other[..., 1]
