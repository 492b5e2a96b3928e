"""The plain convolution of a map by a free-form filter, and the checks of its operands."""

import math

import jax
from jax import lax
from jax.typing import ArrayLike

from rfjax import _checks


def convolve(x: jax.Array, kernel: jax.Array, stride: int, dilation: int) -> jax.Array:
    """The plain convolution, centred: explicit symmetric padding at every stride.

    Args:
      x, kernel: as `operands` returns them.
      stride, dilation: static, at least 1.

    Returns:
      [*batch, H', W', C_out] in the dtype of `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> print(convolve(jnp.ones((1, 4, 1)), jnp.ones((1, 3, 1, 1)), 1, 2)[0, :, 0])
      [2. 2. 2. 2.]
    """
    stride, dilation = _checks.integer("stride", stride), check_dilation(dilation)
    pads = [dilation * (size - 1) // 2 for size in kernel.shape[:2]]
    y = lax.conv_general_dilated(
        x.reshape(math.prod(x.shape[:-3]), *x.shape[-3:]),
        kernel,
        window_strides=(stride, stride),
        padding=[(pad, pad) for pad in pads],
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        preferred_element_type=_checks.accumulation_dtype(x),
    ).astype(x.dtype)
    return y.reshape(*x.shape[:-3], *y.shape[1:])


def operands(x: ArrayLike, kernel: ArrayLike) -> tuple[jax.Array, jax.Array]:
    """The map and the kernel of a composition as arrays of one dtype, checked.

    Example:
      >>> import jax.numpy as jnp
      >>> x, kernel = operands(jnp.ones((4, 4, 2), jnp.bfloat16), jnp.ones((3, 3, 2, 1)))
      >>> kernel.dtype.name
      'bfloat16'
    """
    x = _checks.float_array("x", x, min_ndim=3, layout="[..., H, W, C]")
    kernel = free_form(kernel).astype(x.dtype)
    check_kernel(x, kernel)
    _checks.pair("kernel_size", kernel.shape[:2], odd=True)  # for a tap at the centre
    return x, kernel


def free_form(kernel: ArrayLike) -> jax.Array:
    """`kernel` as an array [kh, kw, C_in, C_out]."""
    kernel = _checks.float_array("kernel", kernel)
    if kernel.ndim != 4:
        raise ValueError(f"kernel must have shape [kh, kw, C_in, C_out]; got {kernel.shape}")
    return kernel


def output_size(size: tuple[int, int], stride: int) -> tuple[int, int]:
    """The height and width of a same-padded convolution's output.

    Example:
      >>> output_size((7, 8), 2)
      (4, 4)
    """
    stride = _checks.integer("stride", stride)
    return (size[0] - 1) // stride + 1, (size[1] - 1) // stride + 1


def check_kernel(x: jax.Array, kernel: jax.Array) -> None:
    """Raise unless `kernel` is [kh, kw, C_in, C_out] with the channels of `x`.

    Example:
      >>> import jax.numpy as jnp
      >>> check_kernel(jnp.zeros((8, 8, 3)), jnp.zeros((3, 3, 3, 16)))
    """
    if kernel.ndim != 4:
        raise ValueError(f"kernel must have shape [kh, kw, C_in, C_out]; got {kernel.shape}")
    if kernel.shape[2] != x.shape[-1]:
        raise ValueError(
            f"kernel [kh, kw, C_in, C_out] {kernel.shape} must take the {x.shape[-1]} channels of "
            f"x {x.shape}"
        )


def check_dilation(dilation: int) -> int:
    """`dilation`, if it is a positive integer.

    Example:
      >>> check_dilation(2)
      2
    """
    return _checks.integer("dilation", dilation)
