"""Gaussian blur with learned covariances."""

from collections.abc import Mapping
from typing import Any, ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.typing import ArrayLike

from rfjax import _checks, filtering
from rfjax.nn import _layer
from rfjax.nn._structure import Structured


class GaussianBlur(_layer.Blurring, Structured):
    """The map filtered by a Gaussian of learned covariance.

    y = g_Sigma * x, each channel by itself.

    Parameter: `covariance` [F], or [C, F] with `per_channel`; log-Cholesky, F by the family.

    Attributes:
      sigma: initial standard deviation in pixels of the map, one number or (y, x). Static.
      family: spherical | diagonal | full.
      per_channel: whether each channel learns its own covariance.
      truncate, padding, method, support: or all at once as `blur`, see `rfjax.Blur`.
      dtype: what the map is filtered in; None keeps the map's type. The covariance is float32.

    Calling it with x [..., H, W, C] returns an array of that shape.

    Raises:
      ValueError: an option is unknown, or `sigma` is not positive.

    Example:
      >>> import jax, jax.numpy as jnp
      >>> y, variables = GaussianBlur(sigma=2.0).init_with_output(
      ...     jax.random.key(0), jnp.ones([1, 32, 32, 3]))
      >>> y.shape, jnp.exp(variables["params"]["covariance"]).round(3).tolist()
      ((1, 32, 32, 3), [2.0])

    Reference: "Blurring the Line between Structure and Learning", section 3.1.
    """

    STRUCTURE: ClassVar[Mapping[str, str]] = {"covariance": "covariance"}

    sigma: ArrayLike = 1.0
    family: str = "spherical"
    per_channel: bool = False
    dtype: Any = None

    @linen.compact
    def __call__(self, x: ArrayLike) -> jax.Array:
        x = _checks.float_array("x", x, min_ndim=3, layout="[..., H, W, C]")
        _checks.float_dtype("dtype", self.dtype)
        initial = _layer.initial_covariance(self.sigma, self.family)
        if _checks.flag("per_channel", self.per_channel):
            initial = np.tile(initial[None], (x.shape[-1], 1))
        params = self.param("covariance", lambda key: jnp.asarray(initial))
        x = x if self.dtype is None else x.astype(self.dtype)
        return filtering.gaussian_blur(x, params, blur=self.blur_options())
