"""The optimizer of the papers: stochastic gradient descent, momentum, polynomial learning rate.

What is structure, meaning covariances and offsets, and what is a free-form weight, the layers of a
network say: `is_structure` is a function of a parameter's path, such as that of
`rfjax.nn.structure(model, variables)`.
"""

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from rfjax import _checks
from rfjax._checks import choose
from rfjax.training.config import ACCUMULATIONS, is_patterns

Path = tuple[str, ...]
IsStructure = Callable[[Path], bool]

SELECTIONS: dict[str, Callable[[Path, IsStructure], bool]] = {
    "all": lambda path, is_structure: True,
    "last_stage": lambda path, is_structure: path[0] == "head",
    "structure": lambda path, is_structure: is_structure(path),
}


def matches(path: Path, patterns: str) -> bool:
    """Whether one of the patterns, which commas separate, is that of a path; * is any text.

    Example:
        >>> matches(("backbone", "layer4_0", "conv1", "kernel"), "backbone/layer4_*, head/*")
        True
    """
    name = "/".join(path)
    return any(fnmatchcase(name, pattern.strip()) for pattern in patterns.split(","))


def _selection(trainable: str) -> Callable[[Path, IsStructure], bool]:
    """The choice of this name, or that of patterns."""
    if trainable in SELECTIONS or not is_patterns(trainable):
        return choose("trainable", trainable, SELECTIONS)
    return lambda path, is_structure: matches(path, trainable)


def select(
    params: Mapping[str, Any], trainable: str, *, is_structure: IsStructure | None = None
) -> tuple[dict, dict]:
    """The parts of `params` that are trained and that stay frozen.

    Args:
        params: a nested dictionary of arrays, with "head" at the top for `last_stage`.
        trainable: all | last_stage (what is under "head") | structure (covariances and offsets), or
            patterns of paths, as "backbone/layer4_*, head/*".
        is_structure: of a path; must be given for `structure`.

    Returns:
        Two nested dictionaries that `merge` puts together again.

    Raises:
        ValueError: for an unknown `trainable`, or when it selects nothing.
    """
    chosen = _selection(trainable)
    if trainable == "structure" and is_structure is None:
        raise ValueError("trainable='structure' wants is_structure, to tell which parameters it is")
    flat = traverse_util.flatten_dict(params)
    trained = {path: leaf for path, leaf in flat.items() if chosen(path, is_structure)}
    if not trained:
        raise ValueError(f"trainable={trainable!r} selects no parameter of this model")
    frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
    return traverse_util.unflatten_dict(trained), traverse_util.unflatten_dict(frozen)


