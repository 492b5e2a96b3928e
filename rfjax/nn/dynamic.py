"""Layers that make the filters of every pixel, over a large field of samples (LS-DFN)."""

from collections.abc import Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, dynamic
from rfjax._engine.meshes import partitioned
from rfjax.nn.convolution import Conv

# Filters start near their residual, and attentions near one.
_SMALL = linen.initializers.normal(1e-3)


class DynamicFilter(linen.Module):
    """A filter for every pixel, made of the input, applied at several places around it.

    y = dynamic_filter(relu(F x), V x, U x + 1 / C, 1 + A x, 1 + B x)

    with F, U and V 1x1 convolutions and A and B 3x3 ones, see `rfjax.dynamic_filter`. With one
    sample and no attention it is a plain dynamic filter. A new layer sums the mean of the channels
    of relu(F x) over the samples.

    Parameters of the paper's: {kernel, bias} of `input` [1, 1, D, C], `within` [1, 1, D, C' k k],
    `across` [1, 1, D, C' C]; with attention `sample_attention` [3, 3, D, C' s s] and
    `position_attention` [3, 3, D, C' k k]; `bias` [C'] with `use_bias`.

    The variant "released" is the first author's published network. All branches read

    x' = relu(sum_d (1 + B_d x(p)) W_d x(p + d)),

    a 3x3 convolution whose taps are weighted at every pixel; V and U have a dilated 3x3 convolution
    of 2 C channels with relu in front, U is followed by + C in place of + 1 / C, F is two 3x3
    convolutions with relu, and samples are weighted alike for all outputs, 1 + A x'.

    Attributes:
      features: number C' of outputs.
      channels: number C of channels that are filtered.
      kernel_size: odd size k of the windows.
      samples: odd number s of places along each axis.
      sample_stride: their distance in pixels.
      attention: whether samples and positions are weighted.
      residual: whether 1 / C is added to the weights of channels.
      fusion: of the samples, sum | mean | max.
      variant: paper | released; the latter was trained with fusion="mean".
      use_bias: whether a number is added to each output at the end.
      dtype: what is computed in; None for the type that input and parameters promote to.

    Calling it with x [..., H, W, D] returns [..., H, W, features].

    Raises:
      ValueError: an option is unknown, or a number is not what it must be.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> layer = DynamicFilter(8, channels=16, samples=3)
      >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones([1, 9, 12, 4]))
      >>> y.shape, variables["params"]["across"]["kernel"].shape
      ((1, 9, 12, 8), (1, 1, 4, 128))

    Reference: Wu et al., "Dynamic Filtering with Large Sampling Field for ConvNets", ECCV 2018.
    """

    features: int
    channels: int = 32
    kernel_size: int = 3
    samples: int = 3
    sample_stride: int = 1
    attention: bool = True
    residual: bool = True
    fusion: str = "sum"
    variant: str = "paper"
    use_bias: bool = False
    dtype: Any = None

    VARIANTS: ClassVar[tuple[str, ...]] = ("paper", "released")

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x = _checks.float_array("x", x, min_ndim=3, layout="[..., H, W, C]")
        outputs, channels = (_checks.integer(n, getattr(self, n)) for n in ("features", "channels"))
        size, _ = _checks.pair("kernel_size", self.kernel_size, odd=True)
        number, _ = _checks.pair("samples", self.samples, odd=True)
        _checks.flag("attention", self.attention)
        _checks.choose("variant", self.variant, self.VARIANTS)
        branches = self._paper if self.variant == "paper" else self._released
        filtered, within, across, attentions = branches(x, outputs, channels, size, number)
        share = 1 / channels if self.variant == "paper" else float(channels)
        y = dynamic.dynamic_filter(
            filtered,
            within.reshape(*within.shape[:-1], outputs, size, size),
            across + share if _checks.flag("residual", self.residual) else across,
            **attentions,
            samples=number,
            sample_stride=self.sample_stride,
            fusion=self.fusion,
        )
        if not _checks.flag("use_bias", self.use_bias):
            return y
        bias = self.param("bias", linen.initializers.zeros, (outputs,), jnp.float32)
        return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))

    def _layer(self, name: str, features: int, taps: int, **options: Any) -> Conv:
        """A convolution of a branch, with a bias unless told."""
        options = {"use_bias": True, "kernel_init": _SMALL, "dtype": self.dtype} | options
        return Conv(features, kernel_size=taps, name=name, **options)

    def _paper(self, x: jax.Array, outputs: int, channels: int, size: int, number: int) -> tuple:
        """What is filtered, the two parts of the filters, and the attentions by name."""

        def attention(name: str, length: int) -> jax.Array:
            y = self._layer(name, outputs * length**2, 3)(x)
            return 1 + y.reshape(*y.shape[:-1], outputs, length, length)

        across = self._layer("across", outputs * channels, 1)(x)
        lengths = {"sample_attention": number, "position_attention": size}
        attentions = {name: attention(name, n) for name, n in lengths.items() if self.attention}
        filtered = self._layer("input", channels, 1, kernel_init=Conv.kernel_init)(x)
        within = self._layer("within", outputs * size**2, 1)(x)
        across = across.reshape(*across.shape[:-1], outputs, channels)
        return jax.nn.relu(filtered), within, across, attentions

    def _released(self, x: jax.Array, outputs: int, channels: int, size: int, number: int) -> tuple:
        """The same of the published network."""
        x = self._attended(x, channels)
        tiny = {"kernel_init": linen.initializers.normal(1e-4)}
        wide = {"kernel_init": linen.initializers.normal(1e-2)}

        def before(name: str, **options: Any) -> jax.Array:
            return jax.nn.relu(self._layer(f"{name}_hidden", 2 * channels, 3, **options)(x))

        across = self._layer("across", outputs * channels, 1, **tiny)(
            before("across", dilation=2, **tiny)
        )
        within = self._layer("within", outputs * size**2, 3, **tiny)(
            before("within", dilation=2, **tiny)
        )
        filtered = jax.nn.relu(self._layer("input", channels, 3, **wide)(before("input", **wide)))
        attentions = {}
        if self.attention:
            raw = self._layer("sample_attention", number**2, 3, use_bias=False, **wide)(x)
            shape = (*raw.shape[:-1], 1, number, number)
            attention = 1 + raw.reshape(shape)
            shape = (*raw.shape[:-1], outputs, number, number)
            attentions = {"sample_attention": jnp.broadcast_to(attention, shape)}
        across = across.reshape(*across.shape[:-1], outputs, channels)
        return filtered, within, across, attentions

    def _attended(self, x: jax.Array, channels: int) -> jax.Array:
        """x', a 3x3 convolution whose taps are weighted at every pixel."""
        x = self._layer("reduced", channels, 3, kernel_init=Conv.kernel_init)(x)
        if not self.attention:
            return jax.nn.relu(
                self._layer("attended", channels, 3, kernel_init=Conv.kernel_init)(x)
            )
        raw = self._layer("position_attention", 9, 3, use_bias=False)(x)
        # The taps as channels: what is left of the convolution is a 1x1 one.
        layer = self._layer("attended", channels, 1, kernel_init=Conv.kernel_init)
        return jax.nn.relu(layer(_weighted_taps(x, 1 + raw)))


