"""The keys of a run, their checks, and their JSON form.

A run is described by one locked `ml_collections.ConfigDict` in which unknown keys are errors.
`base` returns every key with its default and its meaning; the files in `configs/` start from it.
Keys whose default is `None` (the options of heads, backbones and data sets) are "leave it to the
layer": they exist so that any of them can be set from the command line, and only those that are set
are passed on.
"""

import json
import math
from collections.abc import Iterator
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

from rfjax.training.layer_options import adapting_options, data_options, head_options
from rfjax.training.layer_options import option as option

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
    "data.dir",
    "data.cache.dir",
    "model.remat",
    "parallel",
)


def base() -> ConfigDict:
    """The config with every key at its default, locked.

    Returns:
        A locked `ConfigDict`. `seed` drives the initial parameters, the order of the images and
        every random number of augmentation and dropout. All counts named `*_every` are in steps.

    Example:
        >>> config = base()
        >>> config.optimizer.momentum
        0.9
        >>> config.is_locked
        True
    """
    config = ConfigDict()
    config.seed = 0
    config.steps = 1500  # updates in all; the learning rate reaches zero there
    config.steps_per_call = 1  # that devices make on their own, without the host
    config.batch_size = 16  # images per update, over all devices of all processes
    config.parallel = "pmap"  # pmap | shard_map: how a batch is spread over devices
    # all | last_stage (the head) | structure (covariances and offsets), or patterns of the paths of
    # parameters, as "backbone/layer4_*, head/*"
    config.trainable = "all"

    config.eval_every = 500  # besides at the end
    config.eval_batch_size = 16  # over all devices; rounded up to a multiple of their number
    config.checkpoint_every = 500  # besides after each evaluation, at the end, and when interrupted
    config.keep_latest = 2  # checkpoints; the best one is kept besides
    config.log_every = 50

    config.task = _task()
    config.data = _data()
    config.model = _model()
    config.optimizer = _optimizer()
    return config.lock()


def _task() -> ConfigDict:
    """What is learned."""
    task = ConfigDict()
    task.name = (
        "segmentation"  # segmentation | segmentations (several labels a pixel) | classification
    )
    task.normalize = "count"  # the sum of losses over what counts (pixels), or none: the sum itself
    task.cross_entropy = option(str)  # of segmentation: softmax | sigmoid | null_background
    task.sampling = option(float)  # probability that a cell of the last layer has a loss in a step
    task.cell = option(int)  # height and width of such a cell in pixels
    task.class_weights = option(tuple)  # of segmentation by softmax: one for each class
    task.focal = option(float)  # likewise: exponent of the focal loss; 0 is the cross-entropy
    task.dice = option(float)  # likewise: factor on the Dice loss that is added
    task.fusion = option(str)  # of guided: late_global | early | …, see models.guided
    task.shared = option(bool)  # of guided: whether one encoder reads support and query
    task.map = option(str)  # of guided: that features are taken from
    return task


def _data() -> ConfigDict:
    """The data set and how its training images are varied."""
    data = ConfigDict()
    data.name = "digit_scenes"  # one of `rfjax.data.names()`
    data.dir = ""  # where the data lie or are put; "" is the data set's own default
    data.options = data_options()  # of `rfjax.data.load`; None is the data set's own default

    data.normalization = "dataset"  # its own mean and deviation | imagenet | caffe
    data.augmentation = ConfigDict()
    data.cache = ConfigDict()
    # The network starts from this map, as "pool4", or from several, as "pool3, pool4", in the order
    # in which it makes them; they are computed once. "" from images
    data.cache.map = ""
    data.cache.dir = ""  # where the maps lie; "" is "maps" in the run's directory
    data.cache.dtype = "float16"  # float16 | float32, of the files
    data.pad = (0, 0)  # least height, width of a batch: zeros and void below and on the right
    data.augmentation.scale = (1.0, 1.0)  # factor drawn uniformly between the two
    data.augmentation.rotation = 0.0  # degrees, drawn from [-rotation, rotation]
    data.augmentation.crop = (0, 0)  # height, width in pixels; (0, 0) is no crop
    data.augmentation.color = 0.0  # 0.5: contrast, brightness, saturation by U[0.5, 1.5]
    data.augmentation.lighting = 0.0  # standard deviation of the principal-component noise
    data.augmentation.flip = False  # left-right, every second image
    return data


def _model() -> ConfigDict:
    """The network."""
    model = ConfigDict()
    model.name = "resnet_tiny"
    model.head = "score"
    model.head_options = head_options()
    model.composed = _composed()
    model.backbone_options = ConfigDict()  # width, depth are those of the tiny networks
    model.backbone_options.width = option(int)  # channels of the stem
    model.backbone_options.depth = option(int)
    model.backbone_options.output_stride = option(int)  # 32 | 16 | 8; of resnet_tiny 4 | 8
    model.backbone_options.down_ratio = option(int)  # of dla_*: 2 | 4
    model.backbone_options.transition = option(str)  # of drn_a_*: none | previous | full
    model.backbone_options.border = option(int)  # of vgg_*, alexnet: 100 | 81 | 0 (none)
    model.backbone_options.light = option(int)  # of vgg_*, alexnet: channels of fc6 and fc7
    model.backbone_options.context = option(str)  # of flownet_*: none | lsdfn | adadr
    model.backbone_options.samples = option(int)  # of flownet_*, of lsdfn
    model.backbone_options.sample_stride = option(int)  # likewise
    model.backbone_options.dropout = option(float)  # of vgg_*: share of fc6 and fc7
    model.batch_norm = ConfigDict()
    model.batch_norm.unbiased = True  # running variances with n / (n - 1), as PyTorch's; or Flax's
    model.dtype = "float32"  # float32 | bfloat16, of the computation; parameters are float32
    model.remat = False  # recompute activations in the backward pass to save memory
    # Channels of each of several networks whose scores are averaged, as (3, 1) of colors and depth;
    # () for one network of all channels.
    model.late_fusion = ()
    # Start from a file of torch-named arrays (.npz, .safetensors, .pth), or from the best of
    # another run; with late_fusion perhaps one for each network, with a comma between.
    model.weights = ""
    model.anew = ""  # patterns of the paths of parameters that start as drawn all the same
    return model


