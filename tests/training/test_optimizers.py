"""Learning rate, decay, momentum and what is trained, against their definitions."""

import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfjax.training import config as configs
from rfjax.training import optimizers


def test_poly_values_of_the_protocol():
    """lr(0) = .01, lr(120) = .01 * .5^.9, lr(240) = 0."""
    rate = optimizers.poly_schedule(0.01, steps=240, power=0.9)
    np.testing.assert_allclose([rate(0), rate(120), rate(240)], [0.01, 0.0053589, 0.0], atol=5e-8)


def test_warmup_rises_linearly_and_power_zero_is_constant():
    rate = optimizers.poly_schedule(0.1, steps=1000, power=0.0, warmup_steps=4)
    np.testing.assert_allclose([rate(t) for t in range(6)], [0.025, 0.05, 0.075, 0.1, 0.1, 0.1])
    assert rate(1000) == np.float32(0.1)


@pytest.fixture
def params():
    rng = np.random.default_rng(0)
    return {
        "backbone": {"conv": {"kernel": jnp.asarray(rng.normal(size=(3, 2)), jnp.float32)}},
        "head": {
            "conv": {
                "kernel": jnp.asarray(rng.normal(size=4), jnp.float32),
                "covariance": jnp.array([0.3]),
            },
            "offset_regressor": {"bias": jnp.array([0.5, -0.25])},
        },
    }


def torch_style(value, gradients, rates, *, decay, momentum, multiplier):
    """torch.optim.SGD, step by step: decay joins the gradient, the rate stays out of the buffer."""
    value, buffer = np.asarray(value, np.float64), 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        buffer = momentum * buffer + gradient + decay * value
        value = value - rate * multiplier * buffer
    return value


@pytest.mark.parametrize("covariance_decay", [False, True])
def test_updates_equal_a_loop(params, covariance_decay):
    schedule = optimizers.poly_schedule(0.1, steps=5, power=0.9)
    optimizer = optimizers.sgd(
        schedule,
        momentum=0.8,
        weight_decay=0.05,
        covariance_multiplier=10.0,
        covariance_decay=covariance_decay,
    )
    rng = np.random.default_rng(1)
    factors = rng.normal(size=4)
    state, current = optimizer.init(params), params
    for factor in factors:
        gradients = optax.tree.scale(jnp.float32(factor), params)
        updates, state = optimizer.update(gradients, state, current)
        current = optax.apply_updates(current, updates)

    def expected(value, structure):
        decay = 0.05 if covariance_decay or not structure else 0.0
        gradients = [factor * np.asarray(value, np.float64) for factor in factors]
        rates = [float(schedule(t)) for t in range(4)]
        multiplier = 10.0 if structure else 1.0
        return torch_style(
            value, gradients, rates, decay=decay, momentum=0.8, multiplier=multiplier
        )

    head = params["head"]
    pairs = [
        (
            current["backbone"]["conv"]["kernel"],
            expected(params["backbone"]["conv"]["kernel"], False),
        ),
        (current["head"]["conv"]["kernel"], expected(head["conv"]["kernel"], False)),
        (current["head"]["conv"]["covariance"], expected(head["conv"]["covariance"], True)),
        (
            current["head"]["offset_regressor"]["bias"],
            expected(head["offset_regressor"]["bias"], True),
        ),
    ]
    for got, wanted in pairs:
        np.testing.assert_allclose(got, wanted, rtol=2e-5)


def test_clipping_bounds_the_norm(params):
    optimizer = optimizers.sgd(lambda step: 1.0, momentum=0.0, grad_clip=0.5)
    gradients = optax.tree.scale(100.0, params)
    updates, _ = optimizer.update(gradients, optimizer.init(params), params)
    np.testing.assert_allclose(optax.tree.norm(updates), 0.5, rtol=1e-5)


@pytest.mark.parametrize(
    ("trainable", "trained"),
    [
        (
            "all",
            {
                "backbone/conv/kernel",
                "head/conv/kernel",
                "head/conv/covariance",
                "head/offset_regressor/bias",
            },
        ),
        ("last_stage", {"head/conv/kernel", "head/conv/covariance", "head/offset_regressor/bias"}),
        ("structure", {"head/conv/covariance", "head/offset_regressor/bias"}),
    ],
)
def test_selection_and_its_inverse(params, trainable, trained):
    chosen, frozen = optimizers.select(params, trainable)
    assert {key.replace(".", "/") for key in configs.flatten(chosen)} == trained
    merged = optimizers.merge(chosen, frozen)
    assert configs.flatten(merged).keys() == configs.flatten(params).keys()
    assert merged["head"]["conv"]["kernel"] is params["head"]["conv"]["kernel"]


def test_selection_errors(params):
    with pytest.raises(ValueError, match="all, last_stage, structure; got 'everything'"):
        optimizers.select(params, "everything")
    with pytest.raises(ValueError, match="selects no parameter"):
        optimizers.select({"backbone": params["backbone"]}, "structure")
