"""The keys of a run, their checks, and their JSON form.

A run is described by one locked `ml_collections.ConfigDict` in which unknown keys are errors.
`base` returns every key with its default and its meaning; the files in `configs/` start from it.
Keys whose default is `None` (the options of heads, backbones and data sets) are "leave it to the
layer": they exist so that any of them can be set from the command line, and only those that are set
are passed on.
"""

import json
import math
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from rfjax import _extras, _names
from rfjax import _rules as rules
from rfjax._faults import ConfigError as ConfigError
from rfjax._options import choose
from rfjax._runs import Difference, differences, refuse
from rfjax._runs import flatten as flatten

# Steps, state and checkpoints do without configs.
if fault := _extras.missing("rfjax.training", "ml_collections"):
    raise fault

from ml_collections import ConfigDict

from rfjax.training.keys import base as base
from rfjax.training.keys import options as options
from rfjax.training.unread import unread

TRAINABLE = ("all", "last_stage", "structure")
DTYPES = ("float32", "bfloat16")
CACHED = ("float16", "float32")  # types of cached maps

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


# -- checks ----------------------------------------------------------------------------------------


_LARGEST_BATCH = 2**16


def _is_factor(value: Any) -> bool:
    """Whether `value` is "PATTERN=FACTOR"."""
    pattern, _, factor = value.rpartition("=") if rules.is_text(value) else ("", "", "")
    try:
        return bool(pattern.strip()) and 0 <= float(factor) < math.inf
    except ValueError:
        return False


_FACTORS = rules.several((_is_factor, 'a text "PATTERN=FACTOR" with a factor of at least 0'))

_SIZE = rules.pair(
    "(height, width) in pixels, or (0, 0) for none",
    rules.is_whole,
    lambda a, b: a == b == 0 or min(a, b) >= 1,
)

RULES = {
    "seed": rules.integer(0, 2**32 - 1),
    "parallel": rules.one_of(_names.PARALLEL),
    "steps": rules.integer(1),
    "steps_per_call": rules.integer(1),
    "batch_size": rules.integer(1, _LARGEST_BATCH),
    "eval_every": rules.integer(1),
    "eval_batch_size": rules.integer(1, _LARGEST_BATCH),
    "checkpoint_every": rules.integer(1),
    "keep_latest": rules.integer(1),
    "log_every": rules.integer(1),
    "stop_after": rules.integer(0),
    "task.normalize": rules.one_of(_names.NORMALIZATIONS),
    "data.normalization": rules.one_of(_names.SCHEMES),
    "data.augmentation.scale": rules.pair(
        "(lowest, highest) with 0 < lowest <= highest", rules.is_number, lambda a, b: 0 < a <= b
    ),
    "data.augmentation.rotation": rules.number(0, 180),
    "data.augmentation.crop": _SIZE,
    "data.pad": _SIZE,
    "data.cache.dtype": rules.one_of(CACHED),
    "data.augmentation.color": rules.number(0, 1),
    "data.augmentation.lighting": rules.number(0),
    "data.augmentation.flip": rules.flag(),
    "model.composed.layer": rules.one_of(_names.PLACED),
    "model.composed.patterns": rules.several(
        (rules.is_text, "a text that is not empty, a pattern of paths")
    ),
    "model.batch_norm.unbiased": rules.flag(),
    "model.late_fusion": rules.several(rules.integer(1)),
    "model.dtype": rules.one_of(DTYPES),
    "model.remat": rules.flag(),
    "optimizer.learning_rate": rules.number(0, open_low=True),
    "optimizer.schedule": rules.one_of(_names.SCHEDULES),
    "optimizer.poly_power": rules.number(0),
    "optimizer.warmup_steps": rules.integer(0),
    "optimizer.rule": rules.one_of(_names.UPDATES),
    "optimizer.momentum": rules.number(0, 1),
    "optimizer.weight_decay": rules.number(0),
    "optimizer.grad_clip": rules.number(0),
    "optimizer.covariance_multiplier": rules.number(0),
    "optimizer.covariance_decay": rules.flag(),
    "optimizer.accumulation": rules.one_of(_names.ACCUMULATIONS),
    "optimizer.accumulate": rules.integer(1),
    "optimizer.rates": _FACTORS,
    "optimizer.decays": _FACTORS,
    "optimizer.rate_in_momentum": rules.flag(),
    "optimizer.average": rules.number(0, 1, open_high=True),
}