def _composed() -> ConfigDict:
    """Which convolutions of the backbone are composed with Gaussians, or adapt otherwise."""
    composed = adapting_options()
    # composition | gauss_deform | dynamic | deform | static_deform | pad | adadr: the layer of the
    # head of this name
    composed.layer = "composition"
    composed.patterns = ()  # of their paths, as "backbone/layer4_*/conv2"; () for none
    return composed


def _optimizer() -> ConfigDict:
    """The rule of the updates, the learning rate, and what they are for which parameters."""
    optimizer = ConfigDict()
    optimizer.learning_rate = 0.01
    optimizer.schedule = "poly"  # poly | cosine | constant, of the learning rate
    optimizer.poly_power = 0.9  # of poly: lr (1 - step/steps)^power; 0 keeps it constant
    optimizer.warmup_steps = 0  # linear from learning_rate / warmup_steps
    optimizer.rule = "momentum"  # momentum | adam | adamw
    optimizer.momentum = 0.9  # of adam and adamw: of the gradient's mean
    optimizer.weight_decay = 1e-4  # added to the gradient, before momentum; of adamw to the step
    optimizer.grad_clip = 0.0  # largest global norm of the gradient; 0 is no clipping
    optimizer.covariance_multiplier = 1.0  # of the learning rate, for covariances and offsets
    optimizer.covariance_decay = False  # whether weight decay acts on covariances and offsets
    optimizer.accumulate = 1  # steps whose gradients make one update
    optimizer.accumulation = "mean"  # mean | sum of these gradients
    optimizer.rates = ()  # factors on the learning rate by pattern of paths, as ("*/bias=2",)
    optimizer.decays = ()  # factors on the weight decay, likewise
    # Whether the rate is in the momentum, m <- momentum m + lr g, as Caffe has it.
    optimizer.rate_in_momentum = False
    return optimizer


def street_augmentation(config: ConfigDict, *, crop: tuple[int, int]) -> None:
    """Sets how the papers vary street scenes: scale, rotation, crop, colors and left-right flip."""
    augmentation = config.data.augmentation
    augmentation.scale = (0.5, 2.0)
    augmentation.rotation = 10.0
    augmentation.crop = crop
    augmentation.color = 0.5
    augmentation.flip = True


def options(config: ConfigDict) -> dict[str, Any]:
    """The options of a section that were set, as keyword arguments."""
    return {key: value for key, value in config.to_dict().items() if value is not None}


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
        "class_weights": rules.several(rules.number(0), least=1),
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
        **dict.fromkeys(("ways", "folds"), rules.integer(2)),
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
        **dict.fromkeys(("kernel_size", "dilation", "components", "width"), _COUNT),
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
    faults += [] if faults else [*_uneven(config), *_varied(config)]
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
    own, plain = flatten(config.data), flatten(_data())
    varied = [k for k in own if k.startswith(("pad", "augmentation.")) and own[k] != plain[k]]
    if not config.data.cache.map or not varied:
        return []
    return [f"data.cache.map: maps are those of whole images; unset data.{', data.'.join(varied)}"]


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
        ("data.name", data.name, _names.DATA_SETS),
    )
    for key, value, table in tables:
        try:
            choose(key, value, tuple(table))
        except ValueError as error:
            yield str(error)
    task = {key: config.task[key] for key in config.task if key not in ("name", "normalize")}
    owners = (
        (f"task: {config.task.name}", ConfigDict(task), _names.TASKS, config.task.name),
        (f"model: backbone {model.name!r}", model.backbone_options, _names.NETWORKS, model.name),
        (f"model: head {model.head!r}", model.head_options, _names.HEADS, model.head),
        (f"data: {data.name}", data.options, _names.DATA_SETS, data.name),
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
    config = base()
    with config.unlocked():
        for key, value in flatten(values).items():
            *sections, name = key.split(".")
            section = config
            for part in sections:
                section = section[part]
            with section.ignore_type():
                section[name] = value
    return config.lock()


def incompatible(old: ConfigDict, new: ConfigDict) -> list[Difference]:
    """The keys that forbid to resume `old` as `new`.

    The keys in `FREE_ON_RESUME` may differ. So may `steps`, but only where the learning rate is
    constant: otherwise the number of steps has shaped every learning rate so far.
    """
    free = set(FREE_ON_RESUME)
    if _is_constant(old.optimizer) and _is_constant(new.optimizer):
        free.add("steps")
    return differences(old, new, free)


def _is_constant(optimizer: ConfigDict) -> bool:
    """Whether the learning rate does not depend on the number of steps of the run."""
    poly = optimizer.schedule == "poly" and optimizer.poly_power == 0
    return poly or optimizer.schedule == "constant"


def check_compatible(old: ConfigDict, new: ConfigDict, workdir: Path) -> None:
    """Refuses to resume a run under a config that would have made it another run.

    Raises:
        ConfigError: naming every key that differs, old -> new.
    """
    free = f"{', '.join(FREE_ON_RESUME)}, and steps if the learning rate is constant"
    refuse(f"the run in {workdir}", incompatible(old, new), ConfigError, free=free)
