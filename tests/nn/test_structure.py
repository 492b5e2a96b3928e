"""Degrees of structure of a composed layer: minimal, channel, multiple."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfjax import channel_conv, mixture_conv, nn
from rfjax.training import sigmas


def _map(seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(2, 8, 9, 3)), jnp.float32)


def _init(layer):
    return jax.jit(layer.init)(jax.random.key(1, impl="unsafe_rbg"), _map())


@pytest.mark.parametrize("family, size", [("spherical", 1), ("diagonal", 2), ("full", 3)])
def test_structures_have_the_parameters_promised(family, size):
    shapes = {
        "minimal": {"covariance": (size,)},
        "channel": {"covariance": (5, size)},
        "multiple": {"covariance_components": (3, size), "covariance_mixture": (3,)},
    }
    for structure, wanted in shapes.items():
        layer = nn.ComposedConv(5, structure=structure, family=family, sigma=0.7)
        params = jax.eval_shape(layer.init, jax.random.key(0), _map())["params"]
        found = {name: leaf.shape for name, leaf in params.items()}
        assert found == wanted | {"kernel": (3, 3, 3, 5)}
        declared = nn.structure(layer, {"params": params})
        assert {name for name in params if declared.is_structure((name,))} == set(wanted)


@pytest.mark.parametrize("family", ["spherical", "diagonal", "full"])
def test_components_start_apart_and_are_all_reported(family):
    layer = nn.ComposedConv(5, structure="multiple", components=4, sigma=0.25, family=family)
    found = sigmas.standard_deviations(nn.covariances(layer, _init(layer)))
    assert list(found) == ["0", "1", "2", "3"]
    wanted = [[s, s] for s in (0.25, 0.5, 1.0, 2.0)]
    np.testing.assert_allclose(np.stack(list(found.values())), wanted, rtol=1e-6)


def test_channels_are_reported_by_their_mean():
    layer = nn.ComposedConv(2, structure="channel")
    params = _init(layer)["params"] | {"covariance": jnp.log(jnp.array([[1.0], [3.0]]))}
    found = sigmas.standard_deviations(nn.covariances(layer, {"params": params}))
    np.testing.assert_allclose(found[""], [2.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize("resample", [True, False])
def test_a_layer_is_one_call_of_its_primitive(resample):
    x, rng = _map(), np.random.default_rng(2)
    options = {"stride": 2, "dilation": 2, "padding": "edge", "resample": resample, "rate": 0.9}
    channel = nn.ComposedConv(5, structure="channel", use_bias=True, **options)
    params = _init(channel)["params"] | {
        "covariance": jnp.asarray(rng.normal(size=(5, 1)) / 3, jnp.float32),
        "bias": jnp.arange(5.0),
    }
    call = jax.jit(lambda kernel, covariance: channel_conv(x, kernel, covariance, **options))
    wanted = call(params["kernel"], params["covariance"])
    found = jax.jit(channel.apply)({"params": params}, x)
    np.testing.assert_allclose(found - params["bias"].reshape(1, 1, 1, 5), wanted, atol=1e-5)

    several = nn.ComposedConv(5, structure="multiple", components=2, **options)
    logits = jnp.log(jnp.array([0.2, 0.8]))
    params = _init(several)["params"] | {"covariance_mixture": logits}
    weights = jnp.array([0.2, 0.8])
    call = jax.jit(lambda kernel, params: mixture_conv(x, kernel, params, weights, **options))
    wanted = call(params["kernel"], params["covariance_components"])
    np.testing.assert_allclose(jax.jit(several.apply)({"params": params}, x), wanted, atol=1e-5)


@pytest.mark.parametrize("structure", ["channel", "multiple"])
def test_gaussians_get_gradients_of_their_own(structure):
    layer, x = nn.ComposedConv(4, structure=structure, resample=False), _map()
    variables = _init(layer)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(layer.apply(v, x) ** 2)))(variables)["params"]
    for name, leaf in gradient.items():
        assert np.all(np.isfinite(leaf)) and np.all(np.asarray(leaf) != 0), name
    structured = gradient["covariance" if structure == "channel" else "covariance_components"]
    assert len(np.unique(structured)) == len(structured)


def test_components_find_the_scales_of_a_mixture():
    """Two components that start at 0.5 and 1 learn 0.6 and 2, in parts of 3 to 1."""
    image = jax.random.normal(jax.random.key(0), (1, 16, 16, 1))
    options = {"components": 2, "resample": False, "support": "faded"}
    layer = nn.ComposedConv(1, kernel_size=1, structure="multiple", **options)
    kernel = {"kernel": jnp.ones((1, 1, 1, 1))}
    truth = {
        "covariance_components": jnp.log(jnp.array([[0.6], [2.0]])),
        "covariance_mixture": jnp.log(jnp.array([0.75, 0.25])),
    }
    target = layer.apply({"params": kernel | truth}, image)
    params = {
        "covariance_components": jnp.log(jnp.array([[0.5], [1.0]])),
        "covariance_mixture": jnp.zeros(2),
    }

    def loss(params):
        return jnp.mean((layer.apply({"params": kernel | params}, image) - target) ** 2)

    optimizer = optax.adam(0.05)

    def step(carry, _):
        params, state = carry
        with jax.numpy_dtype_promotion("standard"):  # optax counts on it
            updates, state = optimizer.update(jax.grad(loss)(params), state)
        return (optax.apply_updates(params, updates), state), None

    start = (params, optimizer.init(params))
    (params, _), _ = jax.jit(lambda carry: jax.lax.scan(step, carry, length=400))(start)
    found = np.sort(np.exp(params["covariance_components"][:, 0]))
    np.testing.assert_allclose(found, [0.6, 2.0], rtol=0.1)
    weights = np.sort(jax.nn.softmax(params["covariance_mixture"]))
    np.testing.assert_allclose(weights, [0.25, 0.75], atol=0.05)


@pytest.mark.parametrize("options, message", [
    ({"structure": "dynamic"}, "structure is one of minimal, channel, multiple; got 'dynamic'"),
    ({"components": 2}, "components are those of structure 'multiple'; got 2 with structure 'min"),
    ({"structure": "channel", "components": 2}, "got 2 with structure 'channel'"),
    ({"structure": "multiple", "components": 1}, "components must be an integer of at least 2"),
    ({"structure": "multiple", "components": 2.0}, "components must be an integer of at least 2"),
])  # fmt: skip
def test_combinations_without_a_meaning_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        nn.ComposedConv(4, **options).init(jax.random.key(0), _map())
