"""The threshold of a clock from the share of frames on which it is to fire."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from rfjax.clockwork import schedules
from rfjax.clockwork.watching import Stage, in_order, looked_at


def tune(
    stages: Sequence[Stage],
    schedule: str,
    variables: Any,
    clips: Sequence[Any],
    *,
    watch: str | None = None,
) -> str:
    """The schedule with the threshold at which its clock fires on a share of the frames.

    Args:
      stages: of the network, as `make` takes them.
      schedule: a clock of the data and a share, as "adaptive:50%"; any other is returned as it is.
      variables: of the stages.
      clips: videos without labels, each [T, H, W, 3] or [T, N, H, W, 3].
      watch: as in `make`.

    Returns:
      The schedule with a number for the share. The shares that clips of a few frames can have lie
      apart; the threshold is that of the nearest one.

    Raises:
      ValueError: the share is not from 0% to 100%, or there are no frames.

    Example:
      >>> import jax.numpy as jnp
      >>> shallow = lambda variables, maps: {"score": maps["images"]}
      >>> deep = lambda variables, maps: {"deep": maps["score"]}
      >>> fuse = lambda variables, maps: maps["deep"]
      >>> clip = jnp.linspace(1.0, 2.0, 9)[:, None, None, None] * jnp.ones((9, 2, 2, 3))
      >>> tune((shallow, deep, fuse), "pixels:100%", None, [clip])
      'pixels:0'
    """
    name, _, text = schedule.partition(":")
    if name not in schedules.THRESHOLDS or not text.endswith("%"):
        return schedule
    share = _share(schedule, text)
    clock = schedules.find(f"{name}:0", len(stages) - 1)
    seen = [list(_looked_at(stages, clock, variables, clip, watch)) for clip in clips]
    if not any(seen):
        raise ValueError(f"the schedule {schedule!r} is tuned on frames; got none")

    def rate(theta: float) -> float:
        return _rate(schedules.find(f"{name}:{theta!r}", len(stages) - 1), seen)

    return f"{name}:{_nearest(rate, share, rising=name == 'confidence'):.6g}"


def _share(schedule: str, text: str) -> float:
    try:
        share = float(text[:-1]) / 100
    except ValueError:
        share = np.nan
    if not 0 <= share <= 1:
        raise ValueError(f"the schedule {schedule!r} wants a share from 0% to 100%")
    return share


def _looked_at(
    stages: Sequence[Stage], clock: schedules.Clock, variables: Any, clip: Any, watch: Any
) -> Iterator[jax.Array]:
    """What the clock looks at on every frame of a clip; the deepest stage does not run."""

    @jax.jit
    def of(variables: Any, frame: jax.Array) -> jax.Array:
        return looked_at(clock, in_order(stages[:-2], variables, frame), frame, watch)

    return (of(variables, frame) for frame in clip)


def _rate(clock: schedules.Clock, seen: Sequence[Sequence[jax.Array]]) -> float:
    """The share of frames on which the clock fires; on the first one of a clip it does."""
    assert clock.late is not None
    fired = 0
    for clip in seen:
        reference = None
        for now in clip:
            if reference is None or clock.late(reference, now):
                reference, fired = now, fired + 1
    return fired / sum(map(len, seen))


def _nearest(rate: Callable[[float], float], share: float, *, rising: bool) -> float:
    """A threshold in [0, 1] whose rate is as near to `share` as bisection comes."""
    low, high = 0.0, 1.0
    rates = {theta: rate(theta) for theta in (low, high)}
    for _ in range(16):
        if share in rates.values():
            break
        middle = (low + high) / 2
        rates[middle] = rate(middle)
        low, high = (middle, high) if (rates[middle] > share) != rising else (low, middle)
    return min(rates, key=lambda theta: abs(rates[theta] - share))
