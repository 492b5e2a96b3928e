"""Command lines of programs that are described by config files."""

import sys
import traceback

from absl import flags

from rfjax._faults import Fault, reason

# How ml_collections begins what the system said about a config file.
_PREFIX = "Configuration is not available because of an earlier failure to load: "


def parse(program: str, argv: list[str]) -> list[str]:
    """The arguments that are no flags; a wrong flag ends the program with one line."""
    try:
        rest = flags.FLAGS(argv)
        # A missing file is told when a key is asked for.
        _ = flags.FLAGS["config"].value.to_dict  # pyright: ignore[reportOptionalMemberAccess]
        return rest
    except flags.Error as error:
        # Of a fault that a config file found the message holds the whole traceback.
        message = str(error).split("ConfigError: ")[-1]
    except (AttributeError, KeyError) as error:
        message = _unknown_key(error)
    except Exception as error:  # a config file is a program, which may fail in any way
        words = reason(error).removeprefix(_PREFIX)
        message = f"{_given(argv)}: {words}{_place(error)}"
    sys.exit(f"{program}: error: {reason(Fault(message))}")


def _unknown_key(error: Exception) -> str:
    """The words for a key that the config does not have; those errors quote each other."""
    if "get_config" in str(error):
        return "the config file has no function get_config"
    while isinstance(error, (AttributeError, KeyError)) and error.args:
        error = error.args[0]
    return f"the config has no key {str(error).splitlines()[0]}"


def _given(argv: list[str]) -> str:
    """The argument that names the config file."""
    return next((word for word in argv if word.lstrip("-").startswith("config=")), "--config")


def _place(error: Exception) -> str:
    """The kind of a fault inside a config file, and the line that it happened at."""
    if isinstance(error, (OSError, ValueError)):
        return ""  # of the name of the file, or of what the config file checked itself
    last = traceback.extract_tb(error.__traceback__)[-1]
    syntax = isinstance(error, SyntaxError)
    file, line = (error.filename, error.lineno) if syntax else (last.filename, last.lineno)
    return f" ({type(error).__name__} at {file}:{line})"


def no_arguments(argv: list[str]) -> None:
    """Raises a `Fault` if there are arguments beside the program's name."""
    if len(argv) > 1:
        given = " ".join(argv[1:])
        raise Fault(f"unexpected arguments {given}; flags have the form --name=value")
