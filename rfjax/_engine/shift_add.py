"""Filtering as a sum of shifted maps, for short filters: one axis, or two axes at once.

    line   y[i]    = w_0 x[i] + sum_k w_k (x[i - k] + x[i + k])
    plane  y[i, j] = w_00 x[i, j] + sum_(k, l) w_kl (x[i - k, j - l] + x[i + k, j + l])

A Gaussian is point-symmetric, so that every weight serves two shifts.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._engine import tuning
from rfjax._engine.devices import is_known
from rfjax._engine.layout import precise, rows_at_a_time, sum_to
from rfjax._engine.plan import PAD_MODES, Axis
from rfjax._engine.profile import half_taps

# Weights beside the rows that they multiply, each with its offset: the one in the middle first,
# then one of each pair.
Weights = Sequence[tuple[tuple[int, ...], jax.Array]]


class Shifts(NamedTuple):
    """A padded map as rows of contiguous numbers, to be read at offsets.

    The rows are [M, L, K] or [M, L * K] of a map that is filtered along L, and [N, H, W * C] of one
    that is filtered along H and W.
    """

    padded: jax.Array
    shape: tuple[int, ...]  # without the padding
    origin: tuple[int, ...]  # where the map begins in what is padded
    stride: int  # from one pixel to the next on the last axis that is filtered

    def filtered(self, weights: Weights, first: int = 0, every: int = 1) -> jax.Array:
        """The weighted sum of the shifted maps: all rows, or every so many of them."""
        (middle, weight), *pairs = weights
        total = weight * self._read(middle, first, every)
        for offset, weight in pairs:
            opposite = tuple(-distance for distance in offset)
            pair = self._read(offset, first, every) + self._read(opposite, first, every)
            total += weight * pair
        return total

    def product(
        self, weights: Weights, other: jax.Array, sigma: jax.Array, on_cpu: bool
    ) -> jax.Array:
        """The sum of `filtered` times an `other` over all axes that sigma [N | 1, C | 1] shares.

        That is the derivative with respect to sigma, where the weights are the taps' derivatives.
        """
        along, reads = len(self.shape) - 2, 2 * len(weights)
        every = rows_at_a_time(self.shape[along], reads) if on_cpu else 1
        other, total = other.reshape(self.shape), jnp.zeros((), other.dtype)
        for first in range(every):
            rows = jax.lax.slice_in_dim(other, first, None, every, along)
            total += rows * self.filtered(weights, first, every)
        return sum_to(total.reshape(total.shape[0], -1, total.shape[-1]), sigma)

    def _read(self, offset: tuple[int, ...], first: int, every: int) -> jax.Array:
        """The rows `offset` further in the padded map; on the axis of rows every so many."""
        start = [a + b for a, b in zip(self.origin, offset, strict=True)]
        end = [a + b for a, b in zip(start, self.shape, strict=True)]
        along, step = len(self.shape) - 2, [1] * len(self.shape)
        start[along] += first
        step[along] = every
        return jax.lax.slice(self.padded, start, end, step)


# One axis of a map [M, L, K]


class Taps(NamedTuple):
    """Taps of one axis, and where channels differ, laid out beside a row of the map.

    The rows are formed outside of the switch between sizes: repeated inside of the loop, they are
    scalar code.
    """

    values: jax.Array  # [n, c, R + 1]
    rows: jax.Array | None  # [n, R + 1, at least the numbers of a row]

    def up_to(self, size: int) -> "Taps":
        """Those of half size `size`."""
        rows = None if self.rows is None else self.rows[:, : size + 1]
        return Taps(self.values[..., : size + 1], rows)

    def beside(self, shifts: Shifts) -> Weights:
        """The taps as weights of the rows of `shifts`."""
        count, more = self.values.shape[-1], (0,) * (len(shifts.shape) - 2)
        offsets = [(0, -k * shifts.stride, *more) for k in range(count)]
        return [(offset, self._weight(k, shifts.shape)) for k, offset in enumerate(offsets)]

    def _weight(self, k: int, shape: tuple[int, ...]) -> jax.Array:
        """The k-th tap beside rows of `shape`, [M, L, K] or [M, L * K]."""
        n, c, _ = self.values.shape
        if n == c == 1:
            return self.values[0, 0, k]
        values = self.values[..., k] if self.rows is None else self.rows[:, k, : shape[-1]]
        if len(shape) == 2:
            return values
        return jnp.repeat(values, shape[0] // n if n > 1 else 1, axis=0)[:, None]


def line_taps(sigma: jax.Array, axis: Axis) -> jax.Array:
    """The taps [n, c, R + 1] of all static sizes, zero beyond each sigma's support.

    They are formed outside of the switch, once: inside, XLA would fuse their arithmetic into the
    loop over the map.
    """
    return half_taps(sigma, max(axis.half_sizes, default=1), axis.window)


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


def shift_add(axis: Axis, size: int, x: jax.Array, sigma: jax.Array, taps: Taps) -> jax.Array:
    """x [M, L, K] filtered along L by taps of the static half size `size`."""
    taps = taps.up_to(size)
    shifts = _line(x, taps, axis.padding)
    y = shifts.filtered(taps.beside(shifts)).reshape(x.shape)
    if axis.padding != "renormalized":
        return y
    # The taps that fall inside the map are to sum to 1.
    return multiplied(y, 1.0 / mass_inside(taps.values, axis.length))


def pull_shift_add(
    axis: Axis,
    size: int,
    x: jax.Array,
    y: jax.Array | None,
    cotangent: jax.Array,
    sigma: jax.Array,
    taps: Taps,
    derivative: Taps,
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and sigma in y = `shift_add`; `derivative` is that of the taps."""
    taps, derivative = taps.up_to(size), derivative.up_to(size)
    if axis.padding not in ("zero", "renormalized"):
        return _pull_extended(axis, size, x, cotangent, sigma, taps, derivative)
    loss = 0.0
    if axis.padding == "renormalized":
        assert y is not None  # it is kept for this
        # y = s / m with the sum s and the mass m of the taps: dy = (ds - y dm) / m.
        cotangent = multiplied(cotangent, 1.0 / mass_inside(taps.values, axis.length))
        loss = sum_to(multiplied(cotangent * y, mass_inside(derivative.values, axis.length)), sigma)
    # With zeros outside the filter and its derivative are their own adjoints, so that both act on
    # the cotangent: grad_x = g * c and grad_sigma = sum (dg / dsigma * c) x.
    shifts = _line(cotangent, taps, axis.padding)
    grad_x = shifts.filtered(taps.beside(shifts)).reshape(x.shape)
    grad_sigma = shifts.product(derivative.beside(shifts), x, sigma, axis.on_cpu)
    return grad_x, grad_sigma - loss


