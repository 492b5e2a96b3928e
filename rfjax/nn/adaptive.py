"""Convolutions whose dilation is regressed from the input, at every pixel.

Both sow the dilation that is expected at every output as ("intermediates", "scale_map"), float32
[..., H', W'], in pixels of the map that they act on.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, adaptive
from rfjax._names import DILATED_BY, PRIORS
from rfjax.nn import _layer
from rfjax.nn.convolution import Conv

_ACTIVATIONS: dict[str, Callable[[jax.Array], jax.Array]] = {
    "tanh": jnp.tanh,
    "relu": jax.nn.relu,
    "identity": lambda x: x,
}


class AdaptiveDilationConv(_layer.KernelLayer):
    """A convolution whose dilation is chosen at every output, of a few (PAD).

    y(p) = b + sum_n w_n(p) sum_m theta_m^T x(stride p + d_n m)
    w(p) = softmax((h(p) + g) / temperature),  g Gumbel noise, -log(-log(uniform)), of its own for
           every pixel and dilation

    In training w is such a soft sample. In evaluation it is, by `evaluation`,

    hard       one at the largest h(p), and zero elsewhere: a map of dilations
    expected   softmax(h(p))
    sampled    as in training

    The prior h is made of the layer's input at the output's position and of the prior h' of the
    layer before, which the carry hands on (zeros for the first, see `rfjax.nn.forward`):

    markov     h = f(U x)
    recurrent  h = f(W h' + U x)
    gated      h = f(a W h' + (1 - a) U x),  a = 1 / (1 + exp(-(V h' + T x)))

    W, U, V and T are 1x1 convolutions. A prior of a finer map is taken at every second pixel, or
    the like; it must have as many dilations.

    Parameters: `kernel` [kh, kw, C, features]; `prior_input` {kernel [1, 1, C, D], bias [D]}, U;
    `bias` [features] with `use_bias`. Unless the prior is "markov", `prior_before` likewise of D
    inputs, W, without a bias; with "gated" `gate_input` and `gate_before`, T and V.

    Random numbers come from the stream "dilation", and are wanted where w is sampled.

    Attributes: those of every layer, see `rfjax.nn`, and
      dilations: D distances of taps in pixels, static. They take the place of `dilation`, which
        must be left at what a network gives and has no effect.
      prior: markov | recurrent | gated.
      temperature: of the softmax of samples, above 0.
      evaluation: hard | expected | sampled.
      activation: f, tanh | relu | identity.

    Calling it with (x [..., H, W, C], train, carry) returns y [..., (H - 1) // stride + 1,
    (W - 1) // stride + 1, features] and the carry, the prior h.

    Raises:
      ValueError: an option is unknown, a number is not what it must be, or the prior of the layer
        before has another number of dilations.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> layer = AdaptiveDilationConv(8)
      >>> x = jnp.ones([1, 9, 12, 3])
      >>> (y, prior), variables = layer.init_with_output(jax.random.key(0), x)
      >>> y.shape, prior.shape, sorted(variables["params"])
      ((1, 9, 12, 8), (1, 9, 12, 3), ['kernel', 'prior_input'])

    Reference: "PAD-Nets: Learning Dynamic Receptive Fields via Pixel-Wise Adaptive Dilation",
      equations 2 to 5.
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = dict.fromkeys(
        ("prior_input", "prior_before", "gate_input", "gate_before"), "regressor"
    )

    dilations: Sequence[int] = (1, 2, 4)
    prior: str = "markov"
    temperature: float = 1.0
    evaluation: str = "hard"
    activation: str = "tanh"

    @linen.compact
    def __call__(
        self, x: ArrayLike, train: bool = False, carry: Any = ()
    ) -> tuple[jax.Array, jax.Array]:
        x, kernel = self.prepare(x)
        dilations = _checks.integers("dilations", self.dilations)
        logits = self._prior(x, carry)
        weights = self._weights(logits.astype(_checks.accumulation_dtype(logits)), train)
        self.sow("intermediates", "scale_map", _expected(weights, dilations))
        self.sow("intermediates", "dilation_weights", weights)
        y = adaptive.adaptive_dilated_conv(
            x, kernel, weights, dilations=dilations, stride=self.stride
        )
        return self.add_bias(y), logits

    def _prior(self, x: jax.Array, carry: Any) -> jax.Array:
        """The logits h, [..., H', W', D]."""
        _checks.choose("prior", self.prior, PRIORS)
        activation = _checks.choose("activation", self.activation, _ACTIVATIONS)
        own = self._pointwise("prior_input", use_bias=True)(x)
        if self.prior == "markov":
            return activation(own)
        # h' is zero in front of the first layer, whose maps W and V have their shapes all the same.
        before = self._before(carry, own)
        handed = self._pointwise("prior_before", stride=1)(before)
        if self.prior == "recurrent":
            return activation(handed + own)
        gate = self._pointwise("gate_before", stride=1)(before)
        gate = jax.nn.sigmoid(gate + self._pointwise("gate_input", use_bias=True)(x))
        return activation(gate * handed + (1 - gate) * own)

    def _pointwise(self, name: str, *, stride: Any = None, use_bias: bool = False) -> Conv:
        """A 1x1 convolution to a number for each dilation."""
        return Conv(
            len(self.dilations),
            kernel_size=1,
            stride=self.stride if stride is None else stride,
            use_bias=use_bias,
            dtype=self.dtype,
            kernel_init=linen.initializers.variance_scaling(1.0, "fan_in", "normal"),
            name=name,
        )

    def _before(self, carry: Any, own: jax.Array) -> jax.Array:
        """The prior of the layer before at the outputs of this one."""
        if isinstance(carry, tuple):
            return jnp.zeros_like(own)
        if carry.shape[-1] != own.shape[-1] or carry.ndim != own.ndim:
            raise ValueError(
                f"the layer before has a prior {carry.shape}; a {self.prior} one wants that of "
                f"{own.shape[-1]} dilations, for a map of {own.shape}"
            )
        steps = [
            math.ceil(a / b) for a, b in zip(carry.shape[-3:-1], own.shape[-3:-1], strict=True)
        ]
        taken = carry[..., :: steps[0], :: steps[1], :].astype(own.dtype)
        if taken.shape != own.shape:
            taken = jax.image.resize(taken, own.shape, "nearest")
        return taken

    def _weights(self, logits: jax.Array, train: bool) -> jax.Array:
        """The shares w of the dilations, [..., H', W', D]."""
        temperature = _checks.number("temperature", self.temperature, above=0)
        evaluation = _checks.choose("evaluation", self.evaluation, DILATED_BY)
        if not train and evaluation != "sampled":
            if evaluation == "expected":
                return jax.nn.softmax(logits)
            return jax.nn.one_hot(jnp.argmax(logits, -1), logits.shape[-1], dtype=logits.dtype)
        if self.is_initializing():  # without a stream: of the outputs only the shapes matter
            return jax.nn.softmax(logits)
        noise = jax.random.gumbel(self.make_rng("dilation"), logits.shape, logits.dtype)
        return jax.nn.softmax((logits + noise) / temperature)


def _expected(values: jax.Array, dilations: Sequence[int]) -> jax.Array:
    """sum_n w_n d_n"""
    distances = jnp.asarray(dilations, values.dtype)
    return jnp.sum(values * distances.reshape((1,) * (values.ndim - 1) + (-1,)), -1)


class ContinuousDilationConv(_layer.KernelLayer):
    """A convolution whose dilation is a real number, regressed at every output.

    y(p) = b + sum_m theta_m^T v(stride p + rate(p) m),  v the bilinear interpolation of x
    rate(p) = dilation + r(p), r the regressor's output

    A new layer is the plain convolution of `dilation`, since the regressor starts at zero. Its rate
    may have any sign.

    Parameters: `kernel` [kh, kw, C, features]; `rate_regressor` {kernel [3, 3, C, 1], bias [1]},
    both zero at first; `bias` [features] with `use_bias`.

    Attributes: those of every layer, see `rfjax.nn`; `dilation` is one number, where rates start.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features].

    Raises:
      ValueError: a number is not what it must be, or there are two dilations.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> y, variables = ContinuousDilationConv(8).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, variables["params"]["rate_regressor"]["kernel"].shape
      ((1, 9, 12, 8), (3, 3, 3, 1))

    Reference: Chen et al., "Frequency-Adaptive Dilated Convolution for Semantic Segmentation",
      CVPR 2024, section 3.2 (adaptive dilation rate), without its masks.
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {"rate_regressor": "regressor"}

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x, kernel = self.prepare(x)
        down, right = _checks.pair("dilation", self.dilation)
        if down != right:
            raise ValueError(f"dilation must be one number, where rates start; got {(down, right)}")
        regressor = Conv(
            1,
            stride=self.stride,
            use_bias=True,
            dtype=self.dtype,
            kernel_init=linen.initializers.zeros,
            name="rate_regressor",
        )
        raw = regressor(x)
        rates = down + raw.astype(_checks.accumulation_dtype(raw))
        self.sow("intermediates", "scale_map", rates[..., 0])
        y = adaptive.continuous_dilated_conv(x, kernel, rates, stride=self.stride)
        return self.add_bias(y)
