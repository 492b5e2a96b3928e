"""Convolutions whose receptive field is regressed from the input, at every pixel.

A regressor, an ordinary convolution of the same kernel size, stride and dilation, starts at zero:
a new layer is the static one of its initial structure. All layers sow the spread of their taps as
("intermediates", "scale_map"), float32 [..., H', W'] in pixels of the map that they act on.
"""

import math
from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, composition, covariance, filtering, grids
from rfjax._engine import conv
from rfjax.nn import _layer
from rfjax.nn.convolution import Conv


def _regressor(layer: _layer.KernelLayer, features: int, name: str) -> Conv:
    """The zero-initialised convolution that controls `layer`."""
    return Conv(
        features,
        kernel_size=layer.kernel_size,
        stride=layer.stride,
        dilation=layer.dilation,
        use_bias=True,
        dtype=layer.dtype,
        kernel_init=linen.initializers.zeros,
        name=name,
    )


class GaussianDeformableConv(_layer.KernelLayer):
    """A convolution whose taps spread by a covariance that is regressed at every pixel.

    y(p) = sum_k theta_k x(p + p_k(p)),  p_k = m(p) + dilation lattice_k + rate U(p)^T c_k in
    residual mode and m(p) + dilation rate U(p)^T c_k in absolute mode, with U(p) the factor of
    `rfjax.regressed_covariance(r(p), ...)`, r the regressor's output.

    With the exponential link an update moves the taps the further the wider they are: without a
    bound, sigma runs away. With the linear link, whose spread q is that of the reference points, it
    moves them as far as the same update of free offsets would.

    Parameters: `kernel` [kh, kw, C, features]; `covariance_regressor` {kernel [kh, kw, C, F], bias
    [F]}, both zero at first; with `mean`, `offset_regressor` likewise, of 2 outputs; `bias`
    [features] with `use_bias`.

    Attributes: those of every layer, see `rfjax.nn`, and
      sigma: initial standard deviation in pixels of the map, one number or (y, x). Static.
      family: spherical | diagonal | full.
      mode: residual (offsets from the dense kernel's taps) | absolute (the warped points alone).
      rate: factor on the warped points.
      bound: how far log sigma moves from its start, static; None for no bound.
      link: exponential, as in the paper | linear.
      mean: whether the taps' centre m is regressed, too, static: the outputs (y, x) of
        `offset_regressor` over the root of the number of taps, in pixels of the map; 0 otherwise.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features].

    Raises:
      ValueError: an option is unknown, or a number is not what it must be.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> layer = GaussianDeformableConv(8, sigma=0.5)
      >>> x = jnp.ones([1, 9, 12, 3])
      >>> variables = layer.init(jax.random.key(0), x)
      >>> _, sown = layer.apply(variables, x, mutable=["intermediates"])
      >>> scale_map, = sown["intermediates"]["scale_map"]
      >>> scale_map.shape, round(float(scale_map[0, 0, 0]), 3)
      ((1, 9, 12), 0.5)

    Reference: "Blurring the Line between Structure and Learning", section 4.2; the linear link and
      the mean are not in the paper.
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {
        "covariance_regressor": "regressor",
        "offset_regressor": "regressor",
    }

    sigma: ArrayLike = 0.5
    family: str = "spherical"
    mode: str = "residual"
    rate: float = 1.0
    bound: float | None = 1.5
    link: str = "exponential"
    mean: bool = False

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        return self.deform(*self.prepare(x))

    def deform(self, x: jax.Array, kernel: jax.Array) -> jax.Array:
        """The convolution of a prepared map."""
        params_map = self._params_map(x)
        self.sow("intermediates", "scale_map", _layer.geometric_mean_sigma(params_map))
        y = composition.gaussian_deformable_conv(
            x,
            kernel,
            params_map,
            mode=self.mode,
            rate=self.rate,
            stride=self.stride,
            dilation=self.dilation,
            means=self._means(x) if _checks.flag("mean", self.mean) else None,
        )
        return self.add_bias(y)

    def _params_map(self, x: jax.Array) -> jax.Array:
        """The regressed log-Cholesky parameters [..., H', W', F], float32 at least."""
        initial = _layer.initial_covariance(self.sigma, self.family)
        size = self.checked_size()
        if self.link == "linear" and math.prod(size) == 1:
            raise ValueError("the linear link wants a kernel of several taps; got kernel_size 1")
        return covariance.regressed_covariance(
            _regressor(self, len(initial), "covariance_regressor")(x),
            initial,
            link=self.link,
            bound=self.bound,
            spread=jnp.sqrt(jnp.sum(grids.circular_points(size) ** 2)),
        )

    def _means(self, x: jax.Array) -> jax.Array:
        """The regressed centres [..., H', W', 2]: all taps add to their gradient."""
        raw = _regressor(self, 2, "offset_regressor")(x)
        raw = raw.astype(_checks.accumulation_dtype(raw))
        return raw / math.sqrt(math.prod(self.checked_size()))


class DynamicComposedConv(GaussianDeformableConv):
    """A composition whose blur is the same everywhere and whose taps follow the input.

    y = GaussianDeformableConv(g_Sigma * x), with the linear link and a mean.

    Sampling alone misses what lies between the taps: spreading them costs resolution, and their
    positions have gradients that change within a pixel. The learned blur, one for the whole map, is
    what a static composition has besides its taps; with it the regressors see further, too. Three
    numbers a pixel, where to look and how far, then do what the 18 of free-form deformation do.

    Parameters: those of `GaussianDeformableConv`, and `covariance` [F], the blur's.

    Attributes: those of `GaussianDeformableConv`; unless told, `link` is linear, `mean` True and
      `bound` None. `family` and the initial `sigma` are the blur's, too.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features].

    Raises:
      ValueError: an option is unknown, or a number is not what it must be.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = DynamicComposedConv(8).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> sorted(variables["params"])
      ['covariance', 'covariance_regressor', 'kernel', 'offset_regressor']

    Reference: "Blurring the Line between Structure and Learning", sections 4.1 and 4.2, together.
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {"covariance": "covariance"}

    bound: float | None = None
    link: str = "linear"
    mean: bool = True

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x, kernel = self.prepare(x)
        initial = _layer.initial_covariance(self.sigma, self.family)
        blurred = filtering.gaussian_blur(x, self.covariance_parameter("covariance", initial))
        return self.deform(blurred, kernel)


