"""Fourier transforms of planes of real numbers, by the fast algorithm or as products of matrices.

XLA does not partition the fast transform: every device would transform the planes of all. Products
it does partition, and matrix units run them.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._engine.layout import precise


def rfft2(planes: jax.Array, period: tuple[int, int], *, by_matrix: bool) -> jax.Array:
    """The transform of planes [..., H, W], zeros up to the period (P, Q): [..., P, Q // 2 + 1].

    X[k, l] = sum_(h, w) x[h, w] exp(-2 pi i (k h / P + l w / Q))
    """
    if not by_matrix:
        return jnp.fft.rfft2(planes, period)
    height, width = planes.shape[-2:]
    down, right = (_waves(size, planes.dtype) for size in period)
    right = right[:width, : period[1] // 2 + 1]
    planes = jax.lax.complex(planes, jnp.zeros_like(planes))
    return precise(jnp.einsum)("kh,...hw,wl->...kl", down[:, :height], planes, right)


def irfft2(spectrum: jax.Array, period: tuple[int, int], *, by_matrix: bool) -> jax.Array:
    """The real planes [..., P, Q] whose transform is `spectrum` [..., P, Q // 2 + 1]."""
    if not by_matrix:
        return jnp.fft.irfft2(spectrum, period)
    down, right = (jnp.conj(_waves(size, spectrum.real.dtype)) / size for size in period)
    # The frequencies that are left out are the conjugates of these, but for 0 and Q / 2.
    columns = np.arange(period[1] // 2 + 1)
    twice = np.where((columns == 0) | (2 * columns == period[1]), 1.0, 2.0)
    right = scaled(right[: len(columns)], jnp.asarray(twice, right.real.dtype)[:, None])
    return precise(jnp.einsum)("hk,...kl,lw->...hw", down, spectrum, right).real


def scaled(spectrum: jax.Array, factors: jax.Array) -> jax.Array:
    """A spectrum times real numbers."""
    return spectrum * factors.astype(spectrum.dtype)


def _waves(size: int, dtype: jnp.dtype) -> jax.Array:
    """exp(-2 pi i j k / size) at [j, k]."""
    j = np.arange(size)
    # Whole turns are taken out as integers, which keeps the digits of the angle.
    angle = -2.0 * np.pi / size * ((j[:, None] * j) % size)
    return jax.lax.complex(jnp.asarray(np.cos(angle), dtype), jnp.asarray(np.sin(angle), dtype))
