"""What is searched over: any model, given as pure functions of its parameters.

Parameters may be any pytree of arrays. What of them is structure, the layers of a Linen model
declare; of a plain pytree it is the leaves that are named "covariance".
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import covariance
from rfjax._sgd import names
from rfjax.search.population import OWN_FAMILY, Population

if TYPE_CHECKING:  # Flax, which plain pytrees do without
    from rfjax import nn

UNSTRUCTURED = 1e-3  # sigma of a layer whose structure is switched off: an identity in float32


class Leaves:
    """The structure of a plain pytree: leaves that are named "covariance", log-Cholesky [..., F].

    It answers as `rfjax.nn.Structure` does.
    """

    def is_structure(self, path: tuple[str, ...]) -> bool:
        """Whether the leaf at `path` is structure."""
        return self.is_covariance(path)

    def is_covariance(self, path: tuple[str, ...]) -> bool:
        """Whether the leaf at `path` holds log-Cholesky parameters."""
        return path[-1:] == ("covariance",)

    def covariances(self, params: Any) -> dict[str, jax.Array]:
        """Every such leaf by the path of what it is in; by its own where that is the whole tree."""
        leaves = [(names(path), leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(params)]
        return {
            "/".join(path[:-1] or path): leaf for path, leaf in leaves if self.is_covariance(path)
        }


LEAVES = Leaves()


@dataclasses.dataclass(frozen=True)
class Problem:
    """A model, its loss, and what is to be seen of it, as pure functions.

    Attributes:
        init: (key, candidate) -> parameters; with `stateful`, (parameters, state). A candidate is
            one row of a `Population`.
        loss: (params, batch) -> scalar; with `stateful`, (params, state, batch, key) ->
            (scalar, state).
        stateful: whether the model carries a state besides its parameters, such as batch
            statistics, or draws random numbers.
        structure: what the layers of a Linen model declare, `rfjax.nn.structure(model, variables)`,
            for parameters that are what lies under "params"; for any other pytree, and by default,
            its leaves that are named "covariance".
        covariances: params -> log-Cholesky parameters [..., F] by layer; None for those that
            `structure` finds.
        score: (params, batch) -> arrays that are added up over the batches of the validation data;
            with `stateful`, (params, state, batch). None to go without.
        summarize: the sum of the scores, as NumPy arrays -> a number, higher being better.
        receptive_field: standard deviations [..., L, 2] in the order of the layers' names -> the
            sizes (y, x) of the receptive field [..., 2], NumPy; None to go without.
        is_structure: path of a parameter, a tuple of strings -> whether it is structure, which
            learns at its own rate and can be fixed; None for what `structure` says.

    Example:
        >>> import rfjax
        >>> def loss(params, batch):
        ...     blurred = rfjax.gaussian_blur(batch["x"], params["covariance"])
        ...     return jnp.mean((blurred - batch["y"]) ** 2)
        >>> problem = Problem(lambda key, c: {"covariance": c.covariance("full")}, loss)
    """

    init: Callable
    loss: Callable
    stateful: bool = False
    structure: "nn.Structure | Leaves" = LEAVES
    covariances: Callable[[Any], Mapping[str, jax.Array]] | None = None
    score: Callable | None = None
    summarize: Callable[[Any], float] = float
    receptive_field: Callable[[np.ndarray], np.ndarray] | None = None
    is_structure: Callable[[tuple[str, ...]], bool] | None = None

    def declares(self, path: tuple[str, ...]) -> bool:
        """Whether the parameter at `path` is structure."""
        return (self.is_structure or self.structure.is_structure)(path)

    def initialize(self, key: jax.Array, candidate: Population) -> tuple[Any, Any]:
        """Parameters and state of a candidate, structure that it lacks switched off."""
        made = self.init(key, candidate)
        params, state = made if self.stateful else (made, {})
        return _switch_off(params, candidate, self.structure.is_covariance), state

    def evaluate(self, params: Any, state: Any, batch: Any, key: jax.Array) -> tuple[Any, Any]:
        """(loss, state), whether the problem is stateful or not."""
        if self.stateful:
            return self.loss(params, state, batch, key)
        return self.loss(params, batch), state

    def measure(self, params: Any, state: Any, batch: Any) -> Any:
        """The score of one batch."""
        if self.score is None:
            raise ValueError("the problem has no score")
        return self.score(params, state, batch) if self.stateful else self.score(params, batch)

    def entries(self, params: Any) -> dict[str, jax.Array]:
        """(Sigma_yy, Sigma_yx, Sigma_xx) [3] of every layer, the mean over channels where several.

        By the layer's path, sorted.
        """
        found = (self.covariances or self.structure.covariances)(params)
        means = {}
        for layer in sorted(found):
            matrices = covariance.covariance_matrix(found[layer]).reshape(-1, 2, 2)
            matrix = jnp.mean(matrices.astype(jnp.float32), 0)
            means[layer] = jnp.stack([matrix[0, 0], matrix[0, 1], matrix[1, 1]])
        return means


def constrain(tree: Any, candidate: Population, problem: Problem, *, gradients: bool) -> Any:
    """Gradients (or updates) of parameters, restricted to what this candidate may learn.

    A spherical covariance held in three numbers moves as one number would: the gradient of each
    end is the sum of both, and an update their mean.

    Args:
        tree: of the parameters' form.
        candidate: its `family`, `structured`, and whether its multiplier is 0 are read; traced.
        problem: which says what is structure.
        gradients: whether they are gradients; else updates.
    """

    def restrict(path: tuple, leaf: jax.Array) -> jax.Array:
        path = names(path)
        if not problem.declares(path):
            return leaf
        if problem.structure.is_covariance(path):
            leaf = _project(leaf, candidate.family, weight=1.0 if gradients else 0.5)
        # Nothing of fixed structure may pass: a norm or a nan of it would reach the weights.
        learns, free = _learns(path, candidate), candidate.covariance_multiplier != 0
        learns = free if learns is None else learns & free
        return jnp.where(learns, leaf, jnp.zeros_like(leaf))

    return jax.tree_util.tree_map_with_path(restrict, tree)


def _project(leaf: jax.Array, family: jax.Array, *, weight: float) -> jax.Array:
    """`leaf` [..., F] with the freedom of a family of at most F numbers."""
    if leaf.shape[-1] == 1:
        return leaf
    first, last = leaf[..., :1], leaf[..., -1:]
    common = weight * (first + last)
    first, last = (jnp.where(family == 1, common, end) for end in (first, last))
    middle = leaf[..., 1:-1]
    middle = jnp.where((family == OWN_FAMILY) | (family == 3), middle, jnp.zeros_like(middle))
    return jnp.concatenate([first, middle, last], -1)


def _learns(path: tuple[str, ...], candidate: Population) -> jax.Array | None:
    """The flag of the layer that a parameter belongs to; None if the candidate has none for it."""
    whole = "/".join(path) + "/"
    flags = [flag for layer, flag in candidate.structured.items() if whole.startswith(layer + "/")]
    return flags[0] if flags else None


def _switch_off(params: Any, candidate: Population, is_covariance: Callable) -> Any:
    """Tiny covariances where the candidate's layers are not structured."""

    def switched(path: tuple, leaf: Any) -> Any:
        path = names(path)
        learns = _learns(path, candidate) if is_covariance(path) else None
        if learns is None:
            return leaf
        log_sigma = jnp.log(UNSTRUCTURED)
        row = jnp.stack([log_sigma, *[0.0 * log_sigma] * (leaf.shape[-1] - 2), log_sigma])
        tiny = jnp.broadcast_to(row[: leaf.shape[-1]].astype(leaf.dtype), leaf.shape)
        return jnp.where(learns, leaf, tiny)

    return jax.tree_util.tree_map_with_path(switched, params)


