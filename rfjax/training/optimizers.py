"""The optimizers of a run: gradient descent with momentum or by Adam, and its learning rate.

What is structure, meaning covariances and offsets, and what is a free-form weight, the layers of a
network say: `is_structure` is a function of a parameter's path, such as that of
`rfjax.nn.structure(model, variables)`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

import optax
from flax import traverse_util

from rfjax import _checks, _sgd
from rfjax._checks import choose
from rfjax._faults import ConfigError
from rfjax._names import ACCUMULATIONS, SCHEDULES
from rfjax._rules import is_patterns
from rfjax._sgd import IsStructure as IsStructure
from rfjax._sgd import Path as Path
from rfjax._sgd import cosine_schedule as cosine_schedule
from rfjax._sgd import matches as matches
from rfjax._sgd import poly_schedule as poly_schedule

if TYPE_CHECKING:
    from ml_collections import ConfigDict

_LISTED = 12  # parts of a network that an error names
SELECTIONS: dict[str, Callable[[Path, IsStructure], bool]] = {
    "all": lambda path, is_structure: True,
    "last_stage": lambda path, is_structure: path[0] == "head",
    "structure": lambda path, is_structure: is_structure(path),
}


def selection(trainable: str) -> Callable[[Path, IsStructure], bool]:
    """The function of (path, is_structure) that says what is trained, as `select` takes it.

    Example:
        >>> selection("backbone/layer4_*, head/*")(("head", "kernel"), lambda path: False)
        True
    """
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
    chosen = selection(trainable)
    if trainable == "structure" and is_structure is None:
        raise ValueError("trainable='structure' wants is_structure, to tell which parameters it is")
    flat = traverse_util.flatten_dict(params)
    trained = {path: leaf for path, leaf in flat.items() if chosen(path, is_structure)}
    if not trained:
        parts = dict.fromkeys("/".join(path[:2]) for path in flat)
        listed = ", ".join(list(parts)[:_LISTED]) + ", …" * (len(parts) > _LISTED)
        raise ValueError(
            f"trainable={trainable!r} selects no parameter of this model, which has {listed}"
        )
    frozen = {path: leaf for path, leaf in flat.items() if path not in trained}
    return traverse_util.unflatten_dict(trained), traverse_util.unflatten_dict(frozen)


def merge(trained: Mapping[str, Any], frozen: Mapping[str, Any]) -> dict:
    """The parameters of which `select` made the two parts."""
    flat = traverse_util.flatten_dict(trained) | traverse_util.flatten_dict(frozen)
    return traverse_util.unflatten_dict(flat)


def from_config(
    config: ConfigDict, is_structure: IsStructure
) -> tuple[optax.GradientTransformation, optax.Schedule]:
    """The optimizer of a run's config, and its learning rate as a function of the run's step.

    Where the gradients of several steps make one update, the schedule counts updates.
    """
    options = config.optimizer
    every = options.accumulate
    schedule = learning_rate(
        options.schedule,
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
        rate_in_momentum=options.rate_in_momentum,
        rule=options.rule,
    )
    optimizer = accumulated(optimizer, every, options.accumulation)
    return optimizer, lambda step: schedule(step // every)


def check_patterns(config: ConfigDict, params: Mapping[str, Any]) -> None:
    """Refuses factors by pattern that are for no parameter of the network.

    Args:
        config: of a run.
        params: all parameters, trained or frozen.

    Raises:
        ConfigError: naming each pattern that matches nothing.
    """
    paths = traverse_util.flatten_dict(params)
    unmatched = [
        f"optimizer.{key}: {pattern.strip()!r} matches no parameter of this model"
        for key in ("rates", "decays")
        for patterns in factors(config.optimizer[key])
        for pattern in patterns.split(",")
        if not any(matches(path, pattern) for path in paths)
    ]
    if unmatched:
        raise ConfigError("; ".join(unmatched))


def learning_rate(
    name: str, initial: float, *, steps: int, power: float = 0.9, warmup_steps: int = 0
) -> optax.Schedule:
    """The schedule of a name: poly | cosine | constant, each after a linear rise.

    Args:
        name: of the schedule.
        initial: the learning rate after the rise.
        steps: after which poly and cosine are zero.
        power: of poly.
        warmup_steps: length of the linear rise, 0 for none.

    Raises:
        ValueError: there is no such schedule.

    Example:
        >>> [float(learning_rate("constant", 0.5, steps=9, warmup_steps=2)(t)) for t in (0, 1, 8)]
        [0.25, 0.5, 0.5]
    """
    if choose("schedule", name, SCHEDULES) == "cosine":
        return cosine_schedule(initial, steps=steps, warmup_steps=warmup_steps)
    power = power if name == "poly" else 0.0
    return poly_schedule(initial, steps=steps, power=power, warmup_steps=warmup_steps)


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
    return _sgd.promoting(several.gradient_transformation())


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
    rate_in_momentum: bool = False,
    rule: str = "momentum",
) -> optax.GradientTransformation:
    """Gradient descent in which weight decay is added before momentum, as in the references.

        g <- clip(g) + weight_decay * p;   m <- momentum * m + g;   p <- p - lr(t) * multiplier * m

    where the decay and the multiplier may differ from parameter to parameter. Caffe has the rate in
    the momentum,

        m <- momentum * m + lr(t) * multiplier * g;   p <- p - m

    which is the same while the rate is constant. Where it drops, what the momentum has gathered
    goes on at the rate of its own steps. By the rule "adam" (Kingma & Ba 2015)

        p <- p - lr(t) * multiplier * m / (sqrt(v) + 1e-8)

    with means m of g and v of g^2 that keep `momentum` and .999 of themselves, without bias. By
    "adamw" (Loshchilov & Hutter 2019) the decay is no part of g:

        p <- p - lr(t) * multiplier * (m / (sqrt(v) + 1e-8) + weight_decay * p)

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
        rate_in_momentum: whether the rate is in the momentum, as Caffe has it.
        rule: momentum | adam | adamw.

    Returns:
        An `optax.GradientTransformation` on nested dictionaries of parameters.

    Raises:
        ValueError: there are options for structure, but `is_structure` is not given; or there is
            no such rule, or it has no momentum for the rate.

    References: Sutskever et al. 2013, equation 1, in the form of torch.optim.SGD; Kingma & Ba,
        "Adam", ICLR 2015, algorithm 1; Loshchilov & Hutter, "Decoupled Weight Decay
        Regularization", ICLR 2019, algorithm 2, in the form of torch.optim.AdamW.
    """
    amounts = {"momentum": momentum, "weight_decay": weight_decay, "grad_clip": grad_clip}
    for name, value in (amounts | {"covariance_multiplier": covariance_multiplier}).items():
        _checks.number(name, value, least=0)
    _checks.flag("covariance_decay", covariance_decay)
    _checks.flag("rate_in_momentum", rate_in_momentum)
    if is_structure is None:
        if covariance_multiplier != 1 or covariance_decay:
            raise ValueError(
                "covariance_multiplier and covariance_decay act on structure: give is_structure, "
                "as that of rfjax.nn.structure(model, variables)"
            )
        is_structure = lambda path: False
    return _sgd.descent(
        schedule,
        is_structure=is_structure,
        momentum=momentum,
        weight_decay=weight_decay,
        grad_clip=grad_clip,
        multiplier=covariance_multiplier,
        decayed=covariance_decay,
        rates=rates,
        decays=decays,
        rate_in_momentum=rate_in_momentum,
        rule=rule,
    )
