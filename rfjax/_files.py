"""Files that are there whole or not at all."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

import numpy as np


@contextmanager
def naming(path: str | os.PathLike) -> Iterator[None]:
    """Puts `path` into the errors of the system that name no file, as those of `write` do."""
    try:
        yield
    except OSError as error:
        if error.filename is not None or error.errno is None:
            raise
        raise OSError(error.errno, os.strerror(error.errno), str(path)) from error


@contextmanager
def replacing(path: str | os.PathLike) -> Iterator[IO[bytes]]:
    """A file to write, which takes the place of `path` when it is complete and on disk.

    Whatever ends the program before, `path` is what it was.
    """
    path = Path(path)
    partial = path.with_name(f"{path.name}.partial")
    try:
        with naming(path):
            with partial.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            os.replace(partial, path)
    except BaseException:
        with suppress(OSError):
            partial.unlink(missing_ok=True)
        raise


def write_text(path: str | os.PathLike, text: str) -> None:
    """Writes `text` to `path`, whole or not at all."""
    with replacing(path) as file:
        file.write(text.encode())


def write_json(path: str | os.PathLike, value: Any) -> None:
    """Writes `value` to `path` as JSON, whole or not at all; see `plain`."""
    write_text(path, json.dumps(plain(value), indent=2) + "\n")


def plain(value: Any) -> Any:
    """`value` as JSON knows it: Python numbers, and null for what is not finite.

    Example:
        >>> plain({"sigma": np.array([1.0, np.nan])})
        {'sigma': [1.0, None]}
    """
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple, np.ndarray)):
        return [plain(item) for item in value]
    if isinstance(value, (float, np.floating)):
        return float(value) if math.isfinite(value) else None
    return value
