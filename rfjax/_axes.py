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

from rfjax._blocks import Limits, filter_in_blocks
from rfjax._passes import filter_all, pull_again
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
        `length` / 4 taps, and on long axes about as much as 64.
        """
        if self.algorithm == "toeplitz" or (self.algorithm == "auto" and platform != "cpu"):
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
        return tuple(
            Axis(side, self.padding, self.window, self.half_sizes(side[1], platform))
            for side in sides
        )


def filter_axes(x: jax.Array, sigmas: jax.Array, how: Filter) -> jax.Array:
    """The map [N, *spatial, C] filtered along its axes by sigmas [N | 1, C | 1, axes]."""

    def run(platform, x, sigmas):
        return filter_all(x, sigmas, how.axes(x.shape, platform))

    def pull(x, sigmas, cotangent):
        return pull_again(x, sigmas, how.axes(x.shape, "cpu"), cotangent)

    return jax.lax.platform_dependent(
        x,
        sigmas,
        cpu=partial(filter_in_blocks, partial(run, "cpu"), pull, LIMITS),
        default=partial(run, "default"),
    )
