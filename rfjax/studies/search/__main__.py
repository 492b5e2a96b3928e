"""Searches receptive fields, and enumerates them to compare.

    python -m rfjax.search --config=configs/search.py --workdir=runs/search

Goes on where `workdir` stands; ends with 0 when the study is complete, with 1 when it failed, and
with 128 + signal when it was asked to stop and has saved its state. Writes result.json, report.md
and figures/.
"""

from functools import partial
from pathlib import Path

from absl import app, flags, logging
from ml_collections import config_flags

from rfjax._console import guarded
from rfjax._flags import no_arguments, parse
from rfjax._lock import held
from rfjax.studies.search import config as configs

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The study: a file such as configs/search.py, with a variant after a colon if it has any.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string("workdir", None, "The study's directory.")
_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Where compiled programs are kept; the user's cache unless told, empty for nowhere.",
)

flags.register_validator(
    "config", lambda value: value is not None, message="needed, as --config=configs/search.py"
)
flags.register_validator("workdir", bool, message="needed, as --workdir=runs/search")


def _search(argv: list[str]) -> int:
    """Checks what was given, and searches; JAX, which takes seconds, is imported in between."""
    no_arguments(argv)
    workdir = Path(_WORKDIR.value)
    configs.validate(_CONFIG.value)
    workdir.mkdir(parents=True, exist_ok=True)
    with held(workdir):
        configs.check_same(_CONFIG.value, workdir)
        from rfjax import training

        if _CACHE.value != "":
            training.use_compilation_cache(_CACHE.value)
        from rfjax.studies.search import study
        from rfjax.training.interruption import Interruption

        with Interruption() as stop:
            say = partial(print, flush=True)
            summary = study.run(_CONFIG.value, workdir, say=say, stop=stop.reached)
    for factor, part in summary["enlargements"].items():
        row = part["search"]["best"]
        if row is None:
            print(f"x{factor}: every candidate diverged")
            continue
        best = part["search"]["candidates"][row]
        print(f"x{factor}: best candidate {best['sigmas']}, score {best['score']}")
    print(f"see {workdir}/report.md")
    return 0


def main(argv: list[str]) -> int:
    """Runs the study; returns the exit status."""
    logging.set_verbosity(logging.WARNING)  # JAX and orbax tell every detail below that
    return guarded("rfjax.search", partial(_search, argv))


if __name__ == "__main__":
    app.run(main, flags_parser=partial(parse, "rfjax.search"))
