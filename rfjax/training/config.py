"""The keys of a run, their checks, and their JSON form.

A run is described by one locked `ml_collections.ConfigDict` in which unknown keys are errors.
`base` returns every key with its default and its meaning; the files in `configs/` start from it.
Keys whose default is `None` (the options of heads, backbones and data sets) are "leave it to the
layer": they exist so that any of them can be set from the command line, and only those that are set
are passed on.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rfjax import _extras
from rfjax._faults import ConfigError as ConfigError
from rfjax._runs import Difference, differences, refuse
from rfjax._runs import flatten as flatten

# Steps, state and checkpoints do without configs.
if fault := _extras.missing("rfjax.training", "ml_collections"):
    raise fault

from ml_collections import ConfigDict

from rfjax.training.checks import unread
from rfjax.training.checks import validate as validate
from rfjax.training.keys import base as base
from rfjax.training.keys import options as options

# Keys that may differ from those of the run that is resumed: none of them changes what is learned.
FREE_ON_RESUME = (
    "eval_every",
    "eval_batch_size",
    "checkpoint_every",
    "keep_latest",
    "log_every",
    "stop_after",
    "data.dir",
    "data.cache.dir",
    "model.remat",
    "parallel",
)


# What keys of former versions are now.
_FORMER: dict[str, Callable[[Any], dict[str, Any]]] = {
    "optimizer.adaptive": lambda value: {"optimizer.rule": "adam" if value else "momentum"},
}


def street_augmentation(config: ConfigDict, *, crop: tuple[int, int]) -> None:
    """Sets how the papers vary street scenes: scale, rotation, crop, colors and left-right flip."""
    augmentation = config.data.augmentation
    augmentation.scale = (0.5, 2.0)
    augmentation.rotation = 10.0
    augmentation.crop = crop
    augmentation.color = 0.5
    augmentation.flip = True


def to_json(config: ConfigDict) -> str:
    """`config` as JSON text, keys in their order."""
    return json.dumps(config.to_dict(), indent=2) + "\n"


def from_json(text: str) -> ConfigDict:
    """The locked config that `to_json` wrote.

    Example:
        >>> from_json(to_json(base())) == base()
        True
    """
    return from_dict(json.loads(text))


def from_dict(values: dict[str, Any]) -> ConfigDict:
    """The locked config with `values`, a nested dictionary in which lists stand for tuples."""
    config, flat = base(), flatten(values)
    for former, now in _FORMER.items():
        if former in flat:
            flat |= now(flat.pop(former))
    with config.unlocked():
        for key, value in flat.items():
            *sections, name = key.split(".")
            section = config
            for part in sections:
                section = section[part]
            with section.ignore_type():
                section[name] = value
    return config.lock()


def incompatible(old: ConfigDict, new: ConfigDict) -> list[Difference]:
    """The keys that make `new` another run than `old`.

    The keys in `FREE_ON_RESUME` may differ, and those that nothing reads in either. So may `steps`,
    but only where the learning rate is constant: otherwise the number of steps has shaped every
    learning rate so far.
    """
    free = {*FREE_ON_RESUME, *(unread(flatten(old)).keys() & unread(flatten(new)).keys())}
    if _is_constant(old.optimizer) and _is_constant(new.optimizer):
        free |= {"steps", "optimizer.schedule", "optimizer.poly_power"}
    return differences(old, new, free)


def _is_constant(optimizer: ConfigDict) -> bool:
    """Whether the learning rate does not depend on the number of steps of the run."""
    poly = optimizer.schedule == "poly" and optimizer.poly_power == 0
    return poly or optimizer.schedule == "constant"


def check_compatible(old: ConfigDict, new: ConfigDict, workdir: Path) -> None:
    """Refuses to resume a run under a config that would have made it another run.

    More steps are no reason: a run may be made longer, see `lengthened`.

    Raises:
        ConfigError: naming every key that differs, old -> new.
    """
    free = f"{', '.join(FREE_ON_RESUME)}, and steps, of which there may be more"
    found = incompatible(old, new)
    if new.steps > old.steps:
        found = [difference for difference in found if difference.key != "steps"]
    refuse(f"the run in {workdir}", found, ConfigError, free=free)


def lengthened(old: ConfigDict, new: ConfigDict) -> bool:
    """Whether `new` goes on with the run `old` by more steps, which changes its learning rates.

    They are from there on those of a run of so many steps, so that the whole is none of those that
    one config describes. With a constant learning rate it is.
    """
    return new.steps > old.steps and not _is_constant(new.optimizer)
