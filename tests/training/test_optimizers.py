"""Learning rate, decay, momentum and what is trained, against their definitions."""

from collections.abc import Mapping
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen, traverse_util

from rfjax import gaussian_blur, nn
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


def is_structure(path):
    return path[-1] == "covariance" or "offset_regressor" in path


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
        is_structure=is_structure,
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
    chosen, frozen = optimizers.select(params, trainable, is_structure=is_structure)
    assert {key.replace(".", "/") for key in configs.flatten(chosen)} == trained
    merged = optimizers.merge(chosen, frozen)
    assert configs.flatten(merged).keys() == configs.flatten(params).keys()
    assert merged["head"]["conv"]["kernel"] is params["head"]["conv"]["kernel"]


def test_selection_errors(params):
    with pytest.raises(ValueError, match="all, last_stage, structure; got 'everything'"):
        optimizers.select(params, "everything")
    with pytest.raises(ValueError, match="selects no parameter"):
        optimizers.select({"backbone": params["backbone"]}, "structure", is_structure=is_structure)
    with pytest.raises(ValueError, match="trainable='structure' wants is_structure"):
        optimizers.select(params, "structure")


@pytest.mark.parametrize("options", [{"covariance_multiplier": 2.0}, {"covariance_decay": True}])
def test_options_of_structure_want_to_know_what_it_is(options):
    with pytest.raises(ValueError, match="act on structure: give is_structure"):
        optimizers.sgd(lambda step: 1.0, **options)


class Head(linen.Module):
    """Names that look like structure, and structure whose names do not."""

    @linen.compact
    def __call__(self, x):
        x = linen.Conv(3, (1, 1), name="offset_head")(x)
        x = Pool(name="covariance_pooling")(x)
        return Bend(name="bend")(nn.ComposedConv(2, name="conv")(x))


class Pool(linen.Module):
    """Weights, whatever their name."""

    @linen.compact
    def __call__(self, x):
        return x * self.param("offsets", linen.initializers.ones, (x.shape[-1],))[None, None, None]


class Bend(nn.Structured, linen.Module):
    """Structure that only the layer knows."""

    STRUCTURE: ClassVar[Mapping[str, str]] = {"spread": "covariance"}

    @linen.compact
    def __call__(self, x):
        return gaussian_blur(x, self.param("spread", lambda key: jnp.ones(1)))


def test_names_mean_nothing():
    """A step of gradient 0: weights decay by a tenth, and structure stays."""
    model = linen.Sequential([Head()])
    variables = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, 8, 8, 5)))
    declared = nn.structure(model, variables)
    params = jax.tree.map(jnp.ones_like, variables["params"])
    optimizer = optimizers.sgd(
        lambda step: 1.0, weight_decay=0.1, is_structure=declared.is_structure
    )
    still = jax.tree.map(jnp.zeros_like, params)
    updates, _ = optimizer.update(still, optimizer.init(params), params)
    stayed = {path for path, leaf in traverse_util.flatten_dict(updates).items() if not leaf.any()}
    assert stayed == {("layers_0", "conv", "covariance"), ("layers_0", "bend", "spread")}
    chosen, _ = optimizers.select(params, "structure", is_structure=declared.is_structure)
    assert set(traverse_util.flatten_dict(chosen)) == stayed


def test_adaptive_steps_are_those_of_adam():
    """By its equations, on gradients that are a thousandfold apart; types are not promoted."""
    params, grads = {"a": jnp.ones(2)}, {"a": jnp.array([1.0, 1e-3])}
    optimizer = optimizers.sgd(lambda step: jnp.float32(0.1), rule="adam")
    state = optimizer.init(params)
    for _ in range(3):
        updates, state = optimizer.update(grads, state, params)
        np.testing.assert_allclose(updates["a"], -0.1, rtol=1e-4)
    with pytest.raises(ValueError, match="rate_in_momentum is for the rule momentum"):
        optimizers.sgd(lambda step: 0.1, rule="adam", rate_in_momentum=True)


def test_decay_of_adamw_is_no_part_of_the_gradient():
    """By algorithm 2 of Loshchilov & Hutter in float64; structure and biases do not decay."""
    rng = np.random.default_rng(0)
    start = {name: rng.normal(size=3) for name in ("kernel", "bias", "covariance")}
    gradients = rng.normal(size=(4, 3))
    schedule = optimizers.learning_rate("cosine", 0.1, steps=5, warmup_steps=2)
    options = {"is_structure": lambda path: path[-1] == "covariance", "decays": {"bias": 0.0}}
    optimizer = optimizers.sgd(schedule, momentum=0.8, weight_decay=0.3, rule="adamw", **options)
    current = jax.tree.map(lambda x: jnp.asarray(x, jnp.float32), start)
    state = optimizer.init(current)
    with jax.numpy_dtype_promotion("strict"):
        for gradient in gradients:
            each = dict.fromkeys(current, jnp.asarray(gradient, jnp.float32))
            updates, state = optimizer.update(each, state, current)
            current = optax.apply_updates(current, updates)
    for name, value in start.items():
        first = second = 0.0
        for t, gradient in enumerate(gradients):
            first = 0.8 * first + 0.2 * gradient
            second = 0.999 * second + 0.001 * gradient**2
            mean, square = first / (1 - 0.8 ** (t + 1)), second / (1 - 0.999 ** (t + 1))
            rate = 0.1 * (1 + np.cos(np.pi * t / 5)) / 2 * min(1, (t + 1) / 2)
            decay = 0.3 * value if name == "kernel" else 0.0
            value = value - rate * (mean / (np.sqrt(square) + 1e-8) + decay)
        np.testing.assert_allclose(current[name], value, rtol=1e-5, atol=1e-5)


