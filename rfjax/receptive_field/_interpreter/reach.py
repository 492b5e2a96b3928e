"""What part of the input each number of an array depends on: a box of input pixels per number.

A box is kept by its bounds along each axis of the input that is followed, [-lowest, highest], so
that the union of boxes is the maximum of bounds. Bounds are integer arrays beside the array that
they describe, of size 1 along axes on which they do not vary: for the maps of a network a bound
along y is a vector along y, whatever the number of columns and channels.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np


@dataclass
class Jumps:
    """Distances between neighbouring taps of windows that skip some, in input pixels.

    Attributes:
      found: of each followed axis by its number. Infinite where a window's taps are further apart
        than its map is long.
      axis: the followed axis whose bounds are being worked on.
    """

    found: dict[int, list[float]] = field(default_factory=dict)
    axis: int = 0

    def largest(self, axis: int) -> float:
        """The largest one along a followed axis, 0 if there is none."""
        return max(self.found.get(axis, [0.0]))


# Those of the trace that goes on, where somebody asks for them.
_JUMPS: ContextVar[Jumps | None] = ContextVar("jumps", default=None)

# The bound of a number that depends on no pixel. Far from any pixel, and safe from overflow.
NOTHING = np.int32(-(2**30))


class Note(NamedTuple):
    """Why boxes are as large as they are.

    Attributes:
      operation: name of the operation, a primitive of JAX.
      reason: one of those below, which goes on from the name.
    """

    operation: str
    reason: str

    def __str__(self) -> str:
        return f"`{self.operation}` {self.reason}"


NO_RULE = "has no rule here and is taken to depend on all of its operands"
DATA_DEPENDENT = "is at positions that are computed from the input"
UNKNOWN_POSITIONS = "is at positions that are not known"
CHOSEN = "takes a branch that the input chooses"
UNKNOWN_BRANCH = "takes a branch that is not known"
UNKNOWN_LENGTH = "goes on for a number of steps that is not known"
LONG = "has too many steps to follow one by one"
COMPUTED_KERNEL = "has a kernel that is computed from the input"
WHOLE_AXIS = "depends on the whole axis that it acts on"
WHOLE_MATRIX = "is taken to depend on all numbers of each matrix"
SPLIT_MAP = "gives devices different parts of the map, and is taken to mix them"


@dataclass(frozen=True)
class Reach:
    """The boxes of all numbers of an array.

    Attributes:
      shape: of the array.
      bounds: -lowest and highest pixel along the first followed axis, then along the next; each
        with the rank of the array and along each axis its size, or 1.
      notes: why boxes are large, or larger than they have to be.
    """

    shape: tuple[int, ...]
    bounds: tuple[np.ndarray, ...]
    notes: frozenset[Note] = frozenset()

    def map(self, shape: Sequence[int], function: Callable[[np.ndarray], np.ndarray]) -> "Reach":
        """The reach of an array of `shape`, whose bounds `function` makes from these."""
        seen, bounds = _JUMPS.get(), []
        for number, bound in enumerate(self.bounds):
            if seen is not None:
                seen.axis = number // 2
            bounds.append(compress(function(bound)))
        return Reach(tuple(shape), tuple(bounds), self.notes)

    def noted(self, *notes: Note) -> "Reach":
        """With further notes."""
        return replace(self, notes=self.notes.union(notes))


@contextmanager
def jumps() -> Iterator[Jumps]:
    """Collects how far the taps of windows are apart, see `Jumps`."""
    found = Jumps()
    token = _JUMPS.set(found)
    try:
        yield found
    finally:
        _JUMPS.reset(token)


def jumped(bound: np.ndarray, axis: int, distance: int) -> None:
    """Reports a distance between taps on a map with this bound, to whoever collects them."""
    seen = _JUMPS.get()
    if seen is None or bound.shape[axis] == 1:
        return
    line = bound.max(tuple(a for a in range(bound.ndim) if a != axis)).astype(np.int64)
    known = line != NOTHING
    both = known[distance:] & known[:-distance]
    steps = np.abs(line[distance:] - line[:-distance])[both]
    largest = float(steps.max()) if steps.size else float("inf")
    seen.found.setdefault(seen.axis, []).append(largest)


def source(shape: Sequence[int], axes: Sequence[int]) -> Reach:
    """The input itself: every number depends on its own pixel, along `axes`.

    Example:
      >>> source((1, 4), (1,)).bounds[1].tolist()
      [[0, 1, 2, 3]]
    """
    bounds = []
    for axis in axes:
        line = [1] * len(shape)
        line[axis] = shape[axis]
        pixels = np.arange(shape[axis], dtype=np.int32).reshape(line)
        bounds += [-pixels, pixels]
    return Reach(tuple(shape), tuple(bounds))


def nowhere(shape: Sequence[int], like: Reach) -> Reach:
    """An array of `shape` that does not depend on the input."""
    nothing = np.full((1,) * len(shape), NOTHING, np.int32)
    return Reach(tuple(shape), (nothing,) * len(like.bounds))


def union(shape: Sequence[int], reaches: Iterable[Reach]) -> Reach:
    """Arrays of one shape, or scalars, combined number by number."""
    reaches = [scalar_as(shape, reach) for reach in reaches]
    bounds = reaches[0].bounds
    for other in reaches[1:]:
        pairs = zip(bounds, other.bounds, strict=True)
        bounds = tuple(np.maximum(a, b) for a, b in pairs)
    notes = frozenset().union(*(reach.notes for reach in reaches))
    return Reach(tuple(shape), bounds, notes)


def scalar_as(shape: Sequence[int], reach: Reach) -> Reach:
    """A scalar's reach at every number of an array of `shape`; others as they are."""
    if reach.shape == tuple(shape) or reach.shape != ():
        return reach
    return reach.map(shape, lambda bound: bound.reshape((1,) * len(shape)))


