"""Heads of context and of static structure: placement, options, training flag, weights."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models, nn
from rfjax.models import heads

# By the width of the features: what a head has for 19 classes, biases included.
PARAMETERS = {
    ("stn", 512): 512 * 19 + 19 + 6,
    ("static_deform", 512): 87_571 + 18,  # the 3x3 head of the references, and 2 k^2 offsets
    ("aspp", 512): 4 * 9 * 512 * 19 + 19,
    ("aspp v3", 512): 4_131_840 + 4_883,  # DeepLab's pyramid, and the score of 256 channels
    ("aspp v3", 2048): 15_535_104 + 4_883,
    ("ccl", 512): 2 * 9 * 512 * 512 + 2 * 512 + 512 * 19 + 19,
}


@pytest.mark.parametrize("head, channels", PARAMETERS)
def test_heads_have_their_number_of_parameters(head, channels):
    name, _, variant = head.partition(" ")
    options = {"variant": variant} if variant else {}
    layer = heads.create_head(name, num_classes=19, options=options)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 4, 4, channels)))
    assert (
        sum(leaf.size for leaf in jax.tree.leaves(shapes["params"])) == PARAMETERS[head, channels]
    )


def test_options_reach_the_layer_and_the_axis_those_that_normalise():
    options = {"dilations": (2, 4), "width": 8, "blur": 0.5, "fusion": "sum", "normalize": False}
    layer = models.create(
        "resnet_tiny", num_classes=5, head="ccl", head_options=options, axis_name="devices"
    ).head.layer
    assert isinstance(layer, nn.CCL) and layer.axis_name == "devices"
    assert {name: getattr(layer, name) for name in options} == options
    assert "axis_name" not in heads.head_options("ccl")
    plain = models.create("resnet_tiny", num_classes=5, head="stn", axis_name="devices").head.layer
    assert not hasattr(plain, "axis_name")


@pytest.mark.parametrize("size, wanted", [(None, (1, 1)), (3, (3, 3))])
def test_the_affinity_stands_before_a_score_unless_told(size, wanted):
    options = {} if size is None else {"kernel_size": size}
    layer = heads.create_head("stn", num_classes=5, options=options)
    shapes = jax.eval_shape(layer.init, jax.random.key(0), jnp.zeros((1, 4, 4, 8)))["params"]
    assert shapes["kernel"].shape[:2] == wanted


def test_a_head_is_told_whether_it_trains():
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 20, 3)), jnp.float32)
    model = models.create(
        "resnet_tiny",
        num_classes=5,
        head="ccl",
        head_options={"width": 4, "dilations": (2,)},
        backbone_options={"width": 4},
    )
    variables = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"), images)

    def statistics(**mode):
        _, updated = model.apply(variables, images, mutable=["batch_stats"], **mode)
        moved = jax.tree.map(
            lambda a, b: bool(jnp.any(a != b)), variables["batch_stats"], updated["batch_stats"]
        )
        return {part: any(jax.tree.leaves(moved[part])) for part in moved}

    assert statistics() == {"backbone": False, "head": False}
    assert statistics(train=True) == {"backbone": True, "head": True}
    assert statistics(train_head=True) == {"backbone": False, "head": True}
    assert statistics(train=True, train_head=False) == {"backbone": True, "head": False}


@pytest.mark.parametrize("head", ["stn", "static_deform"])
def test_static_heads_take_the_weights_of_a_score(head):
    """And compute what it did, as their structure starts at zero."""
    rng = np.random.default_rng(0)
    kernel, bias = rng.normal(size=(4, 512, 1, 1)), rng.normal(size=4)
    state = _backbone() | {"seg.weight": kernel, "seg.bias": bias}
    variables = models.import_torch("resnet_18", state, num_classes=4, head=head)
    layer = heads.create_head(head, num_classes=4)
    features = rng.normal(size=(1, 5, 6, 512)).astype(np.float32)
    found = jax.jit(layer.apply)({"params": variables["params"]["head"]}, features)
    np.testing.assert_allclose(found, features @ kernel[:, :, 0, 0].T + bias, atol=1e-3)


def test_a_head_of_several_layers_leaves_a_score_out():
    state = {"seg.weight": np.ones((4, 512, 1, 1)), "seg.bias": np.ones(4)}
    options = {"num_classes": 4, "head": "ccl", "head_options": {"width": 2}}
    with_score, without = (
        models.import_torch("resnet_18", _backbone() | extra, **options) for extra in (state, {})
    )
    chex.assert_trees_all_equal(with_score, without)
    assert set(with_score["batch_stats"]["head"]) == {"norm_0"}


def _backbone():
    """The arrays of a ResNet-18, named as PyTorch names them."""
    torch_networks = pytest.importorskip("tests.models.torch_networks", exc_type=ImportError)
    return dict(torch_networks.randomised("resnet_18").state_dict())
