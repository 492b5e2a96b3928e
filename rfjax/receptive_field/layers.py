"""Receptive fields, and the algebra of layers that makes them.

Output i of a stack of layers sees the input pixels low + stride i ... high + stride i along an
axis. A layer whose output i reads i s - p + t d, t = 0 ... k - 1, takes

    low <- low - p j,  high <- high + ((k - 1) d - p) j,  j <- s j

with j the stride so far, so that size = high - low + 1 <- size + (k - 1) d j. Branches that are
added or concatenated see the union. Axes are (y, x), and pixel i has its centre at i.

Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jax.typing import ArrayLike

from rfjax import _checks, covariance, places
from rfjax.gaussian import half_size

Pair = int | tuple[int, int]


@dataclass(frozen=True)
class ReceptiveField:
    """What one output sees of the input, along each axis (y, x).

    Attributes:
      size: pixels from the first to the last that the output depends on; the largest over outputs
        where they differ.
      stride: input pixels from one output to the next.
      offset: centre of output 0's field, in input pixels; pixel i has its centre at i.
      box: ((first, last), ...) of the output that was asked for; None for a list of layers.
      clipped: whether the field reaches the input's border, so that it would be larger on a
        larger input.
      data_dependent: whether positions that are read are computed from the input; the size is
        their bound then.
      missing: names of the operations (primitives of JAX) on the way from the input to this output
        that have no rule: each was taken to depend on all that it reads, so that size and box are
        bounds. Empty where there is a rule for everything.
      notes: in words, the operations that were bounded rather than followed, those of `missing`
        among them, and those that depend on a whole axis by what they are, as sorting does. Where
        stride and offset are NaN they say why.

    Example:
      >>> field = theoretical_of_layers([Conv(3), Pool(2, stride=2)])
      >>> field.size, field.stride, field.offset
      ((4, 4), (2.0, 2.0), (0.5, 0.5))
    """

    size: tuple[int, ...]
    stride: tuple[float, ...]
    offset: tuple[float, ...]
    box: tuple[tuple[int, int], ...] | None = None
    clipped: tuple[bool, ...] = (False, False)
    data_dependent: bool = False
    missing: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def center(self, unit: Sequence[int]) -> tuple[float, ...]:
        """The centre of an output's field, in input pixels."""
        return self.place.at(unit)

    @property
    def place(self) -> places.Place:
        """Stride and offset alone."""
        return places.Place(self.stride, self.offset)


@dataclass(frozen=True)
class Conv:
    """A convolution, or anything else that slides a window.

    Attributes:
      kernel_size, stride, dilation: one number, or (y, x).
      padding: pixels added before the first, one number or (y, x); "same" centres the window:
        dilation (kernel_size - 1) // 2.
    """

    kernel_size: Pair
    stride: Pair = 1
    dilation: Pair = 1
    padding: Pair | str = "same"

    def apply(self, field: "_Interval", axis: int) -> "_Interval":
        """The field after this layer, along an axis."""
        size, stride, dilation = (
            _checks.pair(f"{name} of {self}", getattr(self, name))[axis]
            for name in ("kernel_size", "stride", "dilation")
        )
        padding = self.padding
        if isinstance(padding, str):
            if padding != "same":
                raise ValueError(f"padding must be 'same' or pixels; got {padding!r}")
        else:
            padding = _of(padding, axis)
            if not _checks.is_integer(padding):
                raise ValueError(f"padding of {self} must be whole pixels; got {padding!r}")
        return field.read(*places.reads(size, dilation, padding), stride)


class Pool(Conv):
    """A pooling: Conv(kernel_size, stride=1, dilation=1, padding="same"), whatever it computes."""


@dataclass(frozen=True)
class Gaussian:
    """A Gaussian blur of hard support, ceil(truncate sigma) and at least one pixel to each side.

    Attributes:
      sigma: standard deviation in pixels of the map that it acts on, one number or (y, x).
      truncate: as in `rfjax.gaussian_blur`.
      params: log-Cholesky parameters [F] in place of `sigma`.
    """

    sigma: float | tuple[float, float] | None = None
    truncate: float = 2.0
    params: ArrayLike | None = None

    def apply(self, field: "_Interval", axis: int) -> "_Interval":
        """The field after this layer, along an axis."""
        if (self.sigma is None) == (self.params is None):
            raise ValueError("a Gaussian has either sigma or params")
        if self.params is None:
            sigma = np.float32(_checks.positive_pair("sigma", self.sigma)[axis])
        else:
            sigma = covariance.standard_deviations(np.asarray(self.params, np.float32))[axis]
        reach = int(half_size(sigma, truncate=self.truncate))
        return field.read(-reach, reach, 1)


@dataclass(frozen=True)
class Taps:
    """Bilinear reads at real positions about each output, as those of `rfjax.sampled_conv`.

    Attributes:
      positions: [K, 2] (y, x) in pixels.
      stride: as of a convolution.
    """

    positions: ArrayLike
    stride: Pair = 1

    def apply(self, field: "_Interval", axis: int) -> "_Interval":
        """The field after this layer, along an axis."""
        positions = np.asarray(self.positions, np.float64)
        if positions.ndim != 2 or positions.shape[1] != 2:
            raise ValueError(f"positions must have shape [K, 2]; got {positions.shape}")
        if not np.isfinite(positions).all():
            raise ValueError(f"positions must be finite numbers; got {positions.tolist()}")
        low, high = np.floor(positions[:, axis].min()), np.ceil(positions[:, axis].max())
        stride = _checks.pair("stride of Taps", self.stride)[axis]
        return field.read(int(low), int(high), stride)


