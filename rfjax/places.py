"""Where the pixels of a map lie in the image that it was computed from.

Along each axis, pixel i of a map lies at

    x = stride i + offset

in pixels of the image, whose pixel i lies at i. Every layer changes both in its own way, and maps
of one stride fit on top of each other after a crop by the difference of their offsets. Axes are
(y, x).

Reference: Long, Shelhamer & Darrell, "Fully Convolutional Networks", CVPR 2015, section 3.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Numbers = float | tuple[float, ...]


@dataclass(frozen=True, init=False)
class Place:
    """Stride and offset of a map, along each axis.

    Attributes:
      stride: image pixels from one pixel of the map to the next; one number, or (y, x).
      offset: where pixel 0 lies, likewise.

    Example:
      >>> pooled = Place().then(window(2, stride=2, padding=0))
      >>> pooled
      Place(stride=(2.0, 2.0), offset=(0.5, 0.5))
      >>> pooled.at((3, 0))
      (6.5, 0.5)
    """

    stride: tuple[float, ...]
    offset: tuple[float, ...]

    def __init__(self, stride: Numbers = 1.0, offset: Numbers = 0.0):
        object.__setattr__(self, "stride", _each(stride))
        object.__setattr__(self, "offset", _each(offset))

    def at(self, index: Sequence[float]) -> tuple[float, ...]:
        """Where a pixel lies: stride index + offset."""
        rows = zip(self.stride, self.offset, index, strict=True)
        return tuple(stride * i + offset for stride, offset, i in rows)

    def then(self, layer: "Place") -> "Place":
        """The place of what a layer makes of this map.

        stride = stride_map stride_layer,  offset = offset_map + stride_map offset_layer

        Args:
          layer: where the pixels of its output lie, in pixels of its input.
        """
        strides = zip(self.stride, layer.stride, strict=True)
        return Place(tuple(a * b for a, b in strides), self.at(layer.offset))


def window(
    kernel_size: Numbers,
    *,
    stride: Numbers = 1,
    dilation: Numbers = 1,
    padding: Numbers | str = "same",
) -> Place:
    """The place of what a sliding window returns, in pixels of what it slides over.

    The offset is the middle of what output 0 reads: ((kernel_size - 1) dilation) / 2 - padding.

    Args:
      kernel_size, stride, dilation: of the window; one number, or (y, x).
      padding: pixels added before the first, likewise; "same" centers an odd window on its output.

    Example:
      >>> window(3, stride=2).offset, window(2, stride=2, padding=0).offset
      ((0.0, 0.0), (0.5, 0.5))
    """
    whole = [map(int, _each(value)) for value in (kernel_size, dilation)]
    paddings = (padding, padding) if isinstance(padding, str) else map(int, _each(padding))
    middles = tuple(sum(reads(*row)) / 2 for row in zip(*whole, paddings, strict=True))
    return Place(stride, middles)


def reads(kernel_size: int, dilation: int = 1, padding: int | str = "same") -> tuple[int, int]:
    """The first and the last pixel that output 0 of a sliding window reads, along one axis.

    Example:
      >>> reads(3, dilation=2), reads(2, padding=0)
      ((-2, 2), (0, 1))
    """
    extent = (kernel_size - 1) * dilation
    before = extent // 2 if isinstance(padding, str) else padding
    return -before, extent - before


def in_sequence(windows: Mapping[str, Place]) -> dict[str, Place]:
    """The places of maps each of which is computed from the one before, the first from the images.

    Args:
      windows: by stage, where the pixels of its map lie in pixels of the map before.

    Example:
      >>> pooling = window(2, stride=2, padding=0)
      >>> in_sequence({"conv1": window(3, stride=2), "pool1": pooling})["pool1"]
      Place(stride=(4.0, 4.0), offset=(1.0, 1.0))
    """
    place, places = Place(), {}
    for name, layer in windows.items():
        place = places[name] = place.then(layer)
    return places


def shift(place: Place, target: Place) -> tuple[int, ...]:
    """Which pixel of a map lies where the first of a target of the same stride does.

    (offset_target - offset) / stride; a negative number says that the target begins before the map.

    Raises:
      ValueError: the strides differ, or the pixels of one lie between those of the other.

    Example:
      >>> shift(Place(8, -12), Place(8, 4)), shift(Place(8, 4), Place(8, -12))
      ((2, 2), (-2, -2))
    """
    rows = list(zip(place.stride, place.offset, target.stride, target.offset, strict=True))
    if any(abs(stride - other) > 1e-6 for stride, _, other, _ in rows):
        raise ValueError(f"maps must have one stride to be aligned; got {place} and {target}")
    shifts = [(there - here) / stride for stride, here, _, there in rows]
    if any(abs(number - round(number)) > 1e-6 for number in shifts):
        raise ValueError(
            f"maps must lie whole pixels apart to be aligned by a crop; got {place} and {target}, "
            f"which lie {tuple(shifts)} apart"
        )
    return tuple(round(number) for number in shifts)


def common(place: Place, other: Place) -> Place:
    """Where two maps of one stride begin to lie on top of each other.

    Raises:
      ValueError: as in `shift`.

    Example:
      >>> common(Place(8, (-12, 4)), Place(8, (4, -4))).offset
      (4.0, 4.0)
    """
    first = shift(place, other)
    return place.then(Place(1.0, tuple(float(max(pixels, 0)) for pixels in first)))


def _each(value: Numbers) -> tuple[float, ...]:
    """One number for both axes, or one for each."""
    return tuple(map(float, value)) if isinstance(value, Sequence) else (float(value),) * 2
