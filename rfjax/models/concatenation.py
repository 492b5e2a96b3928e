"""Filters of every pixel beside the map that they are made of."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import _checks, nn
from rfjax.models.decoders import Decoder
from rfjax.models.stages import LAST
from rfjax.places import Place


class FilteredConcatenation(Decoder):
    """Scores of the last map and of what filters of its pixels see at a distance.

    y = score([x, r(conv1x1(DynamicFilter(x)))]),   r = relu

    Parameters: those of `rfjax.nn.DynamicFilter` under "filter"; `widen` {kernel [1, 1, outputs,
    width], bias}; `score` {kernel [1, 1, C + width, K], bias}.

    Attributes:
      features: number of classes K.
      outputs: channels of the filters' outputs.
      width: channels that they are brought to.
      channels, samples, sample_stride, attention, residual: of the filters.
      dtype: what is computed in.

    Calling it with maps returns scores at the place of the last one.

    Raises:
      ValueError: a number is not what it must be.

    Example:
      >>> maps = {"last": jnp.ones([1, 9, 12, 4])}
      >>> head = FilteredConcatenation(5, outputs=3, width=6, channels=4, samples=3)
      >>> scores, variables = head.init_with_output(jax.random.key(0), maps)
      >>> scores.shape, variables["params"]["score"]["kernel"].shape
      ((1, 9, 12, 5), (1, 1, 10, 5))

    Reference: Wu et al., "Dynamic Filtering with Large Sampling Field for ConvNets", ECCV 2018,
      section 4.2.
    """

    features: int
    outputs: int = 24
    width: int = 256
    channels: int = 128
    samples: int = 5
    sample_stride: int = 3
    attention: bool = True
    residual: bool = True
    dtype: Any = None

    def place(self, places: Mapping[str, Place]) -> Place:
        """Where the last map lies."""
        return places[LAST]

    @linen.compact
    def __call__(self, maps: Mapping[str, jax.Array]) -> jax.Array:
        x = maps[LAST]
        names = ("channels", "samples", "sample_stride", "attention", "residual", "dtype")
        options = {name: getattr(self, name) for name in names}
        outputs, width = (_checks.integer(n, getattr(self, n)) for n in ("outputs", "width"))
        pointwise = {"kernel_size": 1, "use_bias": True, "dtype": self.dtype}
        filtered = nn.DynamicFilter(outputs, name="filter", **options)(x)
        filtered = jax.nn.relu(nn.Conv(width, name="widen", **pointwise)(filtered))
        both = jnp.concatenate([x, filtered], -1)
        return nn.Conv(self.features, name="score", **pointwise)(both)
