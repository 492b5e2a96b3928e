"""Trains a segmentation network with learnable receptive fields.

    python train.py --config=configs/quickstart.py --workdir=runs/first
    python train.py --config=configs/quickstart.py:dog --workdir=runs/dog --config.steps=3000

Goes on where `workdir` stands; ends with 0 when the run is complete, with 1 when it failed, and
with 128 + signal (143 for SIGTERM, 130 for SIGINT) when it was asked to stop and has saved its
state.
"""

import sys
from functools import partial

from absl import app, flags, logging
from ml_collections import config_flags

from rfjax._flags import parse

_CONFIG = config_flags.DEFINE_config_file(
    "config",
    None,
    "The run: a file of configs/, with a variant after a colon if it has any.",
    lock_config=True,
)
_WORKDIR = flags.DEFINE_string(
    "workdir", None, "The run's directory, on a disk that all processes share."
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
_CACHE = flags.DEFINE_string(
    "compilation_cache",
    None,
    "Where compiled programs are kept; the user's cache unless told, empty for nowhere.",
)

flags.register_validator(
    "config", lambda value: value is not None, message="needed, as --config=configs/quickstart.py"
)
flags.register_validator("workdir", bool, message="needed, as --workdir=runs/first")


@flags.multi_flags_validator(
    ["coordinator", "num_processes", "process_id"],
    message="--coordinator, --num_processes and --process_id are given together or not at all",
)
def _together(values: dict) -> bool:
    return len({value is None for value in values.values()}) == 1


def _prepare_jax() -> None:
    """Sets up the compilation cache and the other processes, before any computation."""
    import jax

    from rfjax import training

    if _CACHE.value != "":
        training.use_compilation_cache(_CACHE.value)
    if _COORDINATOR.value is not None:
        jax.distributed.initialize(
            _COORDINATOR.value, num_processes=_NUM_PROCESSES.value, process_id=_PROCESS_ID.value
        )


def main(argv: list[str]) -> int:
    """Runs the training; returns the exit status."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments {argv[1:]}; flags have the form --name=value")
    logging.set_verbosity(logging.WARNING)  # JAX and orbax tell every detail below that
    _prepare_jax()
    from rfjax import training

    try:
        result = training.train(_CONFIG.value, _WORKDIR.value)
    except training.Interrupted as stopped:
        print(f"train.py: {stopped}", file=sys.stderr)
        return 128 + stopped.signum
    except (
        training.ConfigError,
        training.TrainingFailed,
        training.CheckpointError,
        OSError,
    ) as error:
        print(f"train.py: error: {error}", file=sys.stderr)
        return 1
    scores = f"mean IU {100 * result['mean_iu']:.2f} % at step {result['step']}"
    print(f"{scores}; see {_WORKDIR.value}/result.json")
    return 0


if __name__ == "__main__":
    app.run(main, flags_parser=partial(parse, "train.py"))
