"""What lies in the directory of a run, told without JAX."""

from pathlib import Path

from rfjax._faults import CheckpointError


def check(workdir: str | Path, *, step: int | None = None) -> None:
    """Sees that there is a run with checkpoints, or with that of `step`.

    Raises:
        CheckpointError: if there is no run, no checkpoint, or none of that step.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise CheckpointError(f"{workdir} is not a directory; --workdir is that of a training run")
    folder = workdir / "checkpoints"
    if not folder.is_dir():
        raise CheckpointError(f"{workdir} holds no checkpoints/; train a run there first")
    steps = sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit())
    if not steps:
        raise CheckpointError(f"{folder} has no complete checkpoint yet")
    if step is not None and step not in steps:
        listed = ", ".join(map(str, steps))
        raise CheckpointError(f"{workdir} has no checkpoint of step {step}; there are {listed}")
