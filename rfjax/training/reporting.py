"""What a run tells: a bar or lines, metrics.jsonl, TensorBoard, pictures.

The loop pushes the metrics of a step as soon as the step is dispatched; they are fetched one step
later, when the next is on its way, so that no device waits for the host. Process 0 alone writes.
"""

import dataclasses
import errno
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import nullcontext, suppress
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax._faults import Fault
from rfjax._files import naming, plain, write_text
from rfjax._files import write_json as write_json
from rfjax._progress import Bar, Lines, Silent
from rfjax.tasks import Task
from rfjax.tasks.metrics import widened
from rfjax.training.board import Board

METRICS_FILE = "metrics.jsonl"
WORTH_TELLING = 0.02  # the share of the time that a run may wait for data before a line says so


class NonFiniteLoss(Fault, RuntimeError):
    """The loss became NaN or infinite; the message names the step."""


# -- files -----------------------------------------------------------------------------------------


def read_records(workdir: str | Path) -> list[dict[str, Any]]:
    """The records in a run's metrics.jsonl, [] without one; what is no record is left out."""
    path = Path(workdir) / METRICS_FILE
    if not path.exists():
        return []
    lines = path.read_text(errors="replace").splitlines()
    return [record for record in map(_record, lines) if record is not None]


def _record(line: str) -> dict[str, Any] | None:
    """What a line holds; None for one that a kill has torn or a disk has damaged."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError:
        return None
    whole = isinstance(record, dict) and isinstance(record.get("step"), int) and "split" in record
    return record if whole else None


class MetricsFile:
    """metrics.jsonl, one JSON object a line with "step" and "split"; undefined numbers are null.

    Lines after `start` come from steps that a kill has undone, and are dropped.
    """

    def __init__(self, workdir: Path, *, start: int):
        self._path = workdir / METRICS_FILE
        kept = [record for record in read_records(workdir) if record["step"] <= start]
        write_text(self._path, "".join(json.dumps(record) + "\n" for record in kept))
        self._file = self._path.open("a")

    def write(self, record: dict[str, Any]) -> None:
        """Appends one line.

        Raises:
            OSError: it cannot be written, or the file was deleted, and with it probably the run.
        """
        with naming(self._path):
            self._file.write(json.dumps(plain(record)) + "\n")
            self._file.flush()
            if not os.fstat(self._file.fileno()).st_nlink:
                raise OSError(errno.ENOENT, os.strerror(errno.ENOENT))

    def close(self) -> None:
        """Closes the file, whose lines are on their way already."""
        with suppress(OSError):  # of a line that could not be written: it was told then
            self._file.close()


# -- terminal --------------------------------------------------------------------------------------


def sigma_text(sigmas: dict[str, Iterable[float]]) -> str:
    """The standard deviations of all layers in a few words, "" without any.

    Example:
        >>> sigma_text({"head/conv": [1.5, 1.5], "head/dog/center": [0.5, 0.25]})
        'sigma conv 1.50, center 0.50/0.25'
    """
    words = []
    for layer, (y, x) in sigmas.items():
        same = math.isclose(y, x, rel_tol=1e-3)
        words.append(
            f"{layer.split('/')[-1]} {y:.2f}" if same else f"{layer.split('/')[-1]} {y:.2f}/{x:.2f}"
        )
    shown = words if len(words) <= 4 else [*words[:3], f"… {len(words) - 3} more"]
    return "sigma " + ", ".join(shown) if words else ""


# -- the reporter ----------------------------------------------------------------------------------


@dataclasses.dataclass
class _Interval:
    """What was measured since the last line."""

    steps: int = 0
    loss: float = 0.0
    measures: Any = None
    grad_norm: float = 0.0
    waited: float = 0.0  # seconds in which the loop had no batch, while the clock ran


class Clock:
    """Seconds spent on training steps: it stands still in compilation, evaluation and saving."""

    def __init__(self) -> None:
        self._started: float | None = None
        self.seconds = 0.0

    @property
    def running(self) -> bool:
        """Whether it counts now."""
        return self._started is not None

    def start(self) -> None:
        """Runs, unless it runs already."""
        self._started = self._started or time.perf_counter()

    def stop(self) -> None:
        """Stands still."""
        if self.running:
            self.seconds += time.perf_counter() - self._started
        self._started = None

    def lap(self) -> float:
        """The seconds since the last lap; it runs on if it ran."""
        running = self.running
        self.stop()
        seconds, self.seconds = self.seconds, 0.0
        if running:
            self.start()
        return seconds


class Reporter:
    """Collects the metrics of steps and evaluations and tells them; a context manager.

    Args:
        workdir: the run's directory.
        task: what is learned, which says what of its scores is told.
        start: the step that the run stands at.
        steps, batch_size, log_every, steps_per_call: as in the config.
        schedule: the learning rate as a function of the step.
        writes: whether this process tells anything.
    """

    def __init__(
        self,
        workdir: Path,
        task: Task,
        *,
        start: int,
        steps: int,
        batch_size: int,
        log_every: int,
        schedule: Callable[[int], jax.Array],
        steps_per_call: int = 1,
        writes: bool = True,
    ):
        self._steps, self._batch_size, self._log_every = steps, batch_size, log_every
        self._per_call = steps_per_call
        self._task, self._schedule = task, schedule
        self._pending: tuple[int, dict] | None = None
        self._interval, self._clock, self._timed = _Interval(), Clock(), 0
        display = (Bar if sys.stderr.isatty() else Lines) if writes else Silent
        self._display = display(start, steps)
        self._file = MetricsFile(workdir, start=start) if writes else None
        self._board = Board(workdir, start=start) if writes else None

    def __enter__(self) -> "Reporter":
        return self

    def __exit__(self, kind: Any, *error: Any) -> None:
        self._display.close()
        if self._file:
            self._file.close()
            with suppress(OSError) if kind else nullcontext():  # one error ends a run, not two
                self._board.close()

    def say(self, text: str) -> None:
        """Tells a person something."""
        self._display.say(text)

    def push(self, step: int, metrics: dict[str, Any], *, waited: float = 0.0) -> None:
        """Takes the metrics of a dispatched call, and tells those of the call before.

        Args:
            step: the number of its step, or the last of its steps.
            metrics: what it returned, not looked at yet; of several steps, all of them stacked.
            waited: seconds for which its batches kept the loop waiting.

        Raises:
            NonFiniteLoss: if a loss of the call before is not finite.
        """
        if self._clock.running:  # which is when the wait is a part of its seconds
            self._interval.waited += waited
        previous, self._pending = self._pending, (step, metrics)
        if previous is not None:
            self._collect(*previous)

    def flush(self) -> None:
        """Waits for the last dispatched call and stops the clock, before something else is done.

        Raises:
            NonFiniteLoss: if its loss is not finite.
        """
        previous, self._pending = self._pending, None
        if previous is not None:
            self._collect(*previous)
        self._clock.stop()

    def _collect(self, step: int, metrics: dict[str, Any]) -> None:
        """Fetches and adds up the metrics of one call, whose last step it is."""
        count, metrics = self._per_call, jax.device_get(metrics)
        for number in range(count):
            own = metrics if count == 1 else jax.tree.map(lambda leaf, n=number: leaf[n], metrics)
            self._add(step - count + 1 + number, own)
        self._timed += count * self._clock.running  # not the first call, which compiles
        if self._pending is not None:
            self._clock.start()
        if step % self._log_every == 0 or step == self._steps:
            self._tell(step, own["sigmas"], own.get("numbers", {}))

    def _add(self, step: int, metrics: dict[str, Any]) -> None:
        """Adds up the metrics of one step."""
        if not np.isfinite(metrics["loss"]):
            raise NonFiniteLoss(f"the loss is {metrics['loss']} at step {step}")
        interval = self._interval
        interval.steps += 1
        interval.loss += float(metrics["loss"])
        found = jax.tree.map(widened, metrics["measures"])
        before = interval.measures
        interval.measures = found if before is None else jax.tree.map(np.add, before, found)
        interval.grad_norm = float(metrics["grad_norm"])
        self._display.advance()

    def _tell(
        self, step: int, sigmas: dict[str, np.ndarray], numbers: dict[str, np.ndarray]
    ) -> None:
        """Writes the numbers of the interval that ends at `step`."""
        interval, self._interval = self._interval, _Interval()
        timed, self._timed = self._timed, 0
        seconds = max(self._clock.lap(), 1e-9) if timed else float("nan")
        speed = timed * self._batch_size / seconds
        scores = self._task.summarize(interval.measures)
        record = {
            "step": step,
            "split": "train",
            "loss": interval.loss / interval.steps,
            **{name: scores[name] for name in self._task.followed},
            "learning_rate": float(self._schedule(step - 1)),
            "grad_norm": interval.grad_norm,
            "images_per_second": speed,
            "data_wait": interval.waited / seconds,
            "sigmas": {layer: value.tolist() for layer, value in sigmas.items()},
            **{path: float(value) for path, value in numbers.items()},
        }
        self._record(record)
        remaining = (self._steps - step) * self._batch_size / speed
        self._display.status(step, _words(record, self._task), remaining)

    def evaluation(self, step: int, scores: dict[str, Any], *, split: str, seconds: float) -> None:
        """Tells the scores of an evaluation."""
        self._record({"step": step, "split": split, **scores, "seconds": seconds})
        if not self._task.is_scored(scores):
            self.say(f"step {step} {split}: nothing was scored, since every label is void")
            return
        self.say(
            f"step {step} {split}: {self._task.describe(scores)}  loss {scores['loss']:.4f}  "
            f"({seconds:.1f} s)"
        )

    def picture(self, step: int, name: str, rgb: np.ndarray) -> None:
        """Shows a picture [H, W, 3] uint8 in TensorBoard."""
        if self._board:
            self._board.image(name, rgb, step)

    def _record(self, record: dict[str, Any]) -> None:
        """One line in metrics.jsonl, and its scalars in TensorBoard."""
        if not self._file:
            return
        self._file.write(record)
        step, split = record["step"], record["split"]
        for key, value in record.items():
            if isinstance(value, float) and math.isfinite(value):
                self._board.scalar(f"{split}/{key}", value, step)
        for layer, (y, x) in record.get("sigmas", {}).items():
            self._board.scalar(f"sigma/{layer}/y", y, step)
            self._board.scalar(f"sigma/{layer}/x", x, step)


def _words(record: dict[str, Any], task: Task) -> list[str]:
    """The numbers of a training record that a person follows."""
    words = [f"loss {record['loss']:.4f}"]
    if task.score in record:
        words.append(task.brief(record[task.score]))
    if math.isfinite(record["images_per_second"]):
        words.append(f"{record['images_per_second']:.0f} images/s")
    if record["data_wait"] > WORTH_TELLING:
        words.append(f"data wait {100 * record['data_wait']:.0f} %")
    sigma = sigma_text(record["sigmas"])
    return [*words, sigma] if sigma else words
