"""Command lines of programs that are described by config files."""

import re
import sys
import traceback
from collections.abc import Callable
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from rfjax._console import called, guarded
from rfjax._faults import ConfigError, Fault, reason

# How ml_collections begins what the system said about a config file.
_PREFIX = "Configuration is not available because of an earlier failure to load: "

_PACKAGE = Path(__file__).parent
_CONFIG = ("--config", "-config")


class Flags(NamedTuple):
    """The flags of every program with a config; `.value` of each, once they are parsed."""

    config: flags.FlagHolder
    workdir: flags.FlagHolder
    cache: flags.FlagHolder


def define(what: str, *, config: str, workdir: str) -> Flags:
    """Defines --config, --workdir and --compilation_cache, of which the first two are needed.

    Args:
        what: the program makes, as "run".
        config, workdir: examples of values.
    """
    found = Flags(
        config_flags.DEFINE_config_file(
            "config",
            None,
            f"The {what}: a file, or a name, such as {config}, with a variant after a colon if it "
            f"has any. Names are {', '.join(configs())}.",
            lock_config=True,
        ),
        flags.DEFINE_string(
            "workdir", None, f"The {what}'s directory, on a disk that all processes share."
        ),
        flags.DEFINE_string(
            "compilation_cache",
            None,
            "Where compiled programs are kept; the user's cache unless told, empty for nowhere.",
        ),
    )
    flags.register_validator(
        "config", lambda value: value is not None, message=f"needed, as --config={config}"
    )
    flags.register_validator("workdir", bool, message=f"needed, as --workdir={workdir}")
    return found


def run(program: str, action: Callable[[], int]) -> None:
    """Parses the flags, runs `action`, and ends the program with its exit status."""

    program, module = called(program), action.__module__

    def main(argv: list[str]) -> int:
        logging.set_verbosity(logging.WARNING)  # JAX and orbax tell every detail below that
        return guarded(program, partial(_without_arguments, argv, action))

    sys.modules["__main__"].__doc__ = sys.modules[module].__doc__  # what --help shows, and these:
    for owner in (__name__, module):
        for flag in flags.FLAGS.get_flags_for_module(owner):
            flags.FLAGS.register_key_flag_for_module(sys.argv[0], flag)
    app.run(main, flags_parser=partial(parse, program))


def configs() -> dict[str, Path]:
    """By name, the config files of rfjax, within the package or, in a checkout, beside it."""
    installed = _PACKAGE / "configs"
    folder = installed if installed.is_dir() else _PACKAGE.parent / "configs"
    return {path.stem: path for path in sorted(folder.glob("*.py"))}


def located(argv: list[str]) -> list[str]:
    """The arguments, in which the name of a config has become its file."""
    found = []
    for before, word in zip(("", *argv), argv, strict=False):
        flag, equals, value = ("", "", word) if before in _CONFIG else word.partition("=")
        found.append(f"{flag}{equals}{_file(value)}" if (flag or before) in _CONFIG else word)
    return found


def _file(value: str) -> str:
    """The file of a config and its variant, by its name if rfjax brings it."""
    name, colon, variant = value.partition(":")
    if not re.fullmatch(r"\w+", name) or Path(name).is_file():
        return value
    known = configs()
    if name not in known:
        raise ConfigError(f"{name!r} is no file, and none of rfjax's configs {', '.join(known)}")
    return f"{known[name]}{colon}{variant}"


def _without_arguments(argv: list[str], action: Callable[[], int]) -> int:
    """Runs `action` unless there are arguments beside the program's name."""
    if len(argv) > 1:
        given = " ".join(argv[1:])
        raise Fault(f"unexpected arguments {given}; flags have the form --name=value")
    return action()


def parse(program: str, argv: list[str]) -> list[str]:
    """The arguments that are no flags; a wrong flag ends the program with one line."""
    try:
        rest = flags.FLAGS(located(argv))
        # A missing file is told when a key is asked for.
        _ = flags.FLAGS["config"].value.to_dict  # pyright: ignore[reportOptionalMemberAccess]
        return rest
    except flags.Error as error:
        # Of a fault that a config file found the message holds the whole traceback.
        message = str(error).split("ConfigError: ")[-1]
    except (AttributeError, KeyError) as error:
        message = _missing_key(argv) or _unknown_key(error)
    except Exception as error:  # a config file is a program, which may fail in any way
        words = reason(error).removeprefix(_PREFIX)
        missing = _missing_key(argv)
        message = missing or f"{_given(argv)}: {words}{_place(error)}"
    sys.exit(f"{program}: error: {reason(Fault(message))}")


def _missing_key(argv: list[str]) -> str | None:
    """The words for the first key on the command line that the config does not have, if any."""
    try:  # as the file has it, without what the command line changes
        parser: Any = flags.FLAGS["config"].parser
        loaded = parser.parse(_config_file(located(argv)))
    except Exception:  # of the file itself, which is told otherwise
        return None
    for word in argv:
        flag, *keys = word.lstrip("-").partition("=")[0].split(".")
        node: Any = loaded
        for depth, key in enumerate(keys if flag == "config" else []):
            names, key = list(node) if isinstance(node, ConfigDict) else [], key.partition("[")[0]
            if key not in names:
                near = get_close_matches(key, names, 1)
                meant = f"; did you mean {'.'.join([*keys[:depth], *near])!r}?" if near else ""
                return f"the config has no key {'.'.join(keys[: depth + 1])!r}{meant}"
            node = node[key]
    return None


def _config_file(argv: list[str]) -> str:
    """The value of --config."""
    for before, word in zip(("", *argv), argv, strict=False):
        flag, equals, value = word.partition("=")
        if flag in _CONFIG and equals:
            return value
        if before in _CONFIG:
            return word
    return ""


def _unknown_key(error: Exception) -> str:
    """The words for a key that a config file itself asks for; those errors quote each other."""
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
