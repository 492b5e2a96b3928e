"""Episodes of digits: which digit is meant is told by marks in other scenes; nothing is written.

The scenes are those of `rfjax.data.scenes`, drawn when they are first needed and kept in memory.
The digits are divided into folds, of which one is held out: scenes of training have none of its
digits, and the objects of validation are of them, among all others.
"""

import dataclasses
import functools
from typing import Any

import numpy as np

from rfjax import _checks
from rfjax.data import episodes
from rfjax.data.dataset import Dataset
from rfjax.data.digit_scenes import MEAN, STD
from rfjax.data.scenes import check_options, compose_scene, digits

SPLITS = ("train", "val")
OPTIONS = (
    *("size", "min_scale", "max_scale", "train_scenes", "val_scenes", "seed"),
    *episodes.RULES,
    *episodes.FOLDS,
    *episodes.COUNTS,
)


@dataclasses.dataclass(frozen=True)
class _Drawn:
    """What scenes are drawn of."""

    split: str
    values: tuple[int, ...]
    count: int
    seed: int
    options: tuple[tuple[str, Any], ...]


class _Scenes:
    """Random access to scenes of some digits, each of which is drawn once."""

    def __init__(self, drawn: _Drawn):
        self._drawn = drawn
        images, values = digits(drawn.split)
        chosen = np.isin(values, drawn.values)
        self._digits = images[chosen], values[chosen]
        self._kept: dict[int, dict[str, np.ndarray]] = {}

    def __len__(self) -> int:
        return self._drawn.count

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        if index not in self._kept:
            seed = [self._drawn.seed, SPLITS.index(self._drawn.split), index]
            rng = np.random.default_rng(seed)
            self._kept[index] = compose_scene(rng, *self._digits, **dict(self._drawn.options))
        return self._kept[index]


_scenes = functools.lru_cache(maxsize=4)(_Scenes)


def load(
    split: str,
    data_dir: str | None,
    *,
    size: int = 64,
    min_scale: float = 16.0,
    max_scale: float = 32.0,
    train_scenes: int = 2048,
    val_scenes: int = 384,
    seed: int = 0,
    folds: int = 5,
    fold: int = 0,
    held_out: bool = True,
    train_episodes: int = 8192,
    val_episodes: int = 512,
    **rules: Any,
) -> Dataset:
    """A split of the episodes.

    Args:
        split: "train" or "val", of other digits of other writers.
        data_dir: has no effect, there are no files.
        size: height and width in pixels.
        min_scale, max_scale: limits of the digits' scale in pixels.
        train_scenes, val_scenes: numbers of scenes that the episodes are of.
        seed: 0 or more; another seed draws other scenes.
        folds, fold: the ten digits are divided into so many parts, of which one is held out.
        held_out: whether training leaves its digits out.
        train_episodes, val_episodes: numbers of episodes.
        **rules: see `rfjax.data.episodes.Rules`.
    """
    check_options(size, min_scale, max_scale)
    drawn = episodes.Rules(**rules)
    counts = {"train": (train_scenes, train_episodes), "val": (val_scenes, val_episodes)}[split]
    scenes, count = map(_checks.integer, ("scenes", "episodes"), counts)
    parts = {"folds": folds, "fold": fold, "held_out": held_out}
    objects = episodes.task_classes(range(10), split, drawn, **parts)
    shown = tuple(range(10)) if drawn.kind != "dense" and split == "val" else objects
    options = (("size", size), ("min_scale", min_scale), ("max_scale", max_scale))
    seed = _checks.integer("seed", seed, least=0)
    source = _scenes(_Drawn(split, shown, scenes, seed, options))
    base = Dataset("digit_episodes", split, source, mean=MEAN, std=STD)
    classes = [1 + digit for digit in objects]
    return episodes.dataset(base, drawn, classes, count, (seed, SPLITS.index(split)))
