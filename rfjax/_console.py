"""What the programs have in common: lines on standard error, and exit statuses."""

import argparse
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from rfjax._faults import Fault, Interrupted, reason


def tell(text: str) -> None:
    """One line on standard error."""
    print(text, file=sys.stderr, flush=True)


def called(program: str) -> str:
    """The program's name as it was called: of an installed command rfjax-…, else `program`."""
    name = Path(sys.argv[0]).stem
    return name if name.startswith("rfjax-") else program


def _unraisable(args: Any) -> None:
    """Says what went wrong where nobody could be told, but for what was told already.

    After an error in saving, TensorStore's other threads report to an event loop that is closed.
    """
    if "Event loop is closed" not in str(args.exc_value):
        sys.__unraisablehook__(args)


def guarded(program: str, action: Callable[[], int]) -> int:
    """Runs `action`, the program's work, and returns the exit status.

    That is what `action` returns; 1 after an error that a person can mend, which is told in one
    line; 128 + the number of the signal where a run was asked to stop and has saved its state, and
    130 where Ctrl-C came at a time when there was nothing to save.
    """
    sys.unraisablehook = _unraisable
    program = called(program)
    try:
        return action()
    except Interrupted as stopped:
        for number in (signal.SIGTERM, signal.SIGINT):  # nothing is left to save
            signal.signal(number, signal.SIG_IGN)
        tell(f"{program}: {stopped}")
        return 128 + stopped.signum
    except KeyboardInterrupt:
        tell(f"{program}: stopped; the same command goes on")
        return 130
    except MemoryError as error:
        tell(f"{program}: error: not enough memory: {reason(error)}")
    except (Fault, OSError) as error:
        tell(f"{program}: error: {reason(error)}")
    return 1


class Parser(argparse.ArgumentParser):
    """A command line whose mistakes are one line.

    Args:
        prog: the program's name, where no installed command was called; that of a command within a
            program goes on from the program's, as argparse makes it.
    """

    def __init__(self, *, prog: str, **options: Any):
        name = called(prog)
        super().__init__(prog=prog if prog.startswith(f"{name} ") else name, **options)

    def error(self, message: str) -> NoReturn:
        """Ends the program with status 2."""
        tell(f"{self.prog}: error: {message}; --help tells all options")
        raise SystemExit(2)


def positive(text: str) -> int:
    """The whole number of at least 1 that an argument is."""
    try:
        number = int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"must be a whole number; got {text!r}") from None
    if number < 1:
        raise argparse.ArgumentTypeError(f"must be at least 1; got {number}")
    return number
