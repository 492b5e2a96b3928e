"""What is checked before a search begins: each fault by what was given and what is wanted."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Sized
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from rfjax._checks import integer
from rfjax.search.halving import Halving
from rfjax.search.population import Population
from rfjax.search.problem import Problem


def key(value: Any) -> jax.Array:
    """A key, also from the raw numbers of `jax.random.PRNGKey`."""
    dtype = getattr(value, "dtype", None)
    if dtype is not None and np.shape(value) == ():
        if jnp.issubdtype(dtype, jax.dtypes.prng_key):
            return value
    elif dtype == np.uint32:
        return jax.random.wrap_key_data(jnp.asarray(value))
    raise TypeError(f"key must be a single key, as jax.random.key(0); got {value!r}")


def population(value: Any) -> None:
    """Raises unless it is a `Population` of candidates."""
    if not isinstance(value, Population):
        raise TypeError(
            f"population must be a Population, as search.population(sigma=[0.5, 1]); got {value!r}"
        )
    if np.ndim(value.seed) != 1:
        raise ValueError("population is a single candidate; take population[k : k + 1]")
    if not len(value):
        raise ValueError("population must have at least 1 candidate; got 0")


def batches(source: Any) -> None:
    """Raises unless it is a function of the step or an iterable of batches."""
    if isinstance(source, Mapping | str) or not (
        callable(source) or isinstance(source, Iterable) or hasattr(source, "__getitem__")
    ):
        raise TypeError(
            "batches must be a function of the step or an iterable of batches, as "
            f"lambda step: batch; got {type(source).__name__}"
        )


def validation(source: Any, problem: Problem) -> None:
    """Raises unless there is a score for it, and it can be gone through again and again."""
    if source is None:
        return
    if problem.score is None:
        raise ValueError("validation is given, but problem.score, which would read it, is not")
    again = isinstance(source, Iterable) and not isinstance(source, Mapping | str | Iterator)
    if not again:
        raise TypeError(
            "validation is gone through at every score: give a list of batches; got "
            f"{type(source).__name__}"
        )
    if isinstance(source, Sized) and not len(source):
        raise ValueError("validation must hold at least 1 batch; got none")


def optimizer(rule: Any, candidate: Population) -> None:
    """Raises unless it is a function of a candidate that returns an optax transformation."""
    wanted = "lambda candidate: optax.adam(candidate.learning_rate)"
    if not callable(rule):
        raise TypeError(
            f"optimizer must be a function of a candidate, as {wanted}; got {type(rule).__name__}"
        )
    made = rule(candidate)
    if not (hasattr(made, "init") and hasattr(made, "update")):
        raise TypeError(
            f"optimizer must return an optax transformation, as {wanted}; got {type(made).__name__}"
        )


def devices(value: Any) -> None:
    """Raises unless it is None or a sequence of devices."""
    if value is None:
        return
    if not isinstance(value, Sequence | np.ndarray) or isinstance(value, str):
        raise TypeError(f"devices must be a sequence, as jax.local_devices(); got {value!r}")
    if not len(value) or not all(isinstance(device, jax.Device) for device in value):
        raise TypeError(f"devices must hold devices, as jax.local_devices(); got {value!r}")


def halving(value: Any, steps: int) -> None:
    """Raises unless it is None or its rungs come before the last step."""
    if value is None:
        return
    if not isinstance(value, Halving):
        raise TypeError(f"halving must be a search.Halving or None; got {value!r}")
    value.check(steps)


def settings(
    *, steps: Any, eval_every: Any, checkpoint_every: Any, steps_per_dispatch: Any, chunk: Any
) -> None:
    """Raises unless all are whole numbers within their bounds."""
    integer("steps", steps)
    integer("eval_every", eval_every, least=0)
    integer("checkpoint_every", checkpoint_every, least=0)
    integer("steps_per_dispatch", steps_per_dispatch, optional=True)
    integer("chunk", chunk, optional=True)


def functions(stop: Callable, progress: Callable | None) -> None:
    """Raises unless they can be called."""
    for name, function in (("stop", stop), ("progress", progress)):
        if function is not None and not callable(function):
            raise TypeError(f"{name} must be a function; got {function!r}")
