"""Keys, checks, JSON, what may change on resume, and the config files."""

import importlib.util
import re

import pytest
from absl import flags
from ml_collections import config_flags

from rfjax import models
from rfjax.training import config as configs
from rfjax.training import unread
from tests.training.runs import ROOT, set_key

FILES = ("quickstart", "camvid", "cityscapes", "classify", "voc")


def load_file(name, variant=""):
    spec = importlib.util.spec_from_file_location(name, ROOT / "configs" / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.get_config(variant)


WRONG = {
    "seed": -1,
    "steps": 0,
    "batch_size": 0,
    "trainable": "some",
    "eval_every": 0,
    "eval_batch_size": 0,
    "checkpoint_every": 0,
    "keep_latest": 0,
    "log_every": 0,
    "data.augmentation.scale": (2.0, 0.5),
    "data.augmentation.rotation": 270.0,
    "data.augmentation.crop": (0, 64),
    "data.augmentation.color": 1.5,
    "data.augmentation.lighting": -0.1,
    "data.name": "digits",
    "model.name": "resnet_tinny",
    "model.head": "tail",
    "model.dtype": "float8",
    "optimizer.learning_rate": 0.0,
    "optimizer.rule": "lion",
    "optimizer.schedule": "step",
    "optimizer.poly_power": -1.0,
    "optimizer.warmup_steps": -1,
    "optimizer.momentum": 1.5,
    "optimizer.weight_decay": float("nan"),
    "optimizer.grad_clip": -1.0,
    "optimizer.covariance_multiplier": -0.5,
    "optimizer.accumulate": 0,
    "optimizer.accumulation": "product",
    "optimizer.rates": ("*/bias",),
    "optimizer.decays": ("*/bias=-1",),
    "optimizer.average": 1.0,
    "stop_after": -1,
    "steps_per_call": 0,
    "data.pad": (0, 64),
    "data.cache.dtype": "int8",
    "task.cross_entropy": "hinge",
    "task.sampling": 0.0,
    "task.cell": 0,
    "task.class_weights": (1.0, -1.0),
    "task.hard_examples": 0.0,
    "task.focal": -1.0,
    "task.dice": float("inf"),
    "task.name": "detection",
    "task.normalize": "pixels",
    "data.normalization": "coffee",
}


@pytest.mark.parametrize(("key", "value"), WRONG.items())
def test_every_wrong_value_is_named_with_what_is_wanted(key, value):
    config = configs.base()
    set_key(config, key, value)
    with pytest.raises(configs.ConfigError, match=rf"^{key}(:| is one of)"):
        configs.validate(config)


def test_all_faults_are_told_at_once():
    config = configs.base()
    config.steps, config.model.name = 0, "nothing"
    with pytest.raises(configs.ConfigError) as fault:
        configs.validate(config)
    assert "steps: got 0; want an integer from 1 to" in str(fault.value)
    assert "model.name is one of resnet_18" in str(fault.value)


def test_a_batch_is_shared_evenly():
    config = configs.base()
    configs.validate(config, devices=8)
    with pytest.raises(configs.ConfigError, match="multiple of the 3 devices"):
        configs.validate(config, devices=3)


@pytest.mark.parametrize("name", FILES)
def test_files_are_valid_locked_and_survive_json(name):
    config = load_file(name)
    configs.validate(config)
    assert config.is_locked
    assert configs.from_json(configs.to_json(config)) == config
    docstring = (ROOT / "configs" / f"{name}.py").read_text().split('"""')[1]
    assert f"--config=configs/{name}.py" in docstring
    assert re.search("mean IU|accuracy|no result", docstring, re.IGNORECASE)


@pytest.mark.parametrize(
    ("variant", "head", "rate", "factors"),
    [
        ("", "fcn_32s", 1e-10, None),
        ("fcn_16s", "fcn_16s", 1e-12, None),
        ("fcn_8s", "fcn_8s", 1e-14, None),
        ("at_once", "fcn_8s", 1e-10, (0.01, 0.0001)),
    ],
)
def test_networks_of_voc_are_staged(variant, head, rate, factors):
    config = load_file("voc", variant)
    configs.validate(config)
    found = config.model.name, config.model.head, config.optimizer.learning_rate
    assert found == ("vgg_16", head, rate)
    assert config.model.head_options.at_once == factors


def test_options_that_are_set_survive_json():
    config = configs.base()
    config.model.head_options.sigma = 0.75
    config.data.augmentation.crop = (32, 48)
    again = configs.from_json(configs.to_json(config))
    assert configs.options(again.model.head_options) == {"sigma": 0.75}
    assert again.data.augmentation.crop == (32, 48)
    assert not configs.incompatible(config, again)


@pytest.mark.parametrize(("flag", "key", "wanted"), [
    ("rates=(2,4)", "rates", (2, 4)),
    ("dilations=6", "dilations", (6,)),
    ("sets=((1,2),(3,))", "sets", ((1, 2), (3,))),
    ("blur=0.5", "blur", 0.5),
    ("normalize=false", "normalize", False),
])  # fmt: skip
def test_options_of_heads_are_set_from_the_command_line(flag, key, wanted):
    values, arguments = flags.FlagValues(), ["train.py", f"--config.model.head_options.{flag}"]
    config_flags.DEFINE_config_dict(
        "config", configs.base(), flag_values=values, sys_argv=arguments
    )
    values(arguments)
    assert configs.options(values.config.model.head_options) == {key: wanted}
    again = configs.from_json(configs.to_json(values.config))
    assert configs.options(again.model.head_options) == {key: wanted}
    assert not configs.incompatible(values.config, again)


def test_every_option_of_a_head_is_a_key():
    keys = set(configs.base().model.head_options)
    options = {name for head in models.heads.HEADS for name in models.heads.head_options(head)}
    assert options - keys == {"kernel_init"}  # a function
    assert not keys - options


def test_the_protocol_of_the_paper():
    config = load_file("cityscapes")
    assert config.steps == 44400  # 240 epochs of 185
    assert (config.batch_size, config.data.augmentation.crop) == (16, (800, 800))
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.poly_power) == (0.01, 0.9)
    assert (optimizer.momentum, optimizer.weight_decay) == (0.9, 1e-4)


