"""How alike two maps are at several displacements of the second one."""

import jax
import jax.numpy as jnp
from jax.typing import ArrayLike

from rfjax import _checks
from rfjax._engine.meshes import partitioned

_LAYOUT = "[*batch, H, W, C]"


@partitioned("first")
def correlation(
    first: ArrayLike, second: ArrayLike, *, max_displacement: int = 20, displacement_stride: int = 2
) -> jax.Array:
    """Products of a map with another one at every displacement of a window.

    y_d(p) = 1/C sum_c first_c(p) second_c(p + d),   d = displacement_stride (i, j),
    i, j = -r ... r,   r = max_displacement // displacement_stride

    Args:
      first, second: [*batch, H, W, C] maps of one shape; `second` is used in the dtype of `first`.
      max_displacement: in pixels along each axis, at least 0, static.
      displacement_stride: in pixels from one displacement to the next, static.

    Returns:
      [*batch, H, W, (2 r + 1)^2] in the dtype of `first`, displacements (y, x) in reading order.
      Outside `second` there are zeros. One displacement is computed at a time, in the gradient as
      well, so that beyond the operands and the result there is memory for one map.

    Raises:
      ValueError: the shapes differ, or a number is not what it must be.
      TypeError: an argument does not hold floating-point numbers.

    Example:
      >>> first = jnp.array([0.0, 1.0, 0.0]).reshape(1, 3, 1)
      >>> y = correlation(first, jnp.roll(first, 1, 1), max_displacement=1, displacement_stride=1)
      >>> y.shape, int(jnp.argmax(y[0, 1]))  # one pixel to the right
      ((1, 3, 9), 5)

    Reference: Dosovitskiy et al., "FlowNet: Learning Optical Flow with Convolutional Networks",
      ICCV 2015, section 3 (equation 1, patches of one pixel).
    """
    first = _checks.float_array("first", first, min_ndim=3, layout=_LAYOUT)
    second = _checks.float_array("second", second, min_ndim=3, layout=_LAYOUT).astype(first.dtype)
    if first.shape != second.shape:
        raise ValueError(f"first and second must have one shape; got {first.shape}, {second.shape}")
    reach = _checks.integer("max_displacement", max_displacement, least=0)
    step = _checks.integer("displacement_stride", displacement_stride)
    reach = reach // step * step
    height, width, channels = first.shape[-3:]
    sums = _checks.accumulation_dtype(first)
    margins = [(0, 0)] * (first.ndim - 3) + [(reach, reach), (reach, reach), (0, 0)]
    bordered = jnp.pad(second, margins)

    @jax.checkpoint  # else the gradient would keep the moved map of every displacement
    def at(corner: jax.Array) -> jax.Array:
        moved = jax.lax.dynamic_slice_in_dim(bordered, corner[0], height, -3)
        moved = jax.lax.dynamic_slice_in_dim(moved, corner[1], width, -2)
        return jnp.sum(first.astype(sums) * moved.astype(sums), -1) / max(channels, 1)

    line = jnp.arange(0, 2 * reach + 1, step, dtype=jnp.int32)
    corners = jnp.stack(jnp.meshgrid(line, line, indexing="ij"), -1).reshape(-1, 2)
    return jnp.moveaxis(jax.lax.map(at, corners), 0, -1).astype(first.dtype)
