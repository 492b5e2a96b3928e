"""Runs whose backbones are composed where the config says."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from absl import flags
from ml_collections import config_flags

from rfjax import _names
from rfjax.training import composed, optimizers, sigmas, state, steps
from rfjax.training import config as configs


def tiny(**options):
    config = configs.base()
    config.model.backbone_options.width, config.model.backbone_options.depth = 4, 1
    for key, value in options.items():
        config.model.composed[key] = value
    return config


def test_without_patterns_all_is_plain():
    assert composed.convolutions(tiny()) is None


def test_the_command_line_names_the_layers():
    values, arguments = (
        flags.FlagValues(),
        [
            "train.py",
            "--config.model.composed.patterns=('*/conv2','backbone/conv1')",
            "--config.model.composed.sigma=0.7",
            "--config.model.composed.structure=channel",
        ],
    )
    config_flags.DEFINE_config_dict(
        "config", configs.base(), flag_values=values, sys_argv=arguments
    )
    values(arguments)
    configs.validate(values.config)
    chosen = composed.convolutions(values.config)
    assert chosen.patterns == ("*/conv2", "backbone/conv1")
    assert chosen.layer.keywords == {"sigma": 0.7, "structure": "channel"}
    again = configs.from_json(configs.to_json(values.config))
    assert composed.convolutions(again).patterns == chosen.patterns
    assert not configs.incompatible(values.config, again)


def test_structure_alone_moves_and_is_reported():
    model = composed.build_model(tiny(patterns=("*/layer1_0/conv?",), sigma=0.7), 3)
    images = np.zeros((1, 16, 16, 3), np.float32)
    variables = state.initial_variables(model, jax.random.key(0), images)
    structure = composed.declared(model)
    optimizer = optimizers.sgd(optimizers.poly_schedule(0.1, steps=10))
    step = jax.jit(steps.make_train_step(model, optimizer, trainable="structure", axis_name=None))
    rng = np.random.default_rng(0)
    batch = {
        "image": rng.normal(size=(2, 16, 16, 3)).astype(np.float32),
        "label": rng.integers(0, 3, (2, 16, 16)).astype(np.int32),
    }
    before = state.create(
        variables, optimizer, trainable="structure", is_structure=structure.is_structure
    )
    after, _ = step(before, batch)
    moved = {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, old), new in zip(
            jax.tree_util.tree_leaves_with_path(before.params),
            jax.tree.leaves(after.params),
            strict=True,
        )
        if not np.array_equal(old, new)
    }
    assert moved == {f"backbone/layer1_0/conv{number}/covariance" for number in (1, 2)}
    found = sigmas.standard_deviations(structure.covariances(before.params))
    assert list(found) == ["backbone/layer1_0/conv1", "backbone/layer1_0/conv2"]
    np.testing.assert_allclose(list(found.values()), 0.7 * np.ones((2, 2)), rtol=1e-6)


@pytest.mark.parametrize("options, message", [
    ({"patterns": ("*/conv7",)}, "model: no convolution lies at '.*/conv7'; there are backbone/"),
    ({"patterns": ("*/conv2",), "structure": "fog"}, "model: structure is one of minimal"),
    ({"patterns": ("*/conv2",), "components": 2}, "model: components are those of structure"),
])  # fmt: skip
def test_what_cannot_be_built_is_a_config_error(options, message):
    with pytest.raises(configs.ConfigError, match=message):
        composed.build_model(tiny(**options), 3)


@pytest.mark.parametrize("patterns", [("",), ("*/conv2", "")])
def test_empty_patterns_are_faults(patterns):
    with pytest.raises(configs.ConfigError, match=r"model.composed.patterns: got .*not empty"):
        configs.validate(tiny(patterns=patterns))


def test_options_of_nothing_are_a_fault():
    with pytest.raises(configs.ConfigError, match=r"want the layers that model.composed.sigma is"):
        configs.validate(tiny(sigma=0.5))


def test_every_option_of_a_layer_that_can_be_placed_is_a_key():
    from rfjax.models import heads

    keys = set(configs.base().model.composed) - {"patterns", "layer"}
    options = {option for layer in _names.PLACED for option in heads.head_options(layer)}
    assert keys == options - {"kernel_size", "dilation", "kernel_init"}  # set by the network


@pytest.mark.parametrize("layer", _names.PLACED)
def test_any_layer_can_be_placed(layer):
    config = tiny(layer=layer, patterns=("backbone/*/conv2",))
    configs.validate(config)
    model = composed.build_model(config, 3)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))
    block = shapes["params"]["backbone"]["layer1_0"]
    assert set(block["conv1"]) == {"kernel"} and set(block["conv2"]) > {"kernel"}


def test_options_of_another_layer_are_a_fault():
    config = tiny(layer="pad", patterns=("backbone/*",), sigma=1.0)
    with pytest.raises(configs.ConfigError, match=r"layer 'pad' takes activation, .*; got sigma"):
        configs.validate(config)
    with pytest.raises(configs.ConfigError, match=r"model.composed.layer: got 'dog'; want one of"):
        configs.validate(tiny(layer="dog"))
