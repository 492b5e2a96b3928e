"""Checks of options that are plain values; apart from those of arrays, which import JAX."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, TypedDict, TypeVar, Unpack, overload

import numpy as np

Value = TypeVar("Value")


@overload
def choose(option: str, value: str, table: Mapping[str, Value]) -> Value: ...


@overload
def choose(option: str, value: str, table: Iterable[str]) -> str: ...


def choose(option: str, value: str, table: Mapping[str, Value] | Iterable[str]) -> Value | str:
    """The entry of `table` that `value` names (or `value` itself, for a table of names)."""
    names = tuple(table)
    if value not in names:
        raise ValueError(f"{option} is one of {', '.join(names)}; got {value!r}")
    return table[value] if isinstance(table, Mapping) else value


class WrongKind(TypeError, ValueError):
    """An argument of the wrong kind, as a text in place of a number.

    Two errors in one, like NumPy's AxisError: the type is wrong, and so it is none of the values.
    """


def refused(name: str, value: Any, wanted: str, *, kind: bool) -> ValueError:
    """The error of a value that is not what is `wanted`; `kind` if its type already is not."""
    return (WrongKind if kind else ValueError)(f"{name} must be {wanted}; got {value!r}")


def is_integer(value: Any) -> bool:
    """Whether it is an integer, Python's or NumPy's, and no truth value."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether it is a real number, Python's or NumPy's, and no truth value; nan and inf are."""
    return is_integer(value) or isinstance(value, float | np.floating)


def _are_several(value: Any) -> bool:
    """Whether it is a sequence, and no text."""
    return isinstance(value, Sequence | np.ndarray) and not isinstance(value, str)


def _at_least(least: int, plural: bool = False) -> str:
    """What integers are wanted, in words."""
    if least == 1:
        return "positive integers" if plural else "a positive integer"
    return f"{'integers' if plural else 'an integer'} of at least {least}"


@overload
def integer(name: str, value: Any, *, least: int = 1) -> int: ...


@overload
def integer(name: str, value: Any, *, least: int = 1, optional: bool) -> int | None: ...


def integer(name: str, value: Any, *, least: int = 1, optional: bool = False) -> int | None:
    """`value` as an integer of at least `least`; with `optional`, None is one, too."""
    if optional and value is None:
        return None
    kind = not is_integer(value)
    if kind or value < least:
        raise refused(name, value, _at_least(least) + " or None" * optional, kind=kind)
    return int(value)


def integers(name: str, values: Any, *, least: int = 1) -> tuple[int, ...]:
    """`values` as one or more integers of at least `least`."""
    kind = not _are_several(values) or not all(map(is_integer, values))
    if kind or not len(values) or min(values) < least:
        raise refused(name, values, "one or more " + _at_least(least, plural=True), kind=kind)
    return tuple(map(int, values))


def pair(name: str, value: Any, *, least: int = 1, odd: bool = False) -> tuple[int, int]:
    """An integer of at least `least`, or two of them in (y, x) order, as two."""
    values = tuple(value) if _are_several(value) else (value, value)
    kind = not all(map(is_integer, values))
    if kind or len(values) != 2 or min(values) < least:
        raise refused(name, value, _at_least(least) + " or two of them", kind=kind)
    if odd and not all(size % 2 for size in values):
        raise ValueError(f"{name} must be odd; got {value!r}")
    return int(values[0]), int(values[1])


class _Bounds(TypedDict, total=False):
    above: float
    least: float
    below: float
    most: float


@overload
def number(name: str, value: Any, **bounds: Unpack[_Bounds]) -> float: ...


@overload
def number(name: str, value: Any, *, optional: bool, **bounds: Unpack[_Bounds]) -> float | None: ...


def number(
    name: str,
    value: Any,
    *,
    above: float = -math.inf,
    least: float = -math.inf,
    below: float = math.inf,
    most: float = math.inf,
    optional: bool = False,
) -> float | None:
    """`value` as a finite number within bounds; with `optional`, None is one, too."""
    if optional and value is None:
        return None
    kind = not is_number(value)
    if kind or not (math.isfinite(value) and above < value < below and least <= value <= most):
        bounds = {"above": above, "at least": least, "below": below, "at most": most}
        given = [f"{text} {bound:g}" for text, bound in bounds.items() if math.isfinite(bound)]
        wanted = " and ".join(given) or "a finite number"
        wanted = "a positive number" if wanted == "above 0" else wanted
        raise refused(name, value, wanted + " or None" * optional, kind=kind)
    return float(value)


def positive_pair(name: str, value: Any) -> tuple[float, float]:
    """A positive number, or two of them in (y, x) order, as two; arrays are as good as numbers."""
    wanted = "a positive number or two of them (y, x)"
    try:
        values = np.asarray(value, object).ravel().tolist()
    except (TypeError, ValueError) as error:  # of a traced value
        raise refused(name, value, wanted, kind=True) from error
    kind = not all(map(is_number, values))
    if kind or np.shape(value) not in ((), (2,)):
        raise refused(name, value, wanted, kind=kind)
    # Parameters are float32, in which it must be neither 0 nor infinite.
    largest = np.finfo(np.float32).max
    if not all(0 < each <= largest and np.float32(each) > 0 for each in values):
        raise refused(name, value, wanted, kind=False)
    return float(values[0]), float(values[-1])


def flag(name: str, value: Any) -> bool:
    """`value` as True or False."""
    if not isinstance(value, bool | np.bool_):
        raise refused(name, value, "True or False", kind=True)
    return bool(value)


def spatial_axes(value: Any) -> int:
    """`value` as a number of spatial axes: 1, 2 or 3."""
    kind = not is_integer(value)
    if kind or value not in (1, 2, 3):
        raise refused("spatial_ndim", value, "1, 2 or 3", kind=kind)
    return int(value)
