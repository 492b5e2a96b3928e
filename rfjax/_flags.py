"""Command lines of programs that are described by config files."""

import sys

from absl import flags


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
    sys.exit(f"{program}: error: {message.strip()}")
