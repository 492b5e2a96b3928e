"""What each operation's outputs depend on, by what its operands depend on.

A rule takes the operation (an equation of a jaxpr) and its operands, a `Reach` or a `Constant`
each, at least one of them a reach, and returns the reach of the output, or of every output. An
operation without a rule depends on all that its operands depend on, which is noted.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from rfjax.receptive_field._interpreter import reach as reaches
from rfjax.receptive_field._interpreter.constants import DRAWN, Constant
from rfjax.receptive_field._interpreter.reach import (
    NO_RULE,
    NOTHING,
    WHOLE_AXIS,
    Note,
    Reach,
    Window,
)

Operand = Reach | Constant
RULES: dict[str, Callable] = {}

# Of devices that all see the same of the input, see `tracing`.
COLLECTIVE = "pbroadcast pcast pmax pmean pmin ppermute psum psum_invariant pvary"

_ELEMENTWISE = (
    "abs acos acosh add add_any and asin asinh atan atan2 atanh bessel_i0e bessel_i1e cbrt ceil"
    " clamp clz complex conj convert_element_type copy copy_p cos cosh digamma div eq eq_to erf"
    " erf_inv erfc exp exp2 expm1 floor ge gt igamma igamma_grad_a igammac imag integer_pow"
    " is_finite le le_to lgamma log log1p logistic lt lt_to max min mul ne neg nextafter not or"
    " polygamma population_count pow random_clone random_fold_in random_gamma"
    " random_gamma_grad random_seed real reduce_precision regularized_incomplete_beta rem round"
    " rsqrt select_n shift_left shift_right_arithmetic shift_right_logical sharding_constraint sign"
    " sin sinh sqrt square stop_gradient sub tan tanh threefry2x32 xor zeta"
)


def rule(names: str) -> Callable[[Callable], Callable]:
    """Registers a function as the rule of all operations named."""

    def register(function):
        RULES.update(dict.fromkeys(names.split(), function))
        return function

    return register


def apply(equation: Any, operands: Sequence[Operand]) -> list[Reach]:
    """The reach of each output of an operation."""
    found = RULES.get(equation.primitive.name, _all_of_all)(equation, operands)
    return found if isinstance(found, list) else [found]


def dependent(operands: Sequence[Operand]) -> list[Reach]:
    """Those operands that depend on the input."""
    return [operand for operand in operands if isinstance(operand, Reach)]


def as_reach(operand: Operand, like: Reach) -> Reach:
    """A constant as an array that depends on nothing."""
    return operand if isinstance(operand, Reach) else reaches.nowhere(operand.shape, like)


def _shape(equation: Any) -> tuple[int, ...]:
    return tuple(equation.outvars[0].aval.shape)


def _all_of_all(equation: Any, operands: Sequence[Operand]) -> list[Reach]:
    return taken_as_everything(equation, operands, NO_RULE)


def taken_as_everything(equation: Any, operands: Sequence[Operand], reason: str) -> list[Reach]:
    """Every number of every output depends on all of the operands, for a reason that is noted."""
    note, found = note_of(equation, reason), dependent(operands)
    return [reaches.everything(out.aval.shape, found, note) for out in equation.outvars]


def note_of(equation: Any, reason: str) -> Note:
    """What is noted of an operation."""
    return Note(equation.primitive.name, reason)


# -- number by number ------------------------------------------------------------------------------


@rule(_ELEMENTWISE)
def _elementwise(equation: Any, operands: Sequence[Operand]) -> list[Reach]:
    return [reaches.union(_shape(equation), dependent(operands))] * len(equation.outvars)


@rule(COLLECTIVE)
def _collective(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """Each array number by number; of a constant other devices may have another value."""
    pairs = zip(operands, equation.outvars, strict=True)
    return [x if isinstance(x, Reach) else Constant(out.aval) for x, out in pairs]


@rule("mul")
def _multiply(equation: Any, operands: Sequence[Operand]) -> Reach:
    """Nothing is left where a constant factor is zero."""
    shape = _shape(equation)
    result = reaches.union(shape, dependent(operands))
    for operand in operands:
        if isinstance(operand, Constant):
            nonzero = operand.nonzero()
            if nonzero is not None:
                mask = nonzero.reshape((1,) * (len(shape) - nonzero.ndim) + nonzero.shape)
                result = reaches.where(mask, result)
    return result


@rule("select_n")
def _select(equation: Any, operands: Sequence[Operand]) -> Reach:
    shape = _shape(equation)
    chosen, *cases = operands
    known = None if isinstance(chosen, Reach) else chosen.known()
    # What random numbers choose may be anything, whatever was drawn.
    if known is None or chosen.kind == DRAWN:
        return reaches.union(shape, dependent(operands))
    known = known.reshape(known.shape or (1,) * len(shape)).astype(int)
    parts = [
        reaches.where(known == index, case)
        for index, case in enumerate(cases)
        if isinstance(case, Reach)
    ]
    return reaches.union(shape, parts)


@rule("optimization_barrier device_put")
def _each(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    return list(operands)


# -- moves -----------------------------------------------------------------------------------------


@rule("reshape squeeze expand_dims")
def _reshape(equation: Any, operands: Sequence[Operand]) -> Reach:
    (x,) = dependent(operands)
    shape = _shape(equation)
    return x.map(shape, lambda bound: reaches.reshape(bound, x.shape, shape))


@rule("broadcast_in_dim")
def _broadcast(equation: Any, operands: Sequence[Operand]) -> Reach:
    (x,) = dependent(operands)
    shape = _shape(equation)

    def broadcast(bound):
        line = [1] * len(shape)
        for axis, size in zip(equation.params["broadcast_dimensions"], bound.shape, strict=True):
            line[axis] = size
        return bound.reshape(line)

    return x.map(shape, broadcast)


@rule("tile")
def _tile(equation: Any, operands: Sequence[Operand]) -> Reach:
    """Copies side by side."""
    (x,) = dependent(operands)
    reps = equation.params["reps"]
    repeated = [axis for axis, times in enumerate(reps) if times != 1]

    def tile(bound):
        varying = [axis for axis in repeated if bound.shape[axis] > 1]
        return np.tile(bound, [reps[a] if a in varying else 1 for a in range(bound.ndim)])

    return x.map(_shape(equation), tile)


@rule("transpose")
def _transpose(equation: Any, operands: Sequence[Operand]) -> Reach:
    (x,) = dependent(operands)
    order = equation.params["permutation"]
    return x.map(_shape(equation), lambda bound: bound.transpose(order))


@rule("rev")
def _reverse(equation: Any, operands: Sequence[Operand]) -> Reach:
    (x,) = dependent(operands)
    return x.map(x.shape, lambda bound: np.flip(bound, equation.params["dimensions"]))


@rule("slice")
def _slice(equation: Any, operands: Sequence[Operand]) -> Reach:
    (x,) = dependent(operands)
    params = equation.params
    strides = params["strides"] or (1,) * len(x.shape)
    limits = zip(params["start_indices"], params["limit_indices"], strides, strict=True)
    return part(x, [slice(*limit) for limit in limits], _shape(equation))


def part(x: Reach, slices: Sequence[slice], shape: Sequence[int]) -> Reach:
    """The slices of an array, of which size-1 bounds are their own."""

    def cut(bound):
        pairs = zip(slices, bound.shape, strict=True)
        return bound[tuple(part if size > 1 else slice(None) for part, size in pairs)]

    return x.map(shape, cut)


@rule("split")
def _split(equation: Any, operands: Sequence[Operand]) -> list[Reach]:
    (x,) = dependent(operands)
    axis, start, parts = equation.params["axis"], 0, []
    for size, out in zip(equation.params["sizes"], equation.outvars, strict=True):
        slices = [slice(None)] * len(x.shape)
        slices[axis] = slice(start, start + size)
        parts.append(part(x, slices, out.aval.shape))
        start += size
    return parts


@rule("concatenate")
def _concatenate(equation: Any, operands: Sequence[Operand]) -> Reach:
    return _joined(operands, equation.params["dimension"], _shape(equation))


def _joined(operands: Sequence[Operand], axis: int, shape: Sequence[int]) -> Reach:
    like = dependent(operands)[0]
    parts = [as_reach(operand, like) for operand in operands]
    bounds = []
    for bound in zip(*(part.bounds for part in parts), strict=True):
        full = [reaches.spread(b, p.shape, [axis]) for b, p in zip(bound, parts, strict=True)]
        others = np.broadcast_shapes(*(np.delete(np.array(b.shape), axis) for b in full))
        wide = [np.broadcast_to(b, (*others[:axis], b.shape[axis], *others[axis:])) for b in full]
        bounds.append(reaches.compress(np.concatenate(wide, axis)))
    notes = frozenset().union(*(part.notes for part in parts))
    return Reach(tuple(shape), tuple(bounds), notes)


@rule("stack")
def _stack(equation: Any, operands: Sequence[Operand]) -> Reach:
    axis, shape = equation.params["axis"], _shape(equation)
    like = dependent(operands)[0]
    layers = []
    for operand in operands:
        x = as_reach(operand, like)
        one = (*x.shape[:axis], 1, *x.shape[axis:])
        layers.append(x.map(one, lambda bound: np.expand_dims(bound, axis)))
    return _joined(layers, axis, shape)


@rule("pad")
def _pad(equation: Any, operands: Sequence[Operand]) -> Reach:
    x, filler = operands
    like = dependent(operands)[0]
    result = as_reach(x, like)
    config = equation.params["padding_config"]
    # Where nothing is added bounds may stay of size 1; what is added depends on nothing.
    for axis, (low, high, inner) in enumerate(config):
        shape = list(result.shape)
        window = Window(1, before=low, after=high, input_dilation=inner + 1)
        shape[axis] = window.outputs(shape[axis])
        if low > 0 or high > 0 or inner:
            before = result.shape
            result = result.map(
                shape, lambda b: window.line(reaches.spread(b, before, [axis]), axis)
            )
        elif low or high:
            slices = [slice(None)] * len(shape)
            slices[axis] = slice(-low, -low + shape[axis])
            result = part(result, slices, shape)
    if isinstance(filler, Reach):
        result = reaches.union(result.shape, [result, filler])
    return result


# -- sums ------------------------------------------------------------------------------------------


@rule("reduce_sum reduce_max reduce_min reduce_prod reduce_and reduce_or reduce_xor argmax argmin")
def _reduce(equation: Any, operands: Sequence[Operand]) -> Reach:
    (x,) = dependent(operands)
    axes = tuple(equation.params["axes"])
    return x.map(_shape(equation), lambda bound: bound.max(axes))


@rule("reduce")
def _reduce_by_function(equation: Any, operands: Sequence[Operand]) -> list[Reach]:
    """Any reduction, of several arrays perhaps, from initial values."""
    count = len(equation.outvars)
    arrays, initial = operands[:count], operands[count:]
    axes = tuple(equation.params["dimensions"])
    parts = [x.map(_shape(equation), lambda bound: bound.max(axes)) for x in dependent(arrays)]
    return [reaches.union(_shape(equation), [*parts, *dependent(initial)])] * count


@rule("cumsum cumprod cummax cummin cumlogsumexp")
def _cumulate(equation: Any, operands: Sequence[Operand]) -> Reach:
    (x,) = dependent(operands)
    axis, reverse = equation.params["axis"], equation.params["reverse"]

    def cumulate(bound):
        ordered = np.flip(bound, axis) if reverse else bound
        result = np.maximum.accumulate(ordered, axis)
        return np.flip(result, axis) if reverse else result

    return x.map(x.shape, cumulate).noted(note_of(equation, WHOLE_AXIS))


@rule("sort")
def _sort(equation: Any, operands: Sequence[Operand]) -> list[Reach]:
    """Of its own numbers and the keys, anywhere along the axis."""
    axis, keys = equation.params["dimension"], operands[: equation.params["num_keys"]]
    shape, sorted_ones = _shape(equation), []
    for operand in operands:
        mixed = reaches.union(shape, dependent([operand, *keys]) or dependent(operands))
        mixed = mixed.map(shape, lambda bound: bound.max(axis, keepdims=True))
        sorted_ones.append(mixed.noted(note_of(equation, WHOLE_AXIS)))
    return sorted_ones


@rule("top_k approx_top_k")
def _top_k(equation: Any, operands: Sequence[Operand]) -> list[Reach]:
    (x,) = dependent(operands)
    axis = equation.params.get("axis", equation.params.get("reduction_dimension", -1))
    note = note_of(equation, WHOLE_AXIS)
    return [
        x.map(out.aval.shape, lambda bound: bound.max(axis, keepdims=True)).noted(note)
        for out in equation.outvars
    ]


@rule("dot_general")
def _dot(equation: Any, operands: Sequence[Operand]) -> Reach:
    """The union over the contracted axes, wherever a constant matrix is not zero."""
    (contracted, batched) = equation.params["dimension_numbers"]
    sides = [
        _as_matrices(operand, contracted[side], batched[side])
        for side, operand in enumerate(operands)
    ]
    shape = _shape(equation)
    parts = [
        _product(sides[side], sides[1 - side], flip=bool(side))
        for side in (0, 1)
        if isinstance(operands[side], Reach)
    ]
    bounds = [np.maximum.reduce(np.broadcast_arrays(*part)) for part in zip(*parts, strict=True)]
    notes = frozenset().union(*(x.notes for x in dependent(operands)))
    matrices = (
        [operands[0].shape[axis] for axis in batched[0]],
        _free_sizes(operands[0], contracted[0], batched[0]),
        _free_sizes(operands[1], contracted[1], batched[1]),
    )
    merged = tuple(int(np.prod(sizes)) for sizes in matrices)
    bounds = [reaches.compress(reaches.reshape(bound, merged, shape)) for bound in bounds]
    return Reach(shape, tuple(bounds), notes)


def _free_sizes(operand: Operand, contracted: Sequence[int], batched: Sequence[int]) -> list[int]:
    taken = {*contracted, *batched}
    return [size for axis, size in enumerate(operand.shape) if axis not in taken]


def _as_matrices(operand: Operand, contracted: Sequence[int], batched: Sequence[int]) -> list:
    """Bounds, or the mask of a constant or None, as [batched, free, contracted]."""
    taken = {*contracted, *batched}
    free = [axis for axis in range(len(operand.shape)) if axis not in taken]
    order = [*batched, *free, *contracted]
    shape = [operand.shape[axis] for axis in order]
    ends = np.cumsum([len(batched), len(free), len(contracted)])
    starts = [0, *ends[:-1]]
    merged = [int(np.prod(shape[start:end])) for start, end in zip(starts, ends, strict=True)]
    arrays = operand.bounds if isinstance(operand, Reach) else [operand.nonzero()]
    return [
        None if array is None else reaches.reshape(array.transpose(order), shape, merged)
        for array in arrays
    ]


def _product(mine: list, theirs: list, *, flip: bool) -> list[np.ndarray]:
    """Bounds [batched, free, contracted] of one side, joined over the other side's columns.

    The other side's bounds, if it depends on the input too, matter where this side is not zero,
    which is everywhere; so only a constant's mask restricts.
    """
    mask = theirs[0] if len(theirs) == 1 else None
    joined = []
    for bound in mine:
        if mask is None:
            result = bound.max(-1)[:, :, None]
        elif bound.shape[-1] == 1:
            result = np.where(mask.any(-1)[:, None, :], bound, NOTHING)
        else:
            result = _masked_product(bound, mask)
        joined.append(result.swapaxes(1, 2) if flip else result)
    return joined


def _masked_product(bound: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """max over k, where mask [B, R, K], of bound [B, L, K]: [B, L, R]."""
    batches = max(bound.shape[0], mask.shape[0])
    mask = np.broadcast_to(mask, (*mask.shape[:2], bound.shape[2]))
    result = np.full((batches, bound.shape[1], mask.shape[1]), NOTHING, np.int32)
    for k in range(bound.shape[2]):
        rows = np.flatnonzero(mask[:, :, k].any(0))
        seen = np.where(mask[:, None, rows, k], bound[:, :, k, None], NOTHING)
        result[:, :, rows] = np.maximum(result[:, :, rows], seen)
    return result
