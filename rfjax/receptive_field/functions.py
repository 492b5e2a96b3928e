"""Receptive fields of functions, read off what their outputs depend on."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfjax.receptive_field import tracing
from rfjax.receptive_field.layers import Layer, ReceptiveField, theoretical_of_layers
from rfjax.receptive_field.reach import NOTHING, Reach
from rfjax.receptive_field.rules import DATA_DEPENDENT

# Sizes that are tried where the input's is left open: fields up to some 4,000 pixels.
SIZES = (129, 513, 2049, 8193)


def theoretical(
    layers: Sequence[Layer] | Callable[..., jax.Array],
    input_shape: Sequence[int | None] | None = None,
    *arguments: Any,
    axes: Sequence[int] = (-3, -2),
    unit: Sequence[int] | None = None,
    dtype: Any = jnp.float32,
) -> ReceptiveField:
    """The receptive field of a list of layers or of any JAX function.

    Of a list it is the algebra of `rfjax.receptive_field.layers`. Of a function it is followed
    through every operation of its jaxpr, number by number, so that it is exact for branches,
    dilation, slices, reshapes and whatever else, within one box per output. Free weights count as
    nonzero; switches, masks, filters and positions that do not depend on the input are computed,
    so that a Gaussian counts with its sigma and an interpolation with the pixels that it reads.
    Positions that depend on the input are bounded by the whole map, and reported.

    Args:
      layers: `Conv`, `Pool`, `Gaussian`, `Taps` and `Parallel`, in the order that they are applied;
        or a function of (x, *arguments) that returns one array.
      input_shape: of x, for a function, such as (1, None, None, 3). A None on an axis that is
        followed stands for a size that is chosen large enough.
      *arguments: further arguments of the function, trees of arrays. A `jax.ShapeDtypeStruct`
        stands for an array whose numbers are not known.
      axes: the spatial axes of the input and of the output, (y, x).
      unit: indices along `axes` of the output in question; None for the one in the middle.
      dtype: of x.

    Returns:
      A `ReceptiveField`. `clipped` says where the input was too small for it.

    Raises:
      ValueError: a shape or a number is wrong.
      TypeError: something is neither a layer nor a function, or does not return one array.

    Example:
      >>> from rfjax.receptive_field import Conv
      >>> theoretical([Conv(3, stride=2), Conv(3, dilation=2)]).size
      (11, 11)
      >>> import jax
      >>> def pooled_difference(x):
      ...     return x[:, 2:] - jax.lax.reduce_window(
      ...         x, 0.0, jax.lax.add, (1, 3, 1, 1), (1, 1, 1, 1), "VALID")
      >>> theoretical(pooled_difference, (1, 32, 32, 3)).size
      (3, 1)

    Reference: Araujo, Norris & Sim, "Computing Receptive Fields of Convolutional Neural Networks",
      Distill 2019.
    """
    if not callable(layers):
        if isinstance(layers, str) or not isinstance(layers, Sequence):
            raise TypeError(f"want a sequence of layers or a function; got {layers!r}")
        if input_shape is not None or arguments:
            raise ValueError("input_shape and arguments are those of a function; got layers")
        return theoretical_of_layers(layers)
    fields = theoretical_of_outputs(
        layers, input_shape, *arguments, axes=axes, unit=unit, dtype=dtype
    )
    if isinstance(fields, ReceptiveField):
        return fields
    raise TypeError(
        "the function must return one array; `theoretical_of_outputs` takes trees of them"
    )


def theoretical_of_outputs(
    function: Callable,
    input_shape: Sequence[int | None] | None,
    *arguments: Any,
    axes: Sequence[int] = (-3, -2),
    unit: Sequence[int] | None = None,
    dtype: Any = jnp.float32,
) -> Any:
    """The receptive fields of all arrays that a function returns, in the tree of its outputs.

    Args: those of `theoretical`. `unit` is that of the last output.

    Returns:
      The output's tree, with a `ReceptiveField` for every array, or None for an array that does
      not depend on the input or that has no spatial axes.

    Example:
      >>> fields = theoretical_of_outputs(lambda x: {"half": x[:, ::2], "same": x}, (1, 32, 32, 3))
      >>> fields["half"].stride
      (2.0, 1.0)
    """
    fields, _, tree = followed(function, input_shape, *arguments, axes=axes, unit=unit, dtype=dtype)
    return jax.tree.unflatten(tree, fields)


def followed(
    function: Callable,
    input_shape: Sequence[int | None] | None,
    *arguments: Any,
    axes: Sequence[int] = (-3, -2),
    unit: Sequence[int] | None = None,
    dtype: Any = jnp.float32,
) -> tuple[list[ReceptiveField | None], list[int], Any]:
    """The leaves of `theoretical_of_outputs`, the order that they are computed in, their tree."""
    shape = _input_shape(input_shape)
    axes = _axes(shape, axes)
    opened = [axis for axis in axes if shape[axis] is None]
    for size in SIZES if opened else SIZES[:1]:
        filled = tuple(size if n is None else n for n in shape)
        x = jax.ShapeDtypeStruct(filled, dtype)
        found, order, tree = tracing.trace(function, x, axes, arguments)
        fields = [_field(output, x.shape, axes, unit) for output in found]
        if not any(f and any(f.clipped) and not f.data_dependent for f in fields):
            break
    return fields, order, tree


def _input_shape(shape: Sequence[int | None] | None) -> tuple[int | None, ...]:
    if shape is None:
        raise ValueError("a function's receptive field wants input_shape, as (1, None, None, 3)")
    shape = tuple(shape)
    for size in shape:
        if size is not None and (isinstance(size, bool) or not isinstance(size, (int, np.integer))):
            raise ValueError(f"input_shape must hold integers, or None; got {shape}")
        if size is not None and size < 1:
            raise ValueError(f"input_shape must hold positive integers; got {shape}")
    return shape


def _axes(shape: Sequence[int | None], axes: Sequence[int]) -> tuple[int, ...]:
    """The followed axes, counted from the front."""
    if not all(-len(shape) <= axis < len(shape) for axis in axes) or not axes:
        raise ValueError(f"axes {tuple(axes)} do not exist in an input of shape {tuple(shape)}")
    found = tuple(axis % len(shape) for axis in axes)
    others = [axis for axis, n in enumerate(shape) if n is None and axis not in found]
    if others:
        raise ValueError(f"input_shape may be None along axes {found} alone; got {tuple(shape)}")
    return found


def _field(
    output: Any, shape: Sequence[int], axes: Sequence[int], unit: Sequence[int] | None
) -> ReceptiveField | None:
    """What is read off the reach of one output."""
    if not isinstance(output, Reach) or len(output.shape) != len(shape):
        return None
    size = [output.shape[axis] for axis in axes]
    if 0 in output.shape:
        return None
    unit = [n // 2 for n in size] if unit is None else list(unit)
    if len(unit) != len(axes) or not all(0 <= u < n for u, n in zip(unit, size, strict=True)):
        raise ValueError(f"unit {tuple(unit)} is none of an output of {tuple(size)}")
    others = tuple(axis for axis in range(len(shape)) if axis not in axes)
    lines = []
    for number, axis in enumerate(axes):
        low, high = (
            _line(bound.max(others, keepdims=True), axes, unit, axis, size[number])
            for bound in output.bounds[2 * number : 2 * number + 2]
        )
        lines.append(_Line(-low, high, shape[axis], unit[number]))
    if any(line.empty for line in lines):
        return None
    return ReceptiveField(
        size=tuple(line.size for line in lines),
        stride=tuple(line.stride for line in lines),
        offset=tuple(line.offset for line in lines),
        box=tuple(line.box for line in lines),
        clipped=tuple(line.clipped for line in lines),
        data_dependent=DATA_DEPENDENT in output.notes,
        notes=tuple(sorted(output.notes)),
    )


def _line(
    bound: np.ndarray, axes: Sequence[int], unit: Sequence[int], axis: int, size: int
) -> np.ndarray:
    """A bound along one axis, through the unit along the others."""
    for other, index in zip(axes, unit, strict=True):
        if other != axis:
            bound = bound.take([index if bound.shape[other] > 1 else 0], other)
    return np.broadcast_to(bound.ravel(), (size,))


class _Line:
    """The fields of all outputs along one axis.

    Those that touch the border tell nothing of a larger input, so that size, stride and offset are
    read off the others. Outputs may differ by their phase, as those of an upsampling do.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, length: int, unit: int):
        self.low, self.high = low.astype(np.int64), high.astype(np.int64)
        self.box = int(low[unit]), int(high[unit])
        self.empty = int(high[unit]) == NOTHING
        inside = (low > 0) & (high < length - 1)
        self._inner = np.flatnonzero(inside)
        self.clipped = length > 1 and not inside[unit]
        self.stride, self.offset, self._period = self._affine()

    @property
    def size(self) -> int:
        """The largest field over the phases, or that of the unit."""
        if self.clipped or not self._inner.size:
            return self.box[1] - self.box[0] + 1
        inner = self._inner[: self._period]
        return int((self.high - self.low)[inner].max()) + 1

    def _affine(self) -> tuple[float, float, int]:
        """(stride, offset, period): the centre of output i + period is that of i, moved."""
        centers = (self.low + self.high) / 2
        inner = self._inner
        if not inner.size or inner[-1] - inner[0] != inner.size - 1 or inner.size < 2:
            return self._guess(centers)
        for period in range(1, inner.size // 2 + 1):
            steps = centers[inner[period:]] - centers[inner[:-period]]
            if np.all(steps == steps[0]):
                stride = float(steps[0]) / period
                phase = centers[inner[:period]] - stride * inner[:period]
                return stride, float(phase.mean()), period
        stride = float(centers[inner[-1]] - centers[inner[0]]) / (inner.size - 1)
        return stride, float(centers[inner[0]] - stride * inner[0]), inner.size

    def _guess(self, centers: np.ndarray) -> tuple[float, float, int]:
        """Where too few outputs are free of borders to tell."""
        return math.nan, math.nan, max(self._inner.size, 1)