class DeformableConv(_layer.KernelLayer):
    """A convolution whose taps are displaced freely, by offsets regressed at every pixel.

    y(p) = sum_k theta_k m_k(p) x(p + dilation lattice_k + offset_k(p))

    m = 1, or with `modulated` m = 2 / (1 + exp(-r)), r the regressed mask.

    Parameters: `kernel` [kh, kw, C, features]; `offset_regressor` {kernel [kh, kw, C, 2 kh kw],
    bias [2 kh kw]}, both zero at first; channels 2 k and 2 k + 1 are tap k's (y, x); `bias`
    [features] with `use_bias`. With `modulated`, `mask_regressor` likewise, a channel for each tap.
    With `offset_groups` G the regressors have G times as many channels, group after group.

    Attributes: those of every layer, see `rfjax.nn`, and
      offset_groups: number of equal parts of the channels, each of which is read at places of its
        own, static.
      modulated: whether the samples are weighted by a regressed mask, too, static.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features].

    Raises:
      ValueError: the kernel size is even, or a number is not a positive integer.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = DeformableConv(8).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> variables["params"]["offset_regressor"]["kernel"].shape
      (3, 3, 3, 18)

    Reference: Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.1; Zhu et
      al., "Deformable ConvNets v2", 2019, section 3.2 (the mask).
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {
        "offset_regressor": "regressor",
        "mask_regressor": "regressor",
    }

    offset_groups: int = 1
    modulated: bool = False

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x, kernel = self.prepare(x)
        offsets = self._regressed(x, "offset_regressor", 2)
        mask = None
        if _checks.flag("modulated", self.modulated):
            mask = 2.0 * jax.nn.sigmoid(self._regressed(x, "mask_regressor", 1)[..., 0])
        self.sow("intermediates", "scale_map", self._radius(offsets))
        options: dict[str, Any] = {"stride": self.stride, "dilation": self.dilation}
        return self.add_bias(composition.deformable_conv(x, kernel, offsets, mask=mask, **options))

    def _regressed(self, x: jax.Array, name: str, numbers: int) -> jax.Array:
        """So many numbers for each tap, [..., H', W', K, n] or [..., H', W', G, K, n]."""
        groups, taps = self._groups(), math.prod(self.checked_size())
        raw = _regressor(self, groups * taps * numbers, name)(x)
        raw = raw.astype(_checks.accumulation_dtype(raw))
        several = (groups,) if groups > 1 else ()
        return raw.reshape((*raw.shape[:-1], *several, taps, numbers))

    def _groups(self) -> int:
        return _checks.integer("offset_groups", self.offset_groups)

    def _radius(self, offsets: jax.Array) -> jax.Array:
        """The root-mean-square radius of the taps of all groups about their mean."""
        lattice = grids.dilated_lattice(self.checked_size(), conv.check_dilation(self.dilation))
        lattice = jnp.asarray(lattice, offsets.dtype)
        lattice = lattice.reshape((1,) * (offsets.ndim - 2) + lattice.shape)
        positions = lattice + offsets
        if self._groups() > 1:
            positions = positions.reshape((*positions.shape[:-3], -1, 2))
        return _layer.root_mean_square_radius(positions)