def merge(trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict:
    """The parameters of which `select` made the two parts."""
    flat = traverse_util.flatten_dict(trained) | traverse_util.flatten_dict(frozen)
    return traverse_util.unflatten_dict(flat)


def poly_schedule(
    learning_rate: float, *, steps: int, power: float = 0.9, warmup_steps: int = 0
) -> optax.Schedule:
    """The polynomial learning rate as a function of the step.

        lr(t) = learning_rate * (1 - t / steps)^power * min(1, (t + 1) / warmup_steps)

    Args:
        learning_rate, steps, power: static; the rate is zero at and after `steps`, and constant
            with power 0.
        warmup_steps: length of the linear rise, 0 for none.

    Returns:
        A function of an integer step (traced or not) that returns a float32 scalar.

    Example:
        >>> rate = poly_schedule(0.01, steps=240)
        >>> [round(float(rate(t)), 7) for t in (0, 120, 240)]
        [0.01, 0.0053589, 0.0]
    """

    _checks.finite_scalar("learning_rate", learning_rate)
    _checks.integer("steps", steps)
    _checks.number("power", power, least=0)
    _checks.integer("warmup_steps", warmup_steps, least=0)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        left = jnp.clip(1.0 - step / steps, 0.0, 1.0)
        rise = jnp.minimum(1.0, (step + 1.0) / warmup_steps) if warmup_steps else 1.0
        return learning_rate * left**power * rise

    return schedule


def from_config(
    config: ConfigDict, is_structure: IsStructure
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a run's config, and its learning rate as a function of the run's step.

    Where the gradients of several steps make one update, the schedule counts updates.
    """
    options = config.optimizer
    every = options.accumulate
    schedule = poly_schedule(
        options.learning_rate,
        steps=-(-config.steps // every),
        power=options.poly_power,
        warmup_steps=options.warmup_steps,
    )
    optimizer = sgd(
        schedule,
        is_structure=is_structure,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        grad_clip=options.grad_clip,
        covariance_multiplier=options.covariance_multiplier,
        covariance_decay=options.covariance_decay,
        rates=factors(options.rates),
        decays=factors(options.decays),
    )
    optimizer = accumulated(optimizer, every, options.accumulation)
    return optimizer, lambda step: schedule(step // every)


def factors(texts: Sequence[str]) -> dict[str, float]:
    """The factors by pattern that texts of the form "PATTERN=FACTOR" give.

    Example:
        >>> factors(("*/bias=2", "head/*=10"))
        {'*/bias': 2.0, 'head/*': 10.0}
    """
    pairs = (text.rpartition("=") for text in texts)
    return {pattern.strip(): float(factor) for pattern, _, factor in pairs}


def accumulated(
    optimizer: optax.GradientTransformation, steps: int, how: str
) -> optax.GradientTransformation:
    """`optimizer`, acting once in so many steps on the mean or the sum of their gradients.

    Args:
        optimizer: of one update.
        steps: 1 for the optimizer itself.
        how: mean | sum.
    """
    choose("accumulation", how, ACCUMULATIONS)
    if _checks.integer("steps", steps) == 1:
        return optimizer
    several = optax.MultiSteps(optimizer, steps, use_grad_mean=how == "mean")
    return several.gradient_transformation()


def sgd(
    schedule: optax.Schedule,
    *,
    is_structure: IsStructure | None = None,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    grad_clip: float = 0.0,
    covariance_multiplier: float = 1.0,
    covariance_decay: bool = False,
    rates: Mapping[str, float] = MappingProxyType({}),
    decays: Mapping[str, float] = MappingProxyType({}),
) -> optax.GradientTransformation:
    """Gradient descent in which weight decay is added before momentum, as in the references.

        g <- clip(g) + weight_decay * p;   m <- momentum * m + g;   p <- p - lr(t) * multiplier * m

    where the decay and the multiplier may differ from parameter to parameter.

    Args:
        schedule: the learning rate as a function of the step.
        is_structure: of the path of a parameter; None for a model without structure.
        momentum, weight_decay: static.
        grad_clip: the largest global norm of the gradient, 0 for no clipping.
        covariance_multiplier: factor on the learning rate of structure.
        covariance_decay: whether weight decay acts on structure. On log sigma it would pull sigma
            to 1.
        rates, decays: factors on the learning rate and on the weight decay by patterns of paths, as
            {"*/bias": 2.0}; of several that match the last one holds, and 1 where none does.

    Returns:
        An `optax.GradientTransformation` on nested dictionaries of parameters.

    Raises:
        ValueError: there are options for structure, but `is_structure` is not given.

    Reference: Sutskever et al. 2013, equation 1, in the form of torch.optim.SGD.
    """
    amounts = {"momentum": momentum, "weight_decay": weight_decay, "grad_clip": grad_clip}
    for name, value in (amounts | {"covariance_multiplier": covariance_multiplier}).items():
        _checks.number(name, value, least=0)
    _checks.flag("covariance_decay", covariance_decay)
    if is_structure is None:
        if covariance_multiplier != 1 or covariance_decay:
            raise ValueError(
                "covariance_multiplier and covariance_decay act on structure: give is_structure, "
                "as that of rfjax.nn.structure(model, variables)"
            )
        is_structure = lambda path: False
    clip = optax.clip_by_global_norm(grad_clip) if grad_clip else optax.identity()
    decayed = lambda path: covariance_decay or not is_structure(path)
    return optax.chain(
        clip,
        _decay(weight_decay, decayed, decays),
        optax.trace(decay=momentum),
        optax.masked(optax.scale(covariance_multiplier), _mask(is_structure)),
        *([_scale(rates)] if rates else []),
        optax.scale_by_learning_rate(schedule),
    )


def _decay(
    weight_decay: float, decayed: IsStructure, by_pattern: Mapping[str, float]
) -> optax.GradientTransformation:
    """Adds `weight_decay` times the parameter, times the factor of its pattern."""
    if not by_pattern:
        return optax.add_decayed_weights(weight_decay, mask=_mask(decayed))

    def factor(path: Path, _: Any) -> float:
        return weight_decay * _factor(by_pattern, path) if decayed(path) else 0.0

    def add(updates: Any, params: Any) -> Any:
        by_leaf = traverse_util.path_aware_map(factor, params)
        return jax.tree.map(lambda u, p, f: u + f * p, updates, params, by_leaf)

    return optax.stateless(add)


def _scale(by_pattern: Mapping[str, float]) -> optax.GradientTransformation:
    """Updates times the factors of their patterns."""
    return optax.stateless(
        lambda updates, params: traverse_util.path_aware_map(
            lambda path, u: _factor(by_pattern, path) * u, updates
        )
    )


def _factor(by_pattern: Mapping[str, float], path: Path) -> float:
    """That of the last pattern that matches, 1 without any."""
    found = [factor for pattern, factor in by_pattern.items() if matches(path, pattern)]
    return found[-1] if found else 1.0


def _mask(holds: IsStructure) -> Callable:
    """The function from parameters to the tree of `holds(path)` that optax takes as a mask."""
    return lambda params: traverse_util.path_aware_map(lambda path, _: holds(path), params)
