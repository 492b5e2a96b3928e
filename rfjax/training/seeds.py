"""One config trained with several seeds, and how far chance moves its scores.

WORKDIR/seed0, seed1, ...    the runs
WORKDIR/scores.json, .md     mean, deviation and range of each score, and the numbers of each run
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from rfjax._console import tell
from rfjax._faults import ConfigError
from rfjax._files import write_json, write_text
from rfjax._markdown import table
from rfjax._statistics import spread
from rfjax.tasks import Task
from rfjax.training import config as configs
from rfjax.training import loop

SCORES = "scores.json"
_NO_SCORES = ("step", "images_per_second", "seconds")


def train(config: ConfigDict, workdir: str | Path, count: int) -> dict[str, Any]:
    """Trains `count` runs that differ in their seeds alone, and returns their scores.

    The seeds are `config.seed` and those that follow it. Like a run, it goes on where it stands:
    what is complete is not trained again. A run that diverges ends none of the others.

    Args:
        config: of each run but for its seed.
        workdir: of all of them.
        count: how many.

    Returns:
        The content of `scores.json`: `seeds`; `diverged`, those of them without an end; and
        `scores`, by name as in `result.json` (with `best_NAME`, that of the best checkpoint), each
        with `mean`, `deviation` (of a sample, with n - 1), `low`, `high` and `of_each`, in which
        None stands for what is not known.

    Raises:
        ConfigError: for a config that cannot be run, or a single run lies in `workdir`. Whatever
        else ends a run, as in `rfjax.training.loop.train`.
    """
    workdir = Path(workdir).absolute()
    if (workdir / "checkpoints").exists():
        raise ConfigError(f"--seeds: a single run lies in {workdir}; give another --workdir")
    seeds, results = range(config.seed, config.seed + count), []
    for seed in seeds:
        own = configs.from_dict(config.to_dict() | {"seed": seed})
        try:
            results.append(loop.train(own, workdir / f"seed{seed}"))
        except loop.TrainingFailed as error:
            tell(f"seed {seed}: {error}")
            results.append(None)
        found = _summary(seeds[: len(results)], results)
        if jax.process_index() == 0:
            write_json(workdir / SCORES, found)
            write_text(workdir / "scores.md", page(found))
    return found


def _summary(seeds: Sequence[int], results: Sequence[Mapping[str, Any] | None]) -> dict[str, Any]:
    """The scores of all runs, of which some may have no result."""
    tables = [{} if result is None else _scores(result) for result in results]
    names = dict.fromkeys(name for each in tables for name in each)
    scores = {}
    for name in names:
        each = [float("nan") if (v := own.get(name)) is None else v for own in tables]
        over = spread(each)
        scores[name] = {
            **{part: float(getattr(over, part)) for part in ("mean", "deviation", "low", "high")},
            "of_each": [value if np.isfinite(value) else None for value in each],
        }
    lost = [seed for seed, result in zip(seeds, results, strict=True) if result is None]
    return {"seeds": list(seeds), "diverged": lost, "scores": scores}


def _scores(result: Mapping[str, Any]) -> dict[str, Any]:
    """What of a result is one number, and says how good it is."""
    best = {f"best_{name}": value for name, value in result["best"].items() if name != "step"}
    numbers = {name: value for name, value in result.items() if isinstance(value, float)}
    return {name: numbers[name] for name in numbers if name not in _NO_SCORES} | best


def page(found: Mapping[str, Any]) -> str:
    """The table of all scores, in Markdown.

    Example:
        >>> one = {"mean": 0.5, "deviation": 0.1, "low": 0.4, "high": 0.6, "of_each": [0.4, 0.6]}
        >>> print(page({"seeds": [0, 1], "diverged": [], "scores": {"mean_iu": one}}), end="")
        | score | mean ± deviation | low | high | seed 0 | seed 1 |
        |---|--:|--:|--:|--:|--:|
        | mean_iu | 0.5000 ± 0.1000 | 0.4000 | 0.6000 | 0.4000 | 0.6000 |
    """
    heading = ["score", "mean ± deviation", "low", "high"]
    rows = [
        [
            name,
            f"{own['mean']:.4f} ± {own['deviation']:.4f}",
            *(f"{own[part]:.4f}" for part in ("low", "high")),
            *("none" if value is None else f"{value:.4f}" for value in own["of_each"]),
        ]
        for name, own in found["scores"].items()
    ]
    heading += [f"seed {seed}" for seed in found["seeds"]]
    return table(heading, rows, right=range(1, len(heading)))


def headline(found: Mapping[str, Any], task: Task) -> str:
    """The score that decides, over all seeds, in a few words."""
    own, count = found["scores"].get(task.score), len(found["seeds"]) - len(found["diverged"])
    if own is None or not np.isfinite(own["mean"]):
        return "nothing was scored"
    factor, unit = (100, " %") if task.percent else (1, "")
    mean, deviation = factor * own["mean"], factor * own["deviation"]
    return f"{task.title} {mean:.4g} ± {deviation:.2g}{unit} over {count} seeds"
