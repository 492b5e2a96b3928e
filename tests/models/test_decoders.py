"""Decoders: classification and its weights, several heads, heads and networks of users."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from rfjax import models, nn
from rfjax.models import heads
from tests import toys

SIZE = {"width": 4, "depth": 1}


def _state(rng, **classifier):
    """The arrays of a small ResNet, named as torchvision names those of the large ones."""
    state = {}

    def add(name, norm, *shape):
        state[f"{name}.weight"] = rng.normal(0, 0.3, shape)
        leaves = {"weight": 0.5, "bias": -0.5, "running_mean": -0.5, "running_var": 0.5}
        for leaf, low in leaves.items():
            state[f"{norm}.{leaf}"] = rng.uniform(low, low + 1, shape[0])

    add("conv1", "bn1", 4, 3, 3, 3)
    add("layer1.0.conv1", "layer1.0.bn1", 8, 4, 3, 3)
    add("layer1.0.conv2", "layer1.0.bn2", 8, 8, 3, 3)
    add("layer1.0.downsample.0", "layer1.0.downsample.1", 8, 4, 1, 1)
    return state | {f"fc.{leaf}": array for leaf, array in classifier.items()}


@pytest.mark.parametrize("axes", [(), (1, 1)])
def test_a_classifier_takes_torchvisions_weights(axes):
    """fc(mean(features)): a dense layer there, a 1x1 convolution in the references of DRN."""
    rng = np.random.default_rng(1)
    weight, bias = rng.normal(size=(10, 8)), rng.normal(size=10)
    state = _state(rng, weight=weight.reshape(10, 8, *axes), bias=bias)
    options = {"num_classes": 10, "head": "classify", "backbone_options": SIZE}
    model = models.create("resnet_tiny", **options)
    variables = models.import_torch("resnet_tiny", state, **options)
    images = rng.normal(size=(2, 45, 61, 3)).astype(np.float32)

    @jax.jit
    def run(variables, images):
        return model.apply(variables, images), model.apply(variables, images, method="features")

    logits, features = run(variables, images)
    assert logits.shape == (2, 10) and logits.dtype == jnp.float32
    wanted = np.asarray(features, np.float64).mean((1, 2)) @ weight.T + bias
    np.testing.assert_allclose(logits, wanted, atol=1e-4 * np.max(np.abs(wanted)))


def test_classifiers_and_scores_leave_each_other_out():
    def imported(head, **more):
        state = _state(np.random.default_rng(0)) | more
        options = {"num_classes": 10, "head": head, "backbone_options": SIZE}
        return models.import_torch("resnet_tiny", state, **options)

    fc = {"fc.weight": np.ones((1000, 8)), "fc.bias": np.ones(1000)}
    seg = {"seg.weight": np.ones((10, 8, 1, 1)), "seg.bias": np.ones(10)}
    jax.tree.map(np.testing.assert_array_equal, imported("score", **fc), imported("score"))
    kernel = imported("classify", **seg)["params"]["head"]["kernel"]
    assert kernel.shape == (8, 10) and not jnp.any(kernel == 1)
    with pytest.raises(ValueError, match=r"fc.weight \(1000, 8\) \(want \(10, 8\)\)"):
        imported("classify", **fc)


def test_several_heads_start_anew_over_imported_weights():
    state = _state(np.random.default_rng(0))
    seg = {"seg.weight": np.ones((2, 8, 1, 1)), "seg.bias": np.ones(2)}
    options = {"num_classes": {"score": 2, "more": 3}, "backbone_options": SIZE}
    variables = models.import_torch("resnet_tiny", state | seg, **options)
    kernel = variables["params"]["backbone"]["conv1"]["kernel"]
    np.testing.assert_allclose(kernel, state["conv1.weight"].transpose(2, 3, 1, 0), rtol=1e-6)
    shapes = {name: head["kernel"].shape for name, head in variables["params"]["head"].items()}
    assert shapes == {"score": (1, 1, 8, 2), "more": (1, 1, 8, 3)}
    assert not jnp.any(variables["params"]["head"]["score"]["kernel"] == 1)


def test_a_classifier_learns_in_any_dtype():
    create = functools.partial(
        models.create, "resnet_tiny", num_classes=3, head="classify", backbone_options=SIZE
    )
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 20, 3)), jnp.float32)
    variables = jax.jit(create().init)(jax.random.key(0, impl="unsafe_rbg"), images)
    assert sorted(variables["params"]["head"]) == ["bias", "kernel"]
    logits = {d: jax.jit(create(dtype=d).apply)(variables, images) for d in ("float32", "bfloat16")}
    assert logits["bfloat16"].dtype == jnp.float32
    np.testing.assert_allclose(logits["bfloat16"], logits["float32"], atol=0.1)
    loss = lambda variables: jnp.sum(create().apply(variables, images) ** 2)
    gradient = jax.jit(jax.grad(loss))(variables)
    assert all(jnp.any(leaf) for leaf in jax.tree.leaves(gradient["params"]))


# -- several heads ---------------------------------------------------------------------------------


def test_several_heads_over_one_backbone():
    classes = {"semantic": 5, "geometric": 3}
    options = {"head": "composition", "backbone_options": SIZE}
    model = models.create("resnet_tiny", num_classes=classes, **options)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 30, 41, 3)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"), images)
    assert set(variables["params"]["head"]) == set(classes)
    logits = jax.jit(model.apply)(variables, images)
    assert {name: x.shape for name, x in logits.items()} == {
        name: (1, 30, 41, number) for name, number in classes.items()
    }
    for name, number in classes.items():
        one = models.create("resnet_tiny", num_classes=number, **options)
        own = {
            "params": variables["params"] | {"head": variables["params"]["head"][name]},
            "batch_stats": variables["batch_stats"],
        }
        np.testing.assert_allclose(jax.jit(one.apply)(own, images), logits[name], atol=1e-5)
    layers = nn.covariances(model, variables)
    assert set(layers) == {"head/semantic", "head/geometric"}


def test_heads_that_normalise_train_under_their_names():
    options = {"head": "ccl", "head_options": {"width": 2, "dilations": (2,)}}
    classes = {"a": 2, "b": 3}
    model = models.create("resnet_tiny", num_classes=classes, backbone_options=SIZE, **options)
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 16, 20, 3)), jnp.float32)
    variables = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"), images)
    run = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    _, updated = jax.jit(run)(variables, images)
    for name in classes:
        before, after = (tree["batch_stats"]["head"][name] for tree in (variables, updated))
        assert jnp.any(before["norm_0"]["mean"] != after["norm_0"]["mean"])


@pytest.mark.parametrize("classes, message", [
    ({}, "got none"), ({"a b": 2}, "identifier; got 'a b'"), ({"a": 0}, "positive integer; got 0"),
])  # fmt: skip
def test_wrong_numbers_of_several_heads_are_refused(classes, message):
    with pytest.raises(ValueError, match=message):
        models.create("resnet_tiny", num_classes=classes)


# -- registering -----------------------------------------------------------------------------------


def test_a_head_is_registered_with_what_it_has_set():
    with toys.registered():
        models.register_head("wide", nn.Conv, fixed={"kernel_size": 5}, options=("dilation",))
        assert heads.head_options("wide") == ("dilation", "kernel_init")
        model = models.create(
            "resnet_tiny", num_classes=2, head="wide", head_options={"dilation": 2}
        )
        assert (model.head.layer.kernel_size, model.head.layer.dilation) == (5, 2)
        with pytest.raises(ValueError, match="head 'wide' takes dilation, kernel_init; got sigma"):
            models.create("resnet_tiny", num_classes=2, head="wide", head_options={"sigma": 2})


@pytest.mark.parametrize("call, error, message", [
    (lambda: models.register_head("score", nn.DoGConv), ValueError, "is a head 'score' already"),
    (lambda: models.register_head("new", lambda: 0), TypeError, "a class of Linen modules; got <f"),
    (lambda: models.register_head("new", nn.Conv, options=("sigma",)), ValueError, "got sigma"),
    (lambda: models.register_head("new", nn.Conv, fixed={"rate": 1}), ValueError, "got rate"),
    (lambda: models.register("resnet_18", lambda: 0), ValueError, "a network 'resnet_18' already"),
    (lambda: models.register("new", 3), TypeError, "a function that builds it; got 3"),
])  # fmt: skip
def test_what_cannot_be_registered(call, error, message):
    with toys.registered():
        with pytest.raises(error, match=message):
            call()
        assert "new" not in models.names() and "new" not in heads.HEADS


def test_a_whole_network_is_given_all_that_create_was():
    class Whole(linen.Module):
        options: dict

        def __call__(self, a, b, train=False):
            return a + b

    class Built:
        def network(self, **options):
            return Whole(options)

    def build(*, depth=1):
        return Built()

    with toys.registered():
        models.register("whole", build)
        model = models.create(
            "whole", num_classes=2, backbone_options={"depth": 3}, dtype="bfloat16"
        )
        assert model.apply({}, 1, 2) == 3
        assert dict(model.options) == {
            "num_classes": 2, "head": "score", "head_options": None, "conv": nn.Conv,
            "norm": nn.BatchNorm, "dtype": "bfloat16", "axis_name": None, "remat": False,
        }  # fmt: skip
        with pytest.raises(ValueError, match="backbone 'whole' takes depth; got width"):
            models.create("whole", num_classes=2, backbone_options={"width": 3})
        with pytest.raises(ValueError, match="whole does not say what its parts are called"):
            models.import_torch("whole", {}, num_classes=2)
