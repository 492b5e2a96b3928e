"""Receptive fields of functions, read off what their outputs depend on."""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from rfjax import _checks
from rfjax.receptive_field._interpreter import reach as reaches
from rfjax.receptive_field._interpreter import tracing
from rfjax.receptive_field._interpreter.reach import (
    DATA_DEPENDENT,
    NO_RULE,
    NOTHING,
    SPLIT_MAP,
    Reach,
)
from rfjax.receptive_field.layers import Layer, ReceptiveField, theoretical_of_layers
from rfjax.receptive_field.lines import Line, read

# Reasons of notes that say that an operation has no rule.
UNRULED = (NO_RULE, SPLIT_MAP)

# Sizes that are tried where the input's is left open: fields up to some 4,000 pixels.
SIZES = (129, 513, 2049, 8193)

# Pixels that an axis is made longer by, where it is too short to show the stride: multiples of
# strides of up to 2^6, and of 3, 5 and 7, so that paddings which depend on the size stay.
LONGER = (192, 1920, 6720)


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
    Positions that depend on the input are bounded by the whole map, and reported; so is every
    operation without a rule, by its name (`missing` of the result).

    Stride and offset are those of outputs that are clear of the border. On a map that is too small
    to have such they are read off the same function on a longer axis, if it takes one and if that
    agrees with all that is seen on the small one.

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
      A `ReceptiveField`. `clipped` says where the input was too small for it, `missing` and `notes`
      what was bounded rather than followed.

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
    order: list[int]
    tree: Any
    shape: tuple[int, ...]
    jumps: reaches.Jumps
    lines: list[list[Line] | None]

    @property
    def fields(self) -> list[ReceptiveField | None]:
        """Of all outputs."""
        return [_field(*pair) for pair in zip(self.outputs, self.lines, strict=True)]


def _follow(function, input_shape, arguments, axes, unit, dtype) -> _Found:
    """The fields on an input that is large enough, where its size is left open."""
    shape = _input_shape(input_shape)
    axes = _axes(shape, axes)

    def at(shape, unit):
        x = jax.ShapeDtypeStruct(shape, dtype)
        with reaches.jumps() as jumps:
            outputs, order, tree = tracing.trace(function, x, axes, arguments)
        lines = [read(output, shape, axes, unit) for output in outputs]
        return _Found(outputs, order, tree, shape, jumps, lines)

    def of(size):
        return at(tuple(size if n is None else n for n in shape), unit)

    opened = [number for number, axis in enumerate(axes) if shape[axis] is None]
    before = None
    for found in _growing(of) if opened else [of(SIZES[0])]:
        if _settled(found, before, axes, opened):
            break
        before = found
    for number in set(range(len(axes))).difference(opened):
        _learn(found, number, axes[number], lambda shape: at(shape, None))
    return found


def _learn(found: _Found, number: int, axis: int, at: Callable[[tuple[int, ...]], _Found]) -> None:
    """Stride and offset of outputs that see a border, off a longer axis if the function takes one.

    Its other axes are as they are: a map that is longer both ways costs the square.
    """
    unsure = {
        index: lines[number]
        for index, lines in enumerate(found.lines)
        if lines and not lines[number].certain(found.jumps.largest(number))
    }
    for more in LONGER:
        if not unsure:
            return
        shape = (*found.shape[:axis], found.shape[axis] + more, *found.shape[axis + 1 :])
        try:
            larger = at(shape)
        except Exception:  # whatever it raises, the function takes no such map
            return
        if len(larger.outputs) != len(found.outputs):
            return
        for index, line in list(unsure.items()):
            longer = larger.lines[index] and larger.lines[index][number]
            learned = longer and line.learn(longer, larger.jumps.largest(number))
            bounded = bool(found.outputs[index].notes)
            # One that sees all of this one, too, is of something that depends on everything.
            endless = longer and longer.covered and (bounded or more > LONGER[0])
            if not longer or learned or endless:
                del unsure[index]


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
    # A property that is worked out anew each time.
    fields, fields_before = found.fields, before.fields if before else []
    jumps = [found.jumps.largest(axis) for axis in opened]
    for number, (output, field) in enumerate(zip(found.outputs, fields, strict=True)):
        same = before is not None and all(map(math.isfinite, jumps))
        if field is None:
            rank = len(output.shape) == len(found.shape)
            if isinstance(output, Reach) and rank and not (same and fields_before[number] is None):
                return False
            continue
        if field.data_dependent:
            continue
        last = fields_before[number] if same else None
        for axis in opened:
            length, (low, high) = found.shape[axes[axis]], field.box[axis]
            free = min(low, length - 1 - high) >= found.jumps.largest(axis) + length // 4
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


def _field(output: Any, lines: list[Line] | None) -> ReceptiveField | None:
    """What is read off the reach of one output."""
    if lines is None:
        return None
    return ReceptiveField(
        size=tuple(line.size for line in lines),
        stride=tuple(line.stride for line in lines),
        offset=tuple(line.offset for line in lines),
        box=tuple(line.box for line in lines),
        clipped=tuple(line.clipped for line in lines),
        data_dependent=any(note.reason == DATA_DEPENDENT for note in output.notes),
        missing=tuple(sorted(n.operation for n in output.notes if n.reason in UNRULED)),
        notes=tuple(sorted(map(str, output.notes))),
    )
