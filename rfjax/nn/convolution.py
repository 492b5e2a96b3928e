"""Convolutions with a static receptive field: plain, composed with a Gaussian, center-surround.

All take the constructor of `Conv`, so a network that is built with one can be built with another.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, composition, compound, covariance
from rfjax.nn import _layer


class Conv(_layer.KernelLayer):
    """A plain convolution with symmetric padding of dilation (k - 1) / 2 zeros on every side.

    Output (i, j) is centred on input (stride i, stride j), as in the networks of the references;
    "SAME" padding would shift it where the stride is 2.

    Parameters: `kernel` [kh, kw, C, features]; `bias` [features] with `use_bias`.

    Attributes: those of every layer, see `rfjax.nn`.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features].

    Raises:
      ValueError: the kernel size is even, or a number is not a positive integer.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = Conv(8, stride=2).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, variables["params"]["kernel"].shape
      ((1, 5, 6, 8), (3, 3, 3, 8))
    """

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x, kernel = self.prepare(x)
        return self.add_bias(convolve(x, kernel, self.stride, self.dilation))


def convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """The convolution of [..., H, W, C] with symmetric zero padding."""
    maps = x.reshape((math.prod(x.shape[:-3]), *x.shape[-3:]))
    y = jax.lax.conv_general_dilated(
        maps,
        kernel,
        window_strides=(stride, stride),
        padding=[(dilation * (size // 2),) * 2 for size in kernel.shape[:2]],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )
    return y.reshape((*x.shape[:-3], *y.shape[1:]))


class _Composed(_layer.KernelLayer):
    """What composed layers add to the shared constructor: how the Gaussian filters and samples."""

    family: str = "spherical"
    resample: bool = True
    mode: str = "residual"
    rate: float = 1.0
    truncate: float = 2.0
    padding: str = "zero"
    method: str = "sampled"
    support: str = "hard"

    def compose(self, x: jax.Array, kernel: jax.Array, params: jax.Array) -> jax.Array:
        """x through the Gaussian of `params`, then through the kernel."""
        options = self.options()
        composition.check_resampling(self.mode, self.rate)
        if not _checks.flag("resample", self.resample):
            return composition.blur_conv(x, kernel, params, **options)
        return composition.blur_resample_conv(
            x, kernel, params, mode=self.mode, rate=self.rate, **options
        )

    def options(self) -> dict[str, Any]:
        """Keyword arguments of every composition."""
        return {
            "stride": self.stride,
            "dilation": self.dilation,
            "truncate": self.truncate,
            "padding": self.padding,
            "method": self.method,
            "support": self.support,
        }


STRUCTURES = ("minimal", "channel", "multiple")
COMPONENTS = 3


class ComposedConv(_Composed):
    """A free-form kernel composed with learned Gaussians: blur, then (resampled) convolution.

    minimal:   y = f (g_Sigma * x)                            one Gaussian for all filters
    channel:   y_o = g_{Sigma_o} * (f_o * x)                  one for each filter
    multiple:  y = sum_m w_m f_m * (g_{Sigma_m} * x)          several for all filters,
                                                              w = softmax(mixture)

    With `resample` the taps of f (f_o, f_m) spread as the Gaussian Sigma (Sigma_o, Sigma_m) does.

    Parameters: `kernel` [kh, kw, C, features]; `bias` [features] with `use_bias`; log-Cholesky,
      minimal:   `covariance` [F];
      channel:   `covariance` [features, F], all alike at first;
      multiple:  `covariance_components` [M, F], each at first twice as wide as the one before;
                 `covariance_mixture` [M], logits, zero at first: equal parts.

    Attributes: those of every layer, see `rfjax.nn`, and
      sigma: initial standard deviation in pixels of the map, one number or (y, x); of the first
        component where there are several. Static.
      structure: minimal | channel | multiple. With channel and `resample` every tap is moved for
        every filter, at a multiple of the cost, see `rfjax.channel_conv`.
      components: number of Gaussians M of multiple structure, at least 2, by default 3; None
        otherwise.
      family: spherical | diagonal | full.
      resample: True is the paper's "blur-resample", False its "blur".
      mode, rate: of the resampling, as in `rfjax.blur_resample_conv`; without it they have no
        effect.
      truncate, padding, method, support: of the blur, as in `rfjax.gaussian_blur`.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features].

    Raises:
      ValueError: an option is unknown, or a number is not what it must be.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = ComposedConv(8, sigma=0.5).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, sorted(variables["params"])
      ((1, 9, 12, 8), ['covariance', 'kernel'])

    Reference: "Blurring the Line between Structure and Learning", sections 3 and 4.1; Shelhamer,
      "Local and Adaptive Image-to-Image Learning and Inference", 2019, section 5.3 (degrees of
      structure).
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {
        "covariance": "covariance",
        "covariance_components": "covariance",
        "covariance_mixture": "other",
    }

    sigma: ArrayLike = 0.5
    structure: str = "minimal"
    components: int | None = None

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        _checks.choose("structure", self.structure, STRUCTURES)
        components = self._number_of_components()
        x, kernel = self.prepare(x)
        initial = _layer.initial_covariance(self.sigma, self.family)
        if self.structure == "minimal":
            params = self.covariance_parameter("covariance", initial)
            return self.add_bias(self.compose(x, kernel, params))
        taps = {"resample": self.resample, "mode": self.mode, "rate": self.rate}
        if self.structure == "channel":
            alike = np.tile(initial[None], (self.features, 1))
            params = self.covariance_parameter("covariance", alike)
            y = compound.channel_conv(x, kernel, params, **taps, **self.options())
            return self.add_bias(y)
        params = self.covariance_parameter(
            "covariance_components", _ever_wider(initial, components)
        )
        logits = self.covariance_parameter("covariance_mixture", np.zeros(components, np.float32))
        weights = jax.nn.softmax(logits)
        y = compound.mixture_conv(x, kernel, params, weights, **taps, **self.options())
        return self.add_bias(y)

    def covariances(self, params: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The Gaussian, or those of a mixture as "0", "1" ..."""
        if self.structure != "multiple":
            return {"": params["covariance"]}
        components = params["covariance_components"]
        return {str(m): components[..., m, :] for m in range(components.shape[-2])}

    def _number_of_components(self) -> int:
        """How many Gaussians there are for each filter, after checking."""
        number = self.components
        if self.structure != "multiple":
            if number is not None:
                raise ValueError(
                    f"components are those of structure 'multiple'; got {number!r} with structure "
                    f"{self.structure!r}"
                )
            return 1
        return _checks.integer("components", number, least=2, optional=True) or COMPONENTS


def _ever_wider(initial: np.ndarray, number: int) -> np.ndarray:
    """[number, F] covariances, of which each has twice the standard deviations of the one before.

    Different from the first, so that their gradients are and they can go their own ways.
    """
    several = np.tile(initial[None], (number, 1))
    several[:, [0, -1] if len(initial) > 1 else [0]] += np.log(2.0) * np.arange(number)[:, None]
    return several


class DoGConv(_Composed):
    """A center-surround convolution: two composed ones, of which the wider is subtracted.

    contrast:  y = f_1 (g_c * x) - f_2 (g_s * x)       a free-form kernel for each
    shared:    y = f (g_c * x) - f (g_s * x)           one for both

    The surround is wider whatever the parameters are: Sigma_s = Sigma_c + U^T U. Each entry of U is
    the parameter's u through u / (1 + (u / max_surround)^4)^(1/4), which leaves small spreads as
    they are and keeps the surround from growing to the whole map.

    Parameters: `kernel` [kh, kw, C, features]; in contrast `kernel_surround` of the same shape,
    zero at first, so that a new layer is the composition of its center; `covariance_center` and
    `covariance_delta` [F], log-Cholesky; `bias` [features] with `use_bias`.

    Attributes: those of `ComposedConv`, of which each branch is one, and
      variant: contrast | shared.
      sigma_center, sigma_surround: initial standard deviations in pixels of the map. Static.
      max_surround: static bound in pixels on what the surround is wider by; None for no bound.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features].

    Raises:
      ValueError: the surround is not wider than the center, or beyond its bound; an option is
        unknown.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = DoGConv(8).init_with_output(jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> sorted(variables["params"])
      ['covariance_center', 'covariance_delta', 'kernel', 'kernel_surround']

    Reference: "Blurring the Line between Structure and Learning", section 4.1.
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {
        "covariance_center": "covariance",
        "covariance_delta": "difference",
    }

    variant: str = "contrast"
    sigma_center: ArrayLike = 0.5
    sigma_surround: ArrayLike = 2.0
    max_surround: float | None = 8.0

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        _checks.choose("variant", self.variant, ("contrast", "shared"))
        x, kernel = self.prepare(x)
        surround_kernel = kernel
        if self.variant == "contrast":
            zeros = linen.initializers.zeros
            surround_kernel = self.free_form("kernel_surround", x.shape[-1], zeros)
            surround_kernel = surround_kernel.astype(kernel.dtype)
        gaussians = self.covariances(self._parameters())
        y = self.compose(x, kernel, gaussians["center"])
        y = y - self.compose(x, surround_kernel, gaussians["surround"])
        return self.add_bias(y)

    def covariances(self, params: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The "center" and the "surround"."""
        center, delta = params["covariance_center"], params["covariance_delta"]
        surround = surround_covariance(center, delta, max_surround=self.max_surround)
        return {"center": center, "surround": surround}

    def _parameters(self) -> dict[str, jax.Array]:
        """The two covariances; the second starts where the surround has its initial sigma."""
        _checks.number("max_surround", self.max_surround, above=0, optional=True)
        initial = _layer.initial_covariance
        center = initial(self.sigma_center, self.family, name="sigma_center")
        surround = initial(self.sigma_surround, self.family, name="sigma_surround")
        diagonal = [0, -1]
        variance = np.exp(2.0 * surround[diagonal]) - np.exp(2.0 * center[diagonal])
        if not np.all(variance > 0):
            raise ValueError(
                "sigma_surround must exceed sigma_center; got "
                f"{self.sigma_surround!r} and {self.sigma_center!r}"
            )
        wanted = np.sqrt(variance)
        if self.max_surround is not None:
            if not np.all(wanted < self.max_surround):
                raise ValueError(
                    f"max_surround = {self.max_surround!r} does not admit a surround of "
                    f"{self.sigma_surround!r} around a center of {self.sigma_center!r}"
                )
            wanted = wanted / (1.0 - (wanted / self.max_surround) ** 4) ** 0.25
        delta = np.zeros(center.shape, np.float32)
        delta[diagonal] = np.log(wanted)
        initial = {"covariance_center": center, "covariance_delta": delta}
        return {name: self.covariance_parameter(name, start) for name, start in initial.items()}


def surround_covariance(
    center: jax.Array, delta: jax.Array, *, max_surround: float | None = 8.0
) -> jax.Array:
    """The parameters of a `DoGConv`'s surround.

    Sigma_s = Sigma_c + U^T U, each entry of U the parameter's u in
    u / (1 + (u / max_surround)^4)^(1/4).

    Args:
      center, delta: [F] log-Cholesky parameters, the layer's `covariance_center` and
        `covariance_delta`. Traced.
      max_surround: the layer's, static.

    Returns:
      [F] log-Cholesky parameters.

    Example:
      >>> import jax.numpy as jnp
      >>> print(jnp.exp(surround_covariance(jnp.log(jnp.array([3.0])), jnp.log(jnp.array([1e6])),
      ...                                   max_surround=4.0)).round(3))
      [5.]
    """
    _checks.number("max_surround", max_surround, above=0, optional=True)
    if max_surround is not None:
        # Of log u the bound is log u - log(1 + (u / m)^4) / 4, without an overflow for any u.
        excess = 4.0 * (delta - jnp.log(max_surround))
        bounded = delta - 0.25 * jax.nn.softplus(excess)
        if delta.shape[-1] == 3:
            ratio = delta[..., 1] / max_surround
            shear = delta[..., 1] / (1.0 + ratio**4) ** 0.25
            bounded = jnp.stack([bounded[..., 0], shear, bounded[..., 2]], -1)
        delta = bounded
    return covariance.cascade(center, delta)
