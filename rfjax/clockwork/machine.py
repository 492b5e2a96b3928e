"""The machine: a state of maps, and a step that computes those whose clock fires."""

import dataclasses
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp

from rfjax import _checks
from rfjax.clockwork import schedules, tuning
from rfjax.clockwork.schedules import Clock, Fires, Schedule, State
from rfjax.clockwork.watching import FRAME, Maps, Stage, computed, in_order, looked_at


def make(
    stages: Sequence[Stage],
    schedule: Schedule,
    *,
    watch: str | None = None,
    tuned_on: tuple[Any, Sequence[Any]] | None = None,
) -> tuple[Callable[[Any, jax.Array], State], Callable]:
    """A network on clocks: (init, step), pure functions.

    A stage whose clock does not fire keeps the maps that it computed last. On the first frame all
    stages run. Where no stage runs the output is that of the frame before.

    Args:
      stages: functions (variables, maps) -> maps by name, in the order in which they are computed.
        `maps` holds the frame as "images" and what the stages before have, some of it from earlier
        frames. The last function fuses: what it returns is the output, any pytree.
      schedule: which stages run. Of those that compute, shallow to deep:

        oracle             all on every frame
        skip               all on every second frame
        alternating        the deepest on every second frame
        exponential        stage i, from 0, on every 2^i-th frame
        pipeline2          all; the deepest reads what the step before has computed
        pipeline3          all; so do the two deepest
        adaptive:THETA     the deepest where `change` of the watched scores since it last ran is at
                           least THETA; adaptive:N% with `tuned_on`
        pixels:THETA       the deepest where `difference` of the frame since then is
        confidence:THETA   the deepest where `confidence` of the watched scores is below THETA
        (1, 2, 4)          stage i where t is a multiple of its rate
        a function         (state, frame) -> bool [stages], of all or of those that compute
      watch: the map of scores that a clock looks at; None for the one of the stage before the
        deepest whose name begins with "score".
      tuned_on: variables and clips, each [T, ...] frames without labels, from which "N%" takes its
        threshold, see `tune`.

    Returns:
      init: (variables, frame) -> state, a pytree of arrays whose "t" counts the frames. It computes
        nothing. A clip begins with a state of its own.
      step: (variables, state, frame) -> (state, output, fired), `fired` bool [stages]. Frames are
        [H, W, 3] or [N, H, W, 3], of one size through a clip, as the stages take them; the frames
        of a batch share a clock. Under `jax.jit` a stage that does not fire takes no time
        (`jax.lax.cond`); under `jax.vmap` over states every video has a clock of its own, all
        stages are computed, and the numbers are the same.

    Raises:
      ValueError: there is no such schedule, or it does not fit the number of stages.

    Example:
      >>> import jax.numpy as jnp
      >>> shallow = lambda variables, maps: {"mean": maps["images"].mean()}
      >>> deep = lambda variables, maps: {"square": maps["mean"] ** 2}
      >>> fuse = lambda variables, maps: maps["mean"] + maps["square"]
      >>> init, step = make((shallow, deep, fuse), "alternating")
      >>> state = init(None, jnp.zeros((2, 2, 3)))
      >>> for value in (1.0, 2.0, 3.0):
      ...     state, output, fired = step(None, state, jnp.full((2, 2, 3), value))
      ...     print(output, fired)
      2.0 [ True  True  True]
      3.0 [ True False  True]
      12.0 [ True  True  True]

    Reference:
      Shelhamer, "Local Adaptive Visual Recognition", 2019, sections 3.3 and 3.4.
    """
    *computing, fuse = stages
    if not computing:
        raise ValueError("stages must be at least two functions, the last of which fuses; got one")
    if isinstance(schedule, str) and tuned_on is not None:
        schedule = tuning.tune(stages, schedule, *tuned_on, watch=watch)
    clock = schedules.find(schedule, len(computing))
    machine = _Machine(tuple(computing), fuse, clock, watch)
    return machine.init, machine.step


@dataclasses.dataclass(frozen=True)
class _Machine:
    """Stages, and the clock that they run on."""

    computing: tuple[Stage, ...]
    fuse: Stage
    clock: Clock
    watch: str | None

    def init(self, variables: Any, frame: jax.Array) -> State:
        """Zeros in the shapes of the first state."""
        shapes = jax.eval_shape(self._whole, variables, _frame(frame))
        return jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes)

    def _whole(self, variables: Any, frame: jax.Array) -> State:
        """The state after the whole network."""
        maps = in_order(self.computing, variables, frame)
        output = self.fuse(variables, _seen(frame, maps))
        reference = self._looked_at(maps[:-1], frame) if self.clock.looks else ()
        count = jnp.zeros((), jnp.int32)
        return {"t": count, "maps": maps, "output": output, "reference": reference}

    def step(self, variables: Any, state: State, frame: jax.Array) -> tuple[State, Any, jax.Array]:
        """One frame."""
        frame = _frame(frame)
        self._check_size(variables, state, frame)
        fires = self.clock.early(state, frame)
        before, reference = state["maps"], state["reference"]
        maps: list[Maps] = []
        for index, stage in enumerate(self.computing):
            if index == len(self.computing) - 1 and self.clock.late is not None:
                now = self._looked_at(maps, frame)
                fires[index] = (state["t"] == 0) | self.clock.late(reference, now)
                reference = jnp.where(fires[index], now, reference)
            seen = _seen(frame, self._read(index, state, maps))
            run = partial(computed, stage, variables, seen)
            maps.append(_either(fires[index], run, before[index]))
        fused = any(fire is True for fire in fires) or jnp.any(jnp.stack(fires))
        run = partial(self.fuse, variables, _seen(frame, maps))
        output = _either(fused, run, state["output"])
        fired = jnp.stack([jnp.asarray(fire) for fire in (*fires, fused)])
        count = state["t"] + 1
        after = {"t": count, "maps": maps, "output": output, "reference": reference}
        return after, output, fired

    def _check_size(self, variables: Any, state: State, frame: jax.Array) -> None:
        """Raises unless the frame has the size of those before it."""
        shapes = jax.eval_shape(self.computing[0], variables, {FRAME: frame})
        for name, kept in state["maps"][0].items():
            if shapes[name].shape != kept.shape:
                raise ValueError(
                    f"frames of a clip must have one size: a frame {frame.shape} makes {name} "
                    f"{shapes[name].shape}, and the state has {kept.shape}; begin a new state"
                )

    def _read(self, index: int, state: State, maps: list[Maps]) -> list[Maps]:
        """The maps that a stage reads: those of this step, or in a pipeline of the one before."""
        if index < len(self.computing) - self.clock.stale:
            return maps
        # The first frame has no step before it.
        first, before = state["t"] == 0, state["maps"][:index]
        return jax.tree.map(lambda now, then: jnp.where(first, now, then), maps, before)

    def _looked_at(self, maps: Sequence[Maps], frame: jax.Array) -> jax.Array:
        return looked_at(self.clock, maps, frame, self.watch)


def _frame(frame: jax.Array) -> jax.Array:
    layout = "[H, W, 3] or [N, H, W, 3]"
    return _checks.float_array("frame", frame, min_ndim=3, layout=layout)


def _seen(frame: jax.Array, maps: Sequence[Maps]) -> Maps:
    """The frame and all maps, by name."""
    return {FRAME: frame} | {name: value for each in maps for name, value in each.items()}


def _either(fires: Fires, run: Callable[[], Any], kept: Any) -> Any:
    """What is computed where it fires, and what there was where it does not."""
    return run() if fires is True else jax.lax.cond(fires, run, lambda: kept)
