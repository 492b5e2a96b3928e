"""What makes dense networks of classifiers: fixed interpolation, and layers that slide.

    bilinear_kernel       the taps of an interpolation by a whole factor
    transposed_bilinear   a map enlarged by them
    dense_to_conv         a dense layer as a convolution
    shift_and_stitch      the dense output of a strided function, from shifted inputs

Maps are [*batch, H, W, C].

Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.
"""

import itertools
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfjax import _checks
from rfjax._engine.meshes import partitioned

ORDERS = ("hwc", "chw")


def bilinear_kernel(factor: int, *, odd: bool = False) -> jax.Array:
    """The taps of bilinear interpolation by a whole factor.

        w(i, j) = (1 - |i - c| / factor) (1 - |j - c| / factor),   c = (k - 1) / 2,  0 <= i, j < k

    Args:
      factor: static, at least 1.
      odd: static. False for k = 2 factor, whose center lies between two taps; True for
        k = 2 factor - 1, whose center is a tap, so that interpolation keeps the pixels' values.

    Returns:
      [k, k] float32 (float64 where it is enabled), of sum factor^2.

    Raises:
      ValueError: `factor` is not a positive integer, or `odd` is no flag.

    Example:
      >>> print(bilinear_kernel(2, odd=True))
      [[0.25 0.5  0.25]
       [0.5  1.   0.5 ]
       [0.25 0.5  0.25]]

    Reference: Shelhamer, "Local and Adaptive Image-to-Image Learning and Inference", 2019,
      section 2.2.3.
    """
    taps = _taps(factor, odd)
    return jnp.asarray(np.outer(taps, taps), jnp.result_type(float))


@partitioned()
def transposed_bilinear(x: ArrayLike, factor: int, *, odd: bool = False) -> jax.Array:
    """The map enlarged by a transposed convolution with `bilinear_kernel`, channel by channel.

        y(i) = sum_j w(i - factor j) x(j),   w(t) = 1 - |t - (k - 1) / 2| / factor,  0 <= t < k

    along both axes, zero outside, and not cropped: output i reads the map at
    (i - (k - 1) / 2) / factor.

    Args:
      x: [*batch, H, W, C]; traced.
      factor: static, at least 1.
      odd: static. False for k = 2 factor, which aligns by half pixels; True for k = 2 factor - 1,
        which aligns by indices: every pixel of x is one of the result.

    Returns:
      [*batch, factor (H - 1) + k, factor (W - 1) + k, C] in the dtype of x; sums in float32 at
      least. Away from the border a constant stays what it is.

    Raises:
      ValueError: x has fewer than three axes, `factor` is not a positive integer, or `odd` is no
        flag.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> x = jnp.array([4.0, 8.0]).reshape(1, 2, 1)
      >>> print(transposed_bilinear(x, 2, odd=True)[1, :, 0])
      [2. 4. 6. 8. 4.]

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.3.
    """
    x = _checks.float_array("x", x, min_ndim=3, layout="[*batch, H, W, C]")
    taps = _taps(factor, odd)
    y = x.astype(_checks.accumulation_dtype(x))
    for axis in (x.ndim - 3, x.ndim - 2):
        y = _enlarged(y, taps, factor, axis)
    return y.astype(x.dtype)


def dense_to_conv(
    kernel: ArrayLike, window: int | Sequence[int], *, order: str = "hwc"
) -> jax.Array:
    """The kernel of the convolution that computes everywhere what a dense layer does of a window.

        y(p)_o = sum_(i, j, c) W(n(i, j, c), o) x(p + (i, j))_c

    with n the place of tap (i, j) and channel c in the flattened window.

    Args:
      kernel: [h w C, O], of a layer that reads the flattened window; traced. PyTorch and Caffe keep
        its transpose.
      window: static, h and w; one number for both.
      order: in which the window was flattened. hwc, as maps lie here; chw, channels first, as maps
        lie in PyTorch and Caffe.

    Returns:
      [h, w, C, O] in the dtype of `kernel`, for a convolution without padding.

    Raises:
      ValueError: the rows of `kernel` are no multiple of h w, a size is not a positive integer, or
        there is no such order.
      TypeError: `kernel` does not hold floating-point numbers.

    Example:
      >>> dense_to_conv(jnp.ones((7 * 7 * 512, 10)), 7, order="chw").shape
      (7, 7, 512, 10)

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.1.
    """
    kernel = _checks.float_array("kernel", kernel, min_ndim=2, layout="[h w C, O]")
    height, width = _checks.pair("window", window)
    _checks.choose("order", order, ORDERS)
    if kernel.ndim != 2 or kernel.shape[0] % (height * width):
        raise ValueError(
            f"kernel must have shape [{height} {width} C, O] for a window of {height}x{width}; got "
            f"{kernel.shape}"
        )
    if order == "hwc":
        return kernel.reshape(height, width, -1, kernel.shape[1])
    return jnp.moveaxis(kernel.reshape(-1, height, width, kernel.shape[1]), 0, 2)


