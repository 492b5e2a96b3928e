"""Starting from another run or from a file of torch-named arrays."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models
from rfjax.models import torch_import
from rfjax.models.guided import guided
from rfjax.training import config as configs
from rfjax.training import optimizers, state, weights
from rfjax.training.checkpoints import Checkpoints

IMAGES = np.random.default_rng(0).normal(size=(1, 32, 32, 3)).astype(np.float32)
WIDTH = {"width": 4}


@functools.cache
def make(head):
    model = models.create("resnet_tiny", num_classes=3, head=head, backbone_options=WIDTH)
    return model, state.initial_variables(
        model, jax.random.key(len(head)), np.zeros((1, 32, 32, 3), np.float32)
    )


def config_of(head, path):
    config = configs.base()
    config.model.head, config.model.weights, config.model.backbone_options.width = (
        head,
        str(path),
        4,
    )
    return config


@pytest.fixture(scope="module")
def plain_run(tmp_path_factory):
    """A run of a 1x1 head, with some variables."""
    workdir = tmp_path_factory.mktemp("plain")
    model, variables = make("score")
    with Checkpoints(workdir) as checkpoints:
        checkpoints.save(state.create(variables, optimizers.sgd(lambda t: 0.1)), meta={})
    return workdir, model, variables


def test_a_widened_head_starts_from_what_the_narrow_one_computes(plain_run):
    workdir, plain, trained = plain_run
    wide, fresh = make("conv3")
    placed = weights.load(config_of("conv3", workdir), fresh, num_classes=3)
    expected, apply = jax.jit(plain.apply)(trained, IMAGES), jax.jit(wide.apply)
    np.testing.assert_allclose(apply(placed, IMAGES), expected, atol=1e-5)
    assert not np.allclose(apply(fresh, IMAGES), expected, atol=1e-2)


def test_layers_that_start_anew_although_there_are_weights(plain_run):
    workdir, _, trained = plain_run
    _, fresh = make("conv3")
    config = config_of("conv3", workdir)
    config.model.anew = "backbone/layer1_*, head/*"
    placed = weights.load(config, fresh, num_classes=3)
    for layer, found in placed["params"]["backbone"].items():
        origin = fresh if layer.startswith("layer1_") else trained
        chex.assert_trees_all_equal(found, origin["params"]["backbone"][layer])
    chex.assert_trees_all_equal(placed["params"]["head"], fresh["params"]["head"])
    config.model.anew = "backbone/layer9_*"
    with pytest.raises(configs.ConfigError, match=r"layer9.* matches no parameter of this model"):
        weights.load(config, fresh, num_classes=3)


@pytest.mark.parametrize(
    "head, options",
    [("conv3", {}), ("composition", {"sigma": 0.15}), ("dog", {"sigma_center": 0.15})],
)
def test_a_transplanted_head_starts_where_its_checkpoint_ended(plain_run, head, options):
    workdir, plain, trained = plain_run
    model = models.create(
        "resnet_tiny", num_classes=3, head=head, head_options=options, backbone_options=WIDTH
    )
    images = np.zeros((1, 32, 32, 3), np.float32)
    fresh = state.initial_variables(model, jax.random.key(1), images)
    placed = weights.load(config_of(head, workdir), fresh, num_classes=3)
    expected = jax.jit(plain.apply)(trained, IMAGES)
    np.testing.assert_allclose(jax.jit(model.apply)(placed, IMAGES), expected, atol=1e-6)


def test_another_backbone_is_refused(plain_run):
    deep = models.create("resnet_tiny", num_classes=3, backbone_options=WIDTH | {"depth": 3})
    images = np.zeros((1, 32, 32, 3), np.float32)
    fresh = state.initial_variables(deep, jax.random.key(1), images)
    with pytest.raises(configs.ConfigError, match=r"only one of them has .*layer1_2/"):
        weights.load(config_of("score", plain_run[0]), fresh, num_classes=3)


def test_heads_of_another_kind_stay_as_drawn(plain_run):
    model = models.create(
        "resnet_tiny",
        num_classes=3,
        head="aspp",
        head_options={"rates": (1, 2)},
        backbone_options=WIDTH,
    )
    images = np.zeros((1, 32, 32, 3), np.float32)
    fresh = state.initial_variables(model, jax.random.key(1), images)
    placed = weights.load(config_of("aspp", plain_run[0]), fresh, num_classes=3)
    chex.assert_trees_all_equal(placed["params"]["head"], fresh["params"]["head"])


def test_a_normalization_of_the_head_goes_with_its_kernels():
    network, fresh = make("score")
    head = lambda number: {**fresh["params"]["head"], "bn1": {"scale": jnp.full(3, number)}}
    params = [fresh["params"] | {"head": head(number)} for number in (1.0, 2.0)]
    drawn, given = ({"params": each} for each in params)
    placed = weights.transplant(given, drawn, (network, network))
    np.testing.assert_array_equal(placed["params"]["head"]["bn1"]["scale"], [2.0, 2.0, 2.0])


def test_a_stage_starts_from_the_one_before():
    """Score layers of the same path are taken, the new one is listed and stays as drawn."""
    network, _ = make("score")
    score = lambda value: {"kernel": jnp.full((1, 1, 4, 3), value), "bias": jnp.full(3, value)}
    trunk = lambda value: {"conv1": {"kernel": jnp.full((3, 3, 3, 4), value)}}
    before = {"params": {"backbone": trunk(1.0), "head": {"score_fr": score(2.0)}}}
    heads = {"score_fr": score(0.0), "score_pool4": score(0.0)}
    fresh = {"params": {"backbone": trunk(0.0), "head": heads}}
    placed = weights.transplant(before, fresh, [network])
    wanted = {"score_fr": score(2.0), "score_pool4": score(0.0)}
    chex.assert_trees_all_equal(placed["params"], {"backbone": trunk(1.0), "head": wanted})
    assert weights.anew(fresh, placed) == ("head/score_pool4",)


def test_a_truncated_network_leaves_out_the_stages_that_it_does_not_run():
    create = functools.partial(models.create, "vgg_tiny")
    classifier = create(num_classes=2, head="classify")
    truncated = create(num_classes=3, head="fcn_pool3")

    def filled(network, value):
        images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
        shapes = jax.eval_shape(network.init, jax.random.key(0), images)
        return jax.tree.map(lambda leaf: np.full(leaf.shape, value, np.float32), shapes)

    given, fresh = filled(classifier, 1.0), filled(truncated, 0.0)
    del given["params"]["head"]
    placed = weights.transplant(given, fresh, [truncated])["params"]
    assert set(placed["backbone"]) == {"conv1_1", "conv2_1", "conv3_1"}
    assert np.all(placed["backbone"]["conv3_1"]["kernel"] == 1.0)
    assert np.all(placed["head"]["score_8"]["kernel"] == 0.0)
    given["params"]["backbone"]["conv9_9"] = given["params"]["backbone"]["conv3_1"]
    with pytest.raises(ValueError, match="only one of them has params/backbone/conv9_9/bias"):
        weights.transplant(given, fresh, [truncated])


def test_covariances_stay_as_drawn(plain_run):
    _, fresh = make("composition")
    placed = weights.load(config_of("composition", plain_run[0]), fresh, num_classes=3)
    covariance = placed["params"]["head"]["covariance"]
    np.testing.assert_array_equal(covariance, fresh["params"]["head"]["covariance"])
    kernel = np.array(placed["params"]["head"]["kernel"])
    np.testing.assert_array_equal(kernel[1, 1], plain_run[2]["params"]["head"]["kernel"][0, 0])
    kernel[1, 1] = 0
    assert not kernel.any()


def test_arrays_that_do_not_fit_are_named(plain_run):
    fresh = make("score")[1]
    params = fresh["params"]
    head = params["head"] | {"bias": jnp.zeros(5)}
    fresh = fresh | {"params": params | {"head": head}}
    with pytest.raises(configs.ConfigError, match=r"params/head/bias has shape \(3,\).*\(5,\)"):
        weights.load(config_of("score", plain_run[0]), fresh, num_classes=3)


def test_a_file_is_read_by_torch_names(tmp_path, monkeypatch):
    path = tmp_path / "weights.npz"
    np.savez(path, **{"conv1.weight": np.arange(4.0)})
    given = {}

    def import_torch(name, state_dict, **options):
        given.update(options, name=name, arrays=state_dict)
        return {"params": {"kernel": 1.0}}

    monkeypatch.setattr(models, "import_torch", import_torch)
    drawn = {"params": {"kernel": 0.0}}
    found = weights.load(config_of("dog", path), drawn, num_classes=3)
    assert found == {"params": {"kernel": 1.0}}
    assert (given["name"], given["head"], given["num_classes"]) == ("resnet_tiny", "dog", 3)
    np.testing.assert_array_equal(given["arrays"]["conv1.weight"], np.arange(4.0))


def torch_named():
    """The backbone of `make("score")` as a file of PyTorch's has it."""
    wanted = make("score")[1]
    found = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(wanted):
        keys = tuple(part.key for part in path)
        if keys[1] == "backbone":
            shape = torch_import._torch_shape(leaf.shape)
            found[torch_import._torch_name(keys)] = np.ones(shape)
    return found


