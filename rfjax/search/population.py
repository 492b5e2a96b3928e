"""Candidates of a search: what each starts from and learns with, as arrays with one leading axis.

A `Population` of K candidates is a pytree whose leaves have K rows; one candidate is the same
pytree without that axis. All fields are traced, so candidates that differ in any of them are
trained by one compiled program.
"""

import dataclasses
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import ArrayLike

from rfjax import covariance
from rfjax._checks import choose

OWN_FAMILY = 0  # the family of the layers, whichever it is
FAMILIES = {"own": OWN_FAMILY, **covariance.FAMILIES}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Population:
    """K candidates, or a single one if the leading axis is absent; made by `population` or `grid`.

    Attributes:
        sigma: [K, 2] initial standard deviations (y, x) in pixels of the map.
        seed: [K] int32; candidates of one seed draw the same weights and the same dropout.
        learning_rate: [K] of the weights.
        covariance_multiplier: [K], what the learning rate of structure is this many times of, with
            `search.sgd`; 0 fixes structure, whatever the optimizer.
        family: [K] int32, how many numbers of a covariance are free: 1 spherical, 2 diagonal,
            3 full, 0 all that the layer has.
        structured: for some layers, by path, [K] bool: whether the layer's structure is learned.
            One that is not keeps a sigma of `UNSTRUCTURED`, which blurs nothing.
        extra: anything more that a problem's functions want to read, leaves [K, ...].
    """

    sigma: Any
    seed: Any
    learning_rate: Any
    covariance_multiplier: Any
    family: Any
    structured: dict[str, Any] = dataclasses.field(default_factory=dict)
    extra: dict[str, Any] = dataclasses.field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.seed)

    def __getitem__(self, index: Any) -> "Population":
        """One candidate for an integer; a smaller population for a slice or an array of indices."""
        return jax.tree.map(lambda leaf: leaf[index], self)

    def covariance(self, family: str = "spherical") -> jax.Array:
        """The initial log-Cholesky parameters [..., F] of a layer of `family`.

        A spherical candidate, like a spherical layer, starts at the geometric mean of (y, x).

        Example:
            >>> print(jnp.exp(population(sigma=[2.0])[0].covariance("diagonal")))
            [2. 2.]
        """
        log_y, log_x = jnp.log(self.sigma[..., 0]), jnp.log(self.sigma[..., 1])
        size, middle = choose("family", family, covariance.FAMILIES), (log_y + log_x) / 2
        log_y, log_x = (jnp.where(self.family == 1, middle, end) for end in (log_y, log_x))
        entries = {1: [middle], 2: [log_y, log_x], 3: [log_y, 0 * log_y, log_x]}
        return jnp.stack(entries[size], -1)


