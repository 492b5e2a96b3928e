"""Is this the run that lies here? What differs between the settings of two runs; without JAX."""

import dataclasses
import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from rfjax._faults import reason

_LONGEST = 80  # characters of a value in a message


@dataclasses.dataclass(frozen=True)
class Difference:
    """A setting whose value is not that of the run which is there already."""

    key: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{self.key}: {_short(self.old)} -> {_short(self.new)}"


def flatten(settings: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Every value of nested `settings` under its dotted key, lists as tuples.

    Example:
        >>> flatten({"steps": 3, "data": {"crop": [64, 64]}})
        {'steps': 3, 'data.crop': (64, 64)}
    """
    flat = {}
    for key, value in settings.items():
        path = f"{prefix}.{key}" if prefix and not key.startswith(".") else f"{prefix}{key}"
        if hasattr(value, "items"):  # a dictionary, or a ConfigDict, which is none
            flat.update(flatten(value, path))
        else:
            flat[path] = _tuples(value)
    return flat


def differences(
    old: Mapping[str, Any], new: Mapping[str, Any], free: Collection[str] = ()
) -> list[Difference]:
    """The settings, by dotted key, in which `new` is another run than `old`.

    Args:
        old, new: nested settings, as those of a config or read from JSON.
        free: the dotted keys that may differ.

    Example:
        >>> found = differences({"steps": 3, "seed": 0}, {"steps": 4, "seed": 1}, free=["seed"])
        >>> list(map(str, found))
        ['steps: 3 -> 4']
    """
    before, after = flatten(old), flatten(new)
    keys = [key for key in {**before, **after} if key not in free]
    pairs = ((key, before.get(key), after.get(key)) for key in keys)
    return [Difference(*pair) for pair in pairs if pair[1] != pair[2]]


def read(path: Path, error: type[Exception], hint: str) -> dict[str, Any]:
    """The settings or results of a run, from its JSON file; `error` if that is damaged."""
    try:
        found = json.loads(path.read_text())
    except ValueError as fault:
        found = reason(fault)
    if not isinstance(found, dict):
        raise error(f"{path} is damaged ({found}); {hint}")
    return found


def refuse(
    what: str,
    found: Sequence[Difference],
    error: type[Exception],
    *,
    instead: str = "give another --workdir",
    free: str = "",
) -> None:
    """Raises `error` if there are differences, with all of them in one line.

    Args:
        what: is there already, as "the run in runs/first".
        found: what `differences` found.
        error: takes a message.
        instead: the other thing to do than to take the differences back.
        free: what may be changed, for the message.
    """
    if found:
        listed = "; ".join(map(str, found))
        hint = f" Free to change when resuming: {free}." if free else ""
        raise error(
            f"{what} was started with other settings (old -> new): {listed}. Take these back, or "
            f"{instead}.{hint}"
        )


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list | tuple) else value


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}…"
