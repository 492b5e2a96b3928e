"""Gaussian filtering of one axis of a map as a sum of shifted maps, for short filters."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._engine.devices import is_known
from rfjax._engine.layout import FLAT, precise, sum_of_products, sum_to
from rfjax._engine.plan import PAD_MODES, Axis
from rfjax._engine.profile import half_taps

# Rows whose distance is a multiple of so many numbers fall into the same lines of a cache; so many
# numbers more per row spread them.
_ALIASED, _SKEW = 512, 16


def half_taps_of(sigma: jax.Array, axis: Axis) -> jax.Array:
    """The taps [n, c, R + 1] of all shift-and-add branches, zero beyond each sigma's support.

    They are formed outside of the switch, once: inside, XLA would fuse their arithmetic into the
    loop over the map.
    """
    size = max(axis.half_sizes, default=1)
    return half_taps(sigma, size, axis.window)


class Taps(NamedTuple):
    """Taps of shift-and-add, and where channels differ, laid out beside a row of the map.

    The rows too are formed outside of the switch: repeated inside of the loop, they are scalar
    code.
    """

    values: jax.Array  # [n, c, R + 1]
    rows: jax.Array | None  # [n, R + 1, at least the numbers of a row]

    def up_to(self, size: int) -> "Taps":
        """Those of half size `size`."""
        rows = None if self.rows is None else self.rows[:, : size + 1]
        return Taps(self.values[..., : size + 1], rows)

    def weight(self, k: int, shape: tuple[int, ...]) -> jax.Array:
        """The k-th beside rows of `shape`, [M, L, K] or [M, L * K]."""
        n, c, _ = self.values.shape
        if n == c == 1:
            return self.values[0, 0, k]
        values = self.values[..., k] if self.rows is None else self.rows[:, k, : shape[-1]]
        if len(shape) == 2:
            return values
        return jnp.repeat(values, shape[0] // n if n > 1 else 1, axis=0)[:, None]


def in_rows(taps: jax.Array, axis: Axis) -> Taps:
    """Taps [n, c, R + 1] for the rows of an axis."""
    n, channels, count = taps.shape
    if channels == 1:
        return Taps(taps, None)
    _, length, step = axis.shape
    # Boundaries that are read make a row longer by the half size at either end.
    pixels = length + 2 * (count - 1) if _is_flat(n, step) else 1
    # Repeated as a product with ones, since XLA would form the taps anew for every pixel. With a
    # row of zeros beside the taps it stays a product.
    taps_and_zeros = jnp.pad(
        jnp.moveaxis(taps, -1, 1)[:, :, None], ((0, 0), (0, 0), (0, 1), (0, 0))
    )
    ones = jnp.ones((n, count, pixels * step // channels, 2), taps.dtype)
    return Taps(taps, precise(jnp.matmul)(ones, taps_and_zeros).reshape(n, count, -1))


def _is_flat(n: int, step: int) -> bool:
    """Whether short rows are read as one long row, in which a pixel along the axis is K numbers."""
    return is_known(n, step) and n == 1 and step < FLAT


def shift_add(axis: Axis, size: int, x, sigma, taps) -> jax.Array:
    taps = taps.up_to(size)
    y = _shifts(x, taps, axis.padding).filtered(taps).reshape(x.shape)
    if axis.padding != "renormalized":
        return y
    return _times(y, 1.0 / _mass(taps.values, axis.length))


def pull_shift_add(axis: Axis, size: int, x, y, cotangent, sigma, taps, derivative):
    """Cotangents of x and sigma.

    With zeros outside the filter and its derivative are their own adjoints, so that both act on
    the cotangent.
    """
    taps, derivative = taps.up_to(size), derivative.up_to(size)
    if axis.padding in ("zero", "renormalized"):
        loss = 0.0
        if axis.padding == "renormalized":
            cotangent = _times(cotangent, 1.0 / _mass(taps.values, axis.length))
            mass = _mass(derivative.values, axis.length)
            loss = sum_to(_times(cotangent * y, mass), sigma)
        shifts = _shifts(cotangent, taps, axis.padding)
        grad_x = shifts.filtered(taps).reshape(x.shape)
        return grad_x, shifts.product(derivative, x, sigma, axis.on_cpu) - loss
    shifts = _shifts(x, derivative, axis.padding)
    grad_sigma = shifts.product(derivative, cotangent, sigma, axis.on_cpu)
    # The adjoint spreads over the padded map, and the padding's adjoint folds it back.
    wide = _extend(cotangent, size, "zero")
    wide = _shifts(wide, taps, "zero").filtered(taps).reshape(wide.shape)
    (grad_x,) = jax.linear_transpose(lambda v: _extend(v, size, axis.padding), x)(wide)
    return grad_x, grad_sigma


class _Shifts(NamedTuple):
    """A padded map as rows of contiguous numbers, to be read at offsets along the filtered axis.

    The rows are [M, L, K], or [M, L * K] where a pixel along the axis is `stride` numbers of one.
    """

    padded: jax.Array
    shape: tuple[int, ...]  # without the padding
    size: int  # pixels of padding at either end
    stride: int

    def filtered(self, taps: Taps, first: int = 0, every: int = 1) -> jax.Array:
        """The rows filtered by symmetric taps, or every so many of them."""
        weight = [taps.weight(k, self.shape) for k in range(self.size + 1)]
        total = weight[0] * self._read(0, first, every)
        for k in range(1, self.size + 1):
            total += weight[k] * (self._read(-k, first, every) + self._read(k, first, every))
        return total

    def product(self, taps: Taps, other: jax.Array, sigma: jax.Array, on_cpu: bool) -> jax.Array:
        """The sum of the filtered rows times `other` over all axes that sigma shares."""
        along, reads = len(self.shape) - 2, 2 * self.size + 2
        filtered = partial(self.filtered, taps)
        other = other.reshape(self.shape)
        sizes = dict(along=along, reads=reads, on_cpu=on_cpu)
        return sum_of_products(filtered, other, sigma, **sizes)

    def _read(self, offset: int, first: int, every: int) -> jax.Array:
        """Every so many of the rows, from so many pixels further along the axis."""
        start, step = [0] * len(self.shape), [1] * len(self.shape)
        start[1] = (self.size + offset) * self.stride
        end = [a + b for a, b in zip(start, self.shape, strict=True)]
        along = len(self.shape) - 2
        start[along] += first
        step[along] = every
        return jax.lax.slice(self.padded, start, end, step)


def _shifts(x: jax.Array, taps: Taps, padding: str) -> _Shifts:
    """[M, L, K] padded for taps.

    It is padded once, in the layout in which it is read: a pad that XLA fuses with a change of
    shape is scalar code.
    """
    rows, length, step = x.shape
    n, _, count = taps.values.shape
    if _is_flat(n, step):
        shape, stride = (rows, length * step), step
    else:
        shape, stride = x.shape, 1
    size = count - 1
    return _Shifts(_pad(x, shape, size * stride, padding), shape, size, stride)


def _pad(x: jax.Array, shape: tuple, size: int, padding: str) -> jax.Array:
    """x as `shape` with `size` more at either end of the second axis, in one operation if zero."""
    if padding in ("zero", "renormalized"):
        skew = _SKEW if shape[-1] % _ALIASED == 0 else 0
        return jnp.pad(x.reshape(shape), ((0, 0), (size, size), (0, skew))[: len(shape)])
    wide = _extend(x, size * x.shape[1] // shape[1], padding)
    return wide.reshape(shape[0], shape[1] + 2 * size, *shape[2:])


def _extend(x: jax.Array, size: int, padding: str) -> jax.Array:
    """[M, L, K] with `size` pixels more at either end of L."""
    return jnp.pad(x, ((0, 0), (size, size), (0, 0)), mode=PAD_MODES[padding])


def _mass(taps: jax.Array, length: int) -> jax.Array:
    """The sum of the taps that fall inside the map: [n, L, c]."""
    size = taps.shape[-1] - 1
    cumulative = jnp.cumsum(taps, -1)
    reach = np.minimum(np.arange(length), size)
    mass = cumulative[..., reach] + cumulative[..., reach[::-1]] - taps[..., :1]
    return jnp.moveaxis(mass, -1, 1)


def _times(x: jax.Array, factors: jax.Array) -> jax.Array:
    """[M, L, K] times factors [n, L, c]."""
    n, _, c = factors.shape
    factors = jnp.repeat(factors, x.shape[0] // n if n > 1 else 1, axis=0)
    if c == 1:
        return x * factors
    split = x.reshape(*x.shape[:2], -1, c)
    return (split * factors[:, :, None]).reshape(x.shape)
