"""Times of functions that take turns, so that a machine whose speed drifts is fair to all."""

import dataclasses
import statistics
import time
from collections.abc import Callable, Mapping, Sequence

PAUSE = 0.002  # seconds in which a peer's spinning threads go to sleep


@dataclasses.dataclass(frozen=True)
class Times:
    """Milliseconds of one function, a number for each round."""

    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.rounds)

    def ratio(self, other: "Times") -> float:
        """The median over rounds of this time by the other's in the same round."""
        return statistics.median(a / b for a, b in zip(self.rounds, other.rounds, strict=True))

    def ratio_spread(self, other: "Times") -> tuple[float, float]:
        """The quartiles of what `ratio` is the median of."""
        return quartiles([a / b for a, b in zip(self.rounds, other.rounds, strict=True)])


def quartiles(values: Sequence[float]) -> tuple[float, float]:
    """The first and the third; of a single value, the value twice."""
    if len(values) < 2:
        return values[0], values[0]
    low, _, high = statistics.quantiles(values, n=4)
    return low, high


def interleave(
    functions: Mapping[str, Callable[[], object]], *, rounds: int = 15, least: float = 0.01
) -> dict[str, Times]:
    """The times of functions that run to their end, one after the other in every round.

    Each is called often enough in a round to take `least` seconds; a call that is not timed comes
    first, since the function before has filled the caches.
    """
    counts = {}
    for name, function in functions.items():
        function()
        function()
        counts[name] = max(1, round(least / max(_seconds(function, 1), 1e-7)))
    times: dict[str, list[float]] = {name: [] for name in functions}
    names = list(functions)
    for turn in range(rounds):
        first = turn % len(names)
        for name in names[first:] + names[:first]:
            time.sleep(PAUSE)
            functions[name]()
            seconds = _seconds(functions[name], counts[name])
            times[name].append(1e3 * seconds / counts[name])
    return {name: Times(tuple(rounds)) for name, rounds in times.items()}


def _seconds(function: Callable[[], object], count: int) -> float:
    started = time.perf_counter()
    for _ in range(count):
        function()
    return time.perf_counter() - started
