"""Layers that make the filters of every pixel, over a large field of samples (LS-DFN)."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, dynamic
from rfjax.nn.convolution import Conv

# Filters start near their residual, and attentions near one.
_SMALL = linen.initializers.normal(1e-3)


class DynamicFilter(linen.Module):
    """A filter for every pixel, made of the input, applied at several places around it.

    y = dynamic_filter(relu(F x), V x, U x + 1 / C, 1 + A x, 1 + B x)

    with F, U and V 1x1 convolutions and A and B 3x3 ones, see `rfjax.dynamic_filter`. With one
    sample and no attention it is a plain dynamic filter. A new layer sums the mean of the channels
    of relu(F x) over the samples.

    Parameters: {kernel, bias} of `input` [1, 1, D, C], `within` [1, 1, D, C' k k], `across`
    [1, 1, D, C' C]; with attention `sample_attention` [3, 3, D, C' s s] and `position_attention`
    [3, 3, D, C' k k]; `bias` [C'] with `use_bias`.

    Attributes:
      features: number C' of outputs.
      channels: number C of channels that are filtered.
      kernel_size: odd size k of the windows.
      samples: odd number s of places along each axis.
      sample_stride: their distance in pixels.
      attention: whether samples and positions are weighted.
      residual: whether 1 / C is added to the weights of channels.
      fusion: of the samples, sum | mean | max.
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
    use_bias: bool = False
    dtype: Any = None

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x = _checks.float_array("x", x, min_ndim=3, layout="[..., H, W, C]")
        outputs, channels = (_checks.integer(n, getattr(self, n)) for n in ("features", "channels"))
        size, _ = _checks.pair("kernel_size", self.kernel_size, odd=True)
        number, _ = _checks.pair("samples", self.samples, odd=True)
        options: dict[str, Any] = {"dtype": self.dtype, "use_bias": True}

        def branch(name: str, *shape: int, taps: int = 1) -> jax.Array:
            features = outputs
            for length in shape:
                features *= length
            conv = Conv(features, kernel_size=taps, kernel_init=_SMALL, name=name, **options)
            y = conv(x)
            return y.reshape(*y.shape[:-1], outputs, *shape)

        across = branch("across", channels)
        attentions = {}
        if _checks.flag("attention", self.attention):
            attentions = {
                "sample_attention": 1 + branch("sample_attention", number, number, taps=3),
                "position_attention": 1 + branch("position_attention", size, size, taps=3),
            }
        y = dynamic.dynamic_filter(
            jax.nn.relu(Conv(channels, kernel_size=1, name="input", **options)(x)),
            branch("within", size, size),
            across + 1 / channels if _checks.flag("residual", self.residual) else across,
            **attentions,
            samples=number,
            sample_stride=self.sample_stride,
            fusion=self.fusion,
        )
        if not _checks.flag("use_bias", self.use_bias):
            return y
        bias = self.param("bias", linen.initializers.zeros, (outputs,), jnp.float32)
        return y + bias.astype(y.dtype).reshape((1,) * (y.ndim - 1) + (-1,))


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
