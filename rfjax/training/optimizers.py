"""The optimizer of the papers: stochastic gradient descent, momentum, polynomial learning rate.

Structure, meaning covariances and offsets, is told from free-form weights by name: a parameter is
structure if a component of its path starts with "covariance" or "offset".
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util
from ml_collections import ConfigDict

from rfjax._checks import choose

STRUCTURE = ("covariance", "offset")
Path = tuple[str, ...]


def is_structure(path: Path) -> bool:
    """Whether the parameter at `path` is a covariance, an offset, or a part of their regressors.

    Example:
        >>> is_structure(("head", "covariance_regressor", "kernel"))
        True
        >>> is_structure(("head", "kernel"))
        False
    """
    return any(part.startswith(STRUCTURE) for part in path)


SELECTIONS = {
    "all": lambda path: True,
    "last_stage": lambda path: path[0] == "head",
    "structure": is_structure,
}


def select(params: Mapping[str, Any], trainable: str) -> tuple[dict, dict]:
    """The parts of `params` that are trained and that stay frozen.

    Args:
        params: a nested dictionary of arrays, with "head" at the top for `last_stage`.
        trainable: all | last_stage (what is under "head") | structure (covariances and offsets).

    Returns:
        Two nested dictionaries that `merge` puts together again.

    Raises:
        ValueError: for an unknown `trainable`, or when it selects nothing.
    """
    chosen = choose("trainable", trainable, SELECTIONS)
    flat = traverse_util.flatten_dict(params)
    trained = {path: leaf for path, leaf in flat.items() if chosen(path)}
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

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        step = jnp.asarray(step, jnp.float32)
        left = jnp.clip(1.0 - step / steps, 0.0, 1.0)
        rise = jnp.minimum(1.0, (step + 1.0) / warmup_steps) if warmup_steps else 1.0
        return learning_rate * left**power * rise

    return schedule


def from_config(config: ConfigDict) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer and the learning rate that a run's config asks for."""
    options = config.optimizer
    schedule = poly_schedule(
        options.learning_rate,
        steps=config.steps,
        power=options.poly_power,
        warmup_steps=options.warmup_steps,
    )
    optimizer = sgd(
        schedule,
        momentum=options.momentum,
        weight_decay=options.weight_decay,
        grad_clip=options.grad_clip,
        covariance_multiplier=options.covariance_multiplier,
        covariance_decay=options.covariance_decay,
    )
    return optimizer, schedule


def sgd(
    schedule: optax.Schedule,
    *,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    grad_clip: float = 0.0,
    covariance_multiplier: float = 1.0,
    covariance_decay: bool = False,
) -> optax.GradientTransformation:
    """Gradient descent in which weight decay is added before momentum, as in the references.

        g <- clip(g) + weight_decay * p;   m <- momentum * m + g;   p <- p - lr(t) * multiplier * m

    Args:
        schedule: the learning rate as a function of the step.
        momentum, weight_decay: static.
        grad_clip: the largest global norm of the gradient, 0 for no clipping.
        covariance_multiplier: factor on the learning rate of structure.
        covariance_decay: whether weight decay acts on structure. On log sigma it would pull sigma
            to 1.

    Returns:
        An `optax.GradientTransformation` on nested dictionaries of parameters.

    Reference: Sutskever et al. 2013, equation 1, in the form of torch.optim.SGD.
    """
    clip = optax.clip_by_global_norm(grad_clip) if grad_clip else optax.identity()
    decayed = _mask(lambda path: covariance_decay or not is_structure(path))
    return optax.chain(
        clip,
        optax.add_decayed_weights(weight_decay, mask=decayed),
        optax.trace(decay=momentum),
        optax.masked(optax.scale(covariance_multiplier), _mask(is_structure)),
        optax.scale_by_learning_rate(schedule),
    )


def _mask(holds):
    """The function from parameters to the tree of `holds(path)` that optax takes as a mask."""
    return lambda params: traverse_util.path_aware_map(lambda path, _: holds(path), params)