@partitioned()
def _weighted_taps(x: jax.Array, weights: jax.Array) -> jax.Array:
    """The 3x3 surroundings of every pixel by the weights [..., H, W, 9] there: [..., H, W, 9 C]."""
    height, width = x.shape[-3:-1]
    bordered = jnp.pad(x, [(0, 0)] * (x.ndim - 3) + [(1, 1), (1, 1), (0, 0)])
    taps = [
        weights[..., 3 * i + j, None] * bordered[..., i : i + height, j : j + width, :]
        for i, j in np.ndindex(3, 3)
    ]
    return jnp.concatenate(taps, -1)


class LSDFN(linen.Module):
    """A sum of dynamic filters with samples at several distances, in place of dilated convolutions.

    y = b + sum_r DynamicFilter_r(x)

    Parameters: those of each filter under `filter_0`, `filter_1` ...; with `use_bias` the first one
    has the bias.

    Attributes:
      features: number of outputs.
      sample_strides: distances of the samples, one for each filter.
      channels, samples, attention, residual, use_bias, dtype: as of `DynamicFilter`.

    Calling it with x [..., H, W, D] returns [..., H, W, features].

    Raises:
      ValueError: a number is not what it must be.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> layer = LSDFN(5, channels=8, samples=3)
      >>> y, variables = layer.init_with_output(jax.random.key(0), jnp.ones([1, 9, 12, 4]))
      >>> y.shape, sorted(variables["params"])
      ((1, 9, 12, 5), ['filter_0', 'filter_1', 'filter_2', 'filter_3'])

    Reference: Wu et al., "Dynamic Filtering with Large Sampling Field for ConvNets", ECCV 2018,
      section 4.2 ("without atrous").
    """

    features: int
    sample_strides: Sequence[int] = (2, 4, 6, 8)
    channels: int = 32
    samples: int = 5
    attention: bool = True
    residual: bool = True
    use_bias: bool = False
    dtype: Any = None

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        names = ("channels", "samples", "attention", "residual", "dtype")
        options = {name: getattr(self, name) for name in names}
        strides = _checks.integers("sample_strides", self.sample_strides)
        biased = _checks.flag("use_bias", self.use_bias)
        filters = [
            DynamicFilter(
                self.features,
                sample_stride=stride,
                use_bias=biased and not index,  # one bias for all
                name=f"filter_{index}",
                **options,
            )
            for index, stride in enumerate(strides)
        ]
        return sum((layer(x) for layer in filters[1:]), start=filters[0](x))
