"""Weights from PyTorch: equal outputs, and errors that list everything."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models

torch = pytest.importorskip("torch")

from tests.models import torch_networks  # noqa: E402  (it needs torch)

ODD_SIZE = {  # dilated networks are costly: small images, but wider than their dilations reach
    "resnet_18": (75, 106),
    "resnet_50": (65, 98),
    "drn_a_34": (61, 90),
    "drn_c_26": (45, 58),
    "drn_c_58": (33, 50),
    "drn_d_24": (45, 58),
    "drn_d_54": (41, 50),
}


def _features(name, net, images, state=None, **options):
    model = models.create(name, num_classes=4, **options)
    state = net.state_dict() if state is None else state
    variables = models.import_torch(name, state, num_classes=4, **options)
    features = jax.jit(functools.partial(model.apply, method="features"))
    ours = features(variables, jnp.asarray(images))
    with torch.no_grad():
        theirs = net(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    return np.asarray(ours), theirs.transpose(0, 2, 3, 1)


def _images(height, width):
    rng = np.random.default_rng(0)
    return rng.normal(size=(1, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("name", ODD_SIZE)
def test_imported_weights_give_the_features_of_pytorch(name):
    net = torch_networks.randomised(name)
    ours, theirs = _features(name, net, _images(*ODD_SIZE[name]))
    assert ours.shape == theirs.shape
    assert np.max(np.abs(ours - theirs)) <= 1e-4 * np.max(np.abs(theirs))
    assert np.std(theirs) > 0.05  # not a network that died


def test_torchvisions_dilated_resnet_is_that_of_the_previous_transition():
    """`replace_stride_with_dilation`, under the names of its segmentation networks."""
    net = torch_networks.randomised("drn_a_50, previous")
    state = {f"backbone.{key}": value for key, value in net.state_dict().items()}
    options = {"backbone_options": {"transition": "previous"}}
    images = _images(41, 58)
    ours, theirs = _features("drn_a_50", net, images, state, **options)
    assert np.max(np.abs(ours - theirs)) <= 1e-4 * np.max(np.abs(theirs))
    reference, _ = _features("drn_a_50", net, images)
    assert np.max(np.abs(reference - theirs)) > 0.1 * np.max(np.abs(theirs))


def test_drn_a_takes_the_weights_of_the_resnet():
    state_dict = torch_networks.randomised("resnet_18").state_dict()
    resnet = models.import_torch("resnet_18", state_dict, num_classes=4)
    drn = models.import_torch("drn_a_18", state_dict, num_classes=4)
    chex.assert_trees_all_equal(resnet, drn)


@pytest.mark.parametrize("name", ["drn_a_34", "drn_c_26", "drn_d_22"])
def test_segmentation_networks_of_the_reference_are_understood(name):
    net = torch_networks.randomised(name)
    whole = torch_networks.segmentation(net, 512, 4, 8)
    state = {f"module.{key}": value for key, value in whole.state_dict().items()}
    images = _images(24, 40)
    variables = models.import_torch(name, state, num_classes=4)
    logits = jax.jit(models.create(name, num_classes=4).apply)(variables, jnp.asarray(images))
    with torch.no_grad():
        scores = whole.seg(whole.base(torch.from_numpy(images.transpose(0, 3, 1, 2))))
        wanted = torch.nn.functional.interpolate(
            scores, scale_factor=8, mode="bilinear", align_corners=False
        )
    wanted = wanted.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(logits, wanted, atol=1e-4 * np.max(np.abs(wanted)))


def _state(name="resnet_18", **extra):
    network = torch_networks.NETWORKS[name]()
    return {key: value.numpy() for key, value in network.state_dict().items()} | extra


def _score(num_classes=4, features=512):
    rng = np.random.default_rng(3)
    return {
        "seg.weight": rng.normal(size=(num_classes, features, 1, 1)).astype(np.float32),
        "seg.bias": rng.normal(size=(num_classes,)).astype(np.float32),
    }


@pytest.mark.parametrize("head", ["conv3", "composition", "dog", "gauss_deform", "deform"])
def test_a_narrow_score_becomes_the_centre_tap_of_a_wide_head(head):
    options = {} if head in ("conv3", "deform") else {"sigma": 1e-6}
    if head == "dog":
        options = {"sigma_center": 1e-6}
    state = _state(**_score())
    narrow = models.import_torch("resnet_18", state, num_classes=4)
    wide = models.import_torch("resnet_18", state, num_classes=4, head=head, head_options=options)
    features = jnp.asarray(np.random.default_rng(0).normal(size=(1, 5, 6, 512)), jnp.float32)
    outputs = []
    for variables, arguments in ((narrow, {}), (wide, {"head": head, "head_options": options})):
        layer = models.create("resnet_18", num_classes=4, **arguments).head.layer
        outputs.append(layer.apply({"params": variables["params"]["head"]}, features))
    np.testing.assert_allclose(*outputs, atol=2e-4)


def test_a_new_head_depends_on_the_key_alone():
    def head(seed):
        key = None if seed is None else jax.random.key(seed)
        variables = models.import_torch("resnet_18", _state(), num_classes=4, key=key)
        return variables["params"]["head"]["kernel"]

    assert jnp.all(head(None) == head(0)) and not jnp.any(head(0) == head(1))


def test_the_tree_is_that_of_a_new_network():
    options = {"head": "dog", "num_classes": 4}
    model = models.create("resnet_18", **options)
    new = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    imported = models.import_torch("resnet_18", _state(), **options)

    def shapes(tree):
        return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)

    assert shapes(imported) == shapes(new)


def test_one_error_lists_all_that_does_not_fit():
    state = _state(**{"layer5.0.conv1.weight": np.zeros(3), "seg.weight": np.zeros((7, 512, 1, 1))})
    del state["layer1.0.conv1.weight"], state["layer4.1.bn2.running_var"]
    state["bn1.weight"] = np.zeros(32)
    with pytest.raises(ValueError) as caught:
        models.import_torch("resnet_18", state, num_classes=4)
    message = str(caught.value)
    assert "missing layer1.0.conv1.weight, layer4.1.bn2.running_var, seg.bias" in message
    assert "unknown layer5.0.conv1.weight" in message
    assert "bn1.weight (32,) (want (64,))" in message
    assert "seg.weight (7, 512, 1, 1) (want (4, 512, 1, 1))" in message


def test_the_classifier_and_counters_are_left_out():
    extra = {"fc.weight": np.zeros((1000, 512)), "fc.bias": np.zeros(1000)}
    assert any(key.endswith("num_batches_tracked") for key in _state())
    plain = models.import_torch("resnet_18", _state(), num_classes=4)
    more = models.import_torch("resnet_18", _state(**extra), num_classes=4)
    assert jax.tree.structure(plain) == jax.tree.structure(more)


def test_a_network_takes_its_own_weights_only():
    with pytest.raises(ValueError, match="drn_d_22 and the state dict do not fit"):
        models.import_torch("drn_d_22", _state("resnet_18"), num_classes=4)
