"""Named stages: all maps, networks up to a map and from one, and what is refused."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models, nn
from rfjax.models.decoders import Head
from rfjax.models.segmentation import Segmenter

STAGES = {
    "resnet_18": ("conv1", "maxpool", "layer1", "layer2", "layer3", "layer4"),
    "drn_c_26": ("conv1", *(f"layer{n}" for n in range(1, 9))),
    "drn_d_22": ("layer0", *(f"layer{n}" for n in range(1, 9))),
    "dla_34": (*(f"level{n}" for n in range(6)), "dla_up"),
}
SMALL = {"resnet_tiny": {"width": 4, "depth": 3, "output_stride": 8}, "dla_tiny": {"width": 4}}


def _network(name, **options):
    model = models.create(name, num_classes=3, backbone_options=SMALL[name], **options)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 30, 41, 3)), jnp.float32)
    key = jax.random.key(0, impl="unsafe_rbg")
    return model, jax.jit(model.init)(key, images), images


@pytest.mark.parametrize("name", STAGES)
def test_stages_have_names(name):
    assert tuple(models.create(name, num_classes=2).backbone.places) == STAGES[name]


@pytest.mark.parametrize("name", SMALL)
def test_all_maps_are_those_that_the_network_computes(name):
    model, variables, images = _network(name)
    maps = jax.jit(functools.partial(model.apply, method="maps"))(variables, images)
    features = jax.jit(functools.partial(model.apply, method="features"))(variables, images)
    np.testing.assert_array_equal(maps["last"], features)
    np.testing.assert_array_equal(maps["last"], maps[list(model.backbone.places)[-1]])


@pytest.mark.parametrize("name, given", [
    ("resnet_tiny", ("conv1",)), ("resnet_tiny", ("layer1",)), ("resnet_tiny", ("last",)),
    ("resnet_tiny", ("conv1", "layer1")), ("dla_tiny", ("level0",)),
    ("dla_tiny", ("level1", "level2")),
])  # fmt: skip
def test_a_network_goes_on_from_any_map(name, given):
    model, variables, images = _network(name)

    @jax.jit
    def both(variables, images):
        maps = model.apply(variables, images, method="maps", until=given[-1])
        start = {stage: maps[stage] for stage in given}
        return start, model.apply(variables, images)

    start, whole = both(variables, images)
    after = jax.jit(functools.partial(model.apply, size=(30, 41)))(variables, start=start)
    np.testing.assert_allclose(after, whole, atol=1e-5)


def test_what_lies_before_and_after_does_not_run():
    model, variables, images = _network("resnet_tiny")
    maps = jax.eval_shape(
        functools.partial(model.apply, method="maps", until="layer1"), variables, images
    )
    assert list(maps) == ["conv1", "layer1"]  # no "last"
    partial = {"params": {"backbone": {}}, "batch_stats": {"backbone": {}}}
    for kind, tree in partial.items():
        own = variables[kind]["backbone"]
        tree["backbone"] = {key: own[key] for key in own if key.startswith("layer2")}
    start = {"layer1": jnp.zeros(maps["layer1"].shape)}
    found = model.apply(partial, start=start, method="maps")  # other parameters are not there
    assert list(found) == ["layer1", "layer2", "last"]


def test_gradients_go_through_a_map_that_is_given():
    model, variables, images = _network("resnet_tiny")
    maps = model.apply(variables, images, method="maps", until="layer1")
    loss = lambda x: jnp.sum(model.apply(variables, start={"layer1": x}, size=(30, 41)) ** 2)
    assert jnp.any(jax.jit(jax.grad(loss))(maps["layer1"]))


def test_training_from_a_map_updates_what_follows_alone():
    model, variables, images = _network("resnet_tiny")
    start = {"layer1": model.apply(variables, images, method="maps", until="layer1")["layer1"]}
    run = functools.partial(model.apply, train=True, mutable=["batch_stats"], size=(30, 41))
    _, updated = jax.jit(run)(variables, start=start)
    moved = {
        name: bool(jax.tree.reduce(lambda a, b: a or bool(jnp.any(b)), difference, False))
        for name, difference in jax.tree.map(
            lambda a, b: a != b, updated["batch_stats"], variables["batch_stats"]
        )["backbone"].items()
    }
    assert moved == {"bn1": False, "layer1_0": False, "layer2_0": True, "layer2_1": True}


def test_a_head_of_an_inner_map_needs_nothing_after_it():
    backbone = models.create("resnet_tiny", num_classes=3, backbone_options=SMALL["resnet_tiny"])
    model = Segmenter(backbone.backbone, Head(nn.Conv(3, kernel_size=1), at="layer1"), stride=8)
    images = jnp.zeros((1, 30, 41, 3))
    shapes = jax.eval_shape(model.init, jax.random.key(0), images)
    assert set(shapes["params"]["backbone"]) == {"conv1", "bn1", "layer1_0"}
    assert jax.eval_shape(model.apply, shapes, images).shape == (1, 30, 41, 3)
    features = functools.partial(model.apply, method="features")
    assert jax.eval_shape(features, shapes, images).shape == (1, 8, 11, 8)


@pytest.mark.parametrize("options, message", [
    ({"until": "layer7"}, r"stage is one of conv1, layer1, layer2, last; got 'layer7'"),
    ({"start": {"layer7": 0}}, r"stage is one of conv1, layer1, layer2, last; got 'layer7'"),
    ({}, "either on images or from the maps of start"),
    ({"start": {}}, "either on images or from the maps of start"),
    ({"start": {"layer1": np.zeros((4, 4, 8), np.float32)}}, r"layer1 must have shape \[N, H, W"),
])  # fmt: skip
def test_wrong_stages_are_refused(options, message):
    model = models.create("resnet_tiny", num_classes=3, backbone_options=SMALL["resnet_tiny"])
    images = np.zeros((1, 16, 16, 3), np.float32) if "until" in options else None
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda: model.apply({}, images, method="maps", **options))


def test_both_images_and_maps_are_refused():
    model = models.create("resnet_tiny", num_classes=3, backbone_options=SMALL["resnet_tiny"])
    images = jnp.zeros((1, 16, 16, 3))
    with pytest.raises(ValueError, match="either on images or from the maps of start"):
        model.apply({}, images, start={"conv1": images})


def test_a_map_that_is_missing_is_named():
    model = models.create("dla_tiny", num_classes=3, backbone_options=SMALL["dla_tiny"])
    variables = {}
    start = {"level3": jnp.zeros((2, 4, 6, 16))}
    run = functools.partial(model.apply, variables, start=start)
    with pytest.raises(ValueError, match="'dla_up' reads level1, level2 as well; start has level3"):
        jax.eval_shape(functools.partial(run, size=(30, 41)))
    with pytest.raises(ValueError, match=r"want the size \(H, W\)"):
        jax.eval_shape(run)
