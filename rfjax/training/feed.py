"""Batches of a run: faults of the data as one line, and no thread that outlives it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rfjax._faults import Fault, reason


class DataError(Fault, RuntimeError):
    """Data that cannot be read or do not fit; the message says which."""


@contextmanager
def faults(what: str) -> Iterator[None]:
    """Turns whatever goes wrong in reading `what` into a `DataError`.

    Decoders and archives raise errors of many kinds, and a program that reads data which others
    wrote must expect all of them.
    """
    try:
        yield
    except (Fault, StopIteration):
        raise
    except Exception as error:
        raise DataError(f"{what}: {reason(error)}") from error


class Feed:
    """An iterator of batches; a context manager, which ends the threads that make them.

    Args:
        batches: of `rfjax.data`.
        what: they are, for messages.
    """

    def __init__(self, batches: Any, what: str):
        self._batches, self._what = batches, what

    def __enter__(self) -> "Feed":
        return self

    def __exit__(self, *error: Any) -> None:
        self.close()

    def close(self) -> None:
        """Ends the threads."""
        self._batches.close()

    def __iter__(self) -> "Feed":
        return self

    def __next__(self) -> dict[str, Any]:
        """The next batch.

        Raises:
            DataError: it cannot be made.
        """
        with faults(self._what):
            return next(self._batches)

    def get_state(self) -> dict[str, Any]:
        """The number of batches taken, as JSON can hold it."""
        return self._batches.get_state()

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes to where `get_state` was called."""
        self._batches.set_state(state)
