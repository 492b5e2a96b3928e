"""How far a long job is: a bar on a terminal, lines in a log."""

import math
import os
import sys
import time
from collections.abc import Iterable, Iterator
from typing import Any, TypeVar

from tqdm import tqdm

from rfjax._console import tell

Item = TypeVar("Item")

_SECONDS_BETWEEN_LINES = 10.0


def duration(seconds: float) -> str:
    """`seconds` as h:mm:ss.

    Example:
        >>> duration(3725.4)
        '1:02:05'
    """
    minutes, second = divmod(int(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02d}:{second:02d}"


def _knows_its_size() -> bool:
    """Whether the terminal of standard error tells its columns and lines."""
    try:
        return min(os.get_terminal_size(sys.stderr.fileno())) > 0
    except (OSError, ValueError):
        return False


class Bar:
    """Progress as a bar, on a terminal."""

    def __init__(self, start: int, steps: int):
        # A terminal that does not tell its size would otherwise get an empty bar.
        fixed, dynamic = {"ncols": 100, "nrows": 24}, {"dynamic_ncols": True}
        size: dict[str, Any] = dynamic if _knows_its_size() else fixed
        self._bar = tqdm(total=steps, initial=start, unit="step", smoothing=0.05, **size)

    def advance(self) -> None:
        """One step more."""
        self._bar.update()

    def status(self, step: int, words: list[str], remaining: float) -> None:
        """The latest numbers, beside the bar, which knows step and time itself."""
        self._bar.set_postfix_str(", ".join(words), refresh=False)

    def say(self, text: str) -> None:
        """A line of its own above the bar."""
        self._bar.write(text, file=sys.stderr)

    def close(self) -> None:
        """Leaves the bar as it stands."""
        self._bar.close()


class Lines:
    """Progress as plain lines, for logs."""

    def __init__(self, start: int, steps: int):
        self._steps = steps

    def advance(self) -> None:
        """Lines come with the numbers only."""

    def status(self, step: int, words: list[str], remaining: float) -> None:
        """One line with the latest numbers."""
        eta = [f"ETA {duration(remaining)}"] if math.isfinite(remaining) else []
        self.say("  ".join([f"step {step}/{self._steps}", *words, *eta]))

    def say(self, text: str) -> None:
        """One line."""
        tell(text)

    def close(self) -> None:
        """Nothing is open."""


class Silent(Lines):
    """No progress, for all processes but the first."""

    def say(self, text: str) -> None:
        """Nothing."""


def counted(items: Iterable[Item], total: int, what: str) -> Iterator[Item]:
    """`items`, with a bar on a terminal and a line every ten seconds otherwise (on stderr)."""
    if sys.stderr.isatty():
        yield from tqdm(items, total=total, desc=what, leave=False)
        return
    tell(f"{what}: {total} examples")
    reported = time.monotonic()
    for count, item in enumerate(items):
        if time.monotonic() - reported > _SECONDS_BETWEEN_LINES:
            reported = time.monotonic()
            tell(f"{what}: {count} of {total}")
        yield item
