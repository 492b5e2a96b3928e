"""How a map is filtered: which form computes which axes, on which platform, in which blocks.

All of this is static: known while a program is traced or lowered. Which of the static forms and
sizes serves a traced sigma, the program decides while it runs, by `rfjax._engine.switch`.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp

from rfjax._engine import choices, native, tuning
from rfjax._engine.blocks import Limits
from rfjax._engine.choices import Choice
from rfjax._engine.devices import is_known
from rfjax._engine.profile import Window

PADDINGS = ("zero", "edge", "reflect", "wrap", "renormalized")
ALGORITHMS = ("auto", "shift_add", "toeplitz", "banded", "pallas", "native")
READERS = ("auto", "gather", "pallas", "native")

# How `jnp.pad` names the boundaries that read outside the map.
PAD_MODES = {"zero": "constant", "edge": "edge", "reflect": "reflect", "wrap": "wrap"}


class Plan(NamedTuple):
    """How `gaussian_blur` computes: see `rfjax.filtering.plan`."""

    platform: str
    algorithms: tuple[str, ...]
    half_sizes: tuple[int, ...]
    static_half_sizes: tuple[int, ...]
    block: tuple[int, int]


class Form(NamedTuple):
    """A form that filters an axis, and the static half size up to which it does."""

    name: str  # shift_add | banded | pallas
    size: int


class Axis(NamedTuple):
    """One axis of a map and how it is filtered; all static.

    The map is seen as [M, L, K]: in M the examples and the axes before, the axis, and in K the axes
    after and the channels. (Axes more would often be of size one, and XLA copies maps to rearrange
    the strides of such axes.)
    """

    shape: tuple[int, int, int]
    padding: str
    window: Window
    forms: tuple[Form, ...]  # from the smallest to the largest; beyond them, the matrix
    on_cpu: bool = True

    @property
    def length(self) -> int:
        """L, the number of pixels along the axis."""
        return self.shape[1]

    @property
    def half_sizes(self) -> tuple[int, ...]:
        """The static half sizes that are sums of shifted maps."""
        return tuple(form.size for form in self.forms if form.name == "shift_add")


class Filter(NamedTuple):
    """How a map is filtered; static."""

    padding: str
    window: Window
    algorithm: str = "auto"

    @property
    def limits(self) -> Limits:
        """How much of a map a CPU filters at a time."""
        return Limits(tuning.AXES_WHOLE, tuning.AXES_SPLIT)

    def forms(self, numbers: int, length: int, platform: str) -> tuple[Form, ...]:
        """What filters an axis of `length` in a map of so many numbers, and up to which half size.

        Beyond the last form the Toeplitz product serves, which alone serves a length that is not
        known.
        """
        if self.algorithm == "toeplitz" or not is_known(numbers, length):
            return ()
        if self.algorithm not in ("auto", "native"):
            return self._asked(length, platform)
        if platform == "cpu":
            # The product costs about as much as `length` / 4 taps, on long axes as much as 64.
            largest = min(length // tuning.SHORT_SHARE, tuning.SHORT_SUM)
            return _sums(largest if length < tuning.LONG_AXIS else tuning.LONG_SUM)
        row = nearest(choices.BLURS, platform, "float32", (numbers, length))
        return () if row is None else _expanded(row.forms, length)

    def _asked(self, length: int, platform: str) -> tuple[Form, ...]:
        """The forms of the algorithm that was asked for."""
        if self.algorithm == "shift_add":
            # Up to half of the axis, beyond which the sums reach past both ends.
            return _sums(length // 2)
        if self.algorithm == "banded":
            return tuple(Form("banded", size) for size in tuning.BAND_SIZES if size <= length)
        # The kernels are those of a GPU; a CPU interprets them.
        size = min(tuning.KERNEL_SIZE, length)
        return (Form("pallas", size),) if platform in ("cpu", "gpu") else ()

    def is_fused(self, shape: tuple[int, ...], dtype: Any) -> bool:
        """Whether kernels that were built filter a map [N, *spatial, C] on a CPU."""
        return (
            self.algorithm in ("auto", "native")
            and self.padding in native.PADDINGS
            and (len(shape), dtype) == (4, jnp.float32)
            and is_known(*shape)
            and 0 not in shape
            and native.is_loaded()
        )

    def is_pulled_fused(self, shape: tuple[int, ...], dtype: Any) -> bool:
        """Whether they compute its gradient as well."""
        return self.padding == "zero" and self.is_fused(shape, dtype)

    def fused_sizes(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The half sizes up to which they serve, along each axis."""
        sides = (length // tuning.FUSED_SHARE for length in shape[1:-1])
        return tuple(min(max(size, tuning.FUSED_LEAST), tuning.FUSED_MOST) for size in sides)

    def axes(self, shape: tuple[int, ...], platform: str) -> tuple[Axis, ...]:
        """The spatial axes of a map [N, *spatial, C]."""
        n, *spatial, channels = shape
        # [M, L, K] for each axis: what lies before it, the axis, and what lies after it.
        sides = [
            (n * math.prod(spatial[:k]), length, math.prod(spatial[k + 1 :]) * channels)
            for k, length in enumerate(spatial)
        ]
        return tuple(
            Axis(
                side,
                self.padding,
                self.window,
                self.forms(math.prod(shape), side[1], platform),
                on_cpu=platform == "cpu",
            )
            for side in sides
        )

    def plan(self, shape: tuple[int, ...], needed: tuple[int, ...], platform: str) -> Plan:
        """The plan for a map [N, *spatial, C] of float32 and supports of half sizes `needed`."""
        if platform == "cpu" and self.is_fused(shape, jnp.float32):
            bounds = self.fused_sizes(shape)
            if all(size <= bound for size, bound in zip(needed, bounds, strict=True)):
                whole = shape[0], shape[-1]
                return Plan(platform, ("native", "native"), needed, bounds, whole)
        forms, statics = [], []
        for size, length in zip(needed, shape[1:-1], strict=True):
            # The first form that holds the support, or the whole axis as a matrix.
            serving = [f for f in self.forms(math.prod(shape), length, platform) if f.size >= size]
            form = serving[0] if serving else Form("toeplitz", length - 1)
            forms.append(form.name)
            statics.append(form.size)
        block = self.limits.on(platform, shape)
        return Plan(platform, tuple(forms), needed, tuple(statics), block)


class Plane(NamedTuple):
    """The two axes of a map and how they are filtered; all static."""

    height: int
    width: int
    padding: str
    window: Window
    device: str = "cpu"

    @property
    def limits(self) -> Limits:
        """How much of a map a CPU filters at a time."""
        return Limits(tuning.PLANE_WHOLE, tuning.PLANE_SPLIT)

    def half_sizes(self) -> list[tuple[int, int]]:
        """Half sizes (y, x) of the static grids, from the smallest to the largest needed.

        Zero and renormalized boundaries never read further than the map's side; the others read
        copies of the map, up to two sides or 64 pixels away.
        """
        # Beyond the map's side zeros alone are read.
        high, wide = self.height, self.width
        if self.padding not in ("zero", "renormalized"):
            high, wide = (max(tuning.LEAST_REACH, 2 * side) for side in (high, wide))
        sizes, size = [], 1
        # 1, 2, 3, 4 are sums of shifted maps; then 8, 24, 72, ... are transforms.
        while size < max(high, wide):
            sizes.append((min(size, high), min(size, wide)))
            grows = 2 if size < tuning.DOUBLED_GRID else 3
            size = size + 1 if size < tuning.DENSE_GRID else size * grows
        return [*sizes, (high, wide)]

    def is_extended(self, shape: tuple[int, ...]) -> bool:
        """Whether a map [N, H, W, C] of this shape is extended by what lies outside of it."""
        return shape[1:3] != (self.height, self.width)

    def choice(self, needed: tuple[int, ...]) -> tuple[str, tuple[int, int]]:
        """The form, shift_add or fourier, and the static grid that serve half sizes `needed`."""
        grids = self.half_sizes()

        def serves(grid):
            sizes = zip(needed, grid, grids[-1], strict=True)
            return all(need <= size or size == most for need, size, most in sizes)

        # The smallest grid that holds the support, or the map along an axis.
        grid = next(grid for grid in grids if serves(grid))
        return "shift_add" if is_dense(grid) else "fourier", grid

    def is_direct(self, shape: tuple[int, ...], covariances: tuple[int, ...], dtype: Any) -> bool:
        """Whether kernels that were built filter a map [N, H, W, C] by covariances [N | 1, C | 1].

        They do up to a number of taps, on a CPU.
        """
        return (
            self.padding == "zero"
            and covariances[1] == 1
            and dtype == jnp.float32
            and is_known(*shape)
            and 0 not in shape
            and native.is_loaded()
        )

    def direct_sizes(self) -> tuple[int, int]:
        """The half sizes (y, x) up to which they serve: beyond the map there are zeros alone."""
        return min(tuning.DIRECT_SIZE, self.height), min(tuning.DIRECT_SIZE, self.width)

    def plan(
        self,
        shape: tuple[int, ...],
        needed: tuple[int, ...],
        platform: str,
        covariances: tuple[int, ...],
    ) -> Plan:
        """The plan for a map [N, H, W, C] and supports of half sizes `needed`."""
        if platform == "cpu" and self.is_direct(shape, covariances, jnp.float32):
            bounds = self.direct_sizes()
            sizes = [min(n, side) for n, side in zip(needed, shape[1:3], strict=True)]
            taps = math.prod(2 * size + 1 for size in sizes)
            fits = all(size <= bound for size, bound in zip(sizes, bounds, strict=True))
            if fits and taps <= tuning.DIRECT_TAPS:
                return Plan(platform, ("native",), needed, bounds, (shape[0], shape[-1]))
        form, grid = self.choice((needed[0], needed[1]))
        return Plan(platform, (form,), needed, grid, self.limits.on(platform, shape))


class Reading(NamedTuple):
    """How a map is read at positions of each output; static."""

    algorithm: str = "auto"

    def form(
        self,
        outputs: tuple[int, ...],
        map_shape: tuple[int, ...],
        weights: tuple[int, ...],
        dtype: Any,
        platform: str,
    ) -> str:
        """gather, pallas or native, for outputs [N, H', W'] of a map [N, H, W, C]; see `reads`."""
        # Kernels in Pallas are those of a GPU, which a CPU interprets where they are asked for.
        if platform not in ("cpu", "gpu") or not is_known(*outputs, *map_shape):
            return "gather"
        if platform == "cpu" and self.algorithm in ("auto", "native"):
            return "native" if native.is_loaded() else "gather"
        if self.algorithm not in ("auto", "native"):
            return self.algorithm
        sizes = math.prod(outputs) * weights[0], map_shape[-1], math.prod(weights[1:])
        row = nearest(choices.READS, platform, jnp.dtype(dtype).name, sizes)
        return "gather" if row is None else row.forms[0][0]


def nearest(
    rows: tuple[Choice, ...], platform: str, dtype: str, sizes: tuple[int, ...]
) -> Choice | None:
    """The row of the platform whose sizes differ by the smallest factors; None without any.

    Rows of the same dtype come before all others.
    """
    platform = "tpu" if platform == "default" else platform

    def distance(row: Choice) -> tuple[bool, float]:
        factors = (a / b for a, b in zip(sizes, row.sizes, strict=True))
        return row.dtype != dtype, sum(math.log(factor) ** 2 for factor in factors)

    return min((row for row in rows if row.platform == platform), key=distance, default=None)


def _expanded(forms: tuple[tuple[str, int], ...], length: int) -> tuple[Form, ...]:
    """Forms that serve up to some half size each, in all static sizes that there are.

    None is longer than half of the axis, beyond which sums reach past both ends.
    """
    static = {"shift_add": tuning.SUM_SIZES, "banded": tuning.BAND_SIZES}
    found, served = [], 0
    for name, wanted in forms:
        for size in static.get(name, (wanted,)):
            if served < size <= length // 2 and served < wanted:
                found.append(Form(name, size))
                served = size
    return tuple(found)


def _sums(largest: int) -> tuple[Form, ...]:
    """Sums of shifted maps of the static sizes up to the largest."""
    return tuple(Form("shift_add", size) for size in tuning.SUM_SIZES if size <= largest)


def is_dense(grid: tuple[int, int]) -> bool:
    """Whether a filter on this grid is a sum of shifted maps, and no product of transforms."""
    return max(grid) <= tuning.DENSE_GRID
