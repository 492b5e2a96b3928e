"""Command lines of programs that are described by config files."""

import sys
import traceback

from absl import flags

from rfjax._faults import Fault, reason


def parse(program: str, argv: list[str]) -> list[str]:
    """The arguments that are no flags; a wrong flag ends the program with one line."""
    try:
        return flags.FLAGS(argv)
    except flags.Error as error:
        # Of a fault that a config file found the message holds the whole traceback.
        message = str(error).split("ConfigError: ")[-1]
    except (AttributeError, KeyError) as error:
        message = _unknown_key(error)
    except Exception as error:  # a config file is a program, which may fail in any way
        message = _inside(error)
    sys.exit(f"{program}: error: {reason(Fault(message))}")


def _unknown_key(error: Exception) -> str:
    """The words for a key that the config does not have; those errors quote each other."""
    while isinstance(error, (AttributeError, KeyError)) and error.args:
        error = error.args[0]
    return f"the config has no key {str(error).splitlines()[0] if str(error) else error}"


def _inside(error: Exception) -> str:
    """The words for a fault inside a config file, with the line that it happened at."""
    if isinstance(error, SyntaxError):
        place, line = error.filename, error.lineno
    else:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place, line = last.filename, last.lineno
    where = "" if isinstance(error, OSError) else f" at {place}:{line}"
    return f"--config: {reason(error)} ({type(error).__name__}{where})"


def no_arguments(argv: list[str]) -> None:
    """Raises a `Fault` if there are arguments beside the program's name."""
    if len(argv) > 1:
        given = " ".join(argv[1:])
        raise Fault(f"unexpected arguments {given}; flags have the form --name=value")
