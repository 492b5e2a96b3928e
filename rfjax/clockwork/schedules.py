"""Schedules by name: which stages run on which frame.

The stages that a schedule speaks of are those that compute, without the last one, which fuses.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import _checks
from rfjax.clockwork import clocks

State = dict[str, Any]
Fires = bool | jax.Array  # True where it is known when the program is built
Schedule = str | Sequence[int] | Callable[[State, jax.Array], Any]

# Rates by name, of any number of stages.
RATES: dict[str, Callable[[int], tuple[int, ...]]] = {
    "oracle": lambda count: (1,) * count,
    "skip": lambda count: (2,) * count,
    "alternating": lambda count: (*(1,) * (count - 1), 2),
    "exponential": lambda count: tuple(2**stage for stage in range(count)),
}
PIPELINES = {"pipeline2": 2, "pipeline3": 3}
THRESHOLDS = ("adaptive", "pixels", "confidence")
SCHEDULES = (*RATES, *PIPELINES, *(f"{name}:THETA" for name in THRESHOLDS))


class Clock(NamedTuple):
    """When stages run.

    Attributes:
      early: (state, frame) -> what fires, by stage, as far as it is known before any stage runs.
      late: (reference, looked at) -> whether the deepest stage fires; None if `early` says it.
      looks: at what `late` looks: "scores" of the stage before the deepest one, or the "frame".
      stale: how many of the deepest stages read what was computed in the step before.
    """

    early: Callable[[State, jax.Array], list[Fires]]
    late: Callable[[jax.Array, jax.Array], jax.Array] | None = None
    looks: str | None = None
    stale: int = 0


def find(schedule: Schedule, count: int) -> Clock:
    """The clock of a schedule for `count` stages that compute.

    Raises:
      ValueError: there is no such schedule, or it is one of another number of stages.
    """
    if callable(schedule):
        return Clock(_called(schedule, count))
    if isinstance(schedule, str):
        name, _, theta = schedule.partition(":")
        if name in THRESHOLDS:
            return _threshold(name, _theta(schedule, theta), count)
        if schedule in PIPELINES:
            return _pipeline(schedule, count)
    return Clock(_rated(rates(schedule, count)))


def rates(schedule: str | Sequence[int], count: int) -> tuple[int, ...]:
    """The rates of `count` stages that compute, by name or given.

    Raises:
      ValueError: there is no such name, or another number of rates.

    Example:
      >>> rates("alternating", 3), rates("exponential", 4)
      ((1, 1, 2), (1, 2, 4, 8))
    """
    if isinstance(schedule, str):
        names = RATES | dict.fromkeys(SCHEDULES[len(RATES) :], lambda count: (1,) * count)
        return _checks.choose("schedule", schedule, names)(count)
    given = _checks.integers("schedule", schedule)
    if len(given) != count:
        raise ValueError(
            f"schedule must have a rate for each of the {count} stages before the fusing one; "
            f"got {given}"
        )
    return given


def _rated(given: tuple[int, ...]) -> Callable[[State, jax.Array], list[Fires]]:
    return lambda state, _: [rate == 1 or state["t"] % rate == 0 for rate in given]


def _called(function: Callable[[State, jax.Array], Any], count: int) -> Callable:
    """What a function of the user says; on the first frame all stages run."""

    def early(state: State, frame: jax.Array) -> list[Fires]:
        fired = jnp.asarray(function(state, frame))
        if fired.dtype != bool or fired.shape not in ((count,), (count + 1,)):
            raise ValueError(
                f"a schedule must return bool [{count}], one for each stage before the fusing one, "
                f"or [{count + 1}]; got {fired.dtype} {list(fired.shape)}"
            )
        return [(state["t"] == 0) | fired[stage] for stage in range(count)]

    return early


def _pipeline(name: str, count: int) -> Clock:
    depth = PIPELINES[name]
    if count < depth:
        raise ValueError(f"{name} wants {depth} stages and one that fuses; got {count} and one")
    return Clock(lambda *_: [True] * count, stale=depth - 1)


def _threshold(name: str, theta: float, count: int) -> Clock:
    """The deepest stage runs where a number reaches theta, or a confidence falls below it."""
    looks = "frame" if name == "pixels" else "scores"
    if looks == "scores" and count < 2:
        raise ValueError(f"{name} looks at the scores of a stage before the deepest; there is none")
    late = {
        "adaptive": lambda before, now: clocks.change(now, before) >= theta,
        "pixels": lambda before, now: clocks.difference(now, before) >= theta,
        "confidence": lambda _, now: clocks.confidence(now) < theta,
    }
    return Clock(lambda *_: [True] * count, late[name], looks)


def _theta(schedule: str, text: str) -> float:
    try:
        theta = float(text)
    except ValueError:
        theta = np.nan
    if not 0 <= theta < np.inf:
        more = "; 'N%' wants tuned_on=(variables, clips)" * text.endswith("%")
        raise ValueError(
            f"the schedule {schedule!r} wants a number of at least 0 after the colon{more}"
        )
    return theta
