"""Numbers of a traced function that do not depend on the input, computed only when asked for.

Where such a number multiplies the input and is zero, nothing is read. But a network's weights are
free: one that happens to be zero is no structure. So each constant is one of

    fixed     made of literals, iotas, integers, booleans and closed-over arrays that are partly
              zero alone: masks and lattices
    weight    a floating-point argument, or closed-over array that has no zeros or nothing else, or
              linear in such: kernels, padded kernels, kernels times masks
    derived   made of weights by other functions: taps of a Gaussian, its half size
    drawn     made of random bits: the masks of dropout, which are no structure either

and `dense` weights count as nonzero everywhere, other weights where they are for random weights in
their place, fixed and derived numbers where they are, and drawn ones everywhere.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

FIXED, WEIGHT, DERIVED, DRAWN = range(4)

# Operations that move or add numbers: linear in weights. With `_DENSE` all stay weights.
_DENSE = {"reshape", "transpose", "broadcast_in_dim", "slice", "squeeze", "expand_dims", "rev"}
_DENSE |= {"neg", "convert_element_type", "copy", "copy_p", "reduce_precision", "stop_gradient"}
_DENSE |= {"optimization_barrier"}
_LINEAR = _DENSE | {"concatenate", "stack", "split", "pad", "reduce_sum", "dynamic_slice"}
_LINEAR |= {"gather", "add", "sub", "real", "imag"}
_RANDOM = frozenset(["random_bits", "random_gamma", "rng_bit_generator", "rng_uniform"])
_BILINEAR = frozenset(["mul", "div", "dot_general", "conv_general_dilated"])


class Constant:
    """A number, or array, that does not depend on the input; `value` is None where not known."""

    def __init__(self, aval: Any, kind: int = DERIVED, *, dense: bool = False):
        self.shape, self.dtype = tuple(aval.shape), aval.dtype
        self.kind, self.dense = kind, dense

    @property
    def value(self) -> jax.Array | None:
        """The numbers."""
        return None

    @property
    def generic(self) -> jax.Array | None:
        """The numbers, had the weights been random ones."""
        return self.value

    def nonzero(self) -> np.ndarray | None:
        """Where something is multiplied by it, what is left; None where all of it is."""
        if self.dense or self.kind == DRAWN:
            return None
        numbers = self.generic
        if numbers is None:
            return None
        mask = np.asarray(numbers) != 0
        return None if mask.all() else mask

    def known(self) -> np.ndarray | None:
        """The numbers as a NumPy array, None where they are not known."""
        return None if self.value is None else np.asarray(self.value)


class Given(Constant):
    """A literal, a closed-over array or an argument; a weight if it is real and no literal.

    A closed-over array that is partly zero is no weight.
    """

    def __init__(self, value: Any, *, literal: bool = False, closed: bool = False):
        if not isinstance(value, jax.ShapeDtypeStruct):
            value = value if hasattr(value, "shape") else jnp.asarray(value)
        weight = not literal and jnp.issubdtype(value.dtype, jnp.inexact)
        if weight and closed:
            zeros = np.asarray(value) == 0
            weight = bool(zeros.all() or not zeros.any())
        super().__init__(value, WEIGHT if weight else FIXED, dense=weight)
        self._value = value

    @property
    def value(self) -> Any:
        return None if isinstance(self._value, jax.ShapeDtypeStruct) else self._value

    @property
    def generic(self) -> Any:
        if self.kind != WEIGHT:
            return self.value
        numbers = np.random.default_rng(0).uniform(0.5, 1.5, self.shape)
        return jnp.asarray(numbers, self.dtype)


class _Computation:
    """One operation on constants, done at most once for the true and once for random weights."""

    def __init__(self, equation: Any, operands: Sequence[Constant]):
        self.equation, self.operands = equation, operands
        self._results: dict[str, Any] = {}

    def run(self, which: str) -> list[Any] | None:
        """All outputs; which: value | generic."""
        if which not in self._results:
            values = [getattr(operand, which) for operand in self.operands]
            unknown = any(value is None for value in values)
            self._results[which] = None if unknown else evaluate(self.equation, values)
        return self._results[which]


class Computed(Constant):
    """An output of an operation on constants."""

    def __init__(self, computation: _Computation, index: int, kind: int, *, dense: bool):
        super().__init__(computation.equation.outvars[index].aval, kind, dense=dense)
        self._computation, self._index = computation, index

    def _get(self, which: str) -> Any:
        results = self._computation.run(which)
        return None if results is None else results[self._index]

    @property
    def value(self) -> Any:
        return self._get("value")

    @property
    def generic(self) -> Any:
        return self._get("generic" if self.kind == WEIGHT else "value")


def compute(equation: Any, operands: Sequence[Constant]) -> list[Constant]:
    """The outputs of an operation on constants."""
    name = equation.primitive.name
    kind = _kind(name, [operand.kind for operand in operands])
    dense = name in _DENSE and any(operand.dense for operand in operands)
    computation = _Computation(equation, operands)
    return [
        Computed(computation, index, kind, dense=dense) for index in range(len(equation.outvars))
    ]


def _kind(name: str, kinds: Sequence[int]) -> int:
    highest = max(kinds, default=FIXED)
    if highest == DRAWN or name in _RANDOM:
        return DRAWN
    if highest == FIXED:
        return FIXED
    if name in _BILINEAR and WEIGHT in kinds:
        return WEIGHT
    if name == "select_n":  # what is chosen from, whatever chooses
        return WEIGHT if WEIGHT in kinds[1:] else DERIVED
    return WEIGHT if name in _LINEAR and highest == WEIGHT else DERIVED


def evaluate(equation: Any, values: Sequence[Any]) -> list[Any]:
    """The outputs of an operation for known operands."""
    results = equation.primitive.bind(*values, **equation.params)
    return list(results) if equation.primitive.multiple_results else [results]