def test_a_network_of_another_task_takes_the_backbone_of_a_file(tmp_path):
    """Head and fusion of a guided network, of which a file of PyTorch's knows nothing."""
    np.savez(tmp_path / "trunk.npz", **torch_named())
    config = config_of("score", tmp_path / "trunk.npz")
    for shared in (True, False):
        create = functools.partial(models.create, "resnet_tiny", backbone_options=WIDTH)
        network = guided(lambda outputs: create(num_classes=outputs), 2, shared=shared)
        images, marks = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 1, 32, 32, 2))
        drawn = jax.jit(network.init)(jax.random.key(0), images[None], marks, images)
        found = weights.load(config, drawn, num_classes=2)["params"]
        chex.assert_trees_all_equal_shapes(found, drawn["params"])
        for encoder in ("backbone", "support_backbone")[: 2 - shared]:
            assert all(np.all(leaf == 1.0) for leaf in jax.tree.leaves(found[encoder]))
        for part in ("fusion", "head"):
            chex.assert_trees_all_equal(found[part], drawn["params"][part])


@pytest.mark.parametrize(
    ("number", "fault"),
    [
        (np.nan, "not finite (NaN or infinite) bn1.running_var, layer1.1.conv2.weight"),
        (-np.inf, "negative bn1.running_var; not finite (NaN or infinite) bn1.running_var, layer1"),
        (1e39, "not finite (NaN or infinite) bn1.running_var, layer1.1.conv2.weight"),
        (-1e-3, "negative bn1.running_var"),
    ],
)
def test_numbers_that_would_spoil_the_network_are_refused(tmp_path, number, fault):
    """In one line; 1e39 is infinite as float32. What is left out may hold anything."""
    arrays = torch_named() | {"fc.bias": np.full(3, np.nan), "bn1.num_batches_tracked": np.nan}
    np.savez(tmp_path / "sound.npz", **arrays)
    config = config_of("score", tmp_path / "sound.npz")
    weights.load(config, make("score")[1], num_classes=3)
    arrays["bn1.running_var"][1] = arrays["layer1.1.conv2.weight"][0, 0, 1, 1] = number
    np.savez(tmp_path / "spoilt.npz", **arrays)
    with pytest.raises(configs.ConfigError, match=re.escape(fault)) as caught:
        weights.load(config_of("score", tmp_path / "spoilt.npz"), {}, num_classes=3)
    assert "spoilt.npz" in str(caught.value) and "\n" not in str(caught.value)


def test_numbers_of_another_run_have_to_be_finite():
    (network, given), (other, fresh) = make("score"), make("conv3")
    backbone = given["params"]["backbone"]
    kernel = backbone["conv1"]["kernel"].at[0, 0, 0, 0].set(jnp.nan)
    backbone = backbone | {"conv1": {"kernel": kernel}}
    given = given | {"params": given["params"] | {"backbone": backbone}}
    with pytest.raises(ValueError, match=r"not finite .*: params/backbone/conv1/kernel$"):
        weights.transplant(given, fresh, (network, other))


def test_errors_name_the_path(tmp_path):
    with pytest.raises(configs.ConfigError, match=r"model.weights: there is no .*missing.npz"):
        weights.load(config_of("score", tmp_path / "missing.npz"), {}, num_classes=3)
    (tmp_path / "broken.npz").write_bytes(b"not a zip file")
    with pytest.raises(configs.ConfigError, match=r"broken\.npz"):
        weights.load(config_of("score", tmp_path / "broken.npz"), {}, num_classes=3)
    with pytest.raises(configs.ConfigError, match="holds no checkpoints/"):
        weights.load(config_of("score", tmp_path), {}, num_classes=3)
