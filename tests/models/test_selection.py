"""Composition anywhere: convolutions of a network named by their paths."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, traverse_util

from rfjax import models, nn
from rfjax.training import optimizers, sigmas

COMPOSED = functools.partial(nn.ComposedConv, sigma=0.3)
TINY = {"width": 4, "depth": 1}


def _shapes(name, conv, **options):
    model = models.create(name, num_classes=3, conv=conv, **options)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))


def _composed(name, patterns, **options):
    """The layers with covariances."""
    flat = traverse_util.flatten_dict(_shapes(name, nn.select(patterns, COMPOSED), **options))
    return ["/".join(path[1:-1]) for path in sorted(flat) if path[-1] == "covariance"]


@pytest.mark.parametrize("name, patterns, wanted", [
    ("resnet_18", "backbone/layer4_*/conv2", ["layer4_0/conv2", "layer4_1/conv2"]),
    ("resnet_18", "backbone/conv1", ["conv1"]),  # the stem, 7x7
    ("resnet_18", ["*/layer2_0/downsample_0", "*layer2_0/conv?"],
     ["layer2_0/conv1", "layer2_0/conv2", "layer2_0/downsample_0"]),
    ("resnet_50", "*/layer4_2/conv*", [f"layer4_2/conv{number}" for number in (1, 2, 3)]),
    ("drn_d_22", ["*/layer[78]_*", "*/layer0_0"], ["layer0_0", "layer7_0", "layer8_0"]),
    ("drn_c_26", "*/layer8_0/*", ["layer8_0/conv1", "layer8_0/conv2"]),
    ("dla_34", "*/level4/*/root/*", ["level4/tree1/root/conv", "level4/tree2/root/conv"]),
    ("dla_34", "*/proj_*", [f"dla_up/ida_{i}/proj_{j + 1}_0" for i in range(4)
                            for j in range(i + 1)]),
])  # fmt: skip
def test_any_convolution_can_be_named(name, patterns, wanted):
    assert _composed(name, patterns) == [f"backbone/{layer}" for layer in wanted]


def test_everything_but_the_chosen_keeps_its_place():
    plain = traverse_util.flatten_dict(_shapes("resnet_18", None))
    conv = nn.select(["*/conv1", "*/conv2"], COMPOSED)
    composed = traverse_util.flatten_dict(_shapes("resnet_18", conv, remat=True))
    assert {path: leaf for path, leaf in composed.items() if path in plain} == plain
    more = {path[-1] for path in composed if path not in plain}
    assert more == {"covariance"} and len(composed) - len(plain) == 1 + 2 * 8


def test_otherwise_is_for_3x3_convolutions_after_the_stem():
    """And a selection in its place decides where the first does not."""
    inner = nn.select("*/conv1", nn.DoGConv, otherwise=nn.DeformableConv)
    conv = nn.select("*/layer1_0/conv2", COMPOSED, otherwise=inner)
    options = {"backbone_options": {"width": 4, "depth": 2}}
    flat = traverse_util.flatten_dict(_shapes("resnet_tiny", conv, **options)["params"]["backbone"])
    structure = {"/".join(p[:-1]) for p in flat if p[-1].startswith("covariance")}
    structure |= {"/".join(p[:-2]) for p in flat if p[-2].startswith("offset")}
    assert structure == {"conv1", "layer1_0/conv1", "layer1_0/conv2", "layer1_1/conv1",
                         "layer1_1/conv2"}  # fmt: skip
    assert ("layer1_0", "conv1", "covariance_center") in flat
    assert ("layer1_0", "conv2", "covariance") in flat
    assert ("layer1_1", "conv2", "offset_regressor", "kernel") in flat
    assert ("layer1_0", "downsample_0", "kernel") in flat  # 1x1, and plain


def test_a_chosen_layer_of_no_extent_changes_nothing():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 21, 3)), jnp.float32)
    options = {"num_classes": 3, "backbone_options": TINY}
    conv = nn.select("*", functools.partial(nn.ComposedConv, sigma=1e-6))
    plain = models.create("resnet_tiny", **options)
    composed = models.create("resnet_tiny", conv=conv, remat=True, **options)
    variables = jax.jit(plain.init)(jax.random.key(0, impl="unsafe_rbg"), images)
    flat = dict(traverse_util.flatten_dict(variables))
    shapes = jax.eval_shape(composed.init, jax.random.key(0), images)
    for path in traverse_util.flatten_dict(shapes):
        if path not in flat:
            flat[path] = jnp.full((1,), np.log(1e-6))
    found = jax.jit(composed.apply)(traverse_util.unflatten_dict(flat), images)
    np.testing.assert_allclose(found, jax.jit(plain.apply)(variables, images), atol=1e-3)


def test_weights_are_imported_below_and_structure_stays_new():
    pytest.importorskip("torch")
    from tests.models import torch_networks

    state = torch_networks.randomised("resnet_18").state_dict()
    conv = nn.select("*/layer4_1/conv2", COMPOSED)
    variables = models.import_torch("resnet_18", state, num_classes=3, conv=conv)
    layer = variables["params"]["backbone"]["layer4_1"]["conv2"]
    wanted = state["layer4.1.conv2.weight"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(layer["kernel"], wanted)
    model = models.create("resnet_18", num_classes=3, conv=conv)
    found = sigmas.standard_deviations(nn.covariances(model, variables))
    assert list(found) == ["backbone/layer4_1/conv2"]
    np.testing.assert_allclose(found["backbone/layer4_1/conv2"], [0.3, 0.3], rtol=1e-6)


@pytest.mark.parametrize("structure, leaves", [
    ("minimal", {"covariance"}),
    ("channel", {"covariance"}),
    ("multiple", {"covariance_components", "covariance_mixture"}),
])  # fmt: skip
def test_structure_alone_is_trained_where_it_was_put(structure, leaves):
    conv = nn.select("*/conv2", functools.partial(nn.ComposedConv, structure=structure))
    variables = _shapes("resnet_tiny", conv, backbone_options=TINY)
    model = models.create("resnet_tiny", num_classes=3, conv=conv, backbone_options=TINY)
    is_structure = nn.structure(model, variables).is_structure
    trained, frozen = optimizers.select(variables["params"], "structure", is_structure=is_structure)
    paths = traverse_util.flatten_dict(trained)
    assert set(paths) == {("backbone", "layer1_0", "conv2", leaf) for leaf in leaves}
    assert ("backbone", "layer1_0", "conv2", "kernel") in traverse_util.flatten_dict(frozen)


# -- errors ----------------------------------------------------------------------------------------


def test_a_pattern_without_a_layer_lists_the_layers_there_are():
    conv = nn.select(["*/conv1", "*/conv3"], COMPOSED)
    with pytest.raises(ValueError) as caught:
        models.create("resnet_tiny", num_classes=3, conv=conv, backbone_options=TINY)
    assert str(caught.value) == (
        "no convolution lies at '*/conv3'; there are backbone/conv1, backbone/layer1_0/conv1, "
        "backbone/layer1_0/conv2, backbone/layer1_0/downsample_0"
    )


def test_patterns_of_an_inner_selection_are_checked_too():
    inner = nn.select("*/conv9", nn.DoGConv)
    with pytest.raises(ValueError, match=r"no convolution lies at '\*/conv9'"):
        models.create("resnet_18", num_classes=3, conv=nn.select("*", COMPOSED, otherwise=inner))


@pytest.mark.parametrize("arguments, error, message", [
    (((), COMPOSED), ValueError, r"not empty; got \(\)"),
    ((["a", ""], COMPOSED), ValueError, "not empty; got"),
    (([3], COMPOSED), TypeError, r"patterns must be texts; got \(3,\)"),
    (("a", "conv"), TypeError, "layer must be a layer class or a partial of one; got 'conv'"),
])  # fmt: skip
def test_selections_are_checked(arguments, error, message):
    with pytest.raises(error, match=message):
        nn.select(*arguments)
    with pytest.raises(TypeError, match="otherwise must be"):
        nn.select("a", COMPOSED, otherwise=3)


def test_paths_are_those_of_the_network_that_is_initialised():
    class Net(linen.Module):
        conv: object

        @linen.compact
        def __call__(self, x):
            return nn.layer_at(self.conv, self, "first")(2, name="first")(x)

    shapes = jax.eval_shape(
        Net(nn.select("first", COMPOSED)).init, jax.random.key(0), jnp.zeros((1, 4, 4, 1))
    )
    assert set(shapes["params"]["first"]) == {"kernel", "covariance"}
