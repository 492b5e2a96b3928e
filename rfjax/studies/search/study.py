"""A study of search against enumeration, on data enlarged by several factors.

For every enlargement the population is searched and the grid enumerated, with the same network,
data, steps, schedules and seeds. What is complete is kept as an .npz file, and what is not goes on
from its checkpoints.
"""

import functools
import math
from collections.abc import Callable
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rfjax._faults import reason
from rfjax._lock import held
from rfjax.search import driver, enumeration, result
from rfjax.search.population import grid
from rfjax.search.result import Result
from rfjax.studies.search import adapter, report
from rfjax.studies.search.config import KINDS, check_same, halving, validate, write
from rfjax.studies.search.config import base as base


def run(
    config: ConfigDict,
    workdir: str | Path,
    *,
    say: Callable[[str], None] = print,
    stop: Callable[[int], int | None] = lambda step: None,
) -> dict[str, Any]:
    """Runs the study, going on where `workdir` stands, and returns its result.

    Args:
        config: made from `base`.
        workdir: the study's directory.
        say: takes lines of progress.
        stop: as in `rfjax.search.run`.

    Returns:
        The content of `result.json`: see `rfjax.studies.search.report.summarize`.

    Raises:
        ConfigError: the config cannot be run, or is not that of the study in `workdir`.
        InUse: another study works in `workdir`.
        Interrupted: `stop` told to.
    """
    validate(config)
    workdir = Path(workdir).absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    with held(workdir):
        check_same(config, workdir)
        write(config, workdir)
        return _run(config, workdir, say, stop)


def _run(config: ConfigDict, workdir: Path, say: Callable, stop: Callable) -> dict[str, Any]:
    """The study in a directory that is its own."""
    found: dict[int, dict[str, Result]] = {}
    areas: dict[int, int] = {}
    for factor in config.enlargements:
        task = functools.cache(partial(_task, config, factor))  # both kinds share its programs
        kinds = KINDS if config.enumeration.sigma else KINDS[:1]
        found[factor] = {
            kind: _part(config, workdir / f"x{factor}" / kind, kind, task, say, stop)
            for kind in kinds
        }
        areas[factor] = _area(config, task)
    summary = report.summarize(found, config=config.to_dict(), areas=areas)
    report.write(summary, found, workdir, say=say)
    return summary


def _task(config: ConfigDict, factor: int) -> adapter.Setup:
    """The network and the data at one enlargement."""
    training = config.training.copy_and_resolve_references()
    training.data.options.enlargement = factor
    return adapter.segmentation(training)


def _area(config: ConfigDict, make: Callable) -> int:
    """Pixels of an image in training: of the crop, or of the whole image without one."""
    crop = config.training.data.augmentation.crop
    return math.prod(crop if any(crop) else make().dataset.source[0]["image"].shape[:2])


def _part(
    config: ConfigDict, folder: Path, kind: str, make: Callable, say: Callable, stop: Callable
) -> Result:
    """The search or the enumeration at one enlargement, from its file if it is complete."""
    file = folder.with_suffix(".npz")
    if (known := _known(file, say)) is not None:
        return known
    task: adapter.Setup = make()
    candidates = grid(**config.population.to_dict())
    options = task.arguments() | _options(config) | {"checkpoints": folder, "stop": stop}
    label = f"{folder.parent.name} {kind}"
    options["progress"] = lambda step, known: say(_line(label, step, task.steps, known))
    key = jax.random.key(config.key)
    with closing(task.batches):
        if kind == "search":
            made = driver.run(key, task.problem, candidates, task.batches, **options)
        else:
            options["halving"] = None  # the whole grid is what it is compared with
            still = grid(**config.population.to_dict() | _one_start(config))
            values = tuple(config.enumeration.sigma)
            made = enumeration.enumerate(
                key, task.problem, still, task.batches, values=values, **options
            )
    made.save(file)
    return made


def _known(file: Path, say: Callable) -> Result | None:
    """The result that is complete, or None; a damaged one is made again, from its checkpoints."""
    if not file.exists():
        return None
    try:
        return result.load(file)
    except Exception as error:  # whatever a parser makes of damaged bytes
        say(f"{file} is damaged ({reason(error)}) and is made again")
        return None


def _one_start(config: ConfigDict) -> dict[str, Any]:
    """What of the population makes no difference once sigma is fixed."""
    return {"sigma": config.population.sigma[0], "covariance_multiplier": 0.0, "family": "own"}


def _options(config: ConfigDict) -> dict[str, Any]:
    devices = jax.local_devices()
    return {
        "mapping": config.mapping,
        "chunk": config.chunk or None,
        "devices": devices[: config.devices or len(devices)],
        "steps_per_dispatch": config.steps_per_dispatch or None,
        "eval_every": config.eval_every,
        "checkpoint_every": config.checkpoint_every,
        "halving": halving(config),
    }


def _line(label: str, step: int, steps: int, known: Result) -> str:
    """What is known of a running search, in one line."""
    sigmas = known.sigmas[:, step].reshape(len(known), -1)
    living = (known.diverged_at < 0) & (known.dropped_at < 0)
    parts = [f"{label}: step {step}/{steps}"]
    if sigmas.size and living.any():
        parts.append(f"sigma {sigmas[living].min():.2f}-{sigmas[living].max():.2f}")
    scores = known.scores[:, known.score_steps == step]
    if np.isfinite(scores).any():
        parts.append(f"score {100 * np.nanmin(scores):.1f}-{100 * np.nanmax(scores):.1f} %")
    parts.append(f"{known.seconds.sum():.0f} s")
    if diverged := int((known.diverged_at >= 0).sum()):
        parts.append(f"{diverged} diverged")
    return ", ".join(parts)