class Parallel:
    """Branches that all read one map and are added or concatenated; an empty one is a shortcut.

    Args:
      *branches: sequences of layers, or single layers.

    Example:
      >>> block = Parallel([Conv(3), Conv(3)], [])
      >>> theoretical_of_layers([block, block]).size
      (9, 9)
    """

    def __init__(self, *branches: "Sequence[Layer] | Layer"):
        if not branches:
            raise ValueError("Parallel wants at least one branch")
        for branch in branches:
            if not isinstance(branch, (Sequence, Layer)) or isinstance(branch, str):
                raise TypeError(f"a branch is a sequence of layers, or a layer; got {branch!r}")
        self.branches = [[b] if isinstance(b, Layer) else list(b) for b in branches]

    def apply(self, field: "_Interval", axis: int) -> "_Interval":
        """The field after this layer, along an axis."""
        fields = [_stack(field, branch, axis) for branch in self.branches]
        if len({field.stride for field in fields}) > 1:
            strides = ", ".join(str(field.stride) for field in fields)
            raise ValueError(f"branches must end at one stride; got {strides}")
        low, high = min(f.low for f in fields), max(f.high for f in fields)
        return _Interval(low, high, fields[0].stride)


def composed_reach(
    sigmas: ArrayLike,
    *,
    kernel_size: int = 3,
    dilation: int = 1,
    truncate: float = 2.0,
    rate: float = 1.0,
    resample: bool = True,
    mode: str = "residual",
) -> np.ndarray:
    """How many pixels of its map a composed layer reads to each side: a Gaussian, then its taps.

    max(1, ceil(truncate sigma)) of the blur, and of the taps, with r = (kernel_size - 1) / 2,

        blur: r dilation;  residual: ceil(r (dilation + rate sigma));  absolute: ceil(r dilation
        rate sigma)

    Args:
      sigmas: [...] standard deviations along an axis, of any number of layers; NaN stays NaN.
      kernel_size, dilation, truncate, rate, resample, mode: of the layer.

    Example:
      >>> composed_reach(np.array([0.5, 2.0])).tolist()  # 1 + ceil(1.5), 4 + 3
      [3.0, 7.0]
    """
    sigmas = np.asarray(sigmas, np.float32)
    blur = np.where(np.isnan(sigmas), np.nan, half_size(sigmas, truncate=truncate))
    taps = (np.asarray(kernel_size) - 1) // 2
    # Bilinear reads reach the next whole pixel; an ulp above a pixel is none, as in `half_size`.
    spread = abs(rate) * sigmas * (1.0 - 8.0 * np.finfo(np.float32).eps)
    if not resample:
        return blur + taps * dilation
    if mode == "residual":
        return blur + np.ceil(taps * (dilation + spread))
    return blur + np.ceil(taps * dilation * spread)


Layer = Conv | Gaussian | Taps | Parallel


@dataclass(frozen=True)
class _Interval:
    """Output i sees low + stride i ... high + stride i."""

    low: int = 0
    high: int = 0
    stride: int = 1

    def read(self, low: int, high: int, stride: int) -> "_Interval":
        """What output i sees that reads outputs stride i + low ... stride i + high of this."""
        step = self.stride
        return _Interval(self.low + step * low, self.high + step * high, step * stride)


def theoretical_of_layers(layers: Sequence[Layer]) -> ReceptiveField:
    """The receptive field of a stack of layers; see `theoretical`."""
    fields = [_stack(_Interval(), layers, axis) for axis in (0, 1)]
    return ReceptiveField(
        size=tuple(field.high - field.low + 1 for field in fields),
        stride=tuple(float(field.stride) for field in fields),
        offset=tuple((field.low + field.high) / 2 for field in fields),
    )


def compose(inner: ReceptiveField, outer: ReceptiveField) -> ReceptiveField:
    """The field of outer(inner(x)): what a function sees through another one.

    size = size_i + (size_o - 1) stride_i,  stride = stride_i stride_o,
    offset = offset_i + stride_i offset_o

    Where the inner one's stride is not known (NaN) its size is a bound from below, and `clipped`.

    Args:
      inner: of the function of the input.
      outer: of the function of the inner one's outputs, in their pixels.

    Example:
      >>> pooled = theoretical_of_layers([Pool(2, stride=2, padding=0)])
      >>> compose(pooled, theoretical_of_layers([Conv(3)])).size  # 2 + (3 - 1) 2
      (6, 6)

    Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.
    """
    columns = list(zip(inner.size, inner.stride, outer.size, strict=True))
    place = inner.place.then(outer.place)
    clipped = [a or b for a, b in zip(inner.clipped, outer.clipped, strict=True)]
    unknown = [math.isnan(stride) and more > 1 for _, stride, more in columns]
    return ReceptiveField(
        size=tuple(
            size if math.isnan(stride) else round(size + (more - 1) * stride)
            for size, stride, more in columns
        ),
        stride=place.stride,
        offset=place.offset,
        clipped=tuple(a or b for a, b in zip(clipped, unknown, strict=True)),
        data_dependent=inner.data_dependent or outer.data_dependent,
        missing=tuple(sorted({*inner.missing, *outer.missing})),
        notes=tuple(sorted({*inner.notes, *outer.notes})),
    )


def _stack(field: _Interval, layers: Sequence[Layer], axis: int) -> _Interval:
    for number, layer in enumerate(layers):
        if not isinstance(layer, Layer):
            raise TypeError(
                "layers are Conv, Pool, Gaussian, Taps or Parallel of rfjax.receptive_field; "
                f"got {layer!r} at {number}"
            )
        field = layer.apply(field, axis)
    return field


def _of(value: Pair, axis: int) -> int:
    if not isinstance(value, (Sequence, np.ndarray)) or isinstance(value, str):
        return value
    if len(value) != 2:
        raise ValueError(f"want one number or (y, x); got {value!r}")
    return value[axis]