def everything(shape: Sequence[int], reaches: Sequence[Reach], *notes: Note) -> Reach:
    """Every number of an array of `shape` depends on all numbers of all `reaches`."""
    totals = [reach.map((), lambda bound: np.max(bound)) for reach in reaches]
    return scalar_as(shape, union((), totals)).noted(*notes)


def where(keep: np.ndarray, reach: Reach) -> Reach:
    """The reach where `keep`, an array that broadcasts to the same rank; nothing elsewhere."""
    keep = compress(np.asarray(keep))
    if keep.size == 1 and keep.all():
        return reach
    return reach.map(reach.shape, lambda bound: np.where(keep, bound, NOTHING))


def compress(bound: np.ndarray) -> np.ndarray:
    """The same array, of size 1 along every axis on which it does not vary.

    Example:
      >>> compress(np.array([[1, 2], [1, 2]])).tolist()
      [[1, 2]]
    """
    bound = np.asarray(bound)
    for axis, size in enumerate(bound.shape):
        if size > 1:
            first = bound.take([0], axis)
            if np.array_equal(np.broadcast_to(first, bound.shape), bound):
                bound = first
    return bound


def spread(bound: np.ndarray, shape: Sequence[int], axes: Iterable[int]) -> np.ndarray:
    """The bound at full size along `axes` of an array of `shape`."""
    wanted = list(bound.shape)
    for axis in axes:
        wanted[axis] = shape[axis]
    return np.broadcast_to(bound, wanted)


def reshape(bound: np.ndarray, old: Sequence[int], new: Sequence[int]) -> np.ndarray:
    """The bound of an array of shape `old` that is reshaped to `new`.

    Axes are worked off in the smallest groups that hold equal numbers; a group on which the bound
    does not vary stays of size 1.

    Example:
      >>> reshape(np.array([[[0]], [[1]]]), (2, 3, 4), (2, 12)).tolist()
      [[0], [1]]
    """
    between, after = [], []
    for mine, theirs in _groups(old, new):
        varies = any(bound.shape[axis] > 1 for axis in mine)
        between += [old[axis] if varies else 1 for axis in mine]
        after += [new[axis] if varies else 1 for axis in theirs]
    return np.broadcast_to(bound, between).reshape(after)


