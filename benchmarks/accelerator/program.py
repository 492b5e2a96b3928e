"""The program: parts of cases, each part within a budget of seconds.

A case is a function that returns rows. A part whose next case would exceed what is left of the
time is cut short, and the page names the cases that it left out. What a part does not use, the
following ones may. A case that fails is reported in one line, and the next one runs. The files are
written after every case, so that a call that is ended from outside leaves what it measured. A case
that hangs, in the compiler or on the device, cannot be left: when the time of the whole call is
over, the files are written and the process ends.
"""

import argparse
import contextlib
import dataclasses
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from benchmarks.report import Row

# Seconds of a whole call. Small cases take less than two minutes where nothing else runs; they are
# for tests, on busy machines too, where none is to be left out.
TOTAL, SMALL_TOTAL = 480, 600
PARTS = 0.94  # the share of the parts; imports, and the writing of files, have the rest


@dataclasses.dataclass(frozen=True)
class Case:
    """A name, and what measures it."""

    name: str
    run: Callable[[], Iterable[Row]]


@dataclasses.dataclass
class Part:
    """What a part is to do, and what came of it."""

    name: str
    budget: float  # seconds
    cases: Sequence[Case]
    rows: list[Row] = dataclasses.field(default_factory=list)
    seconds: float = 0.0
    state: str = "not begun"
    left_out: list[str] = dataclasses.field(default_factory=list)
    failed: dict[str, str] = dataclasses.field(default_factory=dict)
    current: str = ""  # the case that runs

    def run(self, allowed: float, tell: Callable[["Part"], None]) -> None:
        """Runs the cases within `allowed` seconds, as far as earlier ones tell what they take.

        The first case runs in any case: no part comes out empty because of those before it.

        Args:
            allowed: seconds, the budget and what earlier parts left of theirs.
            tell: is called after every case.
        """
        started, last = time.perf_counter(), 0.0
        self.state = "running"
        for case in self.cases:
            before = time.perf_counter() - started
            # A case takes about as long as the one before it.
            if case is not self.cases[0] and before + last >= allowed:
                self.left_out.append(case.name)
                continue
            self._measure(case)
            self.seconds = time.perf_counter() - started
            last = self.seconds - before
            tell(self)
        self.state = "shortened" if self.left_out else "complete"
        tell(self)

    def _measure(self, case: Case) -> None:
        self.current = case.name
        try:
            for row in case.run():
                self.rows.append(row)
        except Exception as error:  # whatever it is: the other cases are worth more
            first = (str(error).strip() or "no message").splitlines()[0]
            self.failed[case.name] = f"{type(error).__name__}: {first[:200]}"


def main(arguments: list[str] | None = None) -> int:
    """Runs all parts, writes their files, and returns 1 if a case failed."""
    started = time.perf_counter()
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks accelerator",
        description="Measures everything on this machine's accelerator within eight minutes.",
    )
    parser.add_argument(
        "--output", type=Path, default=Path("runs/accelerator"), help="folder (%(default)s)"
    )
    parser.add_argument("--small", action="store_true", help="small sizes, for a CPU")
    parser.add_argument(
        "--seconds", type=float, help=f"of the whole call ({TOTAL}; {SMALL_TOTAL} with --small)"
    )
    parser.add_argument(
        "--choose",
        metavar="RESULT",
        help="measure nothing: fill the engine's table of choices by the times of an "
        "accelerator.json, or by the model's predictions (model)",
    )
    options = parser.parse_args(arguments)
    if options.choose:
        return _choose(parser, options.choose)
    seconds = options.seconds
    if seconds is None:
        seconds = SMALL_TOTAL if options.small else TOTAL
    if seconds <= 0:
        parser.error(f"--seconds must be above 0; got {seconds:g}")
    # PyTorch and the processes that are killed share the card's memory with this one.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    todo = parts(small=options.small, seconds=PARTS * seconds)
    with _ended_after(seconds - (time.perf_counter() - started), todo, options.output):
        return run(todo, options.output)


def _choose(parser: argparse.ArgumentParser, source: str) -> int:
    """Fills the table of choices."""
    from benchmarks.accelerator import choosing

    try:
        count = choosing.choose(source)
    except (OSError, ValueError, KeyError) as error:
        parser.error(f"--choose: {error}")
    print(f"{count} rows by {source}: see rfjax/_engine/choices.py")
    return 0


def parts(*, small: bool, seconds: float) -> list[Part]:
    """All parts; their budgets are shares of the whole time, where they are not small."""
    from benchmarks.accelerator import correctness, networks, operations, resuming

    shares: list[tuple[str, float, Callable[..., Sequence[Case]]]] = [
        ("operations", 0.25, operations.cases),
        ("correctness", 0.2, correctness.cases),
        ("resuming", 0.15, resuming.cases),
        ("search", 0.1, networks.searches),
        ("networks", 0.3, networks.steps),
    ]
    return [
        Part(name, seconds * (1.0 if small else share), cases(small=small))
        for name, share, cases in shares
    ]


@contextlib.contextmanager
def _ended_after(seconds: float, todo: list[Part], folder: Path) -> Iterator[None]:
    """Ends the process when the seconds are over, with its files written."""

    def end() -> None:
        give_up(todo, folder)
        os._exit(1)  # what hangs in the compiler or on the device hears of nothing else

    timer = threading.Timer(max(seconds, 0.0), end)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def give_up(todo: list[Part], folder: Path) -> None:
    """Writes the files of a call whose time is over; the case that ran counts as failed."""
    from benchmarks.accelerator import page

    for part in todo:
        if part.state == "running":
            part.state = "given up"
            part.failed[part.current] = "TimeoutError: the time of the whole call was over"
            print(page.outcome(part), flush=True)
    page.write(todo, folder)


def run(todo: list[Part], folder: Path) -> int:
    """Runs parts one after the other and writes the files as they grow."""
    from benchmarks import report
    from benchmarks.accelerator import page

    shown = 0

    def tell(part: Part) -> None:
        nonlocal shown
        for row in part.rows[shown:]:
            print(report.line(row), flush=True)
        shown = len(part.rows)
        page.write(todo, folder)

    spare = 0.0
    for part in todo:
        print(f"{part.name}:", flush=True)
        shown, allowed = 0, part.budget + spare
        part.run(allowed, tell)
        spare = allowed - part.seconds
        print(page.outcome(part), flush=True)
    print(f"see {folder}/accelerator.md")
    return int(any(part.failed for part in todo))


def case(name: str, function: Callable[..., Iterable[Row]], *args: Any, **options: Any) -> Case:
    """The case of a function of these arguments."""
    return Case(name, partial(function, *args, **options))
