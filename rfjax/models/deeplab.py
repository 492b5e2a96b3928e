"""DeepLab v3+: a pyramid of dilated convolutions, refined by the map of stride 4."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import _checks, nn
from rfjax.models.blocks import conv_norm_relu
from rfjax.models.decoders import Decoder
from rfjax.models.resizing import HalfPixelBilinear
from rfjax.models.stages import LAST
from rfjax.nn.context import Pyramid
from rfjax.places import Place

FINE_STRIDE = 4


class DeepLabV3Plus(Decoder):
    """Scores of stride 4, of the last map's pyramid and of a map that has this stride.

    u = enlarge(pyramid(x_last)),  v = r(conv1x1(x_4))
    y = score(r(conv3x3(... r(conv3x3([u, v])))))     with r = relu bn

    Parameters: those of `rfjax.nn.context.Pyramid` under "aspp"; `low` {kernel [1, 1, C_4, low]},
    `fuse_<i>` {kernel [3, 3, .., width]} and as many `<name>_norm` {scale, bias}; `score` {kernel
    [1, 1, width, K], bias [K]}.

    Attributes:
      features: number of classes K.
      rates: of the pyramid; None for (6, 12, 18) at stride 16, and in proportion at others.
      width: channels of the pyramid and of the 3x3 convolutions.
      low: channels that the map of stride 4 is brought to.
      depth: number of the 3x3 convolutions.
      dropout: share of the pyramid's features that training sets to 0; None is 0.1.
      blur: standard deviation of a Gaussian before each dilated branch, in units of its dilation;
        None for plain dilation.
      at: the map of stride 4; "" for the last of this stride that the network has, see `reading`.
      dtype: what is computed in.
      axis_name: pmapped axis over which batch statistics are averaged in training, or None.
      norm: layer class of the normalization.

    Calling it with (maps, places, train) returns scores at `place(places)`. In training it needs
    more than one example, as the pyramid's mean over all pixels is normalized.

    Raises:
      ValueError: the network has no map of stride 4, or a number is not what it must be.

    Example:
      >>> head = DeepLabV3Plus(3, width=8, at="layer1")
      >>> places = {"layer1": Place(4), "last": Place(16)}
      >>> maps = {"layer1": jnp.ones([1, 8, 8, 4]), "last": jnp.ones([1, 2, 2, 6])}
      >>> scores, variables = head.init_with_output(jax.random.key(0), maps, places)
      >>> scores.shape, [name for name in sorted(variables["params"]) if "norm" not in name]
      ((1, 8, 8, 3), ['aspp', 'fuse_0', 'fuse_1', 'low', 'score'])

    Reference: Chen et al., "Encoder-Decoder with Atrous Separable Convolution for Semantic Image
      Segmentation", ECCV 2018, section 3.1 and figure 2.
    """

    features: int
    rates: Sequence[int] | None = None
    width: int = 256
    low: int = 48
    depth: int = 2
    dropout: float | None = None
    blur: float | None = None
    at: str = ""
    dtype: Any = None
    axis_name: str | None = None
    norm: Callable[..., linen.Module] = nn.BatchNorm
    conv: ClassVar[Callable[..., linen.Module]] = nn.Conv

    @property
    def READS(self) -> tuple[str, ...]:
        """The map of stride 4, and the last one."""
        return (self.at, LAST)

    def reading(self, places: Mapping[str, Place]) -> "DeepLabV3Plus":
        """The head that reads the last map of stride 4."""
        if self.at:
            return self
        fine = [name for name, place in places.items() if place.stride == (FINE_STRIDE,) * 2]
        if not fine:
            strides = dict.fromkeys(f"{place.stride[0]:g}" for place in places.values())
            raise ValueError(
                f"head 'deeplab_v3_plus' reads a map of stride {FINE_STRIDE}; the maps of this "
                f"network have strides {', '.join(strides)}"
            )
        return self.clone(at=fine[-1])

    def place(self, places: Mapping[str, Place]) -> Place:
        """Where the map of stride 4 lies."""
        return places[self.at]

    @linen.compact
    def __call__(
        self, maps: Mapping[str, jax.Array], places: Mapping[str, Place], train: bool = False
    ) -> jax.Array:
        fine, width = maps[self.at], _checks.integer("width", self.width)
        shared = {"dtype": self.dtype, "axis_name": self.axis_name, "norm": self.norm}
        stride = places[LAST].stride[0]
        rates = self.rates or tuple(round(96 / stride) * n for n in (1, 2, 3))
        options = {"rates": rates, "dropout": self.dropout, "blur": self.blur}
        x = Pyramid(width, name="aspp", **options, **shared)(maps[LAST], train)
        # As everywhere in these networks, the corners of two maps are one point.
        x = HalfPixelBilinear(round(stride / FINE_STRIDE))(x)[:, : fine.shape[1], : fine.shape[2]]
        norm = partial(
            self.norm, use_running_average=not train, axis_name=self.axis_name, dtype=self.dtype
        )
        layer = partial(conv_norm_relu, self, norm=norm, fixed=True)
        forward, low = nn.Forward(train), _checks.integer("low", self.low)
        y, forward = layer(fine, forward, low, ("low", "low_norm"), kernel_size=1)
        x = jnp.concatenate([x, y], -1)
        for index in range(_checks.integer("depth", self.depth)):
            x, forward = layer(x, forward, width, (f"fuse_{index}", f"fuse_{index}_norm"))
        return nn.Conv(self.features, kernel_size=1, use_bias=True, dtype=self.dtype, name="score")(
            x
        )