@pytest.mark.parametrize(
    ("variant", "model", "head"),
    [
        ("", "drn_a_34", "composition"),
        ("dog", "drn_a_34", "dog"),
        ("resnet_34", "resnet_34", "composition"),
        ("resnet_34+dog", "resnet_34", "dog"),
        ("dog+resnet_34", "resnet_34", "dog"),
    ],
)
def test_variants(variant, model, head):
    config = load_file("cityscapes", variant)
    assert (config.model.name, config.model.head) == (model, head)


def test_every_head_and_model_is_a_variant():
    for name in (*models.names(), *models.heads.HEADS):
        load_file("quickstart", name)


def test_unknown_variants_list_the_choices():
    with pytest.raises(configs.ConfigError, match=r"'nose' is no model \(.*drn_a_34.*composition"):
        load_file("camvid", "drn_a_34+nose")
    with pytest.raises(configs.ConfigError, match="names both 'score' and 'dog'"):
        load_file("camvid", "score+dog")


def test_what_may_change_on_resume():
    old, new = configs.base(), configs.base()
    for key in configs.FREE_ON_RESUME:
        value = configs.flatten(new)[key]
        set_key(
            new, key, "elsewhere" if isinstance(value, str) else not value if value is False else 7
        )
    assert configs.incompatible(old, new) == []
    new.steps = 3000
    assert [str(d) for d in configs.incompatible(old, new)] == ["steps: 1500 -> 3000"]
    old.optimizer.poly_power = new.optimizer.poly_power = 0.0
    assert configs.incompatible(old, new) == []
    old.optimizer.schedule = new.optimizer.schedule = "cosine"
    assert [str(d) for d in configs.incompatible(old, new)] == ["steps: 1500 -> 3000"]
    old.optimizer.schedule = new.optimizer.schedule = "constant"
    assert configs.incompatible(old, new) == []
    old.optimizer.schedule = new.optimizer.schedule = "poly"
    old.optimizer.schedule = "constant"  # poly with the power 0 is the same
    assert configs.incompatible(old, new) == []
    old.optimizer.accumulation = "sum"  # which nothing reads, since each gradient is an update
    assert configs.incompatible(old, new) == []
    old.optimizer.accumulate = new.optimizer.accumulate = 2
    assert [d.key for d in configs.incompatible(old, new)] == ["optimizer.accumulation"]