# Options that are set are in these bounds for every layer and data set that takes them; what else a
# layer wants of them it says itself.
_EVALUATED = ("hard", "expected")  # dilations, without random numbers
_COUNT, _POSITIVE = rules.integer(1), rules.number(0, open_low=True)
_OPTION_RULES = {
    "task": {
        "cross_entropy": rules.one_of(_names.CROSS_ENTROPIES),
        "sampling": rules.number(0, 1, open_low=True),
        "cell": _COUNT,
        "class_weights": rules.either(
            (lambda value: value == _names.MEASURED, _names.MEASURED),
            rules.several(rules.number(0), least=1),
        ),
        "hard_examples": rules.number(0, 1, open_low=True),
        "focal": rules.number(0),
        "dice": rules.number(0),
        "fusion": rules.one_of(_names.FUSIONS),
    },
    "data.options": {
        "seed": rules.integer(0, 2**32 - 1),
        **dict.fromkeys(
            (
                *("enlargement", "reduction", "size", "train_scenes", "val_scenes"),
                *("train_images", "val_images", "train_pairs", "val_pairs"),
            ),
            _COUNT,
        ),
        "digits": rules.integer(0),
        "motion": rules.number(0),
        **dict.fromkeys(("shots", "train_episodes", "val_episodes", "turns"), _COUNT),
        "ways": rules.integer(2),
        "folds": rules.integer(1),
        **dict.fromkeys(("points", "fold"), rules.integer(0)),
        **dict.fromkeys(("min_scale", "max_scale"), _POSITIVE),
        "holdout": rules.number(0, 1, open_low=True),
    },
    "model.backbone_options": {
        **dict.fromkeys(
            ("width", "depth", "output_stride", "down_ratio", "samples", "sample_stride"), _COUNT
        ),
        "dropout": rules.number(0, 1),
    },
    "model.composed": {
        "components": _COUNT,
        **dict.fromkeys(("sigma", "truncate", "temperature"), _POSITIVE),
        "prior": rules.one_of(_names.PRIORS),
        "evaluation": rules.one_of(_EVALUATED),
    },
    "model.head_options": {
        **dict.fromkeys(("kernel_size", "dilation", "components", "width", "paths"), _COUNT),
        "weight": rules.number(0),
        **dict.fromkeys(("sigma", "sigma_center", "sigma_surround", "truncate"), _POSITIVE),
        **dict.fromkeys(("temperature", "initial"), _POSITIVE),
        "prior": rules.one_of(_names.PRIORS),
        "evaluation": rules.one_of(_EVALUATED),
        "gradient": rules.one_of(_names.FACTOR_GRADIENTS),
        "dropout": rules.number(0, 1),
    },
}
RULES |= {
    f"{section}.{key}": rules.optional(rule)
    for section, own in _OPTION_RULES.items()
    for key, rule in own.items()
}


def validate(config: ConfigDict, *, devices: int = 1) -> None:
    """Checks every value of `config`; all faults are told at once.

    Args:
        config: a config made from `base`.
        devices: the number of devices of all processes, which share a batch evenly.

    Raises:
        ConfigError: naming each wrong key, its value and what is wanted.

    Example:
        >>> config = base()
        >>> config.steps = 0
        >>> validate(config)
        Traceback (most recent call last):
        ...
        rfjax._faults.ConfigError: steps: got 0; want an integer from 1 to 2147483647
    """
    flat = flatten(config)
    missing = [key for key in flatten(base()) if key not in flat]
    if missing:
        raise ConfigError(
            f"config has no {', '.join(missing)}; start from rfjax.training.config.base()"
        )
    faults = [*rules.faults(RULES, flat), *_choices(config)]
    if not faults and config.batch_size % devices:
        faults.append(
            f"batch_size: got {config.batch_size}; want a multiple of the {devices} devices "
            "that share it"
        )
    faults += [] if faults else [*_uneven(config), *_varied(config), *_unread(flat)]
    if faults:
        raise ConfigError("; ".join(faults))


