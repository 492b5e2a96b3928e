"""Populations, and what a candidate may learn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax import search
from rfjax.search.problem import UNSTRUCTURED
from tests.search.problems import batch, run

TARGET = np.asarray(rfjax.covariance_matrix(rfjax.from_ellipse(2.0, 1.0, 0.5)))


def matched(family):
    """A layer of `family` whose covariance shall become TARGET."""

    def loss(params, batch):
        return jnp.mean((rfjax.covariance_matrix(params["covariance"]) - TARGET) ** 2)

    return search.Problem(lambda key, c: {"covariance": c.covariance(family)}, loss)


def test_families_share_a_program():
    """In a full covariance each family moves as in a layer of its own."""
    names = ["spherical", "diagonal", "full", "own"]
    options = {"steps": 4, "validation": None, "batches": lambda step: np.zeros(1)}
    starts = search.population(sigma=0.8, family=names, learning_rate=0.02)
    mixed = run(starts, problem=matched("full"), **options)
    assert np.all(mixed.covariances[:2, :, 0, 1] == 0)
    assert np.all(mixed.covariances[2:, -1, 0, 1] != 0)
    np.testing.assert_array_equal(mixed.losses[2], mixed.losses[3])
    np.testing.assert_array_equal(mixed.sigmas[0, :, 0, 0], mixed.sigmas[0, :, 0, 1])
    for k in range(2):
        own = run(starts[k : k + 1], problem=matched(names[k]), **options)
        np.testing.assert_allclose(mixed.losses[k], own.losses[0], rtol=1e-4)
        np.testing.assert_allclose(mixed.sigmas[k], own.sigmas[0], rtol=1e-4)
    assert mixed.sigmas[0, -1, 0, 0] > 0.85  # it did learn


def test_layers_without_structure():
    """Their sigma stays nothing; the other layers are not concerned."""
    flags = {"second": [True, False, False], "first": [True, True, False]}
    starts = search.population(sigma=0.7, structured=flags, covariance_multiplier=2.0)
    result = run(starts)
    assert result.layers == ("first", "second")
    moved = np.abs(result.sigmas[:, -1, :, 0] - result.sigmas[:, 0, :, 0]) > 1e-3
    assert moved.tolist() == [[True, True], [True, False], [False, False]]
    np.testing.assert_allclose(result.sigmas[1:, :, 1], UNSTRUCTURED, rtol=1e-5)
    plain = run(search.population(sigma=0.7, covariance_multiplier=2.0))
    np.testing.assert_allclose(result.losses[0], plain.losses[0], rtol=1e-6)


def test_a_grid_is_every_combination():
    made = search.grid(sigma=[0.5, 1.0], seed=[0, 1, 2], family=["spherical", "full"])
    assert len(made) == 12 and len(search.concatenate([made, made])) == 24
    columns = (made.sigma[:, 0].tolist(), made.seed.tolist(), made.family.tolist())
    rows = set(zip(*columns, strict=True))
    assert rows == {(s, k, f) for s in (0.5, 1.0) for k in range(3) for f in (1, 3)}


def test_candidates():
    made = search.population(sigma=[[1.0, 2.0], [3.0, 4.0]], extra={"a": np.arange(2)})
    assert made[1].extra["a"] == 1 and len(made[:1]) == 1
    np.testing.assert_allclose(np.exp(made[0].covariance("diagonal")), [1, 2], rtol=1e-6)
    np.testing.assert_allclose(np.exp(made.covariance("full"))[:, 1], [1, 1])
    with pytest.raises(ValueError, match="family is one of spherical, diagonal, full"):
        made.covariance("round")


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"sigma": [0.5, 1.0], "seed": [0, 1, 2]}, "all the same number.*'sigma': 2, 'seed': 3"),
        ({"sigma": [0.5, -1.0]}, "sigma must be positive"),
        ({"family": "round"}, "family is one of own, spherical, diagonal, full; got 'round'"),
    ],
)
def test_fields_are_checked(fields, message):
    with pytest.raises(ValueError, match=message):
        search.population(**fields)


@pytest.mark.parametrize(
    "fields, message",
    [
        ({"family": "full"}, "a full candidate needs layers of 3 numbers; first/covariance has 1"),
        ({"structured": {"third": True}}, "structured names 'third'; structure lies under"),
    ],
)
def test_populations_must_fit_the_model(fields, message):
    with pytest.raises(ValueError, match=message):
        run(search.population(**fields), batches=batch)


def test_populations_are_pytrees():
    made = search.population(seed=[0, 1], structured={"head": [True, False]})
    doubled = jax.tree.map(lambda leaf: np.concatenate([leaf, leaf]), made)
    assert len(doubled) == 4 and doubled.structured["head"].tolist() == [True, False] * 2
