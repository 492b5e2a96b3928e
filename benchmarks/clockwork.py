"""Time of a frame on each schedule, against what the shares of the stages say.

FCN-8s on VGG-16 in three stages, 240x320, fc6 and fc7 of 512 channels. Stages, network and
schedules take turns in one run; a schedule plays four frames from the start of a clip, of which
every second one changes. `ratio` is its time by that of the oracle, under which all stages run on
every frame; the aim is what the cost model says of it with the shares that the stages had by
themselves in the same run, and 0.05 more. The paper's shares are of fc6 and fc7 of 4096.
"""

from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp

from benchmarks.report import Row, compared
from benchmarks.timing import Times, interleave
from rfjax import clockwork, models

SUITE = "clockwork"
SCHEDULES = (
    *("oracle", "skip", "alternating", "exponential", "pipeline2", "pipeline3"),
    *("pixels:0.01", "adaptive:0.01"),
)
PAPER = (0.59, 0.18, 0.23)  # shares of the stages
FRAMES = 4  # after which all rates have come around
MARGIN = 0.05


def run(*, rounds: int, name: str = "vgg_16", size: tuple[int, int] = (240, 320)) -> Iterator[Row]:
    """Stages by themselves, then schedules."""
    model, variables, clip = operands(name, size)
    stages = clockwork.stages(model)
    functions: dict[str, Callable[[], Any]] = {"network": network(model, variables, clip[0])}
    functions |= separate(stages, variables, clip[0])
    plays = {schedule: played(stages, schedule, variables, clip) for schedule in SCHEDULES}
    functions |= plays
    times = interleave(functions, rounds=rounds, least=0.0)
    case = f"{name} {size[0]}x{size[1]}"
    whole = _sum(times, [f"stage {number}" for number in range(1, 5)])
    yield compared(SUITE, case, "stages", whole, "the network", times["network"])
    for number, paper in enumerate(PAPER, start=1):
        own = times[f"stage {number}"]
        yield compared(SUITE, case, f"stage {number}, paper {paper}", own, "all stages", whole)
    for schedule in SCHEDULES:
        frame = Times(tuple(ms / FRAMES for ms in times[schedule].rounds))
        firing = plays[schedule]() / FRAMES
        paper = clockwork.cost(schedule, PAPER, firing=firing)
        model = modelled(schedule, times, firing).ratio(whole)
        what = f"{schedule}: model {model:.2f}, paper {paper:.3g}"
        oracle = Times(tuple(ms / FRAMES for ms in times["oracle"].rounds))
        aim = round(model + MARGIN, 3)
        yield compared(SUITE, case, what, frame, "the oracle", oracle, aim=aim)


def operands(name: str, size: tuple[int, int]) -> tuple[Any, Any, jax.Array]:
    """The network, variables with scores that differ, and a clip whose odd frames are still."""
    options = {"border": None, "light": 512 if name == "vgg_16" else None}
    model = models.create(name, num_classes=11, head="fcn_8s", backbone_options=options)
    first, second = jax.random.normal(jax.random.key(0), (2, *size, 3))
    variables = jax.jit(model.init)(jax.random.key(1), first[None])
    leaves, tree = jax.tree.flatten(variables["params"]["head"])
    drawn = [
        0.1 * jax.random.normal(jax.random.key(number), leaf.shape)
        for number, leaf in enumerate(leaves)
    ]
    params = variables["params"] | {"head": jax.tree.unflatten(tree, drawn)}
    return model, {"params": params}, jnp.stack([first, first, second, second])


def network(model: Any, variables: Any, frame: jax.Array) -> Callable[[], Any]:
    """The whole network on a frame."""
    apply = jax.jit(model.apply)
    return lambda: jax.block_until_ready(apply(variables, frame[None]))


def separate(stages: Any, variables: Any, frame: jax.Array) -> dict[str, Callable[[], Any]]:
    """Every stage by itself, on the maps of those before it."""
    functions, maps = {}, {"images": frame}
    for number, stage in enumerate(stages, start=1):
        apply, given = jax.jit(stage), dict(maps)
        functions[f"stage {number}"] = lambda apply=apply, given=given: jax.block_until_ready(
            apply(variables, given)
        )
        maps |= apply(variables, given) if number < len(stages) else {}
    return functions


def played(stages: Any, schedule: str, variables: Any, clip: jax.Array) -> Callable[[], int]:
    """A clip from its start; returns on how many frames the deepest stage has run."""
    init, step = clockwork.make(stages, schedule)
    start, step = init(variables, clip[0]), jax.jit(step)

    def play() -> int:
        state, fired = start, []
        for frame in clip:
            state, output, fires = step(variables, state, frame)
            jax.block_until_ready(output)
            fired.append(bool(fires[-2]))
        return sum(fired)

    return play


def modelled(schedule: str, times: dict[str, Times], firing: float) -> Times:
    """What a frame takes by the times of the stages; fusing runs as often as the first stage."""
    rounds = []
    for first, second, third, fuse in zip(
        *(times[f"stage {number}"].rounds for number in range(1, 5)), strict=True
    ):
        shares = (first + fuse, second, third)
        rounds.append(clockwork.cost(schedule, shares, firing=firing))
    return Times(tuple(rounds))


def _sum(times: dict[str, Times], names: list[str]) -> Times:
    """What several functions took together, round by round."""
    return Times(tuple(map(sum, zip(*(times[name].rounds for name in names), strict=True))))
