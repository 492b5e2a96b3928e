"""Gaussian filtering of one axis of a map as a product y = K x with K[i, j] = g(i - j).

Its cost does not depend on sigma, the support is exact inside K, boundaries are folded into K, and
matrix units run it.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._engine import tuning
from rfjax._engine.devices import is_known
from rfjax._engine.layout import precise
from rfjax._engine.profile import Window, half_profile
from rfjax._engine.totals import counted, folded_profile, total_profile


def filter_by_matrix(x: jax.Array, sigma: jax.Array, padding: str, window: Window) -> jax.Array:
    """The map [M, L, K] filtered along L by Gaussians of sigma [N | 1, C | 1]."""
    return _apply(_MATRICES[padding](sigma, x.shape[1], window), x)


def _apply(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """K [n, c, L, L] applied to [M, L, K] along L."""
    rows, length, step = x.shape
    n, c = matrix.shape[:2]
    # A product for each of M where its rows are long; else one product over all of M.
    wide = is_known(length, step) and step >= max(length, tuning.WIDE_ROW)
    if n == c == 1 and (wide or (is_known(rows) and rows == 1)):
        return precise(jnp.matmul)(jnp.broadcast_to(matrix[0, 0], (rows, length, length)), x)
    if n == c == 1:
        return precise(jnp.einsum)("ij,ajb->aib", matrix[0, 0], x)
    # A matrix for each example n and channel c; p are its rows, q the pixels of the axes after.
    split = x.reshape(n, rows // n, length, step // c, c)
    return precise(jnp.einsum)("ncij,npjqc->npiqc", matrix, split).reshape(x.shape)


# K [..., L, L] of the filter with its boundary, for sigma [...]; exact for any sigma.


def _zero_matrix(sigma, length, window):
    # K[i, j] = g(|i - j|) / sum_d g(d): what falls outside the map is lost.
    profile = half_profile(sigma, counted(length), window)
    return _toeplitz(profile / total_profile(sigma, window)[..., None])


def _renormalized_matrix(sigma, length, window):
    # K[i, j] = g(|i - j|) / sum_j g(|i - j|): each row sums to 1.
    matrix = _toeplitz(half_profile(sigma, counted(length), window))
    return matrix / jnp.sum(matrix, -1, keepdims=True)


def _edge_matrix(sigma, length, window):
    """All taps beyond an end read the pixel at that end."""
    total = total_profile(sigma, window)[..., None]
    pixels = counted(length)
    taps = half_profile(sigma, pixels, window) / total
    # tails[i] is the mass of the taps at distances above i on one side.
    tails = jnp.maximum(0.5 * (1.0 + taps[..., :1]) - jnp.cumsum(taps, -1), 0.0)
    shape = (*(1,) * sigma.ndim, 1, length)
    first, last = ((pixels == end).astype(taps.dtype).reshape(shape) for end in (0, length - 1))
    # K = g(|i - j|), and the first and last columns take the tails.
    matrix = _toeplitz(taps) + tails[..., :, None] * first
    return matrix + tails[..., ::-1, None] * last


def _wrap_matrix(sigma, length, window):
    taps = folded_profile(sigma, length, window)
    taps /= jnp.sum(taps, -1, keepdims=True)
    i = counted(length)
    # K[i, j] = sum_m g(i - j + m L)
    return taps[..., (i[:, None] - i[None]) % length]


def _reflect_matrix(sigma, length, window):
    """Mirrored about the pixels at the ends, the map has the period 2 (L - 1)."""
    if not is_known(length):
        raise ValueError(f"padding 'reflect' must know the sizes of the map; got {length}")
    if length == 1:
        return jnp.ones((*sigma.shape, 1, 1), sigma.dtype)
    period = 2 * (length - 1)
    taps = folded_profile(sigma, period, window)
    taps /= jnp.sum(taps, -1, keepdims=True)
    i = np.arange(length)
    # K[i, j] = h(i - j) + h(i + j), h folded onto the period; an end has no mirror image.
    direct = taps[..., (i[:, None] - i) % period]
    inner = ((i > 0) & (i < length - 1)).astype(taps.dtype)
    return direct + taps[..., (i[:, None] + i) % period] * inner.reshape(
        (1,) * sigma.ndim + (1, -1)
    )


def _toeplitz(profile: jax.Array) -> jax.Array:
    """[..., L, L] with the entries profile[..., |i - j|]."""
    length = profile.shape[-1]
    if not is_known(length):
        i = jnp.arange(length)
        return profile[..., abs(i[:, None] - i[None])]
    # Row i is the mirrored profile from position L - 1 - i: laid end to end with one number less
    # a row, the rows shift by themselves, which is a copy where indexing would be a gather.
    mirrored = jnp.concatenate([profile[..., :0:-1], profile, profile[..., :1]], -1)
    leading = profile.shape[:-1]
    rows = jnp.broadcast_to(mirrored[..., None, :], (*leading, length, 2 * length))
    rows = rows.reshape(*leading, -1)[..., : length * (2 * length - 1)]
    return rows.reshape(*leading, length, 2 * length - 1)[..., length - 1 :]


_MATRICES = {
    "zero": _zero_matrix,
    "edge": _edge_matrix,
    "reflect": _reflect_matrix,
    "wrap": _wrap_matrix,
    "renormalized": _renormalized_matrix,
}
