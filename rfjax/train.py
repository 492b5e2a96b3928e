"""Trains a segmentation network with learnable receptive fields.

    rfjax-train --config=quickstart --workdir=runs/first
    rfjax-train --config=quickstart:dog --workdir=runs/dog --config.steps=3000
    rfjax-train --config=configs/mine.py --workdir=runs/mine
    rfjax-train --config=quickstart --workdir=runs/seeds --seeds=5

A config is a file, or the name of one that rfjax brings; a variant, if it has any, follows a colon.

With --seeds each of so many seeds is trained in a folder of its own, WORKDIR/seed0 and so on, and
WORKDIR/scores.md tells mean and deviation of their scores.

Goes on where `workdir` stands, whatever ended it before. Ends with

    0    when the run is complete, or was stopped early since its score no longer rose
    1    when it failed, with one line that says why and what to do; what was saved stays. So it is,
         too, when nothing was scored because every validation label is void: the network is
         trained and saved, but result.json holds no scores.
    128 + signal    (143 for SIGTERM, 130 for SIGINT) when it was asked to stop and has saved its
         state. Further signals change nothing: it says that it is saving, and goes on. SIGKILL
         ends it at once, without what came since the last checkpoint.
"""

from contextlib import nullcontext
from pathlib import Path

from absl import flags

from rfjax import _flags
from rfjax._console import called, tell
from rfjax._lock import held
from rfjax.training import config as configs

_FLAGS = _flags.define("run", config="quickstart", workdir="runs/first")
_SEEDS = flags.DEFINE_integer(
    "seeds", None, "How many seeds to train, each in a folder of --workdir.", lower_bound=2
)
_COORDINATOR = flags.DEFINE_string(
    "coordinator", None, "host:port of process 0, for several processes."
)
_NUM_PROCESSES = flags.DEFINE_integer(
    "num_processes", None, "How many processes there are.", lower_bound=1
)
_PROCESS_ID = flags.DEFINE_integer(
    "process_id", None, "The number of this process, from 0.", lower_bound=0
)


@flags.multi_flags_validator(
    ["coordinator", "num_processes", "process_id"],
    message="--coordinator, --num_processes and --process_id are given together or not at all",
)
def _together(values: dict) -> bool:
    return len({value is None for value in values.values()}) == 1


@flags.multi_flags_validator(
    ["num_processes", "process_id"], message="--process_id is less than --num_processes"
)
def _counted(values: dict) -> bool:
    return None in values.values() or values["process_id"] < values["num_processes"]


def _prepare_jax() -> None:
    """Sets up the compilation cache and the other processes, before any computation."""
    import jax

    from rfjax.training.cache import use_compilation_cache

    if _FLAGS.cache.value != "":
        use_compilation_cache(_FLAGS.cache.value)
    if _COORDINATOR.value is not None:
        jax.distributed.initialize(
            _COORDINATOR.value, num_processes=_NUM_PROCESSES.value, process_id=_PROCESS_ID.value
        )


def _train() -> int:
    """Checks what was given, and trains; JAX, which takes seconds, is imported in between."""
    configs.validate(_FLAGS.config.value)
    workdir = Path(_FLAGS.workdir.value)
    workdir.mkdir(parents=True, exist_ok=True)
    with nullcontext() if _PROCESS_ID.value else held(workdir):  # of several, process 0
        _prepare_jax()
        from rfjax.training import composed, loop, seeds

        task = composed.create_task(_FLAGS.config.value, {})
        if _SEEDS.value is not None:
            found = seeds.train(_FLAGS.config.value, workdir, _SEEDS.value)
            return _told(found, seeds.headline(found, task), workdir)
        result = loop.train(_FLAGS.config.value, workdir)
    if not task.is_scored(result):
        tell(
            f"{called('train.py')}: error: nothing was scored, since every validation label is "
            f"void; the network is trained and saved in {workdir}"
        )
        return 1
    place = f"see {workdir}/result.json"
    if (best := result["best"])["step"] != result["step"]:
        place = f"{task.headline(best)} at step {best['step']}, which is used; {place}"
    print(f"{task.headline(result)} at step {result['step']}; {place}")
    return 0


def _told(found: dict, headline: str, workdir: Path) -> int:
    """Tells the scores of several seeds; the exit status is 1 if some of them have none."""
    print(f"{headline}; see {workdir}/scores.md")
    if lost := found["diverged"]:
        seeds = ", ".join(map(str, lost))
        tell(f"{called('train.py')}: error: no result of seed {seeds}, which diverged")
    return 1 if lost or not found["scores"] else 0


def main() -> None:
    """Runs the command line, and ends the program."""
    _flags.run("train.py", _train)


if __name__ == "__main__":
    main()
