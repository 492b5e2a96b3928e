"""How a table fits the machine: networks, images and steps, by data set and scale.

quick   a minute a table, for a look: nothing is learned
cpu     two cores: minutes a table, small networks
gpu     one accelerator: hours a table, the networks of the paper
paper   the paper's budget, sixteen crops of 800 x 800 for 240 epochs
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from ml_collections import ConfigDict

from rfjax.studies.specs import Spec
from rfjax.training import config as configs

MERGES = ("backbone/*/node_*",)  # the layers of DLA's decoder that the paper composes
FINE_TUNING = 20 / 240  # the share of the training after which the last stage is tuned


@dataclass(frozen=True)
class Scale:
    """What a table's runs share on one machine and one data set.

    Attributes:
      networks: model and options of the backbone, by role.
      config: the config of a full training run, but for network and head.
      fine_tuning: share of its steps for the runs that start from another.
      head_options: by head, where those of the paper do not fit a small map.
    """

    networks: dict[str, tuple[str, dict[str, Any]]]
    config: Callable[[], ConfigDict]
    fine_tuning: float
    head_options: dict[str, dict]


PAPER_NETWORKS = {"drn": ("drn_a_34", {}), "resnet": ("resnet_34", {}), "dla": ("dla_34", {})}


def _tiny(width: int) -> dict[str, tuple[str, dict[str, Any]]]:
    return {
        "drn": ("drn_tiny", {"width": width}),
        "resnet": ("resnet_tiny", {"width": width, "output_stride": 8}),
        "dla": ("dla_tiny", {}),
    }


# Contexts that fit maps of 8 to 32 pixels, where the paper's 100 take 6 to 24.
SMALL_CONTEXTS = {
    "ccl": {"dilations": (3,), "width": 32},
    "aspp": {"rates": (1, 2, 3, 4)},
}


def _digits(steps: int) -> ConfigDict:
    """Digits of 16 to 36 pixels on 64; enlarged scenes are cropped to 64, as the paper's to 800."""
    config = configs.base()
    config.steps = steps
    config.eval_batch_size = 32
    config.data.name = "digit_scenes"
    config.data.options.min_scale = 16.0
    config.data.options.max_scale = 36.0
    config.data.augmentation.crop = (64, 64)
    config.optimizer.learning_rate = 0.1
    config.optimizer.warmup_steps = 50
    return config


def _camvid_small() -> ConfigDict:
    config = configs.base()
    config.steps = 500
    config.batch_size = 8
    config.eval_batch_size = 4
    config.data.name = "camvid"
    config.data.augmentation.scale = (0.4, 0.8)
    config.data.augmentation.crop = (120, 160)
    config.data.augmentation.flip = True
    config.optimizer.learning_rate = 0.05
    config.optimizer.warmup_steps = 50
    return config


def _streets(name: str, *, crop: tuple[int, int], steps: int) -> ConfigDict:
    """Street scenes by the paper's protocol, whose learning rate and decay are the defaults."""
    config = configs.base()
    config.steps = steps
    config.eval_batch_size = 8
    config.data.name = name
    configs.street_augmentation(config, crop=crop)
    return config


def _camvid() -> ConfigDict:
    return _streets("camvid", crop=(352, 480), steps=300 * 22)


def _cityscapes(epochs: int) -> ConfigDict:
    return _streets("cityscapes", crop=(800, 800), steps=epochs * 185)


SCALES = {
    ("digit_scenes", "cpu"): Scale(_tiny(16), lambda: _digits(1000), 0.2, SMALL_CONTEXTS),
    ("digit_scenes", "gpu"): Scale(_tiny(64), lambda: _digits(8000), FINE_TUNING, SMALL_CONTEXTS),
    ("camvid", "cpu"): Scale(_tiny(24), _camvid_small, 0.2, SMALL_CONTEXTS),
    ("camvid", "gpu"): Scale(PAPER_NETWORKS, _camvid, FINE_TUNING, {}),
    ("cityscapes", "gpu"): Scale(PAPER_NETWORKS, lambda: _cityscapes(60), FINE_TUNING, {}),
    ("cityscapes", "paper"): Scale(PAPER_NETWORKS, lambda: _cityscapes(240), FINE_TUNING, {}),
}


def _sums(steps: int, **data: int | float) -> ConfigDict:
    """Scenes of digits one at a time: sums of losses, heavy momentum, as in Caffe."""
    config = configs.base()
    config.steps = steps
    config.batch_size = 1
    config.eval_batch_size = 32
    config.task.normalize = "none"
    config.data.name = "digit_scenes"
    config.data.options.min_scale, config.data.options.max_scale = 28.0, 48.0
    config.data.options.update(data)
    config.optimizer.learning_rate = 1e-8
    config.optimizer.poly_power = 0.0
    config.optimizer.momentum = 0.99
    config.optimizer.weight_decay = 5e-4
    config.optimizer.rates = ("*/bias=2",)
    config.optimizer.decays = ("*/bias=0",)
    config.optimizer.rate_in_momentum = True
    return config


