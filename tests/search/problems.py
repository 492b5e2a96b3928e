"""Small problems for the tests of this directory: a filtered signal, quick to compile."""

from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np

import rfjax
from rfjax import search

LENGTH = 16


def smooth(x: jax.Array, covariance: jax.Array) -> jax.Array:
    """Signals [B, LENGTH] filtered by a Gaussian whose sigma is the first of the parameters."""
    taps = rfjax.gaussian_kernel1d(jnp.exp(covariance[0]), max_half_size=6)
    apart = np.arange(LENGTH)[:, None] - np.arange(LENGTH)[None]
    return x @ jnp.where(abs(apart) <= 6, taps[np.clip(apart + 6, 0, 12)], 0.0)


def init(key: jax.Array, candidate: search.Population) -> dict:
    """Two Gaussians and a mixture of what they give."""
    weight = 1.0 + 0.1 * jax.random.normal(key, (2,))
    start = candidate.covariance("spherical")
    return {"first": {"covariance": start}, "second": {"covariance": start}, "weight": weight}


def output(params: dict, x: jax.Array) -> jax.Array:
    first = smooth(x, params["first"]["covariance"])
    return first * params["weight"][0] + smooth(first, params["second"]["covariance"])


def loss(params: dict, batch: dict) -> jax.Array:
    return jnp.mean((output(params, batch["x"]) - batch["y"]) ** 2)


def score(params: dict, batch: dict) -> jax.Array:
    """A number that grows as the loss falls."""
    return -loss(params, batch)


PROBLEM = search.Problem(init, loss, score=score)


def batch(step: int) -> dict[str, np.ndarray]:
    """The batch of a step."""
    rng = np.random.default_rng(step)
    x = rng.normal(size=(4, LENGTH)).astype(np.float32)
    taps = np.array([0.25, 0.5, 0.25], np.float32)
    y = np.stack([2 * np.convolve(row, taps, "same") for row in x]).astype(np.float32)
    return {"x": x, "y": y}


def run(population: search.Population, **options: Any) -> search.Result:
    """A search of PROBLEM in 20 steps."""
    problem = options.pop("problem", PROBLEM)
    batches = options.pop("batches", batch)
    validation = [batch(100), batch(101)] if problem.score else None
    settings = {"steps": 20, "validation": validation} | options
    return search.run(jax.random.key(3), problem, population, batches, **settings)


def assert_same(left: search.Result, right: search.Result, *, rtol: float = 0.0) -> None:
    """Fails unless two results agree; bit by bit without a tolerance."""
    for name in ("losses", "covariances", "scores", "diverged_at", "dropped_at"):
        np.testing.assert_allclose(
            getattr(left, name), getattr(right, name), rtol=rtol, atol=rtol, err_msg=name
        )
    chex.assert_trees_all_close(left.params, right.params, rtol=rtol, atol=rtol)
