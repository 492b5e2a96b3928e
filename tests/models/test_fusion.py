"""Early and late fusion: what several channels, and several networks, compute."""

import functools
import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models, nn
from rfjax.models import fusion
from rfjax.models.stages import with_last

IMAGES = np.random.default_rng(0).normal(size=(1, 40, 44, 4)).astype(np.float32)
SPLIT = (3, 1)


@functools.cache
def make(head, late, **several):
    name = "resnet_tiny" if head in ("score", "composition") else "vgg_tiny"
    options = {"width": 4} if name == "resnet_tiny" else {"light": 8}
    return models.create(
        name,
        num_classes={"digit": 3, "size": 2} if several else 3,
        head=head,
        backbone_options=options,
        late_fusion=SPLIT if late else None,
    )


@functools.cache
def variables(head, **several):
    """Of late fusion, with scores that are not zero."""
    drawn = jax.jit(make(head, True, **several).init)(jax.random.key(0), IMAGES)
    noise = lambda leaf: leaf + 0.1 * jax.random.normal(jax.random.key(1), leaf.shape)
    return {**drawn, "params": jax.tree.map(noise, drawn["params"])}


def apply(model):
    return jax.jit(model.apply)


@pytest.mark.parametrize("head", ["score", "fcn_8s"])
def test_late_fusion_is_the_mean_of_the_scores(head):
    given = variables(head)
    found = apply(make(head, True))(given, IMAGES)
    alone = apply(make(head, False))
    parts = [IMAGES[..., :3], IMAGES[..., 3:]]
    scores = [alone(fusion.stream(given, n), part) for n, part in enumerate(parts)]
    assert found.shape == (1, 40, 44, 3)
    np.testing.assert_allclose(found, (scores[0] + scores[1]) / 2, atol=1e-5)
    assert np.abs(scores[0] - scores[1]).max() > 0.1


def test_of_several_heads_each_is_averaged():
    given = variables("score", several=True)
    found = apply(make("score", True, several=True))(given, IMAGES)
    alone = apply(make("score", False, several=True))
    first, second = (
        alone(fusion.stream(given, n), part)
        for n, part in enumerate((IMAGES[..., :3], IMAGES[..., 3:]))
    )
    assert list(found) == ["digit", "size"]
    for name, scores in found.items():
        np.testing.assert_allclose(scores, (first[name] + second[name]) / 2, atol=1e-5)


@pytest.mark.parametrize("head", ["score", "fcn_8s"])
def test_scores_of_a_concatenation_are_the_sum_of_the_scores(head):
    """One score layer of all channels is as many as there are parts, added up."""
    model, given = make(head, True), variables(head)
    maps = jax.jit(lambda v, x: model.apply(v, x, method="maps"))(given, IMAGES)
    places = with_last(model.backbone.places)
    first, second = (fusion.stream(given, n)["params"]["head"] for n in range(2))
    together = jax.tree.map(  # kernels [1, 1, C, K] side by side, biases [K] added
        lambda a, b: jnp.concatenate([a, b], -2) if a.ndim == 4 else a + b, first, second
    )

    @functools.partial(jax.jit, static_argnums=0)
    def scores(head, params):
        return nn.call(head.bind({"params": params}), maps, nn.Forward(), places=places)[0]

    found = scores(model.head, given["params"]["head"])
    np.testing.assert_allclose(2 * found, scores(model.head.head, together), atol=1e-5)


def test_it_runs_from_its_maps():
    model, given = make("fcn_8s", True), variables("fcn_8s")
    maps = jax.jit(lambda v, x: model.apply(v, x, method="maps"))(given, IMAGES)
    assert maps["pool3"].shape[-1] == 2 * 32
    start = {name: maps[name] for name in ("pool3", "pool4")}
    scores = model.apply(given, start=start, size=(40, 44))
    np.testing.assert_allclose(scores, apply(model)(given, IMAGES), atol=1e-5)


def test_both_networks_learn_and_drop_by_themselves():
    model, given = make("fcn_8s", True), variables("fcn_8s")

    def loss(params, rngs):
        return jnp.sum(model.apply({"params": params}, IMAGES, train=True, rngs=rngs) ** 2)

    rngs = {"dropout": jax.random.key(0)}
    gradients = jax.tree.leaves(jax.jit(jax.grad(loss))(given["params"], rngs))
    assert all(np.abs(leaf).max() > 0 for leaf in gradients)


def test_batch_statistics_and_selections_are_of_each():
    chosen = nn.select("backbone/stream_1/*/conv2", nn.ComposedConv)
    model = models.create(
        "resnet_tiny",
        num_classes=3,
        conv=chosen,
        backbone_options={"width": 4},
        late_fusion=SPLIT,
    )
    shapes = jax.eval_shape(model.init, jax.random.key(0), IMAGES)
    assert sorted(shapes["batch_stats"]["backbone"]) == ["stream_0", "stream_1"]
    first, second = (shapes["params"]["backbone"][f"stream_{n}"] for n in range(2))
    assert "covariance" not in first["layer1_0"]["conv2"]
    assert "covariance" in second["layer1_0"]["conv2"]


def test_variables_come_apart_and_together():
    given = variables("score")
    again = fusion.of_streams([fusion.stream(given, 0), fusion.stream(given, 1)])
    jax.tree.map(np.testing.assert_array_equal, again, given)


@pytest.mark.parametrize("channels", [1, 3, 4, 6])
def test_channels_that_are_no_colors_have_the_mean_of_the_colors(channels):
    kernel = np.random.default_rng(2).normal(size=(3, 3, 3, 5)).astype(np.float32)
    found = np.asarray(fusion.of_channels(kernel, channels))
    mean = kernel.sum(2) / 3
    expected = [mean] if channels < 3 else [*np.moveaxis(kernel, 2, 0), *[mean] * (channels - 3)]
    np.testing.assert_allclose(found, np.stack(expected, 2), atol=1e-6)


def test_weights_of_colors_become_those_of_more_channels():
    rng = np.random.default_rng(3)
    weights = {}
    for number, (before, width) in enumerate(itertools.pairwise((3, 16, 24, 32, 48, 64)), 1):
        kernel = rng.normal(size=(width, before, 3, 3)).astype(np.float32)
        weights |= {f"conv{number}_1.weight": kernel, f"conv{number}_1.bias": np.zeros(width)}
    options = {"num_classes": 3, "head": "fcn_32s", "channels": 4}
    with pytest.warns(UserWarning, match="drawn anew: fc6, fc7"):
        found = models.import_torch("vgg_tiny", weights, **options)
    kernel = found["params"]["backbone"]["conv1_1"]["kernel"]
    expected = weights["conv1_1.weight"].transpose(2, 3, 1, 0)
    np.testing.assert_allclose(kernel[:, :, :3], expected)
    np.testing.assert_allclose(kernel[:, :, 3], expected.mean(2), atol=1e-6)
    with pytest.raises(ValueError, match="import those of each stream alone"):
        models.import_torch("vgg_tiny", weights, num_classes=3, late_fusion=SPLIT)


def test_what_cannot_be_fused():
    with pytest.raises(ValueError, match=r"late_fusion is the channels of two networks .* \(3,\)"):
        models.create("resnet_tiny", num_classes=3, late_fusion=(3,))
    with pytest.raises(ValueError, match="late_fusion must be a positive integer; got 0"):
        models.create("resnet_tiny", num_classes=3, late_fusion=(3, 0))
    with pytest.raises(ValueError, match=r"fusion of \(3, 1\) wants images of 4 channels; got 3"):
        make("score", True).init(jax.random.key(0), IMAGES[..., :3])
