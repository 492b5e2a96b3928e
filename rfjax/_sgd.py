"""Stochastic gradient descent as in the papers, which training and search share; without Flax."""

from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from functools import partial
from types import MappingProxyType
from typing import Any

import jax
import jax.numpy as jnp
import optax

from rfjax import _checks
from rfjax._checks import choose
from rfjax._names import UPDATES

Path = tuple[str, ...]
IsStructure = Callable[[Path], bool]


def names(path: tuple) -> tuple[str, ...]:
    """The components of a leaf's path in any pytree, as strings.

    Example:
        >>> tree = {"head": {"covariance": 0.0}}
        >>> [names(path) for path, _ in jax.tree_util.tree_leaves_with_path(tree)]
        [('head', 'covariance')]
    """
    parts = (jax.tree_util.keystr((part,), simple=True) for part in path)
    return tuple(part for part in parts if part != "value")  # of a variable's box, as in Flax NNX


def matches(path: Path, patterns: str) -> bool:
    """Whether one of the patterns, which commas separate, is that of a path; * is any text.

    Example:
        >>> matches(("backbone", "layer4_0", "conv1", "kernel"), "backbone/layer4_*, head/*")
        True
    """
    name = "/".join(path)
    return any(fnmatchcase(name, pattern.strip()) for pattern in patterns.split(","))


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
        return learning_rate * left**power * _rise(step, warmup_steps)

    return schedule


def cosine_schedule(learning_rate: float, *, steps: int, warmup_steps: int = 0) -> optax.Schedule:
    """The learning rate that falls as half a cosine, as a function of the step.

        lr(t) = learning_rate * (1 + cos(pi t / steps)) / 2 * min(1, (t + 1) / warmup_steps)

    Args:
        learning_rate, steps: static; the rate is zero at and after `steps`.
        warmup_steps: length of the linear rise, 0 for none.

    Returns:
        A function of an integer step (traced or not) that returns a float32 scalar.

    Example:
        >>> rate = cosine_schedule(0.01, steps=240)
        >>> [round(float(rate(t)), 7) for t in (0, 80, 120, 240)]
        [0.01, 0.0075, 0.005, 0.0]

    Reference: Loshchilov & Hutter, "SGDR", ICLR 2017, equation 5 without restarts.
    """
    _checks.finite_scalar("learning_rate", learning_rate)
    _checks.integer("steps", steps)
    _checks.integer("warmup_steps", warmup_steps, least=0)
    fall = optax.cosine_decay_schedule(learning_rate, steps)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        return jnp.asarray(fall(step)) * _rise(step, warmup_steps)

    return schedule


def _rise(step: jax.Array, warmup_steps: int) -> jax.typing.ArrayLike:
    """The factor on the learning rate while it rises."""
    return jnp.minimum(1.0, (step + 1.0) / warmup_steps) if warmup_steps else 1.0


def descent(
    schedule: optax.Schedule,
    *,
    is_structure: IsStructure,
    momentum: float,
    weight_decay: float,
    grad_clip: float,
    multiplier: jax.typing.ArrayLike,
    decayed: bool = False,
    rates: Mapping[str, float] = MappingProxyType({}),
    decays: Mapping[str, float] = MappingProxyType({}),
    rate_in_momentum: bool = False,
    rule: str = "momentum",
) -> optax.GradientTransformation:
    """Gradient descent in which weight decay is added before momentum, or by "adamw" after it.

        g <- clip(g) + weight_decay * p;   m <- momentum * m + g;   p <- p - lr(t) * multiplier * m

    or, with the rate in the momentum, m <- momentum * m + lr(t) * multiplier * g;   p <- p - m;
    or, by "adam", m / (sqrt(v) + 1e-8) in place of m, of means m of g and v of g^2 without bias,
    which keep momentum and .999 of themselves; or, by "adamw", the same of gradients without
    decay, and weight_decay * p joins the step: m / (sqrt(v) + 1e-8) + weight_decay * p.

    Args:
        schedule: lr(t), the learning rate as a function of the step.
        is_structure: of the path of a parameter.
        momentum, weight_decay: static.
        grad_clip: the largest global norm of the gradient, static; 0 for no clipping.
        multiplier: factor on the learning rate of structure, traced or not.
        decayed: whether weight decay acts on structure.
        rates, decays: factors on the learning rate and on the weight decay by patterns of paths, as
            {"*/bias": 2.0}; of several that match the last one holds, and 1 where none does.
        rate_in_momentum: whether the momentum sums steps, and not gradients.
        rule: momentum | adam | adamw.

    Returns:
        An `optax.GradientTransformation` on any pytree of parameters.
    """
    choose("rule", rule, UPDATES)
    if rate_in_momentum and rule != "momentum":
        raise ValueError(f"rate_in_momentum is for the rule momentum; got rule={rule!r}")
    plain = rule == "momentum"
    mean = optax.trace(decay=momentum) if plain else promoting(optax.scale_by_adam(b1=momentum))
    decay = _decay(weight_decay, lambda path: decayed or not is_structure(path), decays)
    rated = [
        optax.masked(optax.scale(multiplier), _mask(is_structure)),
        *([_scale(rates)] if rates else []),
        optax.scale_by_learning_rate(schedule),
    ]
    if rule == "adamw":
        order = [mean, decay, *rated]
    else:
        order = [decay, *([*rated, mean] if rate_in_momentum else [mean, *rated])]
    return optax.chain(
        optax.clip_by_global_norm(grad_clip) if grad_clip else optax.identity(), *order
    )


def promoting(transformation: optax.GradientTransformation) -> optax.GradientTransformation:
    """The same where types are not promoted: optax computes with counts of steps."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            return transformation.update(updates, state, params)

    return optax.GradientTransformation(transformation.init, update)


def _decay(
    weight_decay: float, decayed: IsStructure, by_pattern: Mapping[str, float]
) -> optax.GradientTransformation:
    """Adds `weight_decay` times the parameter, times the factor of its pattern."""
    if not by_pattern:
        return optax.add_decayed_weights(weight_decay, mask=_mask(decayed))

    def add(path: tuple, update: jax.Array, param: jax.Array) -> jax.Array:
        own = names(path)
        return update + weight_decay * _factor(by_pattern, own) * param if decayed(own) else update

    return optax.stateless(partial(jax.tree_util.tree_map_with_path, add))


def _scale(by_pattern: Mapping[str, float]) -> optax.GradientTransformation:
    """Updates times the factors of their patterns."""

    def scale(path: tuple, update: jax.Array) -> jax.Array:
        return _factor(by_pattern, names(path)) * update

    return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))


def _factor(by_pattern: Mapping[str, float], path: Path) -> float:
    """That of the last pattern that matches, 1 without any."""
    found = [factor for pattern, factor in by_pattern.items() if matches(path, pattern)]
    return found[-1] if found else 1.0


def _mask(holds: IsStructure) -> Callable[[Any], Any]:
    """The function from parameters to the tree of `holds(path)` that optax takes as a mask."""
    return lambda params: jax.tree_util.tree_map_with_path(
        lambda path, _: holds(names(path)), params
    )
