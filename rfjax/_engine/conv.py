"""The plain convolution of a map by a free-form filter, and the checks of its operands."""

import math
from collections.abc import Sequence
from typing import Any

import jax
from jax import lax
from jax.typing import ArrayLike

from rfjax import _checks
from rfjax._engine.meshes import partitioned

Pair = int | Sequence[int]


@partitioned(channels="kernel")
def convolve(
    x: jax.Array, kernel: jax.Array, stride: Pair, dilation: Pair, *, sums: Any = None
) -> jax.Array:
    """The plain convolution, centered: explicit symmetric padding at every stride.

    Args:
      x, kernel: as `operands` returns them.
      stride, dilation: static, at least 1, one number or (y, x).
      sums: dtype of the sums; None for float32 at least.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> print(convolve(jnp.ones((1, 4, 1)), jnp.ones((1, 3, 1, 1)), 1, 2)[0, :, 0])
      [2. 2. 2. 2.]
    """
    strides, dilations = _checks.pair("stride", stride), check_dilation(dilation)
    sizes = zip(kernel.shape[:2], dilations, strict=True)
    # dilation (size - 1) / 2 zeros on either side center an odd kernel on its output.
    pads = [dilation * (size - 1) // 2 for size, dilation in sizes]
    # y(p) = sum_k theta_k^T x(stride p + dilation k), k from the kernel's center
    y = lax.conv_general_dilated(
        x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]),
        kernel,
        window_strides=strides,
        padding=[(pad, pad) for pad in pads],
        rhs_dilation=dilations,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        feature_group_count=check_kernel(x, kernel),
        preferred_element_type=_checks.accumulation_dtype(x) if sums is None else sums,
    ).astype(x.dtype)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def operands(x: ArrayLike, kernel: ArrayLike, *, even: bool = False) -> tuple[jax.Array, jax.Array]:
    """The map and the kernel of a composition as arrays of one dtype, checked.

    Kernels of even sizes, which have no tap at their center, must be asked for.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = operands(jnp.ones((4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 1)))
      >>> kernel.dtype.name
      'bfloat16'
    """
    x = _checks.float_array("x", x, min_ndim=3, layout="[..., H, W, C]")
    kernel = free_form(kernel).astype(x.dtype)
    check_kernel(x, kernel)
    _checks.pair("kernel_size", kernel.shape[:2], odd=not even)
    return x, kernel


def free_form(kernel: ArrayLike) -> jax.Array:
    """`kernel` as an array [kh, kw, C_in, C_out]."""
    kernel = _checks.float_array("kernel", kernel)
    if kernel.ndim != 4:
        raise ValueError(f"kernel must have shape [kh, kw, C_in, C_out]; got {kernel.shape}")
    return kernel


def output_size(size: Sequence[int], stride: Pair) -> tuple[int, int]:
    """The height and width of a same-padded convolution's output.

    Example:
      >>> output_size((7, 8), 2)
      (4, 4)
    """
    down, right = _checks.pair("stride", stride)
    return (size[0] - 1) // down + 1, (size[1] - 1) // right + 1


def check_kernel(x: jax.Array, kernel: jax.Array) -> int:
    """The number of channel groups of a kernel [kh, kw, C_in / groups, C_out], if it fits `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> check_kernel(jnp.zeros((8, 8, 6)), jnp.zeros((3, 3, 2, 9)))
      3
    """
    if kernel.ndim != 4:
        raise ValueError(f"kernel must have shape [kh, kw, C_in, C_out]; got {kernel.shape}")
    channels, (own, features) = x.shape[-1], kernel.shape[2:]
    # As many groups as the kernel's channels fit into those of the map.
    groups = channels // own if own else 0
    if groups * own != channels or (groups > 1 and features % groups):
        raise ValueError(
            f"kernel [kh, kw, C_in, C_out] {kernel.shape} must take the {channels} channels of x "
            f"{x.shape}, or an equal part of them for an equal part of its outputs"
        )
    return max(groups, 1)


def check_dilation(dilation: Pair) -> tuple[int, int]:
    """`dilation` as (y, x), if it is a positive integer or two of them.

    Example:
      >>> check_dilation(2)
      (2, 2)
    """
    return _checks.pair("dilation", dilation)
