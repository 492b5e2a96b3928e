"""Leaving cleanly when asked to: SIGTERM (preemption) and SIGINT (Ctrl-C)."""

import signal
import threading
from typing import Any

import jax
from jax.experimental import multihost_utils

SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Interrupted(Exception):
    """The run was asked to stop, and has saved its state.

    Attributes:
        signum: the signal's number; the customary exit status is 128 + signum.
    """

    def __init__(self, signum: int, step: int):
        super().__init__(
            f"stopped by {signal.Signals(signum).name} at step {step}, which is saved; "
            "the same command goes on from there"
        )
        self.signum, self.step = signum, step

    def __reduce__(self) -> tuple:
        """How it is passed between processes."""
        return Interrupted, (self.signum, self.step)


class Interruption:
    """Notes signals while a run goes on, so that it stops between two steps; a context manager.

    With several processes JAX's preemption service takes SIGTERM instead, and makes all of them
    stop at the same step; SIGINT then ends the process at once. A second signal does so in any
    case.
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
        """Remembers the signal, and lets a second one act as usual."""
        self._signum = number
        signal.signal(number, self._previous[number])

    def reached(self, step: int) -> int | None:
        """The number of the signal that asks to stop after `step`, or None."""
        if jax.process_count() > 1 and multihost_utils.reached_preemption_sync_point(step):
            return signal.SIGTERM
        return self._signum
