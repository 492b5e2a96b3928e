"""Derivatives that are written out, for both modes and to any order.

Automatic differentiation of the engine would be many times slower than the engine itself, or
impossible where it chooses by device. So an operation is given as three functions: what computes
it, what computes the cotangents of its operands, and a plain form of the same value in operations
that JAX differentiates. The first gradient is the written one; tangents and all higher derivatives
are those of the plain form.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from rfjax._engine.devices import zeros_for


def operator(
    forward: Callable, backward: Callable, plain: Callable, keeping: Callable | None = None
) -> Callable:
    """The function of arrays that `forward` computes, with its derivatives.

    Args:
      forward: operands -> y, an array.
      backward: (operands, kept, cotangent of y) -> a tuple of the operands' cotangents.
      plain: operands -> y.
      keeping: operands -> (y, kept); kept is a tree of arrays that the backward pass may use. By
        default nothing is kept.
    """

    @jax.custom_jvp
    def kept_forward(*operands):
        return keeping(*operands) if keeping else (forward(*operands), ())

    @kept_forward.defjvp
    def kept_tangents(operands, tangents):
        y, kept = kept_forward(*operands)
        # What is kept is a function of the operands: their derivatives account for it.
        none = jax.tree.map(lambda array: zeros_for(array.shape, array.dtype, array), kept)
        return (y, kept), (tangent(operands, kept, y, tangents), none)

    @jax.custom_jvp
    def gradients(operands, kept, cotangent):
        return tuple(backward(operands, kept, cotangent))

    @gradients.defjvp
    def gradient_tangents(primals, tangents):
        (operands, kept, cotangent), (changes, _, change) = primals, tangents
        # Second derivatives: those of the plain form's gradients.
        _, along = jax.jvp(plain_gradients, (operands, cotangent), (changes, change))
        return gradients(operands, kept, cotangent), along

    def plain_gradients(operands, cotangent):
        return jax.vjp(plain, *operands)[1](cotangent)

    def tangent(operands, kept, y, tangents):
        """That of y; it transposes to `gradients`."""

        def along(residuals, tangents):
            return jax.jvp(plain, residuals[0], tangents)[1]

        def pull(residuals, cotangent):
            return gradients(*residuals, cotangent)

        # Forward mode pushes the tangents through the plain form; reverse mode transposes this
        # call, and what it gets is the written gradient.
        return _linear_call(along, pull, (tuple(operands), kept), tuple(tangents), y)

    run = jax.custom_jvp(forward)

    @run.defjvp
    def run_tangents(operands, tangents):
        y, kept = kept_forward(*operands)
        return y, tangent(operands, kept, y, tangents)

    return run


# A linear function whose transpose is written out. JAX's own `linear_call` has no `vmap`.
_linear = Primitive("linear_with_transpose")
_linear.multiple_results = True


def _linear_call(function: Callable, transpose: Callable, residuals, arguments, like) -> Any:
    """`function(residuals, arguments)`, an array like `like` that is linear in the arguments."""
    kept, kept_tree = jax.tree.flatten(residuals)
    free, free_tree = jax.tree.flatten(arguments)
    # The first `count` operands are residuals, in which the call need not be linear.
    count = len(kept)

    def along(*flat):
        return [function(kept_tree.unflatten(flat[:count]), free_tree.unflatten(flat[count:]))]

    def pull(cotangent, *flat):
        return jax.tree.leaves(transpose(kept_tree.unflatten(flat), cotangent))

    return _bind([*kept, *free], along, pull, count, like.shape, like.dtype)[0]


def _bind(operands: list, along: Callable, pull: Callable, count: int, shape: tuple, dtype: Any):
    # The type of the result, with the axes of a mesh that it varies over.
    traced = jax.make_jaxpr(lambda operand: zeros_for(shape, dtype, operand))(operands[-1])
    parameters = dict(along=along, pull=pull, count=count, aval=traced.out_avals[0])
    return _linear.bind(*operands, **parameters)


@_linear.def_abstract_eval
def _abstract(*_, aval, **__):
    return [aval]


@_linear.def_impl
def _evaluate(*operands, **parameters):
    return jax.jit(partial(_linear.bind, **parameters))(*operands)


def _lower(ctx: mlir.LoweringRuleContext, *operands, along, **_):
    return mlir.lower_fun(along, multiple_results=True)(ctx, *operands)


def _jvp(primals, tangents, *, along, count, **parameters):
    bind = partial(_linear.bind, along=along, count=count, **parameters)
    residuals, arguments = tuple(primals[:count]), primals[count:]
    changes = tuple(ad.instantiate_zeros(tangent) for tangent in tangents)
    # d(A(r) x) = A(r) dx + (dA(r) / dr dr) x
    dy = bind(*residuals, *changes[count:])
    if any(type(tangent) is not ad.Zero for tangent in tangents[:count]):
        _, more = jax.jvp(lambda *r: along(*r, *arguments), residuals, changes[:count])
        dy = [a + b for a, b in zip(dy, more, strict=True)]
    return bind(*primals), dy


def _transpose(cotangents, *operands, pull, count, **_):
    # Residuals have no cotangent here: what depends on them is differentiated by `_jvp`.
    return [None] * count + pull(*cotangents, *operands[:count])


def _batch(operands, axes, *, along, pull, count, aval):
    sizes = [a.shape[axis] for a, axis in zip(operands, axes, strict=True) if axis is not None]
    # All arguments are mapped, so that each has a cotangent of its own.
    arguments = [
        batching.bdim_at_front(a, axis, sizes[0])
        for a, axis in zip(operands[count:], axes[count:], strict=True)
    ]
    along = jax.vmap(along, (*axes[:count], *[0] * len(arguments)), 0)
    pull = jax.vmap(pull, (0, *axes[:count]), 0)
    shape = (sizes[0], *aval.shape)
    return _bind([*operands[:count], *arguments], along, pull, count, shape, aval.dtype), [0]


mlir.register_lowering(_linear, _lower)
ad.primitive_jvps[_linear] = _jvp
ad.primitive_transposes[_linear] = _transpose
batching.primitive_batchers[_linear] = _batch
