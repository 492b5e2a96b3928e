"""Layers whose dilation follows the input: priors, samples, what is handed on."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax import models, nn
from rfjax._engine import conv

X = jnp.asarray(np.random.default_rng(0).normal(size=(2, 8, 9, 4)), jnp.float32)
KEY = jax.random.key(1, impl="unsafe_rbg")


def init(layer, x=X):
    return jax.jit(layer.init)(KEY, x)


def run(layer, variables, x=X, seed=None, **options):
    rngs = {} if seed is None else {"dilation": jax.random.key(seed)}
    return layer.apply(variables, x, rngs=rngs, **options)


def weights_of(layer, logits, *, train=False, seed=0):
    """The shares of the dilations at given logits."""
    return layer.bind({}, rngs={"dilation": jax.random.key(seed)})._weights(logits, train)


LOGITS = jnp.asarray([0.4, -0.3, 0.9])
MANY = jnp.broadcast_to(LOGITS, (200, 200, 3))


@pytest.mark.parametrize("evaluation", ["hard", "expected", "sampled"])
def test_shares_sum_to_one_and_a_constant_changes_nothing(evaluation):
    """Invariant 3."""
    layer = nn.AdaptiveDilationConv(4, evaluation=evaluation)
    shares = weights_of(layer, MANY)
    assert jnp.all(shares >= 0)
    np.testing.assert_allclose(shares.sum(-1), 1.0, atol=1e-5)
    np.testing.assert_allclose(weights_of(layer, MANY + 3.0), shares, atol=1e-5)


def test_the_frequency_of_samples_is_the_softmax():
    """Invariants 5 and 10: chi-square of the largest, and the mean at a low temperature."""
    wanted = np.asarray(jax.nn.softmax(LOGITS))
    layer = nn.AdaptiveDilationConv(4, temperature=0.01)
    shares = weights_of(layer, MANY, train=True)
    counts = np.bincount(np.asarray(shares.argmax(-1)).ravel(), minlength=3)
    expected = 40_000 * wanted
    assert ((counts - expected) ** 2 / expected).sum() < 13.8  # 99.9 % of chi-square, 2 degrees
    np.testing.assert_allclose(shares.mean((0, 1)), wanted, atol=0.01)
    assert jnp.mean(shares.max(-1)) > 0.99
    flat = weights_of(nn.AdaptiveDilationConv(4, temperature=1e4), MANY, train=True)
    np.testing.assert_allclose(flat, 1 / 3, atol=1e-2)


def test_a_key_decides_and_evaluation_needs_none():
    """Invariant 10."""
    layer = nn.AdaptiveDilationConv(4)
    variables = init(layer)
    first = run(layer, variables, seed=0, train=True)[0]
    np.testing.assert_array_equal(first, run(layer, variables, seed=0, train=True)[0])
    assert jnp.abs(first - run(layer, variables, seed=1, train=True)[0]).max() > 1e-2
    np.testing.assert_array_equal(run(layer, variables)[0], run(layer, variables, seed=1)[0])


@pytest.mark.parametrize("stride", [1, 2])
def test_it_is_one_call_of_the_primitive(stride):
    """Invariants 2 and 11 besides: hard shares are the largest of tanh(U x + c)."""
    layer = nn.AdaptiveDilationConv(8, groups=4, stride=stride)
    variables = init(layer)
    params = variables["params"]
    logits = jnp.tanh(conv.convolve(X, params["prior_input"]["kernel"], stride, 1))
    hard = jax.nn.one_hot(logits.argmax(-1), 3)
    (y, prior), sown = run(layer, variables, mutable=["intermediates"])
    wanted = rfjax.adaptive_dilated_conv(X, params["kernel"], hard, stride=stride)
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    np.testing.assert_allclose(prior, logits, atol=1e-5)
    (scales,) = sown["intermediates"]["scale_map"]
    np.testing.assert_allclose(scales, jnp.asarray([1.0, 2.0, 4.0])[logits.argmax(-1)], atol=1e-5)


def _prior(kind, params, carry):
    layer = nn.AdaptiveDilationConv(4, prior=kind)
    return layer.apply({"params": params}, X, carry=carry)[1]


def test_priors_that_are_special_cases_of_others():
    """Invariant 7."""
    before = jnp.asarray(np.random.default_rng(2).normal(size=(2, 8, 9, 3)), jnp.float32)
    params = init(nn.AdaptiveDilationConv(4, prior="gated"))["params"]
    zeros = jax.tree.map(jnp.zeros_like, params["prior_before"])
    markov = _prior("markov", params, before)
    np.testing.assert_allclose(
        _prior("recurrent", params | {"prior_before": zeros}, before), markov
    )

    def gated(bias):
        closed = jax.tree.map(jnp.zeros_like, params["gate_input"]) | {"bias": jnp.full(3, bias)}
        gates = {"gate_input": closed, "gate_before": zeros}
        return _prior("gated", params | gates, before)

    np.testing.assert_allclose(gated(-100.0), markov, atol=1e-6)
    handed = conv.convolve(before, params["prior_before"]["kernel"], 1, 1)
    np.testing.assert_allclose(gated(100.0), jnp.tanh(handed), atol=1e-5)
    assert jnp.abs(_prior("recurrent", params, before) - markov).max() > 1e-2
    np.testing.assert_allclose(_prior("recurrent", params, ()), markov, atol=1e-6)


def test_a_prior_of_a_finer_map_is_taken_at_the_outputs():
    layer = nn.AdaptiveDilationConv(4, prior="recurrent", stride=2, activation="identity")
    variables = init(layer)
    before = jnp.asarray(np.random.default_rng(2).normal(size=(2, 8, 9, 3)), jnp.float32)
    alone, found = (run(layer, variables, carry=carry)[1] for carry in ((), before))
    kernel = variables["params"]["prior_before"]["kernel"]
    wanted = conv.convolve(before[:, ::2, ::2], kernel, 1, 1)
    np.testing.assert_allclose(found - alone, wanted, atol=1e-5)
    with pytest.raises(ValueError, match=r"prior \(2, 8, 9, 2\); a recurrent one wants that of 3"):
        run(layer, variables, carry=before[..., :2])


def test_the_prior_learns_and_leaves_no_trace():
    """Invariant 13; the carry is no variable."""
    conv = partial(nn.AdaptiveDilationConv, prior="recurrent")
    model = models.create("resnet_tiny", num_classes=3, conv=conv, backbone_options={"width": 4})
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 16, 16, 3)), jnp.float32)
    variables = jax.jit(model.init)(KEY, images)
    assert set(variables) == {"params", "batch_stats"}

    def loss(params):
        given = variables | {"params": params}
        rngs = {"dilation": jax.random.key(0)}
        return jnp.sum(
            model.apply(given, images, rngs=rngs, train=True, mutable=["batch_stats"])[0] ** 2
        )

    gradient = jax.jit(jax.grad(loss))(variables["params"])["backbone"]
    assert jnp.abs(gradient["layer1_0"]["conv1"]["prior_input"]["kernel"]).max() > 0
    assert jnp.abs(gradient["layer1_1"]["conv2"]["prior_before"]["kernel"]).max() > 0


# By what a Markov prior of 3 dilations has more than the plain network: D C and biases, see the
# table of the paper; those of "drn_d_54" are counted from its widths.
OVERHEADS = {
    "resnet_50": 3 * (3 * 128 + 3),
    "resnet_101": 3 * (3 * 512 + 3),
    "drn_c_26": 2 * (3 * 512 + 3),
    "drn_d_54": 3 * 2048 + 3 * 512 + 6,
}


@pytest.mark.parametrize("name", OVERHEADS)
def test_networks_grow_by_the_weights_of_the_priors(name):
    """Invariant 12."""

    def count(**options):
        model = models.create(name, num_classes=2, **options)
        shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 64, 64, 3)))
        return sum(leaf.size for leaf in jax.tree.leaves(shapes["params"]))

    assert count(conv=models.pad_layers(name)) - count() == OVERHEADS[name]


def test_depthwise_priors_read_all_channels():
    layer = nn.AdaptiveDilationConv(4, groups=4)
    params = init(layer)["params"]
    assert params["kernel"].shape == (3, 3, 1, 4)
    assert params["prior_input"]["kernel"].shape == (1, 1, 4, 3)


def test_no_layers_are_known_for_other_networks():
    with pytest.raises(ValueError, match=r"name is one of vgg_16, .*; got 'dla_34'"):
        models.pad_layers("dla_34")


# Continuous


@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 2)])
def test_a_new_continuous_layer_is_the_plain_convolution(stride, dilation):
    layer = nn.ContinuousDilationConv(4, stride=stride, dilation=dilation)
    variables = init(layer)
    wanted = conv.convolve(X, variables["params"]["kernel"], stride, dilation)
    y, sown = run(layer, variables, mutable=["intermediates"])
    np.testing.assert_allclose(y, wanted, atol=1e-5)
    np.testing.assert_array_equal(
        sown["intermediates"]["scale_map"][0], jnp.full(y.shape[:3], dilation)
    )


def test_rates_follow_the_regressor():
    layer = nn.ContinuousDilationConv(4)
    variables = init(layer)
    regressor = variables["params"]["rate_regressor"]
    moved = {"kernel": regressor["kernel"] + 0.1, "bias": regressor["bias"] + 0.5}
    variables = {"params": variables["params"] | {"rate_regressor": moved}}
    rates = 1.5 + conv.convolve(X, moved["kernel"], 1, 1)
    wanted = rfjax.continuous_dilated_conv(X, variables["params"]["kernel"], rates)
    np.testing.assert_allclose(run(layer, variables), wanted, atol=1e-5)


def test_a_continuous_layer_has_one_rate():
    with pytest.raises(ValueError, match=r"dilation must be one number.*got \(1, 2\)"):
        init(nn.ContinuousDilationConv(4, dilation=(1, 2)))
