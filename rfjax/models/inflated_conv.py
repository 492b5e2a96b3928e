"""Scores of a map that is enlarged by a learned factor."""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
from flax import linen

from rfjax import nn
from rfjax.models.decoders import Decoder
from rfjax.models.stages import LAST
from rfjax.places import Place


class InflatedConv(Decoder):
    """A convolution of the last map, which is enlarged by a learned factor and brought back.

    y = interpolate(conv(inflate(x, f)), f)

    A kernel whose taps are `dilation` apart reaches dilation / f pixels of the map: f > 1 makes its
    field smaller, f < 1 larger.

    Parameters: those of `rfjax.nn.Inflated` under "inflated", with {kernel, bias} under its
    "layer".

    Attributes:
      features: number of classes.
      kernel_size, dilation: of the convolution.
      initial, bounds, gradient: of f, see `rfjax.nn.Inflated`.
      dtype: what is computed in.

    Calling it with (maps, train) returns scores at the place of the last one.

    Raises:
      ValueError: an option is unknown, or a number is not what it must be.

    Example:
      >>> maps = {"last": jax.numpy.ones([1, 9, 12, 4])}
      >>> scores, variables = InflatedConv(5, initial=1.5).init_with_output(
      ...     jax.random.key(0), maps)
      >>> scores.shape, sorted(variables["params"]["inflated"])
      ((1, 9, 12, 5), ['factor', 'layer'])

    Reference: Wei et al., "Learning Adaptive Receptive Fields for Deep Image Parsing Network",
      CVPR 2017.
    """

    features: int
    kernel_size: int | Sequence[int] = 3
    dilation: int | Sequence[int] = 1
    initial: float = 1.0
    bounds: tuple[float, float] = (0.25, 4.0)
    gradient: str = "paper"
    dtype: Any = None

    def place(self, places: Mapping[str, Place]) -> Place:
        """Where the last map lies."""
        return places[LAST]

    @linen.compact
    def __call__(self, maps: Mapping[str, jax.Array], train: bool = False) -> jax.Array:
        conv = nn.Conv(
            self.features,
            kernel_size=self.kernel_size,
            dilation=self.dilation,
            use_bias=True,
            dtype=self.dtype,
            parent=None,
        )
        layer = nn.Inflated(
            conv,
            initial=self.initial,
            bounds=self.bounds,
            gradient=self.gradient,
            name="inflated",
        )
        return layer(maps[LAST], train)