def check(problem: Problem, params: Any, candidates: Population) -> None:
    """Raises unless the layers can hold the families, and have the paths, of the population.

    Raises:
        ValueError: naming the layer, what it has, and what is wanted.
    """
    _check_leaves(problem, params)
    leaves = [(names(p), leaf) for p, leaf in jax.tree_util.tree_leaves_with_path(params)]
    widest = int(np.max(candidates.family))
    for path, leaf in leaves:
        if problem.structure.is_covariance(path) and leaf.shape[-1] < widest:
            family = {size: name for name, size in covariance.FAMILIES.items()}[widest]
            raise ValueError(
                f"a {family} candidate needs layers of {widest} numbers; "
                f"{'/'.join(path)} has {leaf.shape[-1]}"
            )
    paths = ["/".join(path) for path, _ in leaves if problem.declares(path)]
    for layer in candidates.structured:
        if not any((path + "/").startswith(layer + "/") for path in paths):
            raise ValueError(f"structured names {layer!r}; structure lies under {paths}")


def _check_leaves(problem: Problem, params: Any) -> None:
    """Raises unless the parameters are those of which the structure is told."""
    leaves = [(names(p), leaf) for p, leaf in jax.tree_util.tree_leaves_with_path(params)]
    if problem.structure is not LEAVES and not any(problem.declares(p) for p, _ in leaves):
        paths = ["/".join(path) for path, _ in leaves]
        raise ValueError(
            f"none of the parameters is structure of the model: want those under 'params'; got "
            f"{', '.join(paths[:4])}"
        )
    for path, leaf in leaves:
        if problem.structure.is_covariance(path) and np.shape(leaf)[-1:] not in ((1,), (2,), (3,)):
            raise ValueError(
                f"{'/'.join(path)} must be log-Cholesky parameters [..., 1 | 2 | 3]; got the shape "
                f"{np.shape(leaf)}"
            )
