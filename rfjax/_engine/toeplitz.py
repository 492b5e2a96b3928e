"""Gaussian filtering of one axis of a map as a product y = K x with K[i, j] = g(i - j).

Its cost does not depend on sigma, the support is exact inside K, boundaries are folded into K, and
matrix units run it.

On long axes K is nearly empty: with a half size R, a block of B rows reads B + 2 R pixels and no
others. The banded product takes these blocks alone, B + 2 R products a pixel in place of L.
"""

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._engine import tuning
from rfjax._engine.devices import is_known
from rfjax._engine.layout import precise
from rfjax._engine.profile import Window, half_profile, half_taps
from rfjax._engine.shift_add import extended
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


def filter_by_bands(
    x: jax.Array, sigma: jax.Array, padding: str, window: Window, *, size: int
) -> jax.Array:
    """The map [M, L, K] filtered along L by Gaussians of half sizes up to the static `size`.

    Args:
      sigma: [N | 1, C | 1], none of which needs more than `size` pixels to a side.
      size: R, in pixels.
    """
    taps = half_taps(sigma, size, window)
    wide = extended(x, size, "zero" if padding == "renormalized" else padding)
    y = _apply_bands(taps, _windows(wide, x.shape[1], size))
    y = y.reshape(x.shape[0], -1, x.shape[2])[:, : x.shape[1]]
    if padding != "renormalized":
        return y
    # The taps that fall inside the map are to sum to 1.
    return y / _mass_beside(taps, x.shape, size)


def _windows(x: jax.Array, length: int, size: int) -> jax.Array:
    """[M, blocks, B + 2 R, K]: what each block of B rows reads of [M, L + 2 R, K]."""
    rows, _, step = x.shape
    block = tuning.BAND_BLOCK
    count = -(-length // block)
    # Zeros fill up the last block, and what it computes of them is cut off.
    x = jnp.pad(x, ((0, 0), (0, count * block - length), (0, 0)))
    own = x[:, : count * block].reshape(rows, count, block, step)
    # The first 2 R pixels behind a block, from as many blocks as they lie in.
    behind = [x[:, block * k : block * (count + k)] for k in range(1, -(-2 * size // block) + 1)]
    filled = [
        jnp.pad(part, ((0, 0), (0, count * block - part.shape[1]), (0, 0))) for part in behind
    ]
    parts = [own, *(part.reshape(own.shape) for part in filled)]
    return jnp.concatenate(parts, 2)[:, :, : block + 2 * size]


def _apply_bands(taps: jax.Array, windows: jax.Array) -> jax.Array:
    """y[i] = sum_j g(j - i - R) v[j] in every window v: [M, blocks, B, K]."""
    rows, count, wide, step = windows.shape
    n, c, _ = taps.shape
    size = taps.shape[-1] - 1
    distance = np.abs(np.arange(wide) - np.arange(wide - 2 * size)[:, None] - size)
    # [n, c, B, B + 2 R], the same for all blocks; zero where no tap reaches.
    beyond = jnp.pad(taps, ((0, 0), (0, 0), (0, 1)))
    matrix = beyond[..., np.minimum(distance, size + 1)]
    if n == c == 1:
        return precise(jnp.einsum)("ij,abjk->abik", matrix[0, 0], windows)
    split = windows.reshape(n, rows // n, count, wide, step // c, c)
    y = precise(jnp.einsum)("ncij,npbjqc->npbiqc", matrix, split)
    return y.reshape(rows, count, wide - 2 * size, step)


def _mass_beside(taps: jax.Array, shape: tuple[int, ...], size: int) -> jax.Array:
    """The mass of the taps inside of the map at each pixel, beside [M, L, K]."""
    rows, length, step = shape
    n, c, _ = taps.shape
    ones = jnp.ones((n, length, c), taps.dtype)
    mass = _apply_bands(taps, _windows(extended(ones, size, "zero"), length, size))
    mass = mass.reshape(n, -1, c)[:, :length]
    # Channels are the fastest of the numbers of a pixel.
    mass = jnp.tile(mass, (1, 1, step // c)) if c > 1 else mass
    return jnp.repeat(mass, rows // n, axis=0) if n > 1 else mass


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
