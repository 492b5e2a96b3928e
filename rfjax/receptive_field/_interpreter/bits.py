"""What random numbers and reinterpreted bits depend on; rules as in `rules`."""

from collections.abc import Sequence
from typing import Any

from rfjax.receptive_field._interpreter.reach import Reach
from rfjax.receptive_field._interpreter.rules import Operand, dependent, rule


@rule("random_bits random_wrap random_unwrap random_split bitcast_convert_type")
def _trailing(equation: Any, operands: Sequence[Operand]) -> Reach:
    """Axes that come after those in common are read as a whole, or filled."""
    (x,) = dependent(operands)
    shape = tuple(equation.outvars[0].aval.shape)
    common = min(len(x.shape), len(shape))
    surplus = tuple(range(common, len(x.shape)))

    def trail(bound):
        bound = bound.max(surplus)
        return bound.reshape(bound.shape + (1,) * (len(shape) - common))

    return x.map(shape, trail)