def test_schedules_by_name():
    cosine = optimizers.learning_rate("cosine", 0.2, steps=4)
    np.testing.assert_allclose(
        [cosine(t) for t in range(6)], [0.2, 0.1 + 0.05 * 2**0.5, 0.1, 0.1 - 0.05 * 2**0.5, 0, 0],
        atol=1e-7,
    )  # fmt: skip
    constant = optimizers.learning_rate("constant", 0.2, steps=4, power=0.9)
    assert constant(100) == np.float32(0.2)
    poly = optimizers.learning_rate("poly", 0.2, steps=4, power=2.0)
    np.testing.assert_allclose([poly(t) for t in (0, 2)], [0.2, 0.05], rtol=1e-6)
    with pytest.raises(ValueError, match="schedule is one of poly, cosine, constant; got 'step'"):
        optimizers.learning_rate("step", 0.2, steps=4)


def test_the_optimizer_of_a_config_has_its_schedule():
    config = configs.base()
    config.steps, config.optimizer.schedule, config.optimizer.rule = 10, "cosine", "adamw"
    _, rate = optimizers.from_config(config, is_structure)
    np.testing.assert_allclose([rate(0), rate(5)], [0.01, 0.005], rtol=1e-6)


RATES = {"backbone/*": 0.1, "*/bias": 2.0, "head/*": 3.0}  # of several the last one holds


def by_hand(start, gradients, rates, *, factor, rule, decay):
    """The updates of one parameter in float64."""
    value, first, second = np.asarray(start, np.float64), 0.0, 0.0
    for t, (gradient, rate) in enumerate(zip(gradients, rates, strict=True)):
        grad = gradient if rule == "adamw" else gradient + decay * value
        if rule == "momentum":
            first = 0.8 * first + grad
            value = value - rate * factor * first
            continue
        first = 0.8 * first + 0.2 * grad
        second = 0.999 * second + 0.001 * grad**2
        mean, square = first / (1 - 0.8 ** (t + 1)), second / (1 - 0.999 ** (t + 1))
        own = decay * value if rule == "adamw" else 0.0
        value = value - rate * factor * (mean / (np.sqrt(square) + 1e-8) + own)
    return value


@pytest.mark.parametrize("rule", ["momentum", "adam", "adamw"])
@pytest.mark.parametrize("schedule", ["poly", "cosine", "constant"])
def test_layers_have_rates_of_their_own_by_every_rule_and_schedule(params, rule, schedule):
    config = configs.base()
    config.steps = 6
    section = config.optimizer
    section.rule, section.schedule, section.momentum, section.weight_decay = (
        rule,
        schedule,
        0.8,
        0.2,
    )
    section.learning_rate, section.covariance_multiplier, section.warmup_steps = 0.1, 4.0, 2
    section.rates = tuple(f"{pattern}={factor}" for pattern, factor in RATES.items())
    optimizer, rate = optimizers.from_config(config, is_structure)
    rates = [float(rate(t)) for t in range(5)]
    assert len(set(rates)) > 1
    steps = np.random.default_rng(2).normal(size=5)
    state, current = optimizer.init(params), params
    for step in steps:
        grads = jax.tree.map(lambda leaf, step=step: jnp.full_like(leaf, step), params)
        updates, state = optimizer.update(grads, state, current)
        current = optax.apply_updates(current, updates)
    before, after = (traverse_util.flatten_dict(tree) for tree in (params, current))
    factors = {"backbone/conv/kernel": 0.1, "head/conv/kernel": 3.0, "head/conv/covariance": 12.0,
               "head/offset_regressor/bias": 12.0}  # fmt: skip
    for path, start in before.items():
        wanted = by_hand(
            start, steps, rates, factor=factors["/".join(path)], rule=rule,
            decay=0.0 if is_structure(path) else 0.2,
        )  # fmt: skip
        np.testing.assert_allclose(after[path], wanted, rtol=2e-5, atol=2e-5, err_msg=str(path))


def test_patterns_that_match_nothing_are_refused(params):
    config = configs.base()
    config.optimizer.rates = ("*/bias=2", "bakbone/*, head/*=0.1")
    config.optimizer.decays = ("*/scale=0",)
    with pytest.raises(configs.ConfigError) as fault:
        optimizers.check_patterns(config, params)
    assert str(fault.value) == (
        "optimizer.rates: 'bakbone/*' matches no parameter of this model; "
        "optimizer.decays: '*/scale' matches no parameter of this model"
    )
    config.optimizer.rates, config.optimizer.decays = ("backbone/*, head/*=0.1",), ("*/bias=0",)
    optimizers.check_patterns(config, params)
