"""Gaussian filtering of the axes of a map by a sigma for each, in the way that suits a platform.

On a CPU a large map is worked off in blocks, and within a block the form follows the traced sigma
(`rfjax._passes`).

Elsewhere the map is filtered as a whole by matrix products, which run on matrix units and leave no
choice to be made on the device.
"""

import math
from functools import partial
from typing import NamedTuple

import jax

from rfjax._blocks import Limits, filter_in_blocks, pull_in_blocks
from rfjax._derivatives import operator
from rfjax._devices import alike, by_device, is_known
from rfjax._passes import filter_all, filter_and_keep, is_renormalized, pull_again, pull_kept
from rfjax._separable import Axis
from rfjax.gaussian import Window

# Filters along an axis lose more by short rows than they gain from the caches.
LIMITS = Limits(whole=2**21, split=5 * 2**17)

ALGORITHMS = ("auto", "shift_add", "toeplitz")


class Filter(NamedTuple):
    """How a map is filtered; static."""

    padding: str
    window: Window
    algorithm: str = "auto"

    def half_sizes(self, length: int, platform: str) -> tuple[int, ...]:
        """The static half sizes that are filtered by shift-and-add on an axis of `length`.

        Beyond the largest of them the Toeplitz product serves. On a CPU it costs about as much as
        `length` / 4 taps, and on long axes about as much as 64. A length that is not known has
        none.
        """
        by_matrix = self.algorithm == "auto" and platform != "cpu"
        if self.algorithm == "toeplitz" or by_matrix or not is_known(length):
            return ()
        largest = length // 2
        if self.algorithm == "auto":
            largest = min(length // 4, 16) if length < 256 else 32
        return tuple(size for size in (1, 2, 4, 8, 16, 32, 64, 128) if size <= largest)

    def axes(self, shape: tuple[int, ...], platform: str) -> tuple[Axis, ...]:
        """The spatial axes of a map [N, *spatial, C]."""
        n, *spatial, channels = shape
        sides = [
            (n * math.prod(spatial[:k]), length, math.prod(spatial[k + 1 :]) * channels)
            for k, length in enumerate(spatial)
        ]
        halves = [self.half_sizes(length, platform) for length in spatial]
        return tuple(
            Axis(side, self.padding, self.window, sizes, on_cpu=platform == "cpu")
            for side, sizes in zip(sides, halves, strict=True)
        )


def filter_axes(x: jax.Array, sigmas: jax.Array, how: Filter) -> jax.Array:
    """The map [N, *spatial, C] filtered along its axes by sigmas [N | 1, C | 1, axes]."""
    steps = (partial(step, how) for step in (_forward, _backward, _plain, _keeping))
    return operator(*steps)(*alike(x, sigmas))


def _forward(how: Filter, x: jax.Array, sigmas: jax.Array) -> jax.Array:
    def run(platform, x, sigmas):
        return filter_all(x, sigmas, how.axes(x.shape, platform))

    cpu = partial(run, "cpu")
    if LIMITS.splits(x.shape):
        cpu = partial(filter_in_blocks, cpu, LIMITS)
    return by_device(x, sigmas, cpu=cpu, default=partial(run, "default"), like=lambda x, _: x)


def _keeping(how: Filter, x: jax.Array, sigmas: jax.Array) -> tuple[jax.Array, list[jax.Array]]:
    """The result and the maps that the gradient reads, or x in their place where it does not."""

    def run(platform, x, sigmas):
        return filter_and_keep(x, sigmas, how.axes(x.shape, platform))

    def like(x, sigmas):
        axes = how.axes(x.shape, "default")
        return x, [x] * (len(axes) - (not is_renormalized(axes)))

    def in_blocks(x, sigmas):
        one_block = partial(run, "cpu")
        y = filter_in_blocks(lambda x, sigmas: one_block(x, sigmas)[0], LIMITS, x, sigmas)
        return y, like(x, sigmas)[1]

    cpu = in_blocks if LIMITS.splits(x.shape) else partial(run, "cpu")
    return by_device(x, sigmas, cpu=cpu, default=partial(run, "default"), like=like)


def _backward(how: Filter, operands, kept, cotangent) -> tuple[jax.Array, jax.Array]:
    def run(platform, x, sigmas, kept, cotangent):
        return pull_kept(x, sigmas, how.axes(x.shape, platform), kept, cotangent)

    def again(x, sigmas, cotangent):
        return pull_again(x, sigmas, how.axes(x.shape, "cpu"), cotangent)

    def in_blocks(x, sigmas, kept, cotangent):
        return pull_in_blocks(again, LIMITS, x, sigmas, cotangent)

    cpu = in_blocks if LIMITS.splits(operands[0].shape) else partial(run, "cpu")
    operands = *operands, kept, cotangent
    like = lambda x, sigmas, *_: (x, sigmas)
    return by_device(*operands, cpu=cpu, default=partial(run, "default"), like=like)


def _plain(how: Filter, x: jax.Array, sigmas: jax.Array) -> jax.Array:
    """By matrix products for any sigma, which JAX differentiates to any order."""
    axes = how._replace(algorithm="toeplitz").axes(x.shape, "default")
    return filter_and_keep(x, sigmas, axes)[0]