def _uneven(config: ConfigDict) -> list[str]:
    """Faults of counts of steps that calls of several steps would step over."""
    calls, counts = config.steps_per_call, ("steps", "eval_every", "checkpoint_every", "log_every")
    uneven = [f"{key}={config[key]}" for key in counts if config[key] % calls]
    wanted = "want a divisor of steps and of all *_every"
    return [f"steps_per_call: got {calls}; {wanted}, not {', '.join(uneven)}"] if uneven else []


def _varied(config: ConfigDict) -> list[str]:
    """Faults of images that are varied although their maps are cached."""
    own, plain = flatten(config.data), flatten(base().data)
    varied = [k for k in own if k.startswith(("pad", "augmentation.")) and own[k] != plain[k]]
    if not config.data.cache.map or not varied:
        return []
    return [f"data.cache.map: maps are those of whole images; unset data.{', data.'.join(varied)}"]


def _unread(flat: Mapping[str, Any]) -> Iterator[str]:
    """Faults of keys that were set, although nothing reads them."""
    defaults = flatten(base())
    for key, (other, words) in unread(flat).items():
        if flat[key] != defaults[key]:
            yield (
                f"{key}: got {flat[key]!r}, which nothing reads while {other} is "
                f"{flat[other]!r}; want {other} {words}, or {key} at {defaults[key]!r}"
            )


def _choices(config: ConfigDict) -> Iterator[str]:
    """Faults of the keys that name something, and of the options of what they name."""
    model, data = config.model, config.data
    if config.trainable not in TRAINABLE and not rules.is_patterns(config.trainable):
        yield (
            f"trainable is one of {', '.join(TRAINABLE)}, or patterns of paths, as 'head/*'; got "
            f"{config.trainable!r}"
        )
    tables = (
        ("task.name", config.task.name, _names.TASKS),
        ("model.name", model.name, _names.NETWORKS),
        ("model.head", model.head, _names.HEADS),
        ("data.name", _names.data_set(data.name)[0], _names.DATA_SETS),
    )
    for key, value, table in tables:
        try:
            choose(key, value, tuple(table))
        except ValueError as error:
            yield str(error)
    task = {key: config.task[key] for key in config.task if key not in ("name", "normalize")}
    data_set = _names.data_set(data.name)[0]
    owners = (
        (f"task: {config.task.name}", ConfigDict(task), _names.TASKS, config.task.name),
        (f"model: backbone {model.name!r}", model.backbone_options, _names.NETWORKS, model.name),
        (f"model: head {model.head!r}", model.head_options, _names.HEADS, model.head),
        (f"data: {data.name}", data.options, _names.DATA_SETS, data_set),
    )
    for owner, section, table, name in owners:
        allowed = table.get(name)  # None where the name itself is wrong
        unknown = [] if allowed is None else [key for key in options(section) if key not in allowed]
        if unknown:
            yield f"{owner} takes {', '.join(allowed) or 'no options'}; got {', '.join(unknown)}"
    yield from _composed_faults(options(model.composed))


def _composed_faults(composed: dict[str, Any]) -> Iterator[str]:
    """Faults of what takes the place of convolutions of the backbone."""
    patterns, layer = composed.pop("patterns"), composed.pop("layer")
    unknown = sorted(composed.keys() - set(_names.HEADS.get(layer, composed)))
    if unknown:
        takes = ", ".join(_names.HEADS[layer])
        yield f"model.composed: layer {layer!r} takes {takes}; got {', '.join(unknown)}"
    if not patterns and composed:
        yield (
            f"model.composed.patterns: got (); want the layers that model.composed."
            f"{', '.join(composed)} is for"
        )


# -- JSON and comparison ---------------------------------------------------------------------------


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
