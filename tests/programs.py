"""Runs command lines of the programs, each in a fork of a process that has imported libraries."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]

# Reads command lines, and writes status and words of each as a line of Python. Its arguments: what
# is imported first, without starting a thread, and whether the words are those of errors alone.
_RUNNER = """
import os, runpy, sys
imports, errors_alone = sys.argv[1:]
exec(imports)
had_jax = "jax" in sys.modules
for line in sys.stdin.read().splitlines():
    read, write = os.pipe()
    if child := os.fork():
        os.close(write)
        with os.fdopen(read) as said:
            text = said.read()
        _, status = os.waitpid(child, 0)
        print(repr((os.waitstatus_to_exitcode(status), text)), flush=True)
        continue
    os.dup2(os.open(os.devnull, os.O_WRONLY) if errors_alone == "yes" else write, 1)
    os.dup2(write, 2)
    program, *arguments = line.split()
    sys.argv = [program, *arguments]
    try:
        if program.endswith(".py"):
            runpy.run_path(program, run_name="__main__")
        else:
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        if "jax" in sys.modules and not had_jax:
            print("JAX was imported")
"""


def run(
    lines: Iterable[str],
    root: Path,
    *,
    imports: str,
    errors_alone: bool = False,
    timeout: int = 600,
) -> list[tuple[int, str]]:
    """The status and the words of each command line.

    Args:
        lines: a script of the project or a module, and its arguments, without spaces of their own;
            "W" stands for `root`.
        root: a folder.
        imports: statements that the process begins with. If they do not import JAX, and a program
            does, it is said after its words.
        errors_alone: what is printed, and no error, is left out.
        timeout: in seconds, of all together.
    """
    given = "\n".join(lines).replace("W/", f"{root}/").replace("=W", f"={root}")
    ran = subprocess.run(
        [sys.executable, "-c", _RUNNER, imports, "yes" if errors_alone else "no"],
        input=given,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=timeout,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
    )
    assert ran.returncode == 0, ran.stderr
    told = [ast.literal_eval(line) for line in ran.stdout.splitlines()]
    return [(status, said.replace(str(root), "W")) for status, said in told]
