"""The receptive field of a layer whose map is inflated: by the published formula, and as it is."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import _checks, inflation
from rfjax._engine.conv import convolve


def rf_paper(kernel_size: int, factor: float, *, field: int = 212, stride: int = 8) -> int:
    """The receptive field in pixels of the image, by the formula of the literature.

    field + stride (k' - 1),   k' = ceil((k + 1) / factor)

    It is one pixel of the map too large at factor 1; see `rf_exact`.

    Args:
      kernel_size: pixels k that the layer's kernel spans, dilation included, as 17 for a kernel of
        3 taps that are 8 apart.
      factor: of the inflation, above 0.
      field: receptive field of the map's pixels, that of VGG-16 at pool5 unless told.
      stride: pixels of the image per pixel of the map.

    Example:
      >>> [rf_paper(25, factor) for factor in (0.5, 1.0, 2.0)]
      [620, 412, 308]

    Reference: Wei et al., "Learning Adaptive Receptive Fields for Deep Image Parsing Network",
      CVPR 2017, section 3.
    """
    size = _checks.integer("kernel_size", kernel_size)
    scale = _checks.number("factor", factor, above=0)
    return field + stride * (math.ceil((size + 1) / scale) - 1)


def rf_exact(kernel_size: int, factor: float, *, field: int = 212, stride: int = 8) -> int:
    """The receptive field in pixels of the image of an output in the middle of a large map.

    The span of those pixels of the map that the output has a gradient to, for a dense kernel.

    Args:
      kernel_size: odd number of pixels that the kernel spans.
      factor, field, stride: as in `rf_paper`.

    Example:
      >>> rf_exact(25, 1.0)
      404
    """
    size, _ = _checks.pair("kernel_size", kernel_size, odd=True)
    scale = _checks.number("factor", factor, above=0)
    middle = 2 * math.ceil(size / scale) + 2
    kernel = jnp.ones((1, size, 1, 1))

    def output(line: jax.Array) -> jax.Array:
        canvas, used = inflation.inflate(line, scale, max_factor=max(scale, 1.0))
        y = convolve(canvas, kernel, 1, 1)
        return inflation.interpolate(y, scale, used, (1, 2 * middle))[0, middle, 0]

    read = np.flatnonzero(jax.grad(output)(jnp.ones((1, 2 * middle, 1))))
    return field + stride * int(read[-1] - read[0])
