"""A study of search against enumeration, on data enlarged by several factors.

For every enlargement the population is searched and the grid enumerated, with the same network,
data, steps, schedules and seeds. What is complete is kept as an .npz file, and what is not goes on
from its checkpoints.
"""

import functools
import json
import math
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rfjax._checks import choose, is_integer, is_number
from rfjax.search import adapter, checks, driver, engine, enumeration, report, result
from rfjax.search.halving import Halving
from rfjax.search.population import FAMILIES, grid
from rfjax.search.result import Result
from rfjax.training import config as configs
from rfjax.training.config import ConfigError

KINDS = ("search", "enumeration")


def base() -> ConfigDict:
    """The config of a study with every key at its default, locked.

    Example:
        >>> config = base()
        >>> config.population.sigma, config.training.model.head
        ((0.5,), 'composition')
    """
    config = ConfigDict()
    config.key = 0
    config.enlargements = (1,)  # whole factors by which the data are enlarged
    config.training = configs.base()  # of a network with one composed layer or several
    config.training.model.head = "composition"

    config.population = ConfigDict()  # every combination is a candidate
    config.population.sigma = (0.5,)  # initial, in pixels of the layers' maps
    config.population.seed = (0,)
    config.population.learning_rate = (0.1,)
    config.population.covariance_multiplier = (1.0,)
    config.population.family = ("own",)  # own | spherical | diagonal | full

    config.enumeration = ConfigDict()
    config.enumeration.sigma = ()  # fixed, with every seed and learning rate of the population

    config.mapping = "auto"  # auto | loop | map | vmap
    config.chunk = 0  # the most candidates of one dispatch on one device; 0 for all
    config.devices = 0  # over which candidates are sharded; 0 for all of this process
    config.steps_per_dispatch = 0  # 0 for the default of the mapping
    config.eval_every = 0  # 0 for an evaluation at the end only
    config.checkpoint_every = 100
    config.halving = ConfigDict()
    config.halving.rungs = ()  # steps after which only a part of the candidates goes on
    config.halving.keep = 0.5
    return config.lock()


def _is_number(value: Any) -> bool:
    return is_number(value) and math.isfinite(value)


# What every value of a list must be, and how that is said.
_POSITIVE = (lambda v: _is_number(v) and v > 0, "positive numbers")
_NOT_NEGATIVE = (lambda v: _is_number(v) and v >= 0, "finite numbers, 0 or more")
_LISTS = {
    "enlargements": (lambda v: is_integer(v) and v >= 1, "whole numbers, 1 or more"),
    "population.sigma": _POSITIVE,
    "population.seed": (lambda v: is_integer(v) and v >= 0, "whole numbers, 0 or more"),
    "population.learning_rate": _POSITIVE,
    "population.covariance_multiplier": _NOT_NEGATIVE,
    "population.family": (lambda v: isinstance(v, str), "names"),
    "enumeration.sigma": _POSITIVE,
}


def validate(config: ConfigDict) -> None:
    """Checks the keys of a study; those of `training` are checked as a training's.

    Raises:
        ConfigError: naming every fault.
    """
    faults = []
    for key, (holds, wanted) in _LISTS.items():
        section, _, name = key.rpartition(".")
        values = (config[section] if section else config)[name]
        several = isinstance(values, tuple | list) and (len(values) or key == "enumeration.sigma")
        if not several:
            faults.append(f"{key}: got {values!r}; want a tuple of values, such as (1,)")
        elif not all(map(holds, values)):
            faults.append(f"{key}: got {values!r}; want {wanted}")
    for key in ("chunk", "devices", "steps_per_dispatch", "eval_every", "checkpoint_every"):
        if not is_integer(config[key]) or config[key] < 0:
            faults.append(f"{key}: got {config[key]!r}; want a whole number, 0 or more")
    model = config.training.model
    if model.head not in adapter.COMPOSED and not model.composed.patterns:
        faults.append(
            f"training.model.head: got {model.head!r}, which has no covariance to search; want "
            f"{' or '.join(adapter.COMPOSED)}, or model.composed.patterns"
        )
    try:
        choose("mapping", config.mapping, engine.MAPPINGS)
        for family in config.population.family:
            choose("population.family", family, FAMILIES)
        checks.halving(_halving(config), config.training.steps)
    except (ValueError, TypeError) as error:
        faults.append(str(error))
    if faults:
        raise ConfigError("\n".join(faults))
    configs.validate(config.training)


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
        The content of `result.json`: see `rfjax.search.report.summarize`.

    Raises:
        ConfigError: the config cannot be run, or is not that of the study in `workdir`.
        Interrupted: `stop` told to.
    """
    validate(config)
    workdir = Path(workdir).absolute()
    workdir.mkdir(parents=True, exist_ok=True)
    _check_same(config, workdir)
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
    summary = report.summarize(found, config=json.loads(_text(config)), areas=areas)
    report.write(summary, found, workdir)
    return summary


def _task(config: ConfigDict, factor: int) -> adapter.Task:
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
    if file.exists():
        return result.load(file)
    task: adapter.Task = make()
    candidates = grid(**config.population.to_dict())
    options = task.arguments() | _options(config) | {"checkpoints": folder, "stop": stop}
    label = f"{folder.parent.name} {kind}"
    options["progress"] = lambda step, known: say(_line(label, step, task.steps, known))
    key = jax.random.key(config.key)
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
        "halving": _halving(config),
    }


def _halving(config: ConfigDict) -> Halving | None:
    rungs = tuple(config.halving.rungs)
    return Halving(rungs, keep=config.halving.keep) if rungs else None


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


def _text(config: ConfigDict) -> str:
    return json.dumps(config.to_dict(), indent=2)


def _check_same(config: ConfigDict, workdir: Path) -> None:
    """Refuses to go on with a study under another config; writes it for a new one."""
    file = workdir / "config.json"
    if file.exists():
        before = configs.flatten(json.loads(file.read_text()))
        after = configs.flatten(json.loads(_text(config)))
        free = ("mapping", "chunk", "devices", "checkpoint_every", "training.data.dir")
        different = [
            f"  {key}: {before.get(key)!r} -> {after.get(key)!r}"
            for key in {**before, **after}
            if key not in free and before.get(key) != after.get(key)
        ]
        if different:
            raise ConfigError(
                f"the study in {workdir} was started with another config (old -> new):\n"
                + "\n".join(different)
                + "\nTake these back, or give another --workdir."
            )
    file.write_text(_text(config))
