"""Convolutions whose receptive field is regressed from the input, at every pixel.

A regressor, an ordinary convolution of the same kernel size, stride and dilation, starts at zero:
a new layer is the static one of its initial structure. Both layers sow the spread of their taps as
("intermediates", "scale_map"), float32 [..., H', W'] in pixels of the map that they act on.
"""

from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from jax.typing import ArrayLike

from rfjax import composition, grids
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

    y(p) = sum_k theta_k x(p + p_k(p)),  p_k = dilation lattice_k + rate U(p)^T c_k in residual
    mode and dilation rate U(p)^T c_k in absolute mode, with

    log u_yy = log sigma_0 + b(r_1),  log u_xx = log sigma_0 + b(r_F),  u_yx = u_yy b(r_2),
    b(r) = bound tanh(r / bound),

    r the regressor's output. The bound keeps every sigma within exp(+-bound) of the initial one and
    the gradient away from runaway spreads; where it saturates the gradient vanishes.

    Parameters: `kernel` [kh, kw, C, features]; `covariance_regressor` {kernel [kh, kw, C, F], bias
    [F]}, both zero at first; `bias` [features] with `use_bias`.

    Attributes: those of every layer, see `rfjax.nn`, and
      sigma: initial standard deviation in pixels of the map, one number or (y, x). Static.
      family: spherical | diagonal | full.
      mode: residual (offsets from the dense kernel's taps) | absolute (the warped points alone).
      rate: factor on the warped points.
      bound: how far log sigma moves from its start, static; None for no bound.

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

    Reference: "Blurring the Line between Structure and Learning", section 4.2.
    """

    sigma: ArrayLike = 0.5
    family: str = "spherical"
    mode: str = "residual"
    rate: float = 1.0
    bound: float | None = 1.5

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x, kernel = self.prepare(x)
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
        )
        return self.add_bias(y)

    def _params_map(self, x: jax.Array) -> jax.Array:
        """The regressed log-Cholesky parameters [..., H', W', F], float32 at least."""
        initial = _layer.initial_covariance(self.sigma, self.family)
        raw = _regressor(self, len(initial), "covariance_regressor")(x)
        raw = raw.astype(jnp.result_type(raw.dtype, jnp.float32))
        _layer.finite_positive("bound", self.bound)
        if self.bound is not None:
            raw = self.bound * jnp.tanh(raw / self.bound)
        params = raw + jnp.asarray(initial, raw.dtype).reshape((1,) * (raw.ndim - 1) + (-1,))
        if self.family != "full":
            return params
        shear = jnp.exp(params[..., :1]) * raw[..., 1:2]
        return jnp.concatenate([params[..., :1], shear, params[..., 2:]], -1)


class DeformableConv(_layer.KernelLayer):
    """A convolution whose taps are displaced freely, by offsets regressed at every pixel.

    y(p) = sum_k theta_k x(p + dilation lattice_k + offset_k(p))

    Parameters: `kernel` [kh, kw, C, features]; `offset_regressor` {kernel [kh, kw, C, 2 kh kw],
    bias [2 kh kw]}, both zero at first; channels 2 k and 2 k + 1 are tap k's (y, x); `bias`
    [features] with `use_bias`.

    Attributes: those of every layer, see `rfjax.nn`.

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

    Reference: Dai et al., "Deformable Convolutional Networks", ICCV 2017, section 2.1.
    """

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x, kernel = self.prepare(x)
        taps = kernel.shape[0] * kernel.shape[1]
        raw = _regressor(self, 2 * taps, "offset_regressor")(x)
        offsets = raw.astype(jnp.result_type(raw.dtype, jnp.float32))
        offsets = offsets.reshape((*offsets.shape[:-1], taps, 2))
        self.sow("intermediates", "scale_map", self._radius(offsets))
        options: dict[str, Any] = {"stride": self.stride, "dilation": self.dilation}
        return self.add_bias(composition.deformable_conv(x, kernel, offsets, **options))

    def _radius(self, offsets: jax.Array) -> jax.Array:
        """The root-mean-square radius of the taps about their mean."""
        lattice = self.dilation * grids.lattice_points(self.checked_size())
        lattice = lattice.astype(offsets.dtype).reshape((1,) * (offsets.ndim - 2) + lattice.shape)
        return _layer.root_mean_square_radius(lattice + offsets)
