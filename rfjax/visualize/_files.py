"""Figures as files and arrays, in bounds; what cannot be drawn is told and ends nothing."""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from PIL import Image

from rfjax._faults import reason
from rfjax._files import replacing

DOTS_PER_INCH = 120
LARGEST_SIDE, LARGEST_AREA = 2**15, 2**26  # of a picture, in pixels


def save(figure: Figure, path: str | Path) -> None:
    """Writes `figure` to `path`, whose ending picks the format, and makes its directory."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        kind = path.suffix.removeprefix(".") or None
        figure.savefig(file, format=kind, dpi=_resolution(figure), facecolor="white")


def write_png(rgb: np.ndarray, path: str | Path) -> None:
    """Writes an image, uint8 [H, W, 3], to `path`, whole or not at all."""
    with replacing(path) as file:
        Image.fromarray(rgb).save(file, format="png")


def to_rgb(figure: Figure) -> np.ndarray:
    """`figure` as an image, uint8 [H, W, 3]."""
    figure.set_dpi(_resolution(figure))
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _resolution(figure: Figure) -> float:
    """Dots per inch: 120, less for a figure that would take too much memory."""
    width, height = figure.get_size_inches()
    largest = min(LARGEST_SIDE / max(width, height), math.sqrt(LARGEST_AREA / (width * height)))
    return min(DOTS_PER_INCH, largest)


class Failures:
    """Figures that could not be drawn, for programs that go on without them.

    Example:
        >>> failed = Failures()
        >>> with failed.of("curves"):
        ...     raise ValueError("no steps yet")
        >>> failed.tell(print)
        not drawn: curves (no steps yet)
    """

    def __init__(self) -> None:
        self._names: dict[str, list[str]] = {}

    @contextmanager
    def of(self, name: str) -> Iterator[None]:
        """Goes on after whatever goes wrong in drawing `name`."""
        try:
            yield
        except Exception as error:
            # Of a full disk the same is true for all of them, whatever their files.
            why = (isinstance(error, OSError) and error.strerror) or reason(error)
            self._names.setdefault(why, []).append(name)

    def tell(self, say: Callable[[str], None]) -> None:
        """Says in one line what was not drawn, and why; nothing if all was."""
        parts = (f"{', '.join(names)} ({why})" for why, names in self._names.items())
        if self._names:
            say(f"not drawn: {'; '.join(parts)}")
