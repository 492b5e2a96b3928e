"""Convolutions whose receptive field is learned and the same everywhere, without a Gaussian.

They are what a composition is compared with: a global transformation of the map, and taps that are
displaced freely. Both start as the plain convolution. What moves the taps is structure, as
covariances are.
"""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, composition, sampling
from rfjax.nn import _layer


class AffineConv(_layer.KernelLayer):
    """A static spatial transformer: the map seen through one learned affinity, then a convolution.

    y = f * x_A,   x_A(q) = x(c + (I + D / extent) (q - c) + t),   (D | t) = offset_affine

    Positions are (y, x) in pixels of the map and c is the centre of the map, ((H - 1) / 2,
    (W - 1) / 2), so that the translation t is the same number of pixels on maps of any size, and a
    rotation is one on maps of any shape. Values between pixels are bilinear. One affinity is shared
    by all inputs, channels and kernels; it starts as the identity.

    Parameters: `kernel` [kh, kw, C, features]; `offset_affine` [2, 3], the affinity minus the
    identity, zero at first; `bias` [features] with `use_bias`.

    Attributes: those of every layer, see `rfjax.nn`, and
      extent: distance from the centre in pixels at which an entry of D moves a pixel as far as one
        of t does; static. Without it the gradient of D grows with the square of the map's size, and
        one learning rate does not serve both.
      padding: what the transformed map reads outside, as in `rfjax.bilinear_sample`. The kernel
        reads zeros.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features]. The gradient of `offset_affine` is that of the interpolation; on whole pixels, so at
    the start, that of the slope on the right.

    Raises:
      ValueError: an option is unknown, or a number is not what it must be.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = AffineConv(8, kernel_size=1).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, variables["params"]["offset_affine"].shape
      ((1, 9, 12, 8), (2, 3))

    Reference: Jaderberg et al., "Spatial Transformer Networks", 2015, section 3.2; "Blurring the
      Line between Structure and Learning", section 5.1 (static baselines).
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {"offset_affine": "other"}

    extent: float = 16.0
    padding: str = "zero"

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x, kernel = self.prepare(x)
        extent = _checks.number("extent", self.extent, above=0)
        affine = self.param("offset_affine", linen.initializers.zeros, (2, 3), jnp.float32)
        # D in units of 1 / extent: one learning rate then serves both D and t.
        affine = jnp.concatenate([affine[:, :2] / extent, affine[:, 2:]], 1)
        y = sampling.affine_conv(
            x, kernel, affine, stride=self.stride, dilation=self.dilation, padding=self.padding
        )
        return self.add_bias(y)


class StaticDeformableConv(_layer.KernelLayer):
    """A convolution whose taps are displaced freely, by the same offsets at every pixel.

    y(p) = sum_k theta_k x(p + dilation lattice_k + offset_k)

    Parameters: `kernel` [kh, kw, C, features]; `offset` [kh kw, 2], each tap's (y, x) in pixels of
    the map, in reading order, zero at first; `bias` [features] with `use_bias`.

    Attributes: those of every layer, see `rfjax.nn`.

    Calling it with x [..., H, W, C] returns [..., (H - 1) // stride + 1, (W - 1) // stride + 1,
    features]. The gradient of `offset` is that of the interpolation; on whole pixels, so at the
    start, that of the slope on the right.

    Raises:
      ValueError: the kernel size is even, or a number is not a positive integer.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = StaticDeformableConv(8).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 9, 12, 3]))
      >>> y.shape, variables["params"]["offset"].shape
      ((1, 9, 12, 8), (9, 2))

    Reference: Dai et al., "Deformable Convolutional Networks", 2017, section 2.1; "Blurring the
      Line between Structure and Learning", section 5.1 (static baselines).
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {"offset": "other"}

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x, kernel = self.prepare(x)
        taps = kernel.shape[0] * kernel.shape[1]
        offset = self.param("offset", linen.initializers.zeros, (taps, 2), jnp.float32)
        y = composition.deformable_conv(
            x, kernel, offset, stride=self.stride, dilation=self.dilation
        )
        return self.add_bias(y)
