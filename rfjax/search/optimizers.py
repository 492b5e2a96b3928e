"""Optimizers of a search: functions of a candidate that return an optax transformation.

Anything of optax can be one, with a learning rate read from the (traced) candidate:

    lambda candidate: optax.adam(candidate.learning_rate)
"""

import dataclasses
from collections.abc import Callable

import optax

from rfjax import _sgd
from rfjax.search.population import Population
from rfjax.search.problem import LEAVES, Problem


@dataclasses.dataclass(frozen=True, kw_only=True)  # equal for equal options: compiled once
class SGD:
    """The optimizer of `rfjax.training` with the learning rates of each candidate.

        g <- clip(g) + weight_decay * p;   m <- momentum * m + g;   p <- p - lr(t) * multiplier * m

    with lr(t) from `learning_rate` and, on structure only, the multiplier and no weight decay.

    Attributes:
        steps, power, warmup_steps: of `rfjax.training.optimizers.poly_schedule`, static.
        momentum, weight_decay: static.
        grad_clip: the largest global norm of a candidate's gradient, 0 for no clipping.
        is_structure: of the path of a parameter; None for what the problem that is searched says.

    Calling it with a candidate returns an `optax.GradientTransformation` on any pytree.
    """

    steps: int
    power: float = 0.9
    warmup_steps: int = 0
    momentum: float = 0.9
    weight_decay: float = 0.0
    grad_clip: float = 0.0
    is_structure: Callable[[tuple[str, ...]], bool] | None = None

    def __call__(self, candidate: Population) -> optax.GradientTransformation:
        schedule = _sgd.poly_schedule(
            candidate.learning_rate,
            steps=self.steps,
            power=self.power,
            warmup_steps=self.warmup_steps,
        )
        return _sgd.descent(
            schedule,
            is_structure=self.is_structure or LEAVES.is_structure,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            grad_clip=self.grad_clip,
            multiplier=candidate.covariance_multiplier,
        )


sgd = SGD  # called as a function


def of_problem(optimizer: Callable, problem: Problem) -> Callable:
    """`optimizer`, told what the problem's structure is where it is `sgd`'s and was not told."""
    if isinstance(optimizer, SGD) and optimizer.is_structure is None:
        return dataclasses.replace(optimizer, is_structure=problem.declares)
    return optimizer
