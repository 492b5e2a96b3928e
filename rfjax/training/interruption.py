"""Leaving cleanly when asked to: SIGTERM (preemption) and SIGINT (Ctrl-C)."""

import os
import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

from rfjax._faults import Interrupted as Interrupted

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interruption:
    """Notes signals while a run goes on, so that it stops between two steps; a context manager.

    The first signal asks; those that follow change nothing, so that a scheduler or a person who
    sends several loses no step: the run says that it is about to save, and goes on. SIGKILL and
    SIGQUIT (Ctrl-\\) end it at once, without what came since the last checkpoint.

    With several processes JAX's preemption service takes SIGTERM instead, and makes all of them
    stop at the same step; SIGINT then ends the process at once.
    """

    def __init__(self) -> None:
        self._signum: int | None = None
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interruption":
        main_thread = threading.current_thread() is threading.main_thread()  # others get no signals
        if main_thread and jax.process_count() == 1:
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *error: Any) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: Any) -> None:
        """Remembers the first signal, and answers all of them."""
        name = signal.Signals(number).name
        if self._signum is None:
            self._signum = number
            answer = f"{name}: stopping and saving after the step that is under way"
        else:
            answer = f"{name}: still saving; SIGKILL would lose what came since the last checkpoint"
        os.write(2, f"{answer}\n".encode())  # a handler must not touch buffers it may interrupt

    def reached(self, step: int) -> int | None:
        """The number of the signal that asks to stop after `step`, or None."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            return signal.SIGTERM
        return self._signum
