"""What is structure in a search: what layers declare, and in a plain pytree a name."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import covariance, nn, search
from rfjax.search import optimizers
from rfjax.search.problem import check

LAYER = nn.DoGConv(2, max_surround=3.0)
X = jnp.ones((1, 9, 9, 3))
CANDIDATES = search.population(sigma=[0.5, 1.0], covariance_multiplier=3.0)


def variables():
    made = jax.eval_shape(LAYER.init, jax.random.key(0), X)
    return jax.tree.map(lambda leaf: jnp.ones(leaf.shape), made)


def problem_of(init):
    structure = nn.structure(LAYER, variables(), X)
    return search.Problem(init, lambda params, batch: 0.0, structure=structure)


def test_layers_tell_their_covariances_and_their_structure():
    params = variables()["params"]
    problem = problem_of(lambda key, candidate: params)
    surround = nn.surround_covariance(jnp.ones(1), jnp.ones(1), max_surround=3.0)
    entries = problem.entries(params)
    assert list(entries) == ["center", "surround"]
    variance = float(covariance.standard_deviations(surround)[0]) ** 2
    np.testing.assert_allclose(entries["surround"], [variance, 0.0, variance], rtol=1e-5)
    assert {name for name in params if problem.declares((name,))} == {
        "covariance_center", "covariance_delta"
    }  # fmt: skip
    check(problem, params, CANDIDATES)


def test_the_optimizer_is_told():
    """Without a gradient weights decay by a tenth, and structure stays."""
    params = variables()["params"]
    rule = search.sgd(steps=2, power=0.0, momentum=0.0, weight_decay=0.1)
    told = optimizers.of_problem(rule, problem_of(lambda key, candidate: params))
    assert told == optimizers.of_problem(told, None)
    change = told(search.population(learning_rate=1.0)[0])
    updates, _ = change.update(jax.tree.map(jnp.zeros_like, params), change.init(params), params)
    moved = {name for name, leaf in updates.items() if leaf.any()}
    assert moved == {"kernel", "kernel_surround"}


def test_parameters_are_those_under_params():
    problem = problem_of(lambda key, candidate: variables())
    with pytest.raises(ValueError, match="want those under 'params'; got params/covariance_center"):
        check(problem, variables(), CANDIDATES)


def test_in_a_pytree_only_the_name_covariance_counts():
    params = {
        "covariance_pooling": {"kernel": jnp.ones((2, 3))},
        "offset_head": jnp.ones(2),
        "covariance": jnp.ones(1),
        "layers": [{"covariance": jnp.zeros((4, 2))}],
    }
    problem = search.Problem(lambda key, candidate: params, lambda params, batch: 0.0)
    check(problem, params, CANDIDATES)
    assert list(problem.entries(params)) == ["covariance", "layers/0"]
    assert not problem.declares(("covariance_pooling", "kernel"))
    assert not problem.declares(("offset_head",))
    wrong = {"covariance": jnp.ones((2, 5))}
    with pytest.raises(ValueError, match=r"covariance must be log-Cholesky .* \(2, 5\)"):
        check(problem, wrong, CANDIDATES)
