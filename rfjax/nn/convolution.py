"""Convolutions with a static receptive field: plain, composed with a Gaussian, center-surround.

All take the constructor of `Conv`, so a network that is built with one can be built with another.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import numpy as np
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, compound
from rfjax._engine import conv
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
        y = conv.convolve(x, kernel, self.stride, self.dilation, sums=x.dtype)
        return self.add_bias(y)


class _Composed(_layer.Blurring, _layer.KernelLayer):
    """What composed layers add to the shared constructor: how the Gaussian filters and samples."""

    family: str = "spherical"
    resample: bool = True
    mode: str = "residual"
    rate: float = 1.0

    def options(self) -> dict[str, Any]:
        """Keyword arguments of every composition."""
        names = ("resample", "mode", "rate", "stride", "dilation")
        return {name: getattr(self, name) for name in names} | {"blur": self.blur_options()}


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
      truncate, padding, method, support: of the blur, or all at once as `blur`, see `rfjax.Blur`.

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
        weights = None
        if self.structure == "multiple":
            several = _ever_wider(initial, components)
            params = self.covariance_parameter("covariance_components", several)
            logits = np.zeros(components, np.float32)
            weights = jax.nn.softmax(self.covariance_parameter("covariance_mixture", logits))
        else:
            alike = initial if self.structure == "minimal" else np.tile(initial, (self.features, 1))
            params = self.covariance_parameter("covariance", alike)
        y = compound.composed_conv(x, kernel, params, weights, **self.options())
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
        surround_kernel = None
        if self.variant == "contrast":
            zeros = linen.initializers.zeros
            surround_kernel = self.free_form("kernel_surround", x.shape[-1], zeros)
            surround_kernel = surround_kernel.astype(kernel.dtype)
        y = compound.dog_conv(
            x,
            kernel,
            **self.covariances(self._parameters()),
            surround_kernel=surround_kernel,
            **self.options(),
        )
        return self.add_bias(y)

    def covariances(self, params: Mapping[str, Any]) -> dict[str, jax.Array]:
        """The "center" and the "surround"."""
        center, delta = params["covariance_center"], params["covariance_delta"]
        surround = compound.surround_covariance(center, delta, max_surround=self.max_surround)
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
