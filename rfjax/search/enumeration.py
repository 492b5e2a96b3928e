"""The classical alternative: every value of a grid is trained, with its structure fixed."""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax.search import checks, driver
from rfjax.search.batches import tiled
from rfjax.search.population import Population, concatenate
from rfjax.search.problem import Problem
from rfjax.search.result import Result, join


def enumerate(
    key: jax.Array,
    problem: Problem | Callable[[Any], Problem],
    population: Population,
    batches: Callable[[int], Any] | Iterable[Any],
    *,
    values: Sequence[Any],
    over: str = "sigma",
    checkpoints: str | Path | None = None,
    **options: Any,
) -> Result:
    """Trains the population once for each value of a grid, with fixed structure.

    The same steps, data, schedules and seeds as `run`, so that the two can be compared.

    Args:
        key, population, batches: as in `run`, of the K candidates of `population`; `batches` must
            be a function of the step if `problem` is one of a value.
        problem: a `Problem`, whose initial sigma the values then are; or a function of a value that
            returns a `Problem`, for what changes shapes, such as a dilation or a kernel size.
        values: the grid, [V]; standard deviations, or (y, x) pairs of them, for a `Problem`.
        over: name of what is enumerated, for reports; "sigma" for a `Problem`.
        checkpoints: as in `run`.
        **options: the other arguments of `run`.

    Returns:
        A `Result` of V K candidates, value by value, with `values` [V K] filled in.

    Raises:
        ValueError: there are no values, `over` is something else than the sigma that a `Problem`
            can start from, or the batches cannot be gone through again.

    Example:
        >>> import jax.numpy as jnp, rfjax
        >>> from rfjax import search
        >>> x = jax.random.normal(jax.random.key(0), (24, 24, 1))
        >>> y = rfjax.gaussian_blur(x, jnp.log(jnp.array([1.5])))
        >>> loss = lambda p, x: jnp.mean((rfjax.gaussian_blur(x, p["covariance"]) - y) ** 2)
        >>> problem = search.Problem(lambda key, c: {"covariance": c.covariance()}, loss)
        >>> grid = search.enumerate(jax.random.key(0), problem, search.population(), lambda t: x,
        ...                         values=[0.5, 1.0, 1.5, 2.0], steps=1)
        >>> float(grid.values[grid.best])
        1.5
    """
    if not len(values):
        raise ValueError("values must name at least one value to try")
    checks.population(population)
    checks.batches(batches)
    if isinstance(problem, Problem):
        if over != "sigma":
            raise ValueError(
                f"of a Problem only sigma is enumerated; for over={over!r} give a function of a "
                "value that returns a Problem"
            )
        if not options.get("shared_batches", True):
            batches = tiled(batches, len(values))
        candidates = concatenate([fixed(population, sigma=value) for value in values])
        result = driver.run(key, problem, candidates, batches, checkpoints=checkpoints, **options)
        repeated = np.repeat(np.asarray(values), len(population), axis=0)
        return dataclasses.replace(result, values=repeated, over=over)
    if not callable(batches):
        raise ValueError("with a problem for each value, batches must be a function of the step")
    results = [
        driver.run(
            key,
            problem(value),
            fixed(population),
            batches,
            checkpoints=None if checkpoints is None else Path(checkpoints) / f"{over}_{value}",
            **options,
        )
        for value in values
    ]
    return join(results, over=over, values=values)


def fixed(population: Population, *, sigma: Any = None) -> Population:
    """The population with structure that stays where it starts, at `sigma` if that is given."""
    still = np.zeros_like(population.covariance_multiplier)
    changed = dataclasses.replace(population, covariance_multiplier=still)
    if sigma is None:
        return changed
    sigmas = np.broadcast_to(np.asarray(sigma, np.float32), np.shape(population.sigma))
    return dataclasses.replace(changed, sigma=sigmas)
