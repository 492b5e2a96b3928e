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

from rfjax.receptive_field import fourier, rules, windows  # noqa: F401 (they register rules)
from rfjax.receptive_field import reach as reaches
from rfjax.receptive_field.constants import Constant, Given, compute
from rfjax.receptive_field.reach import Reach
from rfjax.receptive_field.rules import Operand, as_reach, dependent

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

# Longer loops are taken to mix all that they read.
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
        return compute(equation, operands)
    return rules.apply(equation, operands)


def _platform(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """Which of several programs is run here."""
    platforms = equation.params["platforms"]
    here = jax.default_backend()
    index = next(i for i, names in enumerate(platforms) if names is None or here in names)
    return [Given(np.int32(index), literal=True)]


def _cond(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    """The branch that is taken, or the union of all where that is not known."""
    index, *rest = operands
    branches = equation.params["branches"]
    known = None if isinstance(index, Reach) else index.known()
    if known is not None:
        return run(branches[min(max(int(known), 0), len(branches) - 1)], rest)
    found = [run(branch, rest) for branch in branches]
    chooser = dependent([index])
    return [
        _merge(out.aval, parts, chooser)
        for out, *parts in zip(equation.outvars, *found, strict=True)
    ]


def _merge(aval: Any, parts: Sequence[Operand], choosers: Sequence[Reach]) -> Operand:
    """One of several values, chosen by others."""
    found = [*dependent(parts), *choosers]
    return reaches.union(aval.shape, found) if found else Constant(aval)


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
        return _mixed(equation, operands)
    rows = [_rows(operand, length) for operand in operands[consts + carries :]]
    steps = range(length)
    outputs: list[Any] = [None] * length
    for step in reversed(steps) if params["reverse"] else steps:
        results = run(params["jaxpr"], [*fixed, *carry, *(row(step) for row in rows)])
        carry, outputs[step] = results[:carries], results[carries:]
    stacked = zip(*outputs, strict=True) if outputs[0] else ()
    avals = [out.aval for out in equation.outvars[carries:]]
    return [*carry, *(_stack(list(ys), aval) for ys, aval in zip(stacked, avals, strict=True))]


def _rows(operand: Operand, length: int) -> Callable[[int], Operand]:
    """The entries of an operand along its first axis."""
    if isinstance(operand, Reach):
        whole = [slice(None)] * (len(operand.shape) - 1)

        def row(step):
            part = rules._part(operand, [slice(step, step + 1), *whole], (1, *operand.shape[1:]))
            return part.map(operand.shape[1:], lambda bound: bound[0])

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
    """A loop whose end is known runs; another one mixes all that it reads."""
    params = equation.params
    if not dependent(operands):
        return compute(equation, operands)
    split = params["cond_nconsts"], params["cond_nconsts"] + params["body_nconsts"]
    tests, fixed, carry = operands[: split[0]], operands[slice(*split)], operands[split[1] :]
    for _ in range(_LONGEST_LOOP):
        (goes_on,) = run(params["cond_jaxpr"], [*tests, *carry])
        known = None if isinstance(goes_on, Reach) else goes_on.known()
        if known is None:
            return _mixed(equation, operands)
        if not known:
            return list(carry)
        carry = run(params["body_jaxpr"], [*fixed, *carry])
    return _mixed(equation, operands)


def _mixed(equation: Any, operands: Sequence[Operand]) -> list[Operand]:
    return rules._all_of_all(equation, operands)


_CONTROL: dict[str, Callable] = {
    "cond": _cond,
    "scan": _scan,
    "while": _while,
    "platform_index": _platform,
}
