"""The errors that a person can mend, which end a program with one line."""

import errno
import os

# What a library's message holds where the system refused to write; it may be pages long.
_KNOWN = (
    errno.ENOSPC,
    errno.EDQUOT,
    errno.EROFS,
    errno.EFBIG,
    errno.EACCES,
    errno.EIO,
    errno.ENOENT,
)
_LONGEST = 300  # characters of a message of another library


class Fault(Exception):
    """An error of what was given or of the machine, not of the program.

    Its message is one line that says what is wrong and what to do.
    """


class ConfigError(Fault, ValueError):
    """A config that cannot be run; the message says which key, and what is wanted."""


class CheckpointError(Fault, RuntimeError):
    """A checkpoint that is not there or does not fit; the message says what to do."""


class Interrupted(Exception):
    """A run was asked to stop, and has saved its state.

    Attributes:
        signum: the signal's number; the customary exit status is 128 + signum.
        step: the step that is saved.
    """

    def __init__(self, signum: int, step: int):
        import signal

        super().__init__(
            f"stopped by {signal.Signals(signum).name} at step {step}, which is saved; "
            "the same command goes on from there"
        )
        self.signum, self.step = signum, step

    def __reduce__(self) -> tuple:
        """How it is passed between processes."""
        return Interrupted, (self.signum, self.step)


def reason(error: BaseException) -> str:
    """What went wrong, in one line and without the details of a library.

    Example:
        >>> reason(OSError(28, "No space left on device", "runs/first/metrics.jsonl"))
        'runs/first/metrics.jsonl: No space left on device'
        >>> reason(ValueError("RESOURCE_EXHAUSTED: write: No space left on device\\n[in file ...]"))
        'No space left on device'
    """
    if isinstance(error, OSError) and error.strerror:
        paths = [str(path) for path in (error.filename, error.filename2) if path is not None]
        return f"{' -> '.join(paths)}: {error.strerror}" if paths else error.strerror
    text = str(error).strip()
    for number in _KNOWN:
        if os.strerror(number) in text and not isinstance(error, Fault):
            return os.strerror(number)
    line = "; ".join(filter(None, map(str.strip, text.splitlines())))
    if not isinstance(error, Fault) and len(line) > _LONGEST:
        line = f"{line[:_LONGEST]} …"
    return line or type(error).__name__
