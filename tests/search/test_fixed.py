"""Fixed structure stays where it is under any optimizer, and does not reach the weights."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfjax import search
from tests.search.problems import run

FIXED = search.population(sigma=[0.5, 1.0], covariance_multiplier=[0.0, 1.0])
OPTIONS = {"steps": 2, "validation": None, "batches": lambda step: np.zeros(1)}


def made(loss):
    init = lambda key, c: {"covariance": c.covariance(), "weight": jnp.ones(())}
    return search.Problem(init, loss)


def steep(params, batch):
    """The gradient of structure is many times that of the weight."""
    return params["weight"] ** 2 + 100 * params["covariance"][0]


@pytest.mark.parametrize("rule", [optax.adam, optax.adamw])
def test_under_any_optimizer(rule):
    result = run(FIXED, problem=made(steep), optimizer=lambda c: rule(c.learning_rate), **OPTIONS)
    assert np.all(result.sigmas[0] == result.sigmas[0, 0])
    assert np.all(result.sigmas[1, 1:] != result.sigmas[1, 0])
    assert np.all(result.params["weight"] < 1)


def test_its_gradient_does_not_clip_the_weights():
    clipped = search.sgd(steps=2, power=0.0, momentum=0.0, grad_clip=3.0)
    result = run(FIXED, problem=made(steep), optimizer=clipped, **OPTIONS)
    np.testing.assert_allclose(result.params["weight"][0], 0.8**2, rtol=1e-6)  # w <- w - 0.1 2 w
    assert result.params["weight"][1] > 0.98  # where structure is learned, the norm is 100


def test_a_nan_in_its_gradient_harms_nobody():
    def broken(params, batch):
        return params["weight"] ** 2 + jnp.sqrt(0.0 * params["covariance"][0])

    result = run(FIXED, problem=made(broken), **OPTIONS)
    assert result.diverged_at.tolist() == [-1, 0]
    assert result.params["weight"][0] < 1 and np.all(np.isfinite(result.losses[0]))


def test_spherical_candidates_start_round():
    starts = search.population(sigma=[[1.0, 4.0]] * 3, family=["spherical", "diagonal", "own"])
    sigmas = np.exp(starts.covariance("full"))[:, [0, 2]]
    np.testing.assert_allclose(sigmas, [[2, 2], [1, 4], [1, 4]], rtol=1e-6)


def test_an_enumeration_with_batches_of_each_candidate():
    problem = made(lambda params, batch: jnp.sum(params["weight"] * batch))
    own = lambda step: np.array([[1.0], [3.0]], np.float32)
    result = search.enumerate(
        jax.random.key(0), problem, FIXED, own, values=[0.5, 1.0], steps=1, shared_batches=False
    )
    assert result.losses[:, 0].tolist() == [1, 3, 1, 3]
    assert result.values.tolist() == [0.5, 0.5, 1.0, 1.0]
