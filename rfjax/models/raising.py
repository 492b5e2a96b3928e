"""Learned interpolation to twice the resolution: cropped, and as a transposed convolution."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen

from rfjax import _checks
from rfjax.fully_convolutional import bilinear_kernel

# Of a tap from the finer pixels' centres, which lie at quarters between the coarser ones.
BILINEAR = np.asarray([0.25, 0.75, 0.75, 0.25], np.float32)

# The taps that a finer pixel of each phase sees, with the coarser pixel that each of them reads:
# finer pixel 2 j + phase reads coarser pixel j + shift through tap phase + 1 - 2 shift.
_READS = {
    phase: [(shift, phase + 1 - 2 * shift) for shift in (phase - 1, phase)] for phase in (0, 1)
}


class BilinearRaise(linen.Module):
    """The map at twice its resolution, by a transposed convolution of each channel.

    y(p) = sum_q w(p + 1 - 2 q) x(q), zero outside, w of 4 x 4 taps

    Initially w interpolates linearly, and a border fades by a quarter; it is trained.

    Parameter: `kernel` [4, 4, 1, C].

    Attributes:
      dtype: what is computed in; None keeps the map's type.

    Calling it with x [N, H, W, C] returns [N, 2 H, 2 W, C].

    Example:
      >>> y, variables = BilinearRaise().init_with_output(
      ...     jax.random.key(0), jnp.array([0.0, 4.0, 8.0, 12.0]).reshape(1, 1, 4, 1))
      >>> print(y[0, 0, :, 0] / 0.75)
      [ 0.  1.  3.  5.  7.  9. 11.  9.]

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.3.
    """

    dtype: Any = None

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param("kernel", _bilinear, (4, 4, 1, channels), jnp.float32)
        x = x if self.dtype is None else x.astype(self.dtype)
        return raise_by_kernel(x, kernel.astype(x.dtype))


def _bilinear(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    """The taps of the interpolation, whatever the key."""
    taps = np.outer(BILINEAR, BILINEAR)[:, :, None, None]
    return jnp.broadcast_to(jnp.asarray(taps, dtype), shape)


def raise_by_kernel(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """The transposed convolution of stride 2 of each channel, see `BilinearRaise`.

    Each of the four phases of the finer map is a sum of four shifted coarser ones, which takes a
    fraction of the time of a grouped convolution on all but its own accelerators.

    Args:
      x: [N, H, W, C].
      kernel: [4, 4, 1, C].

    Returns:
      [N, 2 H, 2 W, C] in the dtype of x; sums in float32 at least.

    Example:
      >>> one = jnp.ones((1, 1, 1, 1))
      >>> kernel = jnp.arange(16.0).reshape(4, 4, 1, 1)
      >>> print(raise_by_kernel(one, kernel)[0, :, :, 0])
      [[ 5.  6.]
       [ 9. 10.]]
    """
    number, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    sums = _checks.accumulation_dtype(x)

    def phase(row: int, column: int) -> jax.Array:
        total = jnp.zeros(x.shape, sums)
        for down, tap_y in _READS[row]:
            for right, tap_x in _READS[column]:
                seen = padded[:, 1 + down :][:, :height, 1 + right :][:, :, :width]
                weight = kernel[tap_y, tap_x].reshape(1, 1, 1, channels)
                total += seen.astype(sums) * weight.astype(sums)
        return total.astype(x.dtype)

    rows = [jnp.stack([phase(row, column) for column in (0, 1)], 3) for row in (0, 1)]
    return jnp.stack(rows, 2).reshape(number, 2 * height, 2 * width, channels)


class LearnedRaise(linen.Module):
    """The map at twice its resolution by a transposed convolution, zero outside and not cropped.

    y_o(p) = sum_q sum_c w_co(p - 2 q) x_c(q)

    Parameter: `kernel` [k, k, 1, C], of each channel alone; or [k, k, C, C] with `full`. At first
    it interpolates linearly, channel by channel.

    Attributes:
      odd: whether k is 3 rather than 4, see `rfjax.bilinear_kernel`.
      full: whether every channel is made of all.
      dtype: what is computed in; None keeps the map's type.

    Calling it with x [N, H, W, C] returns [N, 2 (H - 1) + k, 2 (W - 1) + k, C].

    Example:
      >>> x = jnp.array([4.0, 8.0]).reshape(1, 1, 2, 1)
      >>> y, _ = LearnedRaise(odd=True).init_with_output(jax.random.key(0), x)
      >>> print(y[0, 1, :, 0])
      [2. 4. 6. 8. 4.]

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.3.
    """

    odd: bool = False
    full: bool = False
    dtype: Any = None

    @linen.compact
    def __call__(self, x: jax.Array) -> jax.Array:
        channels = x.shape[-1]
        kernel = self.param("kernel", self._initial, channels)
        x = x if self.dtype is None else x.astype(self.dtype)
        margin = kernel.shape[0] - 1
        return jax.lax.conv_general_dilated(
            x,
            kernel[::-1, ::-1].astype(x.dtype),
            window_strides=(1, 1),
            padding=[(margin, margin)] * 2,
            lhs_dilation=(2, 2),
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=1 if self.full else channels,
            preferred_element_type=_checks.accumulation_dtype(x),
        ).astype(x.dtype)

    def _initial(self, key: jax.Array, channels: int) -> jax.Array:
        """The taps of the interpolation, whatever the key."""
        taps = bilinear_kernel(2, odd=self.odd).astype(jnp.float32)
        mixing = jnp.eye(channels) if self.full else jnp.ones((1, channels))
        return jnp.einsum("yx,io->yxio", taps, mixing.astype(jnp.float32))