def _pull_extended(axis: Axis, size: int, x, cotangent, sigma, taps: Taps, derivative: Taps):
    """`pull_shift_add` where what lies outside the map is read from the map."""
    shifts = _line(x, derivative, axis.padding)
    grad_sigma = shifts.product(derivative.beside(shifts), cotangent, sigma, axis.on_cpu)
    # The adjoint spreads over the padded map, and the padding's adjoint folds it back.
    wide = extended(cotangent, size, "zero")
    shifts = _line(wide, taps, "zero")
    wide = shifts.filtered(taps.beside(shifts)).reshape(wide.shape)
    (grad_x,) = jax.linear_transpose(lambda v: extended(v, size, axis.padding), x)(wide)
    return grad_x, grad_sigma


def _line(x: jax.Array, taps: Taps, padding: str) -> Shifts:
    """[M, L, K] padded for taps.

    It is padded once, in the layout in which it is read: a pad that XLA fuses with a change of
    shape is scalar code.
    """
    rows, length, step = x.shape
    n, _, count = taps.values.shape
    shape, stride = x.shape, 1
    if _is_flat(n, step):
        shape, stride = (rows, length * step), step
    size = (count - 1) * stride
    origin = (0, size, 0)[: len(shape)]
    return Shifts(_pad(x, shape, size, padding), shape, origin, stride)


def _is_flat(n: int, step: int) -> bool:
    """Whether short rows are read as one long row, in which a pixel along the axis is K numbers."""
    return is_known(n, step) and n == 1 and step < tuning.LONG_ROW


