"""Searches receptive fields, and enumerates them to compare.

    python -m rfjax.search --config=search --workdir=runs/search

Goes on where `workdir` stands; ends with 0 when the study is complete, with 1 when it failed, and
with 128 + signal when it was asked to stop and has saved its state. Writes result.json, report.md
and figures/.
"""

from functools import partial
from pathlib import Path

from rfjax import _flags
from rfjax._lock import held
from rfjax.studies.search import config as configs

_FLAGS = _flags.define("study", config="search", workdir="runs/search")


def _search() -> int:
    """Checks what was given, and searches; JAX, which takes seconds, is imported in between."""
    workdir = Path(_FLAGS.workdir.value)
    configs.validate(_FLAGS.config.value)
    workdir.mkdir(parents=True, exist_ok=True)
    with held(workdir):
        configs.check_same(_FLAGS.config.value, workdir)
        from rfjax import training

        if _FLAGS.cache.value != "":
            training.use_compilation_cache(_FLAGS.cache.value)
        from rfjax.studies.search import study
        from rfjax.training.interruption import Interruption

        with Interruption() as stop:
            say = partial(print, flush=True)
            summary = study.run(_FLAGS.config.value, workdir, say=say, stop=stop.reached)
    for factor, part in summary["enlargements"].items():
        row = part["search"]["best"]
        if row is None:
            print(f"x{factor}: every candidate diverged")
            continue
        best = part["search"]["candidates"][row]
        print(f"x{factor}: best candidate {best['sigmas']}, score {best['score']}")
    print(f"see {workdir}/report.md")
    return 0


def main() -> None:
    """Runs the command line, and ends the program."""
    _flags.run("rfjax.search", _search)


if __name__ == "__main__":
    main()