# So small a network does not leave its first plateau with dropout; the paper found it to matter
# little.
_CLASSIFIERS = _tiny(16) | {"vgg": ("vgg_tiny", {"dropout": 0.0})}
FCN_SCALES = {
    ("digit_scenes", "cpu"): Scale(_CLASSIFIERS, lambda: _sums(3000), 0.25, {}),
    ("digit_scenes", "quick"): Scale(
        _CLASSIFIERS, lambda: _sums(40, train_scenes=16, val_scenes=16), 0.25, {}
    ),
}


def _adapting() -> ConfigDict:
    """The scenes of `_digits`, few at a time: a table of ten networks is a matter of minutes."""
    config = _digits(1000)
    config.batch_size = 4
    config.optimizer.rule = "adam"
    config.optimizer.learning_rate = 3e-3
    config.optimizer.weight_decay = 0.0
    return config


def _adapting_in_a_moment() -> ConfigDict:
    config = _adapting()
    config.steps = 20
    config.data.options.train_scenes = config.data.options.val_scenes = 16
    return config


# Where the trunk does not dilate: blocks of stride 4 that stand for conv3, conv4 and conv5.
_BLOCKS = {"vgg": ("resnet_tiny", {"width": 16, "depth": 3, "output_stride": 4})}
# Reaches and widths that fit maps of 8 to 16 pixels.
_FILTERS = {
    "lsdfn": {"sample_strides": (1, 2), "channels": 16, "samples": 3},
    "lsdfn_concat": {"channels": 16, "width": 32},
}
_ADAPTING = _tiny(16) | _BLOCKS
ADAPTIVE_SCALES = {
    ("digit_scenes", "cpu"): Scale(_ADAPTING, _adapting, 0.25, _FILTERS),
    ("digit_scenes", "quick"): Scale(_ADAPTING, _adapting_in_a_moment, 0.25, _FILTERS),
}


Scales = Mapping[tuple[str, str], Scale]  # by data set and name


def find(data: str, scale: str, scales: Scales | None = None) -> Scale:
    """The scale of this name for a data set.

    Args:
      data, scale: its two names.
      scales: those of a study; None for those of "blurring".

    Raises:
      ValueError: there is none; the message lists those that there are.
    """
    scales = SCALES if scales is None else scales
    if (data, scale) not in scales:
        there = ", ".join(f"{name} at {size}" for name, size in scales)
        raise ValueError(f"no scale {scale!r} for {data!r}; there are {there}")
    return scales[data, scale]


def run_config(
    spec: Spec, scale: Scale, *, seed: int, steps: int | None = None, data_dir: str = ""
) -> ConfigDict:
    """The config of a run, locked; `model.weights` of a run with a parent is left to the caller.

    Args:
      spec: what is trained.
      scale: from `find`.
      seed: of everything.
      steps: of a full training in place of the scale's; fine-tuning takes its share of them.
      data_dir: where the data lie; "" for their default.
    """
    config = scale.config()
    with config.unlocked():
        config.seed = seed
        config.steps = steps or config.steps
        config.steps = max(1, round(_share(spec, scale) * config.steps))
        config.optimizer.warmup_steps = min(config.optimizer.warmup_steps, config.steps // 10)
        config.trainable = spec.trainable
        config.eval_every = max(1, config.steps // spec.evaluations)
        config.checkpoint_every = max(250, config.steps // 20)
        config.log_every = max(1, config.steps // 20)
        config.keep_latest = 1
        config.data.dir = data_dir
        if spec.enlargement != 1:
            config.data.options.enlargement = spec.enlargement
        config.optimizer.learning_rate *= spec.learning_rate
        _set_model(config, spec, scale)
        config.update_from_flattened_dict(dict(spec.settings))
    return config.lock()


def _share(spec: Spec, scale: Scale) -> float:
    """What part of the scale's steps a run takes."""
    if spec.share is not None:
        return spec.share
    return 1.0 if spec.parent is None else scale.fine_tuning


def _set_model(config: ConfigDict, spec: Spec, scale: Scale) -> None:
    config.model.name, backbone = scale.networks[spec.network]
    config.model.head = spec.head
    for key, value in backbone.items():
        config.model.backbone_options[key] = value
    for key, value in {**scale.head_options.get(spec.head, {}), **dict(spec.options)}.items():
        config.model.head_options[key] = value
    if spec.composed is not None:
        config.model.composed.patterns = MERGES
        for key, value in spec.composed:
            config.model.composed[key] = value
