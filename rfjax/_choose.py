"""The choice of one name out of a table; apart from the other checks, which import JAX."""

from collections.abc import Iterable, Mapping
from typing import TypeVar

Value = TypeVar("Value")


def choose(option: str, value: str, table: Mapping[str, Value] | Iterable[str]) -> Value | str:
    """The entry of `table` that `value` names (or `value` itself, for a table of names)."""
    names = tuple(table)
    if value not in names:
        raise ValueError(f"{option} is one of {', '.join(names)}; got {value!r}")
    return table[value] if isinstance(table, Mapping) else value