@partitioned()
def shift_and_stitch(
    function: Callable[[jax.Array], jax.Array], x: ArrayLike, stride: int
) -> jax.Array:
    """The output at every place of a function of some stride, from its outputs of shifted inputs.

        y(stride i + a, stride j + b) = function(x[a:, b:])(i, j),   0 <= a, b < stride

    It is what the function computes whose layers have stride 1, and whose filters after a layer of
    stride s are dilated by s.

    Args:
      function: of a map [*batch, H, W, C] that returns [*batch, h, w, K], its output (i, j) read
        from the r x r pixels from (stride i, stride j) on: without padding, and of the same reach
        r everywhere. Sizes are h = (H - r) // stride + 1.
      x: [*batch, H, W, C]; traced. The sizes must be known.
      stride: static, that of the function, along both axes.

    Returns:
      [*batch, H - r + 1, W - r + 1, K] in the dtype that the function returns.

    Raises:
      ValueError: x has fewer than three axes, or `stride` is not a positive integer.
      TypeError: x does not hold floating-point numbers.

    Example:
      >>> x = jnp.arange(5.0).reshape(1, 5, 1)
      >>> print(shift_and_stitch(lambda x: 10 * x[::2, ::2], x, 2)[0, :, 0])
      [ 0. 10. 20. 30. 40.]

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.2.
    """
    x = _checks.float_array("x", x, min_ndim=3, layout="[*batch, H, W, C]")
    stride = _checks.integer("stride", stride)
    *batch, _, _, _ = x.shape
    # A shifted input has as many pixels as x: what it has too many only adds outputs at the end.
    margins = [(0, 0)] * len(batch) + [(0, stride - 1)] * 2 + [(0, 0)]
    padded = jnp.pad(x, margins)

    def shifted(shift: jax.Array) -> jax.Array:
        start = [0] * len(batch) + [shift[0], shift[1], 0]
        return function(jax.lax.dynamic_slice(padded, start, x.shape))

    shifts = jnp.asarray(list(itertools.product(range(stride), repeat=2)))
    parts = jax.lax.map(shifted, shifts)
    *_, rows, columns, outputs = parts.shape
    parts = parts.reshape(stride, stride, *batch, rows, columns, outputs)
    # [a, b, *batch, i, j, K] as [*batch, i, a, j, b, K]
    ahead = range(2, 2 + len(batch))
    order = (*ahead, len(batch) + 2, 0, len(batch) + 3, 1, len(batch) + 4)
    y = parts.transpose(order).reshape(*batch, stride * rows, stride * columns, outputs)
    kept = _dense_sizes(function, x, stride)
    return y[..., : kept[0], : kept[1], :]


def _dense_sizes(function: Callable, x: jax.Array, stride: int) -> tuple[int, ...]:
    """H - r + 1 and W - r + 1: an output for each that the shifted inputs have without padding."""

    def sizes(shift: int) -> tuple[int, int]:
        *batch, height, width, channels = x.shape
        smaller = jax.ShapeDtypeStruct((*batch, height - shift, width - shift, channels), x.dtype)
        *_, rows, columns, _ = jax.eval_shape(function, smaller).shape
        return rows, columns

    return tuple(map(sum, zip(*map(sizes, range(stride)), strict=True)))


def _taps(factor: int, odd: bool) -> np.ndarray:
    """[k], along one axis."""
    factor = _checks.integer("factor", factor)
    size = 2 * factor - _checks.flag("odd", odd)
    return 1.0 - np.abs(np.arange(size) - (size - 1) / 2) / factor


def _enlarged(x: jax.Array, taps: np.ndarray, factor: int, axis: int) -> jax.Array:
    """y(factor q + r) = w(r) x(q) + w(r + factor) x(q - 1), along an axis."""
    nothing = jnp.zeros_like(jax.lax.slice_in_dim(x, 0, 1, axis=axis))
    here = jnp.concatenate([x, nothing], axis)
    before = jnp.concatenate([nothing, x], axis)
    full = np.zeros(2 * factor)
    full[: len(taps)] = taps  # an odd kernel lacks the last tap
    phases = [float(full[r]) * here + float(full[r + factor]) * before for r in range(factor)]
    size = factor * (x.shape[axis] - 1) + len(taps)
    return jax.lax.slice_in_dim(interleaved(phases, axis), 0, size, axis=axis)


def interleaved(phases: Sequence[jax.Array], axis: int) -> jax.Array:
    """The maps' pixels along an axis in turn: the first of each, the second of each, ...

    Example:
      >>> print(interleaved([jnp.array([1, 3]), jnp.array([2, 4])], 0))
      [1 2 3 4]
    """
    shape = list(phases[0].shape)
    shape[axis] *= len(phases)
    return jnp.stack(phases, axis + 1).reshape(shape)
