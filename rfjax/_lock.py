"""One run at a time in a directory.

A lock of the system on the file `.lock`, which ends with the process that holds it, however that
ends. What is written into the file only tells others who holds it.
"""

import json
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rfjax._console import tell
from rfjax._faults import Fault

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None

NAME = ".lock"

# By directory, the thread of this process that holds it and may enter it again.
_held: dict[Path, int] = {}


class InUse(Fault, RuntimeError):
    """Another run works in the directory; the message says which."""


@contextmanager
def held(folder: str | Path, *, say: Callable[[str], None] = tell) -> Iterator[None]:
    """Keeps other runs out of `folder` for as long as the context lasts.

    A thread that holds a directory may enter it again. Where the system or the file system has no
    locks, that is said and the run goes on without one.

    Args:
        folder: a directory that exists.
        say: takes a line.

    Raises:
        InUse: another process or thread holds it; names the process, its host and since when.
        OSError: nothing can be written there.
    """
    folder = Path(folder).resolve()
    if _held.get(folder) == threading.get_ident():
        yield
        return
    with (folder / NAME).open("a+") as file:
        _take(file, folder, say)
        _held[folder] = threading.get_ident()
        try:
            yield
        finally:
            del _held[folder]


def _take(file, folder: Path, say: Callable[[str], None]) -> None:
    """Locks an open file and writes down who did."""
    if fcntl is None:
        say(f"{folder} cannot be locked on this system; start no second run there")
        return
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InUse(
            f"{folder} is in use by {_owner(file)}; wait for it, stop it, or give another directory"
        ) from None
    except OSError as error:
        say(f"{folder} cannot be locked ({error.strerror}); start no second run there")
        return
    since = time.strftime("%Y-%m-%d %H:%M:%S %z")
    with suppress(OSError):  # a full disk: what cannot be saved later says so
        file.truncate(0)
        file.write(json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since}))
        file.flush()


def _owner(file) -> str:
    """The holder of the lock, as far as its file tells."""
    file.seek(0)
    try:
        owner = json.loads(file.read())
        return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
    except (ValueError, KeyError, TypeError):  # it has not been written yet
        return "another process"
