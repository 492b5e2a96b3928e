"""What stages hand on, and what of it a clock looks at."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from rfjax import _checks
from rfjax.clockwork.schedules import Clock

FRAME = "images"
Maps = dict[str, jax.Array]
Stage = Callable[[Any, Maps], Any]  # (variables, the maps so far) -> its maps by name


def computed(stage: Stage, variables: Any, maps: Maps) -> Maps:
    """The maps of one stage."""
    found = stage(variables, maps)
    if not isinstance(found, Mapping):
        raise TypeError(f"a stage must return maps by name; got {type(found).__name__}")
    return dict(found)


def in_order(stages: Sequence[Stage], variables: Any, frame: jax.Array) -> list[Maps]:
    """The maps of all stages on one frame."""
    maps: list[Maps] = []
    seen: Maps = {FRAME: frame}
    for stage in stages:
        maps.append(computed(stage, variables, seen))
        seen = seen | maps[-1]
    return maps


def looked_at(clock: Clock, maps: Sequence[Maps], frame: jax.Array, watch: str | None) -> jax.Array:
    """What a clock compares: the frame, or scores among the maps before the deepest stage.

    Raises:
      ValueError: there is no such map, or more than one that may be meant.
    """
    if clock.looks == "frame":
        return frame
    if watch is not None:
        return _checks.choose("watch", watch, {k: v for each in maps for k, v in each.items()})
    names = [name for name in maps[-1] if name.startswith("score")]
    if len(names) != 1:
        raise ValueError(
            "a clock looks at the one map whose name begins with 'score' of the stage before the "
            f"deepest, or at watch=; that stage has {', '.join(maps[-1])}"
        )
    return maps[-1][names[0]]
