"""The interpreter: which input pixels every number of a traced function can depend on.

Numbers that do not depend on the input are computed where something turns on them: the index of a
switch, the taps of a Gaussian, positions that are read. So a path that is not taken does not count,
and the reach of a Gaussian is that of its sigma.
"""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np
from jax.extend import core

from rfjax.receptive_field._interpreter import (  # noqa: F401 (they register rules)
    bits,
    fourier,
    matrices,
    positions,
    rules,
    windows,
)
from rfjax.receptive_field._interpreter import reach as reaches
from rfjax.receptive_field._interpreter.constants import Constant, Given, compute
from rfjax.receptive_field._interpreter.reach import Note, Reach
from rfjax.receptive_field._interpreter.rules import Operand, as_reach, dependent

# Operations that call a function, and the parameter that holds it.
_CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "core_call": "call_jaxpr",
    "custom_jvp_call": "call_jaxpr",
    "custom_vjp_call": "call_jaxpr",
    "custom_vjp_call_jaxpr": "fun_jaxpr",
    "custom_vmap_call": "call",
    "checkpoint": "jaxpr",
    "remat2": "jaxpr",
}

# Longer loops are not followed step by step, but until nothing changes.
_LONGEST_LOOP = 4096


def trace(
    function: Callable, x: jax.ShapeDtypeStruct, axes: Sequence[int], arguments: Sequence[Any]
) -> tuple[list[Operand], list[int], Any]:
    """What every output of function(x, *arguments) depends on.

    Args:
      function: of arrays; returns arrays in any tree.
      x: shape and type of the input.
      axes: of the input that are followed.
      arguments: trees of arrays, or of `jax.ShapeDtypeStruct` where the numbers are not known.

    Returns:
      The leaves of the output, for each the number of the operation that made it, and their tree.
    """
    closed, out = jax.make_jaxpr(function, return_shape=True)(x, *arguments)
    given = [Given(leaf) for leaf in jax.tree.leaves(arguments)]
    results = run(closed, [reaches.source(x.shape, axes), *given])
    made = {var: i for i, eqn in enumerate(closed.jaxpr.eqns) for var in eqn.outvars}
    order = [
        -1 if isinstance(var, core.Literal) else made.get(var, -1) for var in closed.jaxpr.outvars
    ]
    return results, order, jax.tree.structure(out)


def run(closed: Any, operands: Sequence[Operand]) -> list[Operand]:
    """The outputs of a closed jaxpr."""
    return _run(closed.jaxpr, [Given(const, closed=True) for const in closed.consts], operands)


def _run(jaxpr: Any, consts: Sequence[Operand], operands: Sequence[Operand]) -> list[Operand]:
    env: dict[Any, Operand] = {}
    env.update(zip(jaxpr.constvars, consts, strict=True))
    env.update(zip(jaxpr.invars, operands, strict=True))

    def read(atom):
        if isinstance(atom, core.Literal):
            return Given(np.asarray(atom.val, atom.aval.dtype), literal=True)
        return env[atom]

    for equation in jaxpr.eqns:
        results = _step(equation, [read(atom) for atom in equation.invars])
        env.update(zip(equation.outvars, results, strict=True))
    return [read(atom) for atom in jaxpr.outvars]


