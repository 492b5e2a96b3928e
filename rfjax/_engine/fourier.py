"""Filtering of planes as products of Fourier transforms, for full covariances of long supports.

    y = F^-1(F(x) F(g))

The transforms are the fast algorithm, or products of matrices: XLA does not partition the fast
transform, so that every device would transform the planes of all. Products it does partition, and
matrix units run them.
"""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._engine.grid import plane_taps
from rfjax._engine.layout import in_order, precise
from rfjax._engine.plan import Plane


@partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def filter_by_transforms(
    plane: Plane, grid: tuple[int, int], x: jax.Array, params: jax.Array
) -> jax.Array:
    """x [N, H, W, C], or x extended by the half sizes `grid`, filtered by taps on that grid."""
    return filtered_and_kept(plane, grid, x, params)[0]


def filtered_and_kept(plane: Plane, grid: tuple[int, int], x: jax.Array, params: jax.Array):
    """`filter_by_transforms`, and what its gradient reads."""
    torus = _torus(plane, grid, x)
    spectrum = torus.spectrum(x, (0, 0))
    transfer = torus.transfer(plane_taps(plane, grid, params), grid)
    start = grid if plane.is_extended(x.shape) else (0, 0)
    y = torus.planes(scaled(spectrum, transfer), start, (plane.height, plane.width))
    return y, (x, spectrum, params)


def _backward(plane: Plane, grid: tuple[int, int], residuals, cotangent):
    """The filter is its own adjoint; the taps' cotangent is a correlation, summed as a spectrum."""
    x, spectrum, params = residuals
    torus = _torus(plane, grid, x)
    taps, pull = jax.vjp(partial(plane_taps, plane, grid), params)
    start = grid if plane.is_extended(x.shape) else (0, 0)
    change = torus.spectrum(cotangent, start)
    # grad_x = g * c
    grad_x = torus.planes(scaled(change, torus.transfer(taps, grid)), (0, 0), x.shape[1:3])
    # grad_taps(d) = sum_p c(p) x(p + d), over all examples and channels that share the taps
    shared = [k for k in (0, 1) if params.shape[k] == 1]
    product = jnp.sum(jnp.conj(change) * spectrum, shared, keepdims=True)
    # F^-1(conj(F(c)) F(x)) at the distances -grid ... grid
    along = jnp.roll(torus.inverse(product), grid, (-2, -1))
    along = along[..., : taps.shape[-2], : taps.shape[-1]]
    return grad_x, pull(along)[0]


filter_by_transforms.defvjp(filtered_and_kept, _backward)


class _Torus(NamedTuple):
    """The periodic plane on which a map is transformed."""

    period: tuple[int, int]
    by_matrix: bool

    def spectrum(self, x: jax.Array, start: tuple[int, int]) -> jax.Array:
        """The transform of x [N, H, W, C] put at `start`: [N, C, P, Q // 2 + 1].

        Planes of contiguous pixels transform fastest.
        """
        ends = [p - s - n for p, s, n in zip(self.period, start, x.shape[1:3], strict=True)]
        # x at `start`, zeros elsewhere on the torus
        planes = jnp.moveaxis(x, -1, 1)
        planes = jnp.pad(planes, ((0, 0), (0, 0), *zip(start, ends, strict=True)))
        return rfft2(planes, self.period, by_matrix=self.by_matrix)

    def transfer(self, taps: jax.Array, grid: tuple[int, int]) -> jax.Array:
        """The transform of point-symmetric taps about the origin, which is real."""
        # The tap in the middle goes to the origin: what lies before it wraps to the far end.
        pad = [(0, p - size) for p, size in zip(self.period, taps.shape[-2:], strict=True)]
        kernel = jnp.roll(jnp.pad(taps, ((0, 0), (0, 0), *pad)), (-grid[0], -grid[1]), (-2, -1))
        return rfft2(kernel, self.period, by_matrix=self.by_matrix).real

    def inverse(self, spectrum: jax.Array) -> jax.Array:
        """The planes [N, C, P, Q] of a spectrum."""
        return irfft2(spectrum, self.period, by_matrix=self.by_matrix)

    def planes(self, spectrum: jax.Array, start: tuple[int, int], size: tuple[int, int]):
        """The part of `size` from `start` of a spectrum's planes: [N, *size, C]."""
        rows, columns = (slice(s, s + n) for s, n in zip(start, size, strict=True))
        part = self.inverse(spectrum)[..., rows, columns]
        return in_order(jnp.moveaxis(part, 1, -1))


def _torus(plane: Plane, grid: tuple[int, int], x: jax.Array) -> _Torus:
    """The least torus: what wraps around must land outside the map, or on what is cut off."""
    from scipy.fft import next_fast_len  # here, since it doubles the time that rfjax takes to load

    margin = (0, 0) if plane.is_extended(x.shape) else grid
    sides = x.shape[1:3]
    least = [max(s + m, 2 * h + 1) for s, m, h in zip(sides, margin, grid, strict=True)]
    period = tuple(next_fast_len(size, real=True) for size in least)
    partitioned = plane.device == "partitioned"
    return _Torus(period, partitioned)  # pyright: ignore[reportArgumentType]  SciPy tells no types


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
    """The real planes [..., P, Q] whose transform is `spectrum` [..., P, Q // 2 + 1].

    x[h, w] = 1 / (P Q) sum_(k, l) X[k, l] exp(2 pi i (k h / P + l w / Q))
    """
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
