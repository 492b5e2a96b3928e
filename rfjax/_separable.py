"""Gaussian filtering of one axis of a map, for a traced sigma of any size.

Two forms of the same sum, and a switch between them by the traced half size:

    shift and add     a few static half sizes; the pass is a handful of multiply-adds on contiguous
                      rows, and wins while the filter is short
    Toeplitz product  y = K x with K[i, j] = g(i - j); its cost does not depend on sigma, the
                      support is exact inside K, boundaries are folded into K, and matrix units
                      run it

The gradient is written out: a symmetric filter is its own adjoint, and the gradient with respect to
sigma is a pass with the taps' derivative, which costs as much as the forward pass. Automatic
differentiation would reduce over the map once per tap.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._folding import folded_profile, total_profile
from rfjax._switch import size_switch
from rfjax.gaussian import Window, half_profile, half_size, half_taps

# How `jnp.pad` names the boundaries that read outside the map.
PAD_MODES = {"zero": "constant", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}


class Axis(NamedTuple):
    """One axis of a map and how it is filtered; all static.

    The map is seen as [N, P, L, Q, C]: examples, axes before, the axis, axes after, channels.
    """

    shape: tuple[int, int, int, int, int]
    padding: str
    window: Window

    @property
    def length(self) -> int:
        """L, the number of pixels along the axis."""
        return self.shape[2]


def static_half_sizes(length: int) -> tuple[int, ...]:
    """Half sizes served by shift-and-add on an axis of `length`; beyond them, the matrix.

    The matrix product costs about as much as ten taps on 100 pixels (measured on CPU), and grows
    with the length.
    """
    return tuple(size for size in (1, 2, 4, 8, 16) if size <= length // 12)


def filter_axis(x: jax.Array, sigma: jax.Array, axis: Axis) -> jax.Array:
    """The map [N, P, L, Q, C] filtered along L by Gaussians of sigma [N | 1, C | 1]."""
    sizes = static_half_sizes(axis.length)
    largest = jnp.max(half_size(sigma, truncate=axis.window.truncate))
    index = sum(((largest > size).astype(jnp.int32) for size in sizes), jnp.int32(0))
    branches = [partial(_shift_add_branch, axis, size) for size in sizes]
    return size_switch(index, [*branches, partial(_matrix_branch, axis)], x, sigma)


# Shift and add


def _shift_add_branch(axis: Axis, size: int, x: jax.Array, sigma: jax.Array) -> jax.Array:
    return _shift_add_pass(x, sigma, axis, size)


@partial(jax.custom_vjp, nondiff_argnums=(2, 3))
def _shift_add_pass(x: jax.Array, sigma: jax.Array, axis: Axis, size: int) -> jax.Array:
    taps = half_taps(sigma, size, axis.window)
    y = _shift_add(_pad(x, size, axis.padding), taps, axis.length)
    if axis.padding == "renormalized":
        y = y / _mass(taps, axis.length)
    return y


def _shift_add_forward(x, sigma, axis, size):
    return _shift_add_pass(x, sigma, axis, size), (x, sigma)


def _shift_add_backward(axis, size, residuals, cotangent):
    """Cotangents of x and sigma; sigma's is a pass with the taps' derivative."""
    x, sigma = residuals
    taps, derivative = _with_derivative(lambda s: half_taps(s, size, axis.window), sigma)
    padded = _pad(x, size, axis.padding)
    change = _shift_add(padded, derivative, axis.length)
    if axis.padding == "renormalized":
        mass, mass_derivative = _mass(taps, axis.length), _mass(derivative, axis.length)
        cotangent = cotangent / mass
        change -= _shift_add(padded, taps, axis.length) * (mass_derivative / mass)
    grad_sigma = _sum_to(cotangent * change, sigma)
    if axis.padding in ("zero", "renormalized"):
        return _shift_add(_pad(cotangent, size, "zero"), taps, axis.length), grad_sigma
    # The adjoint spreads over the padded map, and the padding's adjoint folds it back.
    wide = _shift_add(_pad(cotangent, 2 * size, "zero"), taps, axis.length + 2 * size)
    (grad_x,) = jax.linear_transpose(lambda v: _pad(v, size, axis.padding), x)(wide)
    return grad_x, grad_sigma


_shift_add_pass.defvjp(_shift_add_forward, _shift_add_backward)


def _with_derivative(function, sigma):
    """(function(sigma), its derivative), for functions that act on each sigma alone."""
    return jax.jvp(function, (sigma,), (jnp.ones_like(sigma),))


def _pad(x: jax.Array, size: int, padding: str) -> jax.Array:
    mode = PAD_MODES.get(padding, "constant")
    return jnp.pad(x, ((0, 0), (0, 0), (size, size), (0, 0), (0, 0)), mode=mode)


def _shift_add(padded: jax.Array, taps: jax.Array, length: int) -> jax.Array:
    """Symmetric taps [n, c, R + 1] over a map with R more pixels at either end of the axis."""
    size = taps.shape[-1] - 1
    n, p, _, q, c = padded.shape
    if taps.shape[:2] == (1, 1):
        # One filter for all: rows of q * c contiguous numbers, whatever the axis.
        rows = padded.reshape(n * p, -1)
        step, count, axis = q * c, length * q * c, 1
        weight = [taps[0, 0, k] for k in range(size + 1)]
    else:
        rows, step, count, axis = padded, 1, length, 2
        weight = [taps[:, None, None, None, :, k] for k in range(size + 1)]

    def shifted(offset):
        start = (size + offset) * step
        return jax.lax.slice_in_dim(rows, start, start + count, axis=axis)

    total = weight[0] * shifted(0)
    for k in range(1, size + 1):
        total += weight[k] * (shifted(-k) + shifted(k))
    return total.reshape(n, p, length, q, c)


def _mass(taps: jax.Array, length: int) -> jax.Array:
    """The sum of the taps that fall inside the map: [n, 1, L, 1, c]."""
    size = taps.shape[-1] - 1
    cumulative = jnp.cumsum(taps, -1)
    reach = np.minimum(np.arange(length), size)
    mass = cumulative[..., reach] + cumulative[..., reach[::-1]] - taps[..., :1]
    return jnp.moveaxis(mass, -1, 1)[:, None, :, None, :]


def _sum_to(product: jax.Array, sigma: jax.Array) -> jax.Array:
    """The sum of [N, P, L, Q, C] over all axes that sigma [N | 1, C | 1] shares.

    As products with ones: fused into the pass that feeds it, a plain sum becomes scalar code on
    XLA's CPU backend and takes twenty times as long.
    """
    n, p, length, q, c = product.shape
    if sigma.shape[1] == 1:
        rows = _precise(jnp.dot)(
            product.reshape(n, p * length, q * c), jnp.ones(q * c, product.dtype)
        )
        total = jnp.sum(rows, 1)[:, None]
    else:
        ones = jnp.ones(p * length * q, product.dtype)
        total = _precise(jnp.einsum)("nac,a->nc", product.reshape(n, -1, c), ones)
    return jnp.sum(total, 0, keepdims=True) if sigma.shape[0] == 1 else total


def _precise(function):
    return partial(function, precision=jax.lax.Precision.HIGHEST)


# Toeplitz product


def _matrix_branch(axis: Axis, x: jax.Array, sigma: jax.Array) -> jax.Array:
    return _apply_matrix(_MATRICES[axis.padding](sigma, axis.length, axis.window), x)


def _apply_matrix(matrix: jax.Array, x: jax.Array) -> jax.Array:
    """K [n, c, L, L] applied to [N, P, L, Q, C] along L."""
    n, p, length, q, c = x.shape
    if matrix.shape[:2] == (1, 1):
        rows = x.reshape(n * p, length, q * c)
        return _precise(jnp.einsum)("ij,ajb->aib", matrix[0, 0], rows).reshape(x.shape)
    matrix = jnp.broadcast_to(matrix, (n, c, length, length))
    return _precise(jnp.einsum)("ncij,npjqc->npiqc", matrix, x)


# K [..., L, L] of the filter with its boundary, for sigma [...]; exact for any sigma.


def _zero_matrix(sigma, length, window):
    profile = half_profile(sigma, np.arange(length), window)
    return _toeplitz(profile / total_profile(sigma, window)[..., None])


def _renormalized_matrix(sigma, length, window):
    matrix = _toeplitz(half_profile(sigma, np.arange(length), window))
    return matrix / jnp.sum(matrix, -1, keepdims=True)


def _edge_matrix(sigma, length, window):
    """All taps beyond an end read the pixel at that end."""
    total = total_profile(sigma, window)[..., None]
    taps = half_profile(sigma, np.arange(length), window) / total
    # tails[i] is the mass of the taps at distances above i on one side.
    tails = jnp.maximum(0.5 * (1.0 + taps[..., :1]) - jnp.cumsum(taps, -1), 0.0)
    ends = np.zeros((2, length), taps.dtype)
    ends[0, 0], ends[1, -1] = 1.0, 1.0
    matrix = _toeplitz(taps)
    shape = (1,) * sigma.ndim
    matrix += tails[..., :, None] * ends[0].reshape(*shape, 1, length)
    return matrix + tails[..., ::-1, None] * ends[1].reshape(*shape, 1, length)


def _wrap_matrix(sigma, length, window):
    taps = folded_profile(sigma, length, window)
    taps /= jnp.sum(taps, -1, keepdims=True)
    i = np.arange(length)
    return taps[..., (i[:, None] - i) % length]


def _reflect_matrix(sigma, length, window):
    """Mirrored about the pixels at the ends, the map has the period 2 (L - 1)."""
    if length == 1:
        return jnp.ones((*sigma.shape, 1, 1), sigma.dtype)
    period = 2 * (length - 1)
    taps = folded_profile(sigma, period, window)
    taps /= jnp.sum(taps, -1, keepdims=True)
    i = np.arange(length)
    direct = taps[..., (i[:, None] - i) % period]
    inner = ((i > 0) & (i < length - 1)).astype(taps.dtype)
    return direct + taps[..., (i[:, None] + i) % period] * inner.reshape(
        (1,) * sigma.ndim + (1, -1)
    )


def _toeplitz(profile: jax.Array) -> jax.Array:
    """[..., L, L] with the entries profile[..., |i - j|]."""
    length = profile.shape[-1]
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