def _step(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """The outputs of one operation."""
    name = equation.primitive.name
    if name in _CONTROL:
        return _CONTROL[name](equation, operands)
    if name in _CALLS:
        called = equation.params[_CALLS[name]]
        closed = called if hasattr(called, "consts") else core.ClosedJaxpr(called, ())
        return run(closed, operands)
    if not dependent(operands):
        # Devices cannot sum anything here; what they agree on is what each of them has.
        if name in rules.COLLECTIVE.split():
            return list(operands) if name in ("pvary", "pcast") else _unknown(equation, operands)
        return compute(equation, operands)
    return rules.apply(equation, operands)


def _platform(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """Which of several programs is run here."""
    platforms = equation.params["platforms"]
    here = jax.default_backend()
    index = next(i for i, names in enumerate(platforms) if names is None or here in names)
    return [Given(np.int32(index), literal=True)]


def _by_device(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """The function for the devices that are here, each as if it were the only one."""
    function = equation.params["cpu" if jax.default_backend() == "cpu" else "default"]
    shapes = [jax.ShapeDtypeStruct(atom.aval.shape, atom.aval.dtype) for atom in equation.invars]
    return run(jax.make_jaxpr(function)(*shapes), operands)


def _cond(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """The branch that is taken, or the union of all where that is not known."""
    index, *rest = operands
    branches = equation.params["branches"]
    known = None if isinstance(index, Reach) else index.known()
    if known is not None:
        return run(branches[min(max(int(known), 0), len(branches) - 1)], rest)
    found = [run(branch, rest) for branch in branches]
    chooser = dependent([index])
    note = rules.note_of(equation, reaches.CHOSEN if chooser else reaches.UNKNOWN_BRANCH)
    return [
        _merge(out.aval, parts, chooser, note)
        for out, *parts in zip(equation.outvars, *found, strict=True)
    ]


def _merge(
    aval: Any, parts: Sequence[Operand], choosers: Sequence[Reach], note: Note | None = None
) -> Operand:
    """One of several values, chosen by others."""
    found = [*dependent(parts), *choosers]
    if not found:
        return Constant(aval)
    merged = reaches.union(aval.shape, found)
    return merged.noted(note) if note else merged


def _scan(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """A loop over leading axes, step by step."""
    params = equation.params
    if not dependent(operands):
        return compute(equation, operands)
    length, consts, carries = params["length"], params["num_consts"], params["num_carry"]
    fixed, carry = operands[:consts], list(operands[consts : consts + carries])
    if not length:
        avals = [out.aval for out in equation.outvars[carries:]]
        return [*carry, *(Given(np.zeros(a.shape, a.dtype), literal=True) for a in avals)]
    if length > _LONGEST_LOOP:
        return _long_scan(equation, operands, fixed, carry)
    rows = [_rows(operand, length) for operand in operands[consts + carries :]]
    steps = range(length)
    outputs: list[Any] = [None] * length
    for step in reversed(steps) if params["reverse"] else steps:
        results = run(params["jaxpr"], [*fixed, *carry, *(row(step) for row in rows)])
        carry, outputs[step] = results[:carries], results[carries:]
    stacked = zip(*outputs, strict=True) if outputs[0] else ()
    avals = [out.aval for out in equation.outvars[carries:]]
    return [*carry, *(_stack(list(ys), aval) for ys, aval in zip(stacked, avals, strict=True))]


def _long_scan(
    equation: Any, operands: Sequence[Operand], fixed: Sequence[Operand], carry: Sequence[Operand]
) -> list[Operand]:
    """A scan of which any step reads any row: what is carried and given out grows until it stays.

    What is given out by one step is taken to be given out by all.
    """
    params = equation.params
    avals = [var.aval for var in params["jaxpr"].jaxpr.invars][len(fixed) + len(carry) :]
    rows = [
        x.map(aval.shape, lambda bound: bound.max(0)) if isinstance(x, Reach) else Constant(aval)
        for x, aval in zip(operands[len(fixed) + len(carry) :], avals, strict=True)
    ]
    outputs: list[Operand] = []

    def step(carry):
        results = run(params["jaxpr"], [*fixed, *carry, *rows])
        outputs[:] = results[len(carry) :]
        return results[: len(carry)]

    carry = _grown(carry, step)
    note = rules.note_of(equation, reaches.LONG)
    return [x.noted(note) if isinstance(x, Reach) else x for x in carry] + [
        x.map(out.aval.shape, lambda bound: bound[None]).noted(note)
        if isinstance(x, Reach)
        else Constant(out.aval)
        for x, out in zip(outputs, equation.outvars[len(carry) :], strict=True)
    ]


def _grown(
    carry: Sequence[Operand], step: Callable[[list[Operand]], Sequence[Operand]]
) -> list[Operand]:
    """What is carried after any number of steps: the union, which grows until it stays.

    Numbers that do not depend on the input change in steps that are not counted, so that they are
    not known.
    """
    unknown = [x if isinstance(x, Reach) else Constant(x) for x in carry]
    while True:
        pairs = zip(unknown, step(unknown), strict=True)
        grown = [_merge(old, [old, new], []) for old, new in pairs]
        if all(_same(*pair) for pair in zip(unknown, grown, strict=True)):
            return grown
        unknown = grown


def _same(old: Operand, new: Operand) -> bool:
    """Whether nothing more is seen."""
    if not isinstance(new, Reach):
        return True
    if not isinstance(old, Reach):
        return False
    pairs = zip(old.bounds, new.bounds, strict=True)
    return old.notes == new.notes and all(np.array_equal(*np.broadcast_arrays(*p)) for p in pairs)


def _rows(operand: Operand, length: int) -> Callable[[int], Operand]:
    """The entries of an operand along its first axis."""
    if isinstance(operand, Reach):
        whole = [slice(None)] * (len(operand.shape) - 1)

        def row(step):
            one = rules.part(operand, [slice(step, step + 1), *whole], (1, *operand.shape[1:]))
            return one.map(operand.shape[1:], lambda bound: bound[0])

        return row
    aval = jax.ShapeDtypeStruct(operand.shape, operand.dtype)
    take = jax.make_jaxpr(lambda x, i: jax.lax.dynamic_index_in_dim(x, i, 0, keepdims=False))
    closed = take(aval, np.int32(0))
    return lambda step: run(closed, [operand, Given(np.int32(step), literal=True)])[0]


def _stack(parts: Sequence[Operand], aval: Any) -> Operand:
    if not dependent(parts):
        return _stacked_constants(parts, aval)
    like = dependent(parts)[0]
    rows = []
    for part in parts:
        row = as_reach(part, like)
        rows.append(row.map((1, *row.shape), lambda bound: bound[None]))
    return rules._joined(rows, 0, aval.shape)


def _stacked_constants(parts: Sequence[Operand], aval: Any) -> Constant:
    shapes = [jax.ShapeDtypeStruct(part.shape, part.dtype) for part in parts]
    closed = jax.make_jaxpr(lambda *rows: jax.numpy.stack(rows))(*shapes)
    return run(closed, parts)[0]


def _while(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """A loop whose end is known runs, and another one until nothing changes."""
    params = equation.params
    if not dependent(operands):
        return compute(equation, operands)
    split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    tests, fixed, carry = operands[: split[0]], operands[slice(*split)], operands[split[1] :]
    for _ in range(_LONGEST_LOOP):
        (goes_on,) = run(params["cond_jaxpr"], [*tests, *carry])
        known = None if isinstance(goes_on, Reach) else goes_on.known()
        if known is None:
            break
        if not known:
            return list(carry)
        carry = run(params["body_jaxpr"], [*fixed, *carry])
    carry = _grown(carry, lambda carry: run(params["body_jaxpr"], [*fixed, *carry]))
    (goes_on,) = run(params["cond_jaxpr"], [*tests, *carry])
    note = rules.note_of(equation, reaches.LONG if known else reaches.UNKNOWN_LENGTH)
    pairs = zip(carry, equation.outvars, strict=True)
    return [_merge(out.aval, [x], dependent([goes_on]), note) for x, out in pairs]


def _linear_solve(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """The function that solves; the product with the matrix is for derivatives alone."""
    lengths, solve = equation.params["const_lengths"], equation.params["jaxprs"].solve
    start = lengths.matvec + lengths.vecmat
    consts = operands[start : start + lengths.solve]
    return run(solve, [*consts, *operands[sum(lengths) :]])


def _shard_map(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """The program of one device, where all devices have parts that see the same of the input.

    So it is where a map is split along examples or channels; whatever tells the devices apart is
    not known.
    """
    params = equation.params
    avals = [var.aval for var in params["jaxpr"].invars]
    parts = []
    for operand, aval in zip(operands, avals, strict=True):
        if operand.shape == tuple(aval.shape):
            parts.append(operand)
        elif not isinstance(operand, Reach):
            parts.append(Constant(aval))
        else:
            pairs = list(zip(operand.shape, aval.shape, strict=True))
            split = [axis for axis, (whole, part) in enumerate(pairs) if whole != part]
            if any(bound.shape[axis] > 1 for bound in operand.bounds for axis in split):
                return rules.taken_as_everything(equation, operands, reaches.SPLIT_MAP)
            parts.append(operand.map(aval.shape, lambda bound: bound))
    results = run(core.ClosedJaxpr(params["jaxpr"], ()), parts)
    return [_whole(result, out.aval) for result, out in zip(results, equation.outvars, strict=True)]


def _whole(part: Operand, aval: Any) -> Operand:
    """The array of which every device has a part that sees what this one sees."""
    if not isinstance(part, Reach):
        return Constant(aval)
    pairs = zip(part.shape, aval.shape, strict=True)
    times = [whole // own for own, whole in pairs]

    def tile(bound):
        varying = zip(times, bound.shape, strict=True)
        return np.tile(bound, [n if size > 1 else 1 for n, size in varying])

    return part.map(aval.shape, tile)


def _gathered(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """The parts of all devices in one array, on an axis of its own or one after the other."""
    (x,), (out,) = operands, equation.outvars
    if not isinstance(x, Reach):
        return [Constant(out.aval)]
    if equation.params["tiled"]:
        return [_whole(x, out.aval)]
    axis = equation.params["all_gather_dimension"]
    return [x.map(out.aval.shape, lambda bound: np.expand_dims(bound, axis))]


def _unknown(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """What differs from device to device."""
    return [Constant(out.aval) for out in equation.outvars]


_CONTROL: dict[str, Callable] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
    "by_device": _by_device,
    "platform_index": _platform,
    "custom_linear_solve": _linear_solve,
    "shard_map": _shard_map,
    "all_gather": _gathered,
    "axis_index": _unknown,
}