def _pad(x: jax.Array, shape: tuple, size: int, padding: str) -> jax.Array:
    """x as `shape` with `size` more at either end of the second axis, in one operation if zero."""
    if padding in ("zero", "renormalized"):
        skew = tuning.SKEW if shape[-1] % tuning.ALIASED_ROW == 0 else 0
        return jnp.pad(x.reshape(shape), ((0, 0), (size, size), (0, skew))[: len(shape)])
    wide = extended(x, size * x.shape[1] // shape[1], padding)
    return wide.reshape(shape[0], shape[1] + 2 * size, *shape[2:])


def extended(x: jax.Array, size: int, padding: str) -> jax.Array:
    """[M, L, K] with `size` pixels more at either end of L."""
    return jnp.pad(x, ((0, 0), (size, size), (0, 0)), mode=PAD_MODES[padding])


def mass_inside(taps: jax.Array, length: int) -> jax.Array:
    """The sum of the taps that fall inside the map, m[i] = sum_j g(i - j): [n, L, c]."""
    size = taps.shape[-1] - 1
    cumulative = jnp.cumsum(taps, -1)
    # Pixel i reaches i pixels to the one side and L - 1 - i to the other; both count its own tap.
    reach = np.minimum(np.arange(length), size)
    mass = cumulative[..., reach] + cumulative[..., reach[::-1]] - taps[..., :1]
    return jnp.moveaxis(mass, -1, 1)


def multiplied(x: jax.Array, factors: jax.Array) -> jax.Array:
    """[M, L, K] times factors [n, L, c]."""
    n, _, c = factors.shape
    factors = jnp.repeat(factors, x.shape[0] // n if n > 1 else 1, axis=0)
    if c == 1:
        return x * factors
    split = x.reshape(*x.shape[:2], -1, c)
    return (split * factors[:, :, None]).reshape(x.shape)


# Two axes of a map [N, H, W, C]


def stencil(x: jax.Array, taps: jax.Array, *, extended: bool = False) -> jax.Array:
    """x [N, H, W, C] filtered by point-symmetric taps [n, c, 2 R_y + 1, 2 R_x + 1].

    Outside of x lie zeros; or it is `extended` by the half sizes, which the result does not keep.
    """
    shifts = _plane(x, taps, extended)
    n, height, _ = shifts.shape
    return shifts.filtered(_plane_weights(taps, shifts)).reshape(n, height, -1, x.shape[-1])


def stencil_product(
    x: jax.Array,
    taps: jax.Array,
    other: jax.Array,
    *,
    share: jax.Array,
    on_cpu: bool,
    extended: bool = False,
) -> jax.Array:
    """The sum of `stencil(x, taps) * other` over all axes that `share` [N | 1, C | 1] shares."""
    shifts = _plane(x, taps, extended)
    return shifts.product(_plane_weights(taps, shifts), other, share, on_cpu)


def _plane(x: jax.Array, taps: jax.Array, extended: bool) -> Shifts:
    up, left = (size // 2 for size in taps.shape[-2:])
    if not extended:
        x = jnp.pad(x, ((0, 0), (up, up), (left, left), (0, 0)))
    n, height, width, channels = x.shape
    shape = n, height - 2 * up, (width - 2 * left) * channels
    return Shifts(x.reshape(n, height, -1), shape, (0, up, left * channels), channels)


def _plane_weights(taps: jax.Array, shifts: Shifts) -> Weights:
    """Taps [n, c, 2 R_y + 1, 2 R_x + 1] as weights of the rows of `shifts`."""
    up, left = (size // 2 for size in taps.shape[-2:])

    def weight(down, right):
        values, width = taps[..., up + down, left + right], shifts.shape[2] // shifts.stride
        return jnp.tile(values, (1, width if values.shape[1] > 1 else 1))[:, None]

    # The pixel in the middle, and the half plane that begins to its right.
    half = [(0, right) for right in range(left + 1)]
    half += [(down, right) for down in range(1, up + 1) for right in range(-left, left + 1)]
    return [((0, down, right * shifts.stride), weight(down, right)) for down, right in half]
