"""Receptive fields of functions, read off what their outputs depend on."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import _checks
from rfjax.receptive_field import reach as reaches
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

    An array that the function closes over is a weight if it is real and has no zeros, or nothing
    else: then all of it counts. One that is partly zero is structure, as a mask is, and its zeros
    do not count. Arguments are weights whatever their numbers are.

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
      ValueError: a shape or a number is wrong, or the function takes none of the sizes that are
        tried, or its output has another rank than the input or does not depend on it.
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
    found = _follow(layers, input_shape, arguments, axes, unit, dtype)
    if not jax.tree_util.treedef_is_leaf(found.tree):
        raise TypeError(
            "the function must return one array; `theoretical_of_outputs` takes trees of them"
        )
    if found.fields[0] is None:
        raise ValueError(_why_none(found.outputs[0], found.shape))
    return found.fields[0]


def _why_none(output: Any, shape: Sequence[int]) -> str:
    """Why an output has no receptive field."""
    if len(output.shape) != len(shape):
        return f"the output must have the input's rank {len(shape)}; got shape {output.shape}"
    if 0 in output.shape:
        return f"the output is empty: it has shape {output.shape} for an input of {tuple(shape)}"
    if not isinstance(output, Reach) or all((bound == NOTHING).all() for bound in output.bounds):
        return "the output does not depend on the input"
    return "the output that is asked for depends on no pixel of the input; choose another `unit`"


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
    found = _follow(function, input_shape, arguments, axes, unit, dtype)
    return found.fields, found.order, found.tree


class _Found(NamedTuple):
    """What a function's outputs depend on, for one shape of the input."""

    outputs: list[Any]
    fields: list[ReceptiveField | None]
    order: list[int]
    tree: Any
    shape: tuple[int, ...]
    jump: float


def _follow(function, input_shape, arguments, axes, unit, dtype) -> _Found:
    """The fields on an input that is large enough, where its size is left open."""
    shape = _input_shape(input_shape)
    axes = _axes(shape, axes)

    def at(size):
        filled = tuple(size if n is None else n for n in shape)
        x = jax.ShapeDtypeStruct(filled, dtype)
        with reaches.jumps() as jumps:
            outputs, order, tree = tracing.trace(function, x, axes, arguments)
        return _Found(outputs, [], order, tree, filled, max(jumps, default=0))

    opened = [number for number, axis in enumerate(axes) if shape[axis] is None]
    before = None
    for found in _growing(at) if opened else [at(SIZES[0])]:
        fields = [_field(output, found.shape, axes, unit) for output in found.outputs]
        found = found._replace(fields=fields)
        if _settled(found, before, axes, opened):
            break
        before = found
    return found


def _growing(at: Callable[[int], _Found]) -> Iterator[_Found]:
    """The fields at growing sizes: odd ones, or even ones if the function takes no odd ones."""
    less, works = (0, 1), False
    failed: list[tuple[int, Exception]] = []
    for size in SIZES:
        for one in less:
            try:
                found = at(size - one)
            except (TypeError, ValueError) as error:
                failed.append((size - one, error))
                continue
            less, works, failed = (one,), True, []
            yield found
            break
        else:
            if works:
                break
    if failed:
        sizes = ", ".join(str(size) for size, _ in failed)
        first = failed[0][1]
        raise ValueError(
            f"the function fails on inputs of {sizes} pixels; give a size, as (1, 256, 256, 3). "
            f"The first failure: {first}"
        ) from first


def _settled(found: _Found, before: _Found | None, axes: Sequence[int], opened: list[int]) -> bool:
    """Whether the fields would be the same on a larger input, along the axes left open.

    A field that is cut off ends at most one jump, between taps that are apart, from where the map
    ends. So one that keeps that and a quarter of the input off both borders is whole; another one
    has to be the same at two sizes.
    """
    for number, (output, field) in enumerate(zip(found.outputs, found.fields, strict=True)):
        same = before is not None and math.isfinite(found.jump)
        if field is None:
            rank = len(output.shape) == len(found.shape)
            if isinstance(output, Reach) and rank and not (same and before.fields[number] is None):
                return False
            continue
        if field.data_dependent:
            continue
        last = before.fields[number] if same else None
        for axis in opened:
            length, (low, high) = found.shape[axes[axis]], field.box[axis]
            free = min(low, length - 1 - high) >= found.jump + length // 4
            same = last is not None and last.size[axis] == field.size[axis]
            if field.clipped[axis] or not (free or same):
                return False
    return True


def _input_shape(shape: Sequence[int | None] | None) -> tuple[int | None, ...]:
    if shape is None:
        raise ValueError("a function's receptive field wants input_shape, as (1, None, None, 3)")
    shape = tuple(shape)
    for size in shape:
        if size is not None and not _checks.is_integer(size):
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
    read off the others, nor do those so near to it that taps may be missing. Outputs may differ
    by their phase, as those of an upsampling do, and some may see nothing.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, length: int, unit: int):
        self.low, self.high = low.astype(np.int64), high.astype(np.int64)
        self.box = int(low[unit]), int(high[unit])
        self.empty = int(high[unit]) == NOTHING
        inside = (self.low > 0) & (self.low <= self.high) & (self.high < length - 1)
        sizes = self.high - self.low + 1
        widest = int(sizes[inside].max()) if inside.any() else 1
        whole = inside & (self.high >= widest - 1) & (self.low <= length - widest)
        self.clipped = length > 1 and not whole[unit]
        self._inner = np.flatnonzero(whole if whole.sum() > 1 else inside)
        self.stride, self.offset = self._affine(unit)

    @property
    def size(self) -> int:
        """The largest field over the phases, or that of the unit."""
        if self.clipped or not self._inner.size:
            return self.box[1] - self.box[0] + 1
        return int((self.high - self.low)[self._inner].max()) + 1

    def _affine(self, unit: int) -> tuple[float, float]:
        """(stride, offset): the centre of output i + period is that of i, moved.

        Where this does not hold for all outputs it may for those about the one in question, and
        else centres go on evenly from the first to the last. NaN where too few outputs are free of
        borders to tell.
        """
        inner = self._inner
        if inner.size < 2:
            return math.nan, math.nan
        first, last = int(inner[0]), int(inner[-1])
        near = max((last - first) // 4, 1)
        spans = [(first, last), (max(first, unit - near), min(last, unit + near))]
        for start, stop in spans:
            found = self._periodic(inner[(inner >= start) & (inner <= stop)])
            if found:
                return found
        if last - first != inner.size - 1:
            return math.nan, math.nan
        centers = (self.low + self.high)[inner] / 2
        stride = float(centers[-1] - centers[0]) / (last - first)
        return stride, float(centers[0] - stride * first)

    def _periodic(self, inner: np.ndarray) -> tuple[float, float] | None:
        """(stride, offset) of outputs of which some repeat after a number of them."""
        if inner.size < 2:
            return None
        start = int(inner[0])
        twice = np.zeros(int(inner[-1]) - start + 1, np.int64)
        there = np.zeros(len(twice), bool)
        there[inner - start], twice[inner - start] = True, (self.low + self.high)[inner]
        for period in range(1, len(twice) // 2 + 1):
            both = there[period:]
            if not np.array_equal(both, there[:-period]):
                continue
            steps = (twice[period:] - twice[:-period])[both]
            if steps.size and np.all(steps == steps[0]):
                stride = float(steps[0]) / 2 / period
                index = np.flatnonzero(there[:period])
                phase = twice[index] / 2 - stride * (index + start)
                return stride, float(phase.mean())
        return None