def _groups(old: Sequence[int], new: Sequence[int]) -> list[tuple[list[int], list[int]]]:
    """Neighbouring axes of two shapes that hold equal numbers, in order."""
    if 0 in (*old, *new):
        return [(list(range(len(old))), list(range(len(new))))]
    groups, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        mine, theirs = list(range(i, min(i + 1, len(old)))), list(range(j, min(j + 1, len(new))))
        product = [old[i] if mine else 1, new[j] if theirs else 1]
        i, j = i + len(mine), j + len(theirs)
        while product[0] != product[1]:
            if product[0] < product[1]:
                product[0], mine, i = product[0] * old[i], [*mine, i], i + 1
            else:
                product[1], theirs, j = product[1] * new[j], [*theirs, j], j + 1
        groups.append((mine, theirs))
    return groups


@dataclass(frozen=True)
class Window:
    """How outputs of a sliding window read one axis of their input.

    Attributes:
      size: taps.
      stride: input pixels between windows.
      dilation: input pixels between taps.
      before, after: pixels that are added at the ends, or cut off where negative.
      input_dilation: distance that the input's pixels are set apart at, zeros between.
    """

    size: int
    stride: int = 1
    dilation: int = 1
    before: int = 0
    after: int = 0
    input_dilation: int = 1

    def outputs(self, length: int) -> int:
        """The number of windows on an axis of `length` pixels."""
        span = (self.size - 1) * self.dilation + 1
        return max((self._padded(length) - span) // self.stride + 1, 0)

    def _padded(self, length: int) -> int:
        return max(length - 1, -1) * self.input_dilation + 1 + self.before + self.after

    def line(self, bound: np.ndarray, axis: int) -> np.ndarray:
        """The pixels along `axis` as windows see them: set apart, and with ends."""
        length = bound.shape[axis]
        shape = list(bound.shape)
        shape[axis] = (length - 1) * self.input_dilation + 1
        apart = np.full(shape, NOTHING, np.int32)
        apart[_along(axis, slice(None, None, self.input_dilation))] = bound
        ends = [(0, 0)] * bound.ndim
        ends[axis] = (max(self.before, 0), max(self.after, 0))
        padded = np.pad(apart, ends, constant_values=NOTHING)
        stop = padded.shape[axis] - max(-self.after, 0)
        return padded[_along(axis, slice(max(-self.before, 0), stop))]

    def tap(self, line: np.ndarray, axis: int, tap: int, outputs: int) -> np.ndarray:
        """What one tap of every window sees of `line`."""
        start = tap * self.dilation
        stop = start + (outputs - 1) * self.stride + 1
        return line[_along(axis, slice(start, stop, self.stride))]

    def slide(self, bound: np.ndarray, axis: int, length: int) -> np.ndarray:
        """The union over each window of a bound, of which `axis` has `length` pixels."""
        outputs = self.outputs(length)
        if bound.shape[axis] == 1 and length != 1:
            seen = [1] * bound.ndim
            seen[axis] = length
            seen = self._union(np.zeros(seen, np.int32), axis, outputs) == 0
            return bound if seen.all() else np.where(seen, bound, NOTHING)
        if self.dilation > self.input_dilation and self.size > 1:
            jumped(bound, axis, -(-self.dilation // self.input_dilation))
        return self._union(bound, axis, outputs)

    def _union(self, bound: np.ndarray, axis: int, outputs: int) -> np.ndarray:
        line = self.line(bound, axis)
        result = self.tap(line, axis, 0, outputs)
        for tap in range(1, self.size):
            result = np.maximum(result, self.tap(line, axis, tap, outputs))
        return result


def _along(axis: int, part: slice) -> tuple[slice, ...]:
    return (slice(None),) * axis + (part,)
