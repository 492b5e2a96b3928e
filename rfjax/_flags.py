"""Command lines of programs that are described by config files."""

import sys

from absl import flags

from rfjax._faults import Fault


def parse(program: str, argv: list[str]) -> list[str]:
    """The arguments that are no flags; a wrong flag ends the program with a message."""
    try:
        return flags.FLAGS(argv)
    except AttributeError as error:  # from a key that the config does not have
        cause = error.args[0]
        message = f"the config has no key {cause.args[0] if isinstance(cause, KeyError) else cause}"
    except flags.Error as error:
        # Of an error inside a config file the message holds the whole traceback.
        message = str(error).split("ConfigError: ")[-1]
    sys.exit(f"{program}: error: {reason(Fault(message))}")


def no_arguments(argv: list[str]) -> None:
    """Raises a `Fault` if there are arguments beside the program's name."""
    if len(argv) > 1:
        given = " ".join(argv[1:])
        raise Fault(f"unexpected arguments {given}; flags have the form --name=value")
