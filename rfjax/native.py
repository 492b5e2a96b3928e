"""Builds kernels in C++ that make blurs and reads faster on this machine's CPU.

    python -m rfjax.native
    python -m rfjax.native --compiler=clang++

Wants a compiler of C++17, GCC or Clang, and nothing else. What is built lies in the user's cache,
and programs that are started from then on use it; RFJAX_NATIVE=0 in their environment turns it off.
After an update of rfjax or JAX it is built again by the same command, until when programs do
without.
"""

import argparse
import os
import platform
import shlex
import shutil
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from rfjax._console import Parser, guarded
from rfjax._faults import Fault

# Whatever the processor knows, which ARM's compilers call by another name: the library is for this
# machine alone.
_NATIVE = "-mcpu=native" if platform.machine() in ("arm64", "aarch64") else "-march=native"
_FLAGS = ("-O3", _NATIVE, "-std=c++17", "-fPIC", "-Wno-attributes")
_COMPILERS = ("c++", "g++", "clang++")


class BuildError(Fault, RuntimeError):
    """The kernels could not be built; the message says why."""


def is_built() -> bool:
    """Whether the kernels of this version were built for this machine.

    Example:
      >>> is_built() in (True, False)
      True
    """
    from rfjax._engine import native

    return native.place().exists()


def build(compiler: str | None = None) -> Path:
    """Builds the kernels; programs that are started afterwards use them.

    Args:
      compiler: GCC or Clang, with options if any; the first of c++, g++ and clang++ if None.

    Returns:
      The library that was written.

    Raises:
      BuildError: there is no compiler, or it fails; the message holds what it says first.
    """
    import jax

    from rfjax._engine import native

    command = shlex.split(compiler or _found())
    target = native.place()
    target.parent.mkdir(parents=True, exist_ok=True)
    sources = sorted(native.SOURCES.glob("*.cc"))
    compiled = [*command, *_FLAGS, f"-isystem{jax.ffi.include_dir()}", "-c"]
    # Under another name until it is whole: others may build and load at the same time.
    with tempfile.TemporaryDirectory(dir=target.parent) as folder:
        written = Path(folder, target.name)
        objects = [str(Path(folder, f"{source.stem}.o")) for source in sources]
        with ThreadPoolExecutor(os.cpu_count()) as threads:
            each = zip(sources, objects, strict=True)
            waiting = [threads.submit(_run_compiler, [*compiled, str(a), "-o", b]) for a, b in each]
            for one in waiting:
                one.result()
        _run_compiler([*command, "-shared", *objects, "-o", str(written)])
        os.replace(written, target)
    return target


def _run_compiler(words: list[str]) -> None:
    """Runs a compiler, whose first words about an error become those of a `BuildError`."""
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except OSError as error:
        raise BuildError(f"{words[0]}: {error.strerror}; --compiler names another") from error
    if done.returncode:
        lines = (line.strip() for line in done.stderr.splitlines())
        said = next((line for line in lines if "error" in line.lower()), "it failed")
        raise BuildError(f"{words[0]}: {said}")


def _found() -> str:
    """The first compiler that is installed."""
    for name in _COMPILERS:
        if shutil.which(name):
            return name
    raise BuildError(f"none of {', '.join(_COMPILERS)} is installed; --compiler names another")


def main() -> int:
    """The program."""
    return guarded("rfjax.native", lambda: _run(_parser().parse_args()))


def _parser() -> argparse.ArgumentParser:
    """The command line."""
    parser = Parser(
        prog="rfjax.native",
        description="Builds kernels in C++ that make blurs and reads faster on this machine's CPU.",
    )
    parser.add_argument("--compiler", help=f"the first of {', '.join(_COMPILERS)} by default")
    return parser


def _run(options: argparse.Namespace) -> int:
    """Builds, and says where."""
    print(f"written: {build(options.compiler)}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