def population(
    *,
    sigma: ArrayLike = 0.5,
    seed: ArrayLike = 0,
    learning_rate: ArrayLike = 0.1,
    covariance_multiplier: ArrayLike = 1.0,
    family: str | Sequence[str] = "own",
    structured: Mapping[str, ArrayLike] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> Population:
    """The candidates of these fields, one for each row; a single value serves all candidates.

    Args:
        sigma: initial standard deviation, positive: one, [K], or [K, 2] in (y, x) order.
        seed: whole numbers, 0 or more.
        learning_rate, covariance_multiplier: finite and not negative, see `Population`.
        family: own (of the layers) | spherical | diagonal | full, one or K names. Layers need as
            many numbers as the largest.
        structured: by path of a layer, [K] flags.
        extra: a dictionary of whatever the problem reads, leaves [K, ...].

    Returns:
        A `Population` of NumPy arrays.

    Raises:
        ValueError: for lengths that do not agree, a number out of its bounds, no such family.

    Example:
        >>> len(population(sigma=[0.5, 1.0, 2.0], learning_rate=0.01))
        3
    """
    names = [family] if isinstance(family, str) else list(family)
    fields = {
        "sigma": _sigmas(sigma),
        "seed": _seeds(seed),
        "learning_rate": _numbers("learning_rate", learning_rate),
        "covariance_multiplier": _numbers("covariance_multiplier", covariance_multiplier),
        "family": np.asarray([choose("family", name, FAMILIES) for name in names], np.int32),
    }
    flags = {layer: np.asarray(value, bool) for layer, value in (structured or {}).items()}
    leaves: dict[str, Any] = jax.tree.map(np.asarray, dict(extra or {}))
    for name in ("learning_rate", "covariance_multiplier"):
        if not np.all(np.isfinite(fields[name]) & (fields[name] >= 0)):
            raise ValueError(f"{name} must be finite and 0 or more; got {fields[name].tolist()}")
    for name, value in {**fields, **flags}.items():
        if value.ndim > (2 if name == "sigma" else 1) or not value.size:
            raise ValueError(f"{name} must be one value or [K]; got the shape {value.shape}")
    size = _common_length({**fields, **flags}, leaves)
    sigmas = fields.pop("sigma")
    sigmas = sigmas if sigmas.ndim == 2 else sigmas.reshape(-1, 1)
    return Population(
        sigma=np.broadcast_to(sigmas, (size, 2)),
        **{name: np.broadcast_to(value.reshape(-1), (size,)) for name, value in fields.items()},
        structured={name: np.broadcast_to(f.reshape(-1), (size,)) for name, f in flags.items()},
        extra=leaves,
    )


def _numbers(name: str, value: ArrayLike, *, each: str = "all single") -> np.ndarray:
    """Finite or not, but no texts or truth values, float32; `each` says of what form."""
    try:
        numbers = np.asarray(value)
        if numbers.dtype != bool:
            return numbers.astype(np.float32)
    except (TypeError, ValueError):
        pass
    raise ValueError(f"{name} must be numbers, {each}; got {value!r}")


def _sigmas(value: ArrayLike) -> np.ndarray:
    """Positive numbers, one, [K] or [K, 2]."""
    sigmas = _numbers("sigma", value, each="all single or all (y, x)")
    if sigmas.ndim > 2 or (sigmas.ndim == 2 and sigmas.shape[1] != 2):
        raise ValueError(f"sigma must be one number, [K] or [K, 2]; got the shape {sigmas.shape}")
    if not (np.all(sigmas > 0) and np.all(np.isfinite(sigmas))):
        raise ValueError(f"sigma must be positive; got {value!r}")
    return sigmas


def _seeds(value: ArrayLike) -> np.ndarray:
    """Whole numbers from 0 to the largest of int32."""
    seeds = np.asarray(value)
    whole = np.issubdtype(seeds.dtype, np.integer)
    if not whole or np.any(seeds < 0) or np.any(seeds > np.iinfo(np.int32).max):
        raise ValueError(f"seed must be whole numbers from 0 to 2^31 - 1; got {value!r}")
    return seeds.astype(np.int32)


def _common_length(fields: Mapping[str, np.ndarray], extra: Any) -> int:
    """The number of candidates that all fields agree on."""
    lengths = {name: np.shape(np.atleast_1d(value))[0] for name, value in fields.items()}
    many = {name: n for name, n in lengths.items() if n != 1}
    for place, leaf in enumerate(jax.tree.leaves(extra)):
        if not np.ndim(leaf):
            raise ValueError(f"leaves of extra have K rows, one for each candidate; got {leaf!r}")
        many[f"extra[{place}]"] = len(leaf)
    if len(set(many.values())) > 1:
        raise ValueError(f"fields of a population have one value or all the same number: {many}")
    return next(iter(many.values()), 1)


def grid(**fields: Any) -> Population:
    """The population of every combination of the fields' values, the last field varying fastest.

    Args:
        **fields: those of `population` but `structured` and `extra`; a sequence or one value each.

    Raises:
        TypeError: there is no such field.

    Example:
        >>> both = grid(sigma=[0.5, 2.0], seed=[0, 1, 2])
        >>> both.sigma[:, 0].tolist(), both.seed.tolist()
        ([0.5, 0.5, 0.5, 2.0, 2.0, 2.0], [0, 1, 2, 0, 1, 2])
    """
    known = ("sigma", "seed", "learning_rate", "covariance_multiplier", "family")
    if unknown := set(fields).difference(known):
        raise TypeError(f"grid takes {', '.join(known)}; got {', '.join(sorted(unknown))}")
    single = lambda value: isinstance(value, str) or np.ndim(value) == 0
    values = [[value] if single(value) else list(value) for value in fields.values()]
    rows = list(itertools.product(*values))
    columns = zip(*rows, strict=True)
    every: dict[str, Any] = dict(zip(fields, map(list, columns), strict=True))
    return population(**every)


def concatenate(populations: Sequence[Population]) -> Population:
    """The candidates of several populations with the same fields, one after the other."""
    return jax.tree.map(lambda *leaves: np.concatenate(leaves), *populations)
