"""What is read and written at positions, which may depend on the input; rules as in `rules`."""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfjax.receptive_field._interpreter import reach as reaches
from rfjax.receptive_field._interpreter.constants import Constant
from rfjax.receptive_field._interpreter.reach import (
    DATA_DEPENDENT,
    NOTHING,
    UNKNOWN_POSITIONS,
    Note,
    Reach,
)
from rfjax.receptive_field._interpreter.rules import (
    Operand,
    as_reach,
    dependent,
    note_of,
    part,
    rule,
)


def _positions(
    equation: Any, operands: Sequence[Operand]
) -> tuple[list[np.ndarray] | None, list[Note]]:
    """The numbers of position operands, or why they are not known."""
    if dependent(operands):
        return None, [note_of(equation, DATA_DEPENDENT)]
    known = [operand.known() for operand in operands]
    if any(k is None for k in known):
        return None, [note_of(equation, UNKNOWN_POSITIONS)]
    return known, []


@rule("dynamic_slice")
def _dynamic_slice(equation: Any, operands: Sequence[Operand]) -> Reach:
    x, *starts = operands
    known, notes = _positions(equation, starts)
    shape = tuple(equation.outvars[0].aval.shape)
    like = dependent(operands)[0]
    x = as_reach(x, like)
    if known is not None:
        slices = []
        for start, size, length in zip(known, shape, x.shape, strict=True):
            start = min(max(int(start), 0), length - size)
            slices.append(slice(start, start + size))
        return part(x, slices, shape)
    if isinstance(operands[0], Constant):
        return reaches.everything(shape, dependent(starts), *notes)
    moved = tuple(a for a, (s, n) in enumerate(zip(shape, x.shape, strict=True)) if s < n)
    anywhere = x.map(shape, lambda bound: bound.max(moved, keepdims=True))
    return reaches.union(shape, [anywhere, *dependent(starts)]).noted(*notes)


@rule("dynamic_update_slice")
def _dynamic_update_slice(equation: Any, operands: Sequence[Operand]) -> Reach:
    x, update, *starts = operands
    known, notes = _positions(equation, starts)
    like = dependent(operands)[0]
    x, update = as_reach(x, like), as_reach(update, like)
    if known is None:
        parts = [x, reaches.everything(x.shape, [update]), *dependent(starts)]
        return reaches.union(x.shape, parts).noted(*notes)
    place = []
    for start, size, length in zip(known, update.shape, x.shape, strict=True):
        start = min(max(int(start), 0), length - size)
        place.append(slice(start, start + size))
    bounds = []
    for old, new in zip(x.bounds, update.bounds, strict=True):
        full = np.array(np.broadcast_to(old, x.shape))
        full[tuple(place)] = new
        bounds.append(reaches.compress(full))
    return Reach(x.shape, tuple(bounds), x.notes | update.notes)


@rule("gather")
def _gather(equation: Any, operands: Sequence[Operand]) -> Reach:
    x, index = operands
    known, notes = _positions(equation, [index])
    shape, params = tuple(equation.outvars[0].aval.shape), equation.params
    if not isinstance(x, Reach):
        return _looked_up(index, shape, params["dimension_numbers"].offset_dims)
    if known is None:
        parts = [_anywhere(x, shape, params)]
        if isinstance(index, Reach):
            parts.append(_looked_up(index, shape, params["dimension_numbers"].offset_dims))
        return reaches.union(shape, parts).noted(*notes)

    def gather(bound):
        # An axis on which the bound does not vary is read as its one number.
        sizes = zip(params["slice_sizes"], bound.shape, x.shape, strict=True)
        whole = [size == length for size, _, length in sizes]
        vary = [axis for axis, all_of_it in enumerate(whole) if not all_of_it]
        full = reaches.spread(bound, x.shape, vary)
        sizes = [min(size, n) for size, n in zip(params["slice_sizes"], full.shape, strict=True)]
        changed = params | {"slice_sizes": tuple(sizes), "fill_value": int(NOTHING)}
        return np.asarray(equation.primitive.bind(jnp.asarray(full), known[0], **changed))

    return x.map(shape, gather)


def _anywhere(x: Reach, shape: Sequence[int], params: dict[str, Any]) -> Reach:
    """Reads of an array at any position; axes that are read as a whole, or in step, stay."""
    numbers, sizes = params["dimension_numbers"], params["slice_sizes"]
    batches = [axis for axis in range(len(shape)) if axis not in numbers.offset_dims]
    # The axes of the index are those of the output that are no offsets, in order.
    in_step = dict(
        zip(
            numbers.operand_batching_dims,
            (batches[axis] for axis in numbers.start_indices_batching_dims),
            strict=True,
        )
    )
    dropped = {*numbers.collapsed_slice_dims, *numbers.operand_batching_dims}
    kept = [axis for axis in range(len(x.shape)) if axis not in dropped]
    whole = {
        axis: out
        for axis, out in zip(kept, numbers.offset_dims, strict=True)
        if sizes[axis] == x.shape[axis]
    }
    stays = whole | in_step
    moved = tuple(axis for axis in range(len(x.shape)) if axis not in stays)

    def place(bound):
        bound = bound.max(moved, keepdims=True)
        order = sorted(stays, key=stays.__getitem__)
        line = [1] * len(shape)
        for axis in order:
            line[stays[axis]] = bound.shape[axis]
        return bound.transpose([*moved, *order]).reshape(line)

    return x.map(shape, place)


def _looked_up(index: Reach, shape: Sequence[int], offsets: Sequence[int]) -> Reach:
    """Reads of a constant table: each depends on its own row of the index alone."""
    line = [1] * len(shape)
    places = [axis for axis in range(len(shape)) if axis not in offsets]

    def place(bound):
        rows = bound.max(-1)
        for axis, size in zip(places, rows.shape, strict=True):
            line[axis] = size
        return rows.reshape(line)

    return index.map(shape, place)


@rule("scatter scatter-add scatter_add scatter-mul scatter_mul scatter-min scatter-max")
@rule("scatter_min scatter_max scatter_sub scatter-sub")
def _scatter(equation: Any, operands: Sequence[Operand]) -> Reach:
    x, index, update = operands
    known, notes = _positions(equation, [index])
    like = dependent(operands)[0]
    x, update = as_reach(x, like), as_reach(update, like)
    if known is None:
        parts = [x, reaches.everything(x.shape, dependent([update, index]))]
        return reaches.union(x.shape, parts).noted(*notes)
    replaces = equation.primitive.name == "scatter"
    put = jax.lax.scatter if replaces else jax.lax.scatter_max
    bounds = []
    for old, new in zip(x.bounds, update.bounds, strict=True):
        full = jnp.asarray(np.broadcast_to(old, x.shape))
        values = jnp.asarray(np.broadcast_to(new, update.shape))
        numbers = equation.params["dimension_numbers"]
        result = put(full, known[0], values, numbers, mode=equation.params["mode"])
        bounds.append(reaches.compress(np.asarray(result)))
    return Reach(x.shape, tuple(bounds), x.notes | update.notes)
