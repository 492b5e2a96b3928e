"""Rules for the values of a config, and the faults by them; without JAX."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

# Whether a value holds, and what is wanted, in words.
Rule = tuple[Callable[[Any], bool], str]

LARGEST = 2**31 - 1  # steps are counted in int32


def faults(rules: Mapping[str, Rule], values: Mapping[str, Any]) -> list[str]:
    """What is wrong with `values`, one text for each key whose rule does not hold.

    Example:
        >>> faults({"steps": integer(1), "flip": flag()}, {"steps": 0, "flip": True})
        ['steps: got 0; want an integer from 1 to 2147483647']
    """
    return [
        f"{key}: got {values[key]!r}; want {wanted}"
        for key, (holds, wanted) in rules.items()
        if not holds(values[key])
    ]


def is_whole(value: Any) -> bool:
    """Whether `value` is an integer, and no truth value."""
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    """Whether `value` is a finite number, and no truth value."""
    real = isinstance(value, (int, float)) and not isinstance(value, bool)
    return real and abs(value) < math.inf


def is_text(value: Any) -> bool:
    """Whether `value` is a text that is not empty."""
    return isinstance(value, str) and bool(value)


def is_patterns(value: Any) -> bool:
    """Whether `value` is a text of patterns of paths, which commas separate."""
    return is_text(value) and ("/" in value or "*" in value)


def integer(least: int, largest: int = LARGEST) -> Rule:
    """An integer within bounds."""
    wanted = f"an integer from {least} to {largest}"
    return lambda v: is_whole(v) and least <= v <= largest, wanted


def number(
    low: float, high: float = math.inf, *, open_low: bool = False, open_high: bool = False
) -> Rule:
    """A finite number of at least `low`, or above it, and at most `high`, or below it."""
    bound = f"above {low}" if open_low else f"of at least {low}"
    upper = "" if high == math.inf else f" and {'below' if open_high else 'at most'} {high}"

    def holds(value: Any) -> bool:
        above = is_number(value) and (value > low if open_low else value >= low)
        return above and (value < high if open_high else value <= high)

    return holds, f"a finite number {bound}{upper}"


def flag() -> Rule:
    """True or False."""
    return lambda v: isinstance(v, bool), "True or False"


def pair(wanted: str, kind: Callable[[Any], bool], holds: Callable[[Any, Any], bool]) -> Rule:
    """Two values of a kind, for which `holds`."""

    def both(value: Any) -> bool:
        two = isinstance(value, Sequence) and len(value) == 2 and all(map(kind, value))
        return two and holds(*value)

    return both, wanted


def several(rule: Rule, *, least: int = 0) -> Rule:
    """A tuple of at least `least` values, for each of which `rule` holds.

    Example:
        >>> several(flag(), least=1)[1]
        'a tuple of 1 value or more, each True or False'
    """
    holds, wanted = rule
    count = f" of {least} value or more" if least else ""

    def each(value: Any) -> bool:
        many = isinstance(value, Sequence) and not isinstance(value, str)
        return many and len(value) >= least and all(map(holds, value))

    return each, f"a tuple{count}, each {wanted}"


def one_of(names: Sequence[str]) -> Rule:
    """One of some names."""
    return lambda v: v in names, f"one of {', '.join(names)}"


def either(first: Rule, second: Rule) -> Rule:
    """What one of two rules wants.

    Example:
        >>> either(flag(), integer(0, 9))[1]
        'True or False, or an integer from 0 to 9'
    """
    return lambda v: first[0](v) or second[0](v), f"{first[1]}, or {second[1]}"


def optional(rule: Rule) -> Rule:
    """Nothing (None), or what `rule` wants."""
    holds, wanted = rule
    return lambda v: v is None or holds(v), wanted
