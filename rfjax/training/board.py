"""TensorBoard's event file, written by the thread that calls.

The usual writer hands its events to a thread, which ends without a word where the disk is full, and
then keeps the program waiting. Here such an error comes out where the event was written.
"""

import os
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from tensorboardX import summary
from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog

from rfjax._files import naming

_FLUSH_SECONDS = 30.0  # what a kill may cost TensorBoard


class Board:
    """The events of a run.

    Args:
        folder: where the file goes.
        start: the step that the run stands at; TensorBoard hides older events of later steps.

    Raises:
        OSError: naming the folder, here and where anything is added.
    """

    def __init__(self, folder: Path, *, start: int):
        self._folder, self._flushed = folder, time.monotonic()
        with naming(folder):
            self._writer = EventsWriter(os.path.join(folder, "events"))
        self._add(step=start + 1, session_log=SessionLog(status=SessionLog.START))

    def scalar(self, tag: str, value: float, step: int) -> None:
        """A point of a curve."""
        self._add(step=step, summary=summary.scalar(tag, value))

    def image(self, tag: str, rgb: np.ndarray, step: int) -> None:
        """A picture [H, W, 3] uint8."""
        self._add(step=step, summary=summary.image(tag, rgb, dataformats="HWC"))

    def _add(self, **event: Any) -> None:
        with naming(self._folder):
            self._writer.write_event(Event(wall_time=time.time(), **event))
            if time.monotonic() - self._flushed > _FLUSH_SECONDS:
                self._writer.flush()
                self._flushed = time.monotonic()

    def close(self) -> None:
        """Brings all events to disk."""
        with naming(self._folder):
            try:
                self._writer.close()
            finally:  # a file that could not be flushed would complain again when it is collected
                with suppress(OSError):
                    self._writer._py_recordio_writer.close()
