"""Blurred dilation: a dilated convolution of a map that was smoothed first.

A kernel whose taps are d pixels apart reads every d-th pixel along each axis. Its response to the
frequency f is that of the dense kernel to d f, so it has the period 1/d: what the map has around
the frequencies 1/d, 2/d, ... passes as if it were constant ("gridding"). A Gaussian whose standard
deviation is proportional to d takes these frequencies out before the taps read the map, the same
share of them for every d:

    g(f) = exp(-2 pi^2 sigma^2 f^2),   sigma = blur d,   g(1/d) = exp(-2 pi^2 blur^2)

which is 0.0072 for blur = 1/2, and at most 0.024 for the default filter, cut off at 2 sigma.

Maps are [*batch, H, W, C_in], kernels [kh, kw, C_in, C_out] with odd sizes, and outside the map
there are zeros.
"""

from typing import Unpack

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfjax import _checks, composition
from rfjax._engine.blur import Blur, BlurOptions, blur_of, spelled
from rfjax._engine.clamp import at_least
from rfjax._engine.conv import Pair, check_dilation, convolve, operands
from rfjax._engine.meshes import partitioned

# A traced blur of less is no blur to the last bit.
_LEAST_BLUR = 1e-12


@spelled
@partitioned(channels="kernel")
def blurred_dilated_conv(
    x: ArrayLike,
    kernel: ArrayLike,
    *,
    dilation: Pair,
    blur: ArrayLike | None = 0.5,
    stride: Pair = 1,
    how: Blur | None = None,
    **options: Unpack[BlurOptions],
) -> jax.Array:
    """A blur in proportion to the dilation, then the dilated convolution.

    y = f_d (g_sigma * x),   sigma = blur * dilation

    Args:
      x: [*batch, H, W, C_in] map.
      kernel: [kh, kw, C_in, C_out] free-form filter f, odd sizes, or of channel groups, as in
        `sampled_conv`; used in the dtype of `x`.
      dilation: distance of the kernel's taps in pixels of `x`, one number or (y, x), static, at
        least 1.
      blur: standard deviation of the Gaussian in units of the dilation, one number or two (y, x).
        Static or traced. None or a static 0 is plain dilation; a traced 0 has its values, and no
        gradient.
      stride: of the convolution, one number or (y, x), static.
      how, truncate, padding, method, support: of the blur, see `Blur`; `how` is such a `Blur`.
        Static. The convolution itself always sees zeros outside.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`. It has a gradient with respect to a traced
      `blur`, though none where the filter's size changes (`support="hard"`).

    Raises:
      ValueError: a shape, a size or an option is wrong, or `blur` is negative or not finite.
      TypeError: an argument does not hold floating-point numbers, or a size is not an integer.

    Example:
      >>> import jax.numpy as jnp
      >>> stripes = jnp.cos(2 * jnp.pi * jnp.arange(48.0) / 4).reshape(1, 48, 1)
      >>> mean = jnp.full((1, 3, 1, 1), 1 / 3)
      >>> plain, blurred = (
      ...     blurred_dilated_conv(stripes, mean, dilation=4, blur=blur, padding="edge")[0, 24, 0]
      ...     for blur in (None, 0.5))
      >>> f"{plain:.3f} {blurred:.3f}"
      '1.000 0.012'

    Reference: "Blurring the Line between Structure and Learning", section 5.1 (blurred dilation).
    """
    dilations = check_dilation(dilation)
    how = blur_of(how, options, name="how")
    params = _blur_params(blur, dilations)
    if params is None:
        return convolve(*operands(x, kernel), stride, dilation)
    return composition.blur_conv(x, kernel, params, stride=stride, dilation=dilation, blur=how)


def _blur_params(blur: ArrayLike | None, dilations: tuple[int, int]) -> jax.Array | None:
    """The log standard deviations [1 | 2] of the blur, None for no blur."""
    if blur is None:
        return None
    factors = _checks.float_array("blur", blur)
    if factors.shape not in ((), (1,), (2,)):
        raise ValueError(f"blur must be a number or two of them (y, x); got shape {factors.shape}")
    if (number := _checks.known(blur)) is not None:
        if not np.any(number):
            return None
        if not (np.all(np.isfinite(number)) and np.all(number > 0)):
            raise ValueError(f"blur must be positive, or 0 or None for no blur; got {blur!r}")
    factors = factors.astype(_checks.accumulation_dtype(factors)).reshape(-1)
    # The logarithm of 0 has no derivative; of the least number that counts it is 0.
    log_dilations = np.log(dilations[:1] if len(set(dilations)) == 1 else dilations)
    return jnp.log(at_least(factors, _LEAST_BLUR)) + jnp.asarray(log_dilations, factors.dtype)
