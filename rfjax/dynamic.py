"""Filters of every pixel, made by the network itself, over a large field of samples (LS-DFN).

Every output has a filter of its own, of two parts: a small window that all channels share, and a
weight for each channel at the window's center. The filter is applied at several sampled places
around the output, and the responses are joined.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rfjax import _checks
from rfjax._engine.meshes import partitioned

_LAYOUT = "[*batch, H, W, C]"
_FUSIONS: dict[str, Callable[[jax.Array, jax.Array], jax.Array]] = {
    "sum": jnp.add,
    "mean": jnp.add,
    "max": jnp.maximum,
}


@partitioned(channels="across")
def dynamic_filter(
    x: ArrayLike,
    within: ArrayLike,
    across: ArrayLike,
    *,
    sample_attention: ArrayLike | None = None,
    position_attention: ArrayLike | None = None,
    samples: int = 1,
    sample_stride: int = 1,
    fusion: str = "sum",
) -> jax.Array:
    """Position-specific filters, each applied at s x s places around its output.

    y_v(p) = sum_t A_v(p, t) z_v(p, q),   q = p + sample_stride t
    z_v(p, q) = sum_d B_v(q, d) V_v(p, d) S(q + d) + B_v(q, 0) sum_u U_v,u(p) x_u(q),
    S = sum_u x_u

    t runs over the s x s integers about 0, d over the k x k about 0. V (`within`) and U (`across`)
    are read at the output p, the map and B (`position_attention`) at the sampled place q; zeros lie
    outside the map and ones outside B. The filter of a channel, V + U at the center, is never
    formed: since V is the same for all channels it meets their sum S.

    Args:
      x: [*batch, H, W, C] map.
      within: V, [*batch, H, W, C', k, k], taps (y, x), k odd.
      across: U, [*batch, H, W, C', C], with its residual 1 / C already added, if it has one.
      sample_attention: A, [*batch, H, W, C', s, s], samples (y, x), with its 1 already added; None
        for 1.
      position_attention: B, [*batch, H, W, C', k, k], likewise.
      samples: s, odd, static. With s = 1 it is a plain dynamic filter.
      sample_stride: distance of the sampled places in pixels, static, at least 1.
      fusion: of the samples: sum | mean | max, static.

    Returns:
      [*batch, H, W, C'] in the dtype of `x`; sums in float32 at least. It reads
      (s - 1) sample_stride + k pixels along each axis.

    Raises:
      ValueError: a shape, a size or an option is wrong.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> x = jnp.arange(5.0).reshape(1, 5, 1)
      >>> window, mean = jnp.zeros((1, 5, 1, 1, 1)), jnp.ones((1, 5, 1, 1))
      >>> print(dynamic_filter(x, window, mean, samples=3, sample_stride=2)[0, :, 0])
      [2. 4. 6. 4. 6.]

    Reference: Wu et al., "Dynamic Filtering with Large Sampling Field for ConvNets", ECCV 2018,
      equations 2 to 7.
    """
    x = _checks.float_array("x", x, min_ndim=3, layout=_LAYOUT)
    within, across = _filters(x, within, across)
    number, _ = _checks.pair("samples", samples, odd=True)
    step = _checks.integer("sample_stride", sample_stride)
    fuse = _checks.choose("fusion", fusion, _FUSIONS)
    sums = _checks.accumulation_dtype(x, within, across)
    shape = within.shape[:-2]
    A = _attention("sample_attention", sample_attention, (*shape, number, number), sums)
    B = _attention("position_attention", position_attention, within.shape, sums)
    operands = x.astype(sums), within.astype(sums), across.astype(sums), B
    half = number // 2
    y = None
    for row in range(number):
        for column in range(number):
            # Only what one sample needs is kept: the gradient shifts the map again.
            sample = functools.partial(_sample, (step * (row - half), step * (column - half)))
            z = jax.checkpoint(sample)(*operands)
            z = z if A is None else A[..., row, column] * z
            y = z if y is None else fuse(y, z)
    assert y is not None
    return (y / number**2 if fusion == "mean" else y).astype(x.dtype)


def _sample(offset: tuple[int, int], x, within, across, attention) -> jax.Array:
    """z_v(p, q) [*batch, H, W, C'] at the places q = p + offset."""
    size = within.shape[-1]
    center, window = size // 2, 0
    values = _shifted(x, offset, 0.0)
    total = x.sum(-1, keepdims=True)
    weights = None
    if attention is not None:
        flat = attention.reshape(*attention.shape[:-3], within.shape[-3] * size**2)
        weights = _shifted(flat, offset, 1.0).reshape(attention.shape)
    for row in range(size):
        for column in range(size):
            # V_v(p, d) S(q + d)
            place = offset[0] + row - center, offset[1] + column - center
            term = within[..., row, column] * _shifted(total, place, 0.0)
            window += term if weights is None else weights[..., row, column] * term
    # sum_u U_v,u(p) x_u(q)
    along = jnp.einsum("...vu,...u->...v", across, values)
    return window + (along if weights is None else weights[..., center, center] * along)


def _shifted(x: jax.Array, offset: tuple[int, int], outside: float) -> jax.Array:
    """x(p + offset) [*batch, H, W, F], and a number where that is outside."""
    padding = [(0, 0, 0)] * (x.ndim - 3)
    padding += [(-by, by, 0) for by in offset] + [(0, 0, 0)]
    return jax.lax.pad(x, jnp.asarray(outside, x.dtype), padding)


def _filters(x: jax.Array, within: ArrayLike, across: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The two parts of the filters, checked."""
    within = _checks.float_array("within", within)
    across = _checks.float_array("across", across)
    axes = x.ndim - 1
    fits = within.ndim == axes + 3 and within.shape[:axes] == x.shape[:-1]
    if not fits or within.shape[-1] != within.shape[-2] or not within.shape[-1] % 2:
        raise ValueError(
            f"within must have shape [*batch, H, W, C', k, k], k odd, for x {x.shape}; got "
            f"{within.shape}"
        )
    wanted = (*within.shape[:-2], x.shape[-1])
    if across.shape != wanted:
        raise ValueError(
            f"across must have shape {wanted}, [*batch, H, W, C', C]; got {across.shape}"
        )
    return within, across


def _attention(
    name: str, value: ArrayLike | None, wanted: tuple[int, ...], dtype: jnp.dtype
) -> jax.Array | None:
    if value is None:
        return None
    array = _checks.float_array(name, value)
    if array.shape != wanted:
        raise ValueError(f"{name} must have shape {wanted}; got {array.shape}")
    return array.astype(dtype)
