"""A population trained at once is what its candidates are alone, on any platform and layout."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfjax import search
from rfjax.search import engine
from tests.search.problems import PROBLEM, assert_same, batch, init, loss, run

SIXTEEN = search.population(
    sigma=np.geomspace(0.4, 2.0, 16),
    seed=np.arange(16) % 4,
    learning_rate=np.geomspace(0.01, 0.1, 16),
    covariance_multiplier=np.linspace(0.5, 2.0, 16),
)
FOUR = SIXTEEN[::4]


@pytest.fixture(scope="module")
def alone():
    """Sixteen searches of one candidate each."""
    return [run(SIXTEEN[k : k + 1]) for k in range(0, 16, 5)]


@pytest.mark.parametrize("devices", [1, 8])
@pytest.mark.parametrize("mapping", ["loop", "map", "vmap"])
def test_population_equals_each_alone(mapping, devices, alone):
    together = run(SIXTEEN, mapping=mapping, devices=jax.devices()[:devices], chunk=3)
    for place, one in enumerate(alone):
        k = 5 * place
        np.testing.assert_allclose(together.losses[k], one.losses[0], rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(together.covariances[k], one.covariances[0], rtol=1e-5)
        np.testing.assert_allclose(together.scores[k], one.scores[0], rtol=1e-5)
        own = jax.tree.map(lambda leaf, k=k: leaf[k], together.params)
        for got, wanted in zip(*map(jax.tree.leaves, (own, one.params)), strict=True):
            np.testing.assert_allclose(got, wanted[0], rtol=1e-5)


def test_a_candidate_is_plain_training():
    """The same updates as an ordinary loop with optax."""
    candidate = FOUR[1]
    key = engine.candidate_key(jax.random.key(3), candidate, 0)
    params = init(key, candidate)
    rate = lambda t: float(candidate.learning_rate) * (1 - t / 20) ** 0.9
    rule = optax.sgd(rate, momentum=0.9)
    state = rule.init(params)
    losses = []
    for step in range(20):
        value, gradient = jax.value_and_grad(loss)(params, batch(step))
        for layer in ("first", "second"):  # momentum is linear in the gradient
            scaled = gradient[layer]["covariance"] * candidate.covariance_multiplier
            gradient[layer]["covariance"] = scaled
        updates, state = rule.update(gradient, state)
        params = optax.apply_updates(params, updates)
        losses.append(value)
    result = run(FOUR)
    np.testing.assert_allclose(result.losses[1], losses, rtol=1e-5)
    np.testing.assert_allclose(result.params["weight"][1], params["weight"], rtol=1e-5)


@pytest.mark.parametrize("mapping", ["loop", "map", "vmap"])
def test_a_diverging_candidate_disturbs_nobody(mapping):
    rates = np.array(FOUR.learning_rate)
    wild = search.population(
        sigma=FOUR.sigma,
        seed=FOUR.seed,
        learning_rate=np.where(np.arange(4) == 2, 1e6, rates),
        covariance_multiplier=FOUR.covariance_multiplier,
    )
    calm, disturbed = run(FOUR, mapping=mapping), run(wild, mapping=mapping)
    others = [0, 1, 3]
    assert disturbed.diverged_at[2] >= 0 and np.all(disturbed.diverged_at[others] == -1)
    for name in ("losses", "covariances", "scores"):
        np.testing.assert_array_equal(
            getattr(calm, name)[others], getattr(disturbed, name)[others], err_msg=name
        )
    for one, other in zip(*map(jax.tree.leaves, (calm.params, disturbed.params)), strict=True):
        np.testing.assert_array_equal(one[others], other[others])
        assert np.all(np.isfinite(other[2]))
    assert np.all(np.isnan(disturbed.losses[2, disturbed.diverged_at[2] + 1 :]))


def test_a_nan_in_one_candidates_data_freezes_it_there():
    def own(step):
        rows = [batch(step) for _ in range(4)]
        if step == 5:
            rows[1]["x"] = rows[1]["x"] * np.nan
        return jax.tree.map(lambda *leaves: np.stack(leaves), *rows)

    shared = run(FOUR)
    result = run(FOUR, batches=own, shared_batches=False)
    assert result.diverged_at.tolist() == [-1, 5, -1, -1]
    np.testing.assert_array_equal(result.losses[[0, 2, 3]], shared.losses[[0, 2, 3]])
    assert np.all(result.covariances[1, 6:] == result.covariances[1, 5])


@pytest.mark.parametrize("devices", [1, 8])
def test_batches_of_each_candidate(devices):
    """Candidates that see their own data train as those that share it alone."""

    def own(step):
        return jax.tree.map(lambda *leaves: np.stack(leaves), *[batch(step + k) for k in range(4)])

    options = {"mapping": "vmap", "chunk": 3, "devices": jax.devices()[:devices]}
    result = run(FOUR, batches=own, shared_batches=False, **options)
    for k in (0, 3):
        alone = run(FOUR[k : k + 1], batches=lambda step, k=k: batch(step + k))
        np.testing.assert_allclose(result.losses[k], alone.losses[0], rtol=1e-5)


def test_deterministic_and_seeded():
    assert_same(run(FOUR), run(FOUR))
    twins = run(search.population(sigma=[0.5, 0.5, 0.5], seed=[0, 0, 1]))
    np.testing.assert_array_equal(twins.losses[0], twins.losses[1])
    assert not np.array_equal(twins.losses[0], twins.losses[2])


def test_steps_of_a_dispatch_make_no_difference():
    assert_same(run(FOUR), run(FOUR, steps_per_dispatch=3), rtol=1e-6)
    iterated = run(FOUR, batches=(batch(t) for t in range(20)), mapping="vmap")
    assert_same(run(FOUR, mapping="vmap", steps_per_dispatch=7), iterated, rtol=1e-6)


def test_randomness_is_each_candidates_own():
    """A stateful problem: its key differs by step and seed, its state comes back."""

    def noisy(params, state, batch, key):
        del batch
        draw = jax.random.normal(key)
        return jnp.sum(params["covariance"]) * draw, {"sum": state["sum"] + draw}

    problem = search.Problem(
        lambda key, c: ({"covariance": c.covariance()}, {"sum": jnp.zeros(())}),
        noisy,
        stateful=True,
    )
    starts = search.population(seed=[0, 1, 0], covariance_multiplier=0.0)
    result = run(starts, problem=problem, steps=4)
    np.testing.assert_array_equal(result.losses[0], result.losses[2])
    assert len(np.unique(result.losses[:2])) == 8
    draws = result.losses[:2] / np.log(0.5)
    np.testing.assert_allclose(result.state["sum"][:2], draws.sum(1), rtol=1e-5)


def test_any_optimizer_of_optax():
    starts = search.population(learning_rate=[0.001, 0.05])
    result = run(starts, optimizer=lambda candidate: optax.adam(candidate.learning_rate))
    change = np.abs(result.sigmas[:, 1, 0, 0] / 0.5 - 1)
    np.testing.assert_allclose(change, [0.001, 0.05], rtol=0.05)  # Adam's first step is its rate


def test_arrays_of_a_result():
    field = lambda sigmas: 1 + 2 * np.ceil(2 * sigmas).sum(-2)
    problem = search.Problem(init, loss, score=PROBLEM.score, receptive_field=field)
    result = run(FOUR, problem=problem, eval_every=8)
    assert result.layers == ("first", "second")
    assert result.losses.shape == (4, 20) and np.all(np.isfinite(result.losses))
    assert result.covariances.shape == (4, 21, 2, 3)
    np.testing.assert_allclose(result.sigmas[:, 0, 0], FOUR.sigma, rtol=1e-6)
    np.testing.assert_array_equal(result.covariances[..., 1], 0.0)
    assert result.score_steps.tolist() == [8, 16, 20] and np.all(np.isfinite(result.scores))
    assert np.all(result.receptive_fields[0, 0] == 5)  # ceil(0.8) to each side, twice
    assert np.all(result.gradient_steps == 20) and np.all(result.seconds > 0)
    assert result.best == np.argmax(result.scores[:, -1])
    one = jax.tree.map(lambda leaf: leaf[0], result.params)
    wanted = np.mean([-loss(one, batch(k)) for k in (100, 101)]) * 2  # scores add up
    np.testing.assert_allclose(result.final_scores[0], wanted, rtol=1e-5)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"mapping": "pmap"}, "mapping is one of auto, loop, map, vmap"),
        ({"chunk": 0}, "chunk must be a positive integer"),
        ({"steps": 0}, "steps must be a positive integer; got 0"),
    ],
)
def test_options_are_checked(options, message):
    with pytest.raises(ValueError, match=message):
        run(FOUR, **options)
