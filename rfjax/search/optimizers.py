"""Optimizers of a search: functions of a candidate that return an optax transformation.

Anything of optax can be one, with a learning rate read from the (traced) candidate:

    lambda candidate: optax.adam(candidate.learning_rate)
"""

import functools
from collections.abc import Callable

import jax
import optax

from rfjax.search.population import Population
from rfjax.search.problem import names
from rfjax.training import optimizers


@functools.lru_cache(maxsize=64)  # one object for equal options: searches then compile once
def sgd(
    *,
    steps: int,
    power: float = 0.9,
    warmup_steps: int = 0,
    momentum: float = 0.9,
    weight_decay: float = 0.0,
    grad_clip: float = 0.0,
    is_structure: Callable[[tuple[str, ...]], bool] = optimizers.is_structure,
) -> Callable[[Population], optax.GradientTransformation]:
    """The optimizer of `rfjax.training` with the learning rates of each candidate.

        g <- clip(g) + weight_decay * p;   m <- momentum * m + g;   p <- p - lr(t) * multiplier * m

    with lr(t) from `learning_rate` and, on structure only, the multiplier and no weight decay.

    Args:
        steps, power, warmup_steps: of `rfjax.training.optimizers.poly_schedule`, static.
        momentum, weight_decay: static.
        grad_clip: the largest global norm of a candidate's gradient, 0 for no clipping.
        is_structure: of the path of a parameter.

    Returns:
        A function of a candidate that returns an `optax.GradientTransformation` on any pytree.
    """

    def of_structure(wanted: bool) -> Callable:
        return lambda params: jax.tree_util.tree_map_with_path(
            lambda path, _: is_structure(names(path)) == wanted, params
        )

    def rule(candidate: Population) -> optax.GradientTransformation:
        schedule = optimizers.poly_schedule(
            candidate.learning_rate, steps=steps, power=power, warmup_steps=warmup_steps
        )
        multiplied = optax.scale(candidate.covariance_multiplier)
        return optax.chain(
            optax.clip_by_global_norm(grad_clip) if grad_clip else optax.identity(),
            optax.add_decayed_weights(weight_decay, mask=of_structure(False)),
            optax.trace(decay=momentum),
            optax.masked(multiplied, of_structure(True)),
            optax.scale_by_learning_rate(schedule),
        )

    return rule