DOG = {"model.head": "dog", "model.head_options.resample": False}
BLURRED = {"model.composed.patterns": ("backbone/*",), "model.composed.resample": False}
UNREAD = {
    "optimizer.poly_power": (2.0, {"optimizer.schedule": "cosine"}),
    "optimizer.rate_in_momentum": (True, {"optimizer.rule": "adamw"}),
    "optimizer.accumulation": ("sum", {}),
    "optimizer.covariance_decay": (True, {"optimizer.weight_decay": 0.0}),
    "optimizer.decays": (("*/bias=0",), {"optimizer.weight_decay": 0.0}),
    "task.cell": (16, {}),
    "data.cache.dir": ("maps", {}),
    "data.cache.dtype": ("float32", {}),
    "model.anew": ("head/*", {}),
    "model.backbone_options.samples": (5, {"model.name": "flownet_thin"}),
    "model.backbone_options.sample_stride": (3, {"model.name": "flownet_thin"}),
    "model.head_options.rate": (2.0, DOG),
    "model.head_options.mode": ("residual", DOG),
    "model.composed.rate": (2.0, BLURRED),
    "model.composed.mode": ("residual", BLURRED),
}
LSDFN = {"model.backbone_options.context": "lsdfn"}
READ = {
    "optimizer.poly_power": {"optimizer.schedule": "poly"},
    "optimizer.rate_in_momentum": {"optimizer.rule": "momentum"},
    "optimizer.accumulation": {"optimizer.accumulate": 2},
    "optimizer.covariance_decay": {"optimizer.weight_decay": 0.1},
    "optimizer.decays": {"optimizer.weight_decay": 0.1},
    "task.cell": {"task.sampling": 0.5},
    "data.cache.dir": {"data.cache.map": "layer3"},
    "data.cache.dtype": {"data.cache.map": "layer3"},
    "model.anew": {"model.weights": "runs/first"},
    "model.backbone_options.samples": LSDFN,
    "model.backbone_options.sample_stride": LSDFN,
    **{
        f"model.{section}.{key}": {f"model.{section}.resample": True}
        for section in ("head_options", "composed")
        for key in ("rate", "mode")
    },
}


@pytest.mark.parametrize(("key", "value", "others"), [(k, *v) for k, v in UNREAD.items()])
def test_what_nothing_reads_is_refused_if_it_was_set(key, value, others):
    config = configs.base()
    for other, own in others.items():
        set_key(config, other, own)
    configs.validate(config)
    set_key(config, key, value)
    (decides,) = READ[key]
    with pytest.raises(configs.ConfigError) as fault:
        configs.validate(config)
    message = str(fault.value)
    assert message.startswith(f"{key}: got {value!r}, which nothing reads while {decides} is ")
    assert f"; want {decides} " in message and len(message.splitlines()) == 1
    for other, own in READ[key].items():
        set_key(config, other, own)
    configs.validate(config)


def test_every_key_that_may_be_without_effect_is_tried():
    assert READ.keys() == UNREAD.keys() == unread.CONDITIONS.keys()


def test_class_weights_are_numbers_or_measured():
    config = configs.base()
    for value in ((1.0, 2.0), "median_frequency"):
        config.task.class_weights = value
        configs.validate(config)
        assert configs.from_json(configs.to_json(config)).task.class_weights == value
    config.task.class_weights = "measured"
    wanted = "want median_frequency, or a tuple of 1 value or more, each a finite number"
    with pytest.raises(configs.ConfigError, match=f"class_weights: got 'measured'; {wanted}"):
        configs.validate(config)


def test_keys_of_former_versions():
    values = configs.base().to_dict()
    for former, rule in ((True, "adam"), (False, "momentum")):
        old = {**values, "optimizer": {**values["optimizer"], "adaptive": former}}
        del old["optimizer"]["rule"]
        assert configs.from_dict(old).optimizer.rule == rule
