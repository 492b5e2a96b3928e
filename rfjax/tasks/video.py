"""A network on clocks, that is given the frames of clips one by one."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import clockwork
from rfjax.clockwork.schedules import Schedule


class Seen(NamedTuple):
    """What a stream makes of a frame: classes int32 [H, W], and bool [stages], which have run."""

    classes: np.ndarray
    fired: np.ndarray


class Stream:
    """A segmenting network under a schedule.

    Args:
        stages: of the network, see `rfjax.clockwork.make`, for normalised images [1, H, W, 3].
        variables: of the network.
        normalization: that the network was trained with, a `rfjax.data.Normalization`.
        schedule: see `rfjax.clockwork.make`.
        tuned_on: clips without labels, each uint8 frames [T, H, W, 3], from which a schedule
            "NAME:N%" takes its threshold.

    Attributes:
        schedule: with the threshold that was found.

    Calling it with a frame uint8 [H, W, 3] returns what was `Seen`. The first frame of a clip comes
    after `restart`. Frames of another size compile the network anew.

    Raises:
        ValueError: there is no such schedule, or a frame has another size than those before it.
    """

    def __init__(
        self,
        stages: Sequence[Callable],
        variables: Any,
        normalization: Any,
        schedule: Schedule,
        *,
        tuned_on: Iterable[np.ndarray] = (),
    ):
        if isinstance(schedule, str) and schedule.endswith("%"):
            clips = [normalization.on_device(jnp.asarray(clip))[:, None] for clip in tuned_on]
            schedule = clockwork.tune(stages, schedule, variables, clips)
        self.schedule = schedule
        self._variables = jax.device_put(variables)
        begin, step = clockwork.make(stages, schedule)
        self._begin = jax.jit(lambda variables, frame: begin(variables, normal(frame)))

        def normal(frame: jax.Array) -> jax.Array:
            return normalization.on_device(frame[None])

        def advance(variables: Any, state: Any, frame: jax.Array) -> tuple:
            state, scores, fired = step(variables, state, normal(frame))
            return state, (jnp.argmax(scores[0], -1).astype(jnp.int32), fired)

        self._advance = jax.jit(advance)
        self.restart()

    def restart(self) -> None:
        """Begins a new clip."""
        self._state: Any = None

    def __call__(self, frame: np.ndarray) -> Seen:
        if self._state is None:
            self._state = self._begin(self._variables, frame)
        self._state, seen = self._advance(self._variables, self._state, frame)
        return Seen(*jax.device_get(seen))


def whole(model: Any) -> tuple[Callable, Callable]:
    """A network as the stages of `Stream` that is not cut: it runs on every frame, or on none."""

    def scores(variables: Any, maps: dict[str, jax.Array]) -> dict[str, jax.Array]:
        return {"scores": model.apply(variables, maps["images"], train=False)}

    return scores, lambda variables, maps: maps["scores"]
