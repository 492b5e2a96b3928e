"""What the classifiers of Caffe share: layers in its forms, and convolutions without normalization.

    max_pool                  rounds its size up
    local_response_norm       across channels
    slide                     a window over a map that may be smaller
    Plain                     backbones of such layers

Weights of these networks were trained with colors in the order blue, green, red.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import _checks, nn
from rfjax.models.stages import Staged, Step, chained
from rfjax.places import Place, window

BORDERS = (100, 81, 0, None)  # 0 says None where None says nothing, as in configs


def max_pool(x: jax.Array, size: int, stride: int, *, padding: int = 0) -> jax.Array:
    """The largest numbers of windows, as many as it takes to see every pixel.

    Where the last window reaches over the border, it is the largest of what lies within.

    Args:
      x: [N, H, W, C].
      size, stride: of the windows, static.
      padding: pixels before the first and after the last, static, less than `size`.

    Returns:
      [N, h, w, C], h = ceil((H + 2 padding - size) / stride) + 1.

    Example:
      >>> print(max_pool(jnp.arange(5.0).reshape(1, 1, 5, 1), 2, 2)[0, 0, :, 0])
      [1. 3. 4.]
    """
    around: Any = [(padding, padding + stride - 1)] * 2
    return linen.max_pool(x, (size, size), strides=(stride, stride), padding=around)


def local_response_norm(
    x: jax.Array, *, size: int = 5, alpha: float = 1e-4, beta: float = 0.75, k: float = 1.0
) -> jax.Array:
    """Every number divided by a power of the mean square of its neighbors among the channels.

    y_c = x_c / (k + alpha / size sum_(|d| <= size // 2) x_(c + d)^2)^beta

    Args:
      x: [..., C].
      size: channels in the sum, static and odd; beyond the first and the last there are zeros.
      alpha, beta, k: static.

    Example:
      >>> print(local_response_norm(jnp.array([3.0, 4.0]), alpha=5.0, beta=0.5, k=0.0))
      [0.6 0.8]

    Reference: Krizhevsky, Sutskever & Hinton, "ImageNet Classification", NIPS 2012, section 3.3.
    """
    half, channels = size // 2, x.shape[-1]
    single = x.astype(_checks.accumulation_dtype(x))
    padded = jnp.pad(jnp.square(single), [(0, 0)] * (x.ndim - 1) + [(half, half)])
    total = sum(padded[..., d : d + channels] for d in range(size))
    return (single * (k + alpha / size * total) ** -beta).astype(x.dtype)


def check_border(border: int | None) -> int | None:
    """The padding of a first convolution.

    Raises:
      ValueError: it is none that these networks know.
    """
    if border not in BORDERS or isinstance(border, bool):
        raise ValueError(f"border is one of 100, 81, None; got {border!r}")
    return border or None


def least_padding(place: Place, size: int, dilation: int = 1) -> int:
    """The least padding with which scores of a window, when enlarged, begin at the first pixel.

    A map of stride s reaches s - 1/2 pixels beyond its first pixel when it is enlarged.

    Args:
      place: of the map that the window slides over.
      size, dilation: of the window.

    Example:
      >>> least_padding(Place(32, 15.5), 7), least_padding(Place(32, -83.5), 7)
      (3, 0)
    """
    stride, first = place.stride[0], place.then(window(size, dilation=dilation, padding=0)).offset
    return max(0, math.ceil((first[0] - stride + 0.5) / stride))


class Plain(Staged):
    """A backbone of convolutions with biases, each followed by a relu; `norm` has no place in it.

    A new one defines `places`, and a method of (x, forward, train) for each stage in `runs`.
    """

    def runs(self) -> dict[str, Callable]:
        """Functions of (module, x, forward) by stage, in order, that return (x, forward)."""
        raise TypeError(f"the backbone {type(self).__name__} does not define runs")

    def steps(self, train: bool) -> dict[str, Step]:
        """The stages, one after the other."""

        def bound(run: Callable) -> Callable:
            run = linen.remat(run) if self.remat else run
            return lambda x, forward: run(self, x, forward)

        return chained({name: bound(run) for name, run in self.runs().items()})

    def convolve(
        self, x: jax.Array, forward: nn.Forward, name: str, features: int, **options: Any
    ) -> tuple[jax.Array, nn.Forward]:
        """relu(conv(x) + b), of 3x3 unless told; other sizes are plain unless a selection names
        them, and so is what is told to be `fixed`."""
        fixed = options.pop("fixed", options.get("kernel_size", 3) != 3)
        layer = nn.layer_at(self.conv, self, name, fixed=nn.Conv if fixed else None)
        layer = layer(features, use_bias=True, dtype=self.dtype, name=name, **options)
        y, forward = nn.call(layer, x, forward)
        return jax.nn.relu(y), forward

    def classify(
        self, x: jax.Array, forward: nn.Forward, name: str, features: int, **options: Any
    ) -> jax.Array:
        """dropout(relu(conv(x) + b)), a layer of a classifier that slides; half of its outputs are
        dropped in training unless told otherwise."""
        size, dropout = options.pop("kernel_size", 1), options.pop("dropout", 0.5)
        padding, dilation = options.pop("padding", 0), options.pop("dilation", 1)
        y = linen.Conv(
            features,
            (size, size),
            padding=((padding, padding), (padding, padding)),
            kernel_dilation=dilation,
            kernel_init=linen.initializers.he_normal(),
            conv_general_dilated=slide,
            dtype=self.dtype,
            name=name,
        )(x)
        return linen.Dropout(dropout, deterministic=not forward.train)(jax.nn.relu(y))


def slide(
    x: jax.Array,
    kernel: jax.Array,
    strides: Sequence[int],
    padding: Sequence[tuple[int, int]],
    *,
    rhs_dilation: Sequence[int],
    **options: Any,
) -> jax.Array:
    """`jax.lax.conv_general_dilated` of stride 1, also quick where the window is the larger one.

    XLA's loops on a CPU take seconds where a window of 7x7 slides over a map of 6x8, and for its
    gradient: some seventy times as long as the product of matrices that it is.

    Args:
      x: [N, H, W, C].
      kernel: [k, l, C, K].
      strides, padding, rhs_dilation, options: as `flax.linen.Conv` gives them.

    Example:
      >>> whole = {"rhs_dilation": (1, 1), "dimension_numbers": ("NHWC", "HWIO", "NHWC")}
      >>> x, kernel = jnp.ones((1, 2, 2, 1)), jnp.ones((3, 3, 1, 1))
      >>> print(slide(x, kernel, (1, 1), [(1, 1), (1, 1)], **whole)[0, :, :, 0])
      [[4. 4.]
       [4. 4.]]
    """
    spans = [
        dilation * (size - 1) for size, dilation in zip(kernel.shape, rhs_dilation, strict=False)
    ]
    if all(n > span for n, span in zip(x.shape[1:3], spans, strict=True)):
        return jax.lax.conv_general_dilated(
            x, kernel, strides, padding, rhs_dilation=rhs_dilation, **options
        )
    x = jnp.pad(x, ((0, 0), *padding, (0, 0)))
    height, width = (n - span for n, span in zip(x.shape[1:3], spans, strict=True))
    # All that a window sees in one row: y(p) = sum_t x(p + d t) w(t) is a product of matrices.
    seen = [
        x[:, down : down + height, right : right + width]
        for down in range(0, spans[0] + 1, rhs_dilation[0])
        for right in range(0, spans[1] + 1, rhs_dilation[1])
    ]
    taps = kernel.reshape(-1, kernel.shape[-1])
    return jnp.matmul(jnp.concatenate(seen, -1), taps, precision=options.get("precision"))


def bordered(images: jax.Array, pixels: int) -> jax.Array:
    """Images with zeros around them.

    Example:
      >>> bordered(jnp.ones((1, 4, 5, 3)), 2).shape
      (1, 8, 9, 3)
    """
    return jnp.pad(images, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))
