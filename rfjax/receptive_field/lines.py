"""Fields of all outputs along one axis, and the stride and offset that they have in common."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from rfjax.receptive_field._interpreter.reach import NOTHING, Reach


def read(
    output: Any, shape: Sequence[int], axes: Sequence[int], unit: Sequence[int] | None
) -> "list[Line] | None":
    """The fields along each of `axes`, through `unit` along the others; None where there are none.

    Args:
      output: a `Reach`, or what does not depend on the input.
      shape: of the input.
      axes: the followed axes, counted from the front.
      unit: indices along `axes`; None for the middle.

    Raises:
      ValueError: the output has no such unit.
    """
    if not isinstance(output, Reach) or len(output.shape) != len(shape) or 0 in output.shape:
        return None
    size = [output.shape[axis] for axis in axes]
    unit = [n // 2 for n in size] if unit is None else list(unit)
    if len(unit) != len(axes) or not all(0 <= u < n for u, n in zip(unit, size, strict=True)):
        raise ValueError(f"unit {tuple(unit)} is none of an output of {tuple(size)}")
    others = tuple(axis for axis in range(len(shape)) if axis not in axes)
    lines = []
    for number, axis in enumerate(axes):
        low, high = (
            _line(bound.max(others, keepdims=True), axes, unit, axis, size[number])
            for bound in output.bounds[2 * number : 2 * number + 2]
        )
        lines.append(Line(-low, high, shape[axis], unit[number]))
    return None if any(line.empty for line in lines) else lines


def _line(
    bound: np.ndarray, axes: Sequence[int], unit: Sequence[int], axis: int, size: int
) -> np.ndarray:
    """A bound along one axis, through the unit along the others."""
    for other, index in zip(axes, unit, strict=True):
        if other != axis:
            bound = bound.take([index if bound.shape[other] > 1 else 0], other)
    return np.broadcast_to(bound.ravel(), (size,))


class Line:
    """The fields of all outputs along one axis.

    Those that touch the border tell nothing of a larger input, so that size, stride and offset are
    read off the others, nor do those so near to it that taps may be missing. Outputs may differ
    by their phase, as those of an upsampling do, and some may see nothing.

    Attributes:
      low, high: first and last pixel of every output's field.
      length: of the input.
      unit: index of the output in question, and `box` its field.
      stride, offset: what centres have in common, NaN where too few outputs show it.
      size: of the largest field over the phases, or that of the unit if it is cut.
      clipped: whether the unit's field is cut by the border.
    """

    def __init__(self, low: np.ndarray, high: np.ndarray, length: int, unit: int):
        self.low, self.high = low.astype(np.int64), high.astype(np.int64)
        self.length, self.unit = length, unit
        self.box = int(low[unit]), int(high[unit])
        self.empty = int(high[unit]) == NOTHING
        inside = (self.low > 0) & (self.low <= self.high) & (self.high < length - 1)
        sizes = self.high - self.low + 1
        widest = int(sizes[inside].max()) if inside.any() else 1
        self.whole = inside & (self.high >= widest - 1) & (self.low <= length - widest)
        self.clipped = length > 1 and not self.whole[unit]
        self._inner = np.flatnonzero(self.whole if self.whole.sum() > 1 else inside)
        self.stride, self.offset = self._affine(unit)
        self.size = self.box[1] - self.box[0] + 1
        if self._inner.size and not self.clipped:
            self.size = int((self.high - self.low)[self._inner].max()) + 1

    def certain(self, jump: float) -> bool:
        """Whether enough outputs are so far from the border that stride and offset hold.

        Taps that are apart may be missing up to one jump from it, and a function that crops its
        input ends before it does.
        """
        low, high = self.box
        free = min(low, self.length - 1 - high) >= jump + max(self.length // 4, 1)
        return bool(free and self.whole[self.unit] and self._repeats and self.stride)

    @property
    def covered(self) -> bool:
        """Whether the unit sees the whole axis."""
        return self.box == (0, self.length - 1)

    def learn(self, larger: "Line", jump: float) -> bool:
        """Takes stride and offset from the same function on a longer axis, if they hold here.

        They do if the axis has as many more outputs as the stride says, and if the fields of the
        outputs in the middle of the longer axis, moved back by half of what it has more, hold all
        that the outputs see here: then a field here is the regular one cut by the border. A field
        that is the whole axis may be one that is wrapped around it.

        Args:
          larger: the fields on an axis longer by a multiple of the stride.
          jump: how far taps are apart there, at most; a tap may be missing nearer to the border.

        Returns:
          Whether it did.
        """
        half, count = (larger.length - self.length) / 2, len(self.low)
        first = (len(larger.low) - count) / 2
        if not first.is_integer() or abs(larger.stride) * first != half:
            return False
        first = int(first)
        low, high = larger.low[first : first + count], larger.high[first : first + count]
        free = np.minimum(low, larger.length - 1 - high).min()
        if not larger.whole[first : first + count].all() or free < jump:
            return False
        if not self._cut_from(low - half, high - half):
            return False
        self.stride, self.offset = larger.stride, larger.offset + larger.stride * first - half
        self.clipped = (low[self.unit] - half, high[self.unit] - half) != self.box
        self.size = self.box[1] - self.box[0] + 1 if self.clipped else larger.size
        return True

    def _cut_from(self, low: np.ndarray, high: np.ndarray) -> bool:
        """Whether all fields are these, cut by the border or wrapped around it, or everything."""
        crossing = (low < 0) | (high > self.length - 1)
        covered = (self.low == 0) & (self.high == self.length - 1)
        moved = ((self.low - low) % self.length == 0) & (self.high - self.low == high - low)
        held = (self.low >= low) & (self.high <= high)
        nothing = self.low > self.high
        return bool(np.all(held | nothing | covered | (crossing & moved)))

    def _affine(self, unit: int) -> tuple[float, float]:
        """(stride, offset): the centre of output i + period is that of i, moved.

        Where this does not hold for all outputs it may for those about the one in question, or on
        one side of it, as in copies side by side; else centres go on evenly from the first to the
        last. NaN where too few outputs are free of borders to tell.
        """
        inner = self._inner
        self._repeats = False
        if inner.size < 2:
            return math.nan, math.nan
        first, last = int(inner[0]), int(inner[-1])
        near = max((last - first) // 4, 1)
        before, after = max(first, unit - near), min(last, unit + near)
        spans = [(first, last), (before, after), (unit, after), (before, unit)]
        for start, stop in spans:
            found = self._periodic(inner[(inner >= start) & (inner <= stop)])
            if found:
                self._repeats = (start, stop) == (first, last)
                return found
        if last - first != inner.size - 1:
            return math.nan, math.nan
        centers = (self.low + self.high)[inner] / 2
        stride = float(centers[-1] - centers[0]) / (last - first)
        return stride, float(centers[0] - stride * first)

    def _periodic(self, inner: np.ndarray) -> tuple[float, float] | None:
        """(stride, offset) of outputs of which some repeat after a number of them."""
        if inner.size < 2:
            return None
        start = int(inner[0])
        twice = np.zeros(int(inner[-1]) - start + 1, np.int64)
        there = np.zeros(len(twice), bool)
        there[inner - start], twice[inner - start] = True, (self.low + self.high)[inner]
        for period in range(1, len(twice) // 2 + 1):
            both = there[period:]
            if not np.array_equal(both, there[:-period]):
                continue
            steps = (twice[period:] - twice[:-period])[both]
            if steps.size and np.all(steps == steps[0]):
                stride = float(steps[0]) / 2 / period
                index = np.flatnonzero(there[:period])
                phase = twice[index] / 2 - stride * (index + start)
                return stride, float(phase.mean())
        return None
