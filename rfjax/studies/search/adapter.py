"""The networks and data sets of this library as a problem to search over."""

import dataclasses
import functools
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from ml_collections import ConfigDict

from rfjax import _names, covariance, data, nn, tasks
from rfjax._sgd import names
from rfjax.receptive_field import ReceptiveField as Field
from rfjax.receptive_field import networks
from rfjax.receptive_field.layers import composed_reach
from rfjax.search import optimizers
from rfjax.search.population import Population
from rfjax.search.problem import Problem
from rfjax.training import composed, loop, steps
from rfjax.training import config as configs
from rfjax.training import state as states
from rfjax.training.feed import Feed

COMPOSED = _names.SEARCHED_HEADS


@dataclasses.dataclass(frozen=True)
class Setup:
    """A training config as what `run` and `enumerate` take.

    Attributes:
        problem, optimizer, validation: their arguments.
        batches: the function of a step; quickest when asked for one step after the other.
        steps: of the config.
        dataset: the training data.
    """

    problem: Problem
    optimizer: Callable
    batches: Callable[[int], dict]
    validation: list[dict]
    steps: int
    dataset: data.Dataset

    def arguments(self) -> dict[str, Any]:
        """The keyword arguments of `run` that the config decides."""
        return {"steps": self.steps, "optimizer": self.optimizer, "validation": self.validation}


# What training has and a search has not.
_AT_DEFAULT = (
    "stop_after",
    *(
        f"optimizer.{key}"
        for key in (
            *("rule", "schedule", "rate_in_momentum", "accumulate", "average"),
            *("rates", "decays", "covariance_decay"),
        )
    ),
)


def segmentation(config: ConfigDict) -> Setup:
    """The network, data, loss and scores of a training config as a problem to search over.

    Candidates start from their own sigma in every composed layer (of a difference of Gaussians in
    its center, of several Gaussians in the first), and learn with their own rates; `seed`,
    `optimizer.learning_rate`, `optimizer.covariance_multiplier` and `head_options.sigma` of the
    config have no effect.

    Args:
        config: made from `rfjax.training.config.base`; its `trainable` is "all".

    Returns:
        A `Setup`. The problem is stateful (batch statistics), its score the mean IU of the
        validation data, which are kept in memory.

    Raises:
        ConfigError: the config cannot be run, trains only a part of the network, or has
            what a search has not, as another rule or schedule.
    """
    configs.validate(config)
    if config.trainable != "all":
        raise configs.ConfigError(f"a search trains all parameters; trainable={config.trainable!r}")
    given, own = configs.flatten(config), configs.flatten(configs.base())
    for key in _AT_DEFAULT:
        if given[key] != own[key]:
            wanted = f"{key} of a search is {own[key]}"
            raise configs.ConfigError(f"{wanted}; got {given[key]!r}")
    train_data, eval_data = loop.datasets(config)
    task = composed.create_task(config, composed.facts(config, train_data))
    model = composed.build(config, task)
    inputs = loop.shapes(task, train_data)
    structure = composed.declared(model)
    problem = Problem(
        init=partial(_init, model, structure, inputs),
        loss=partial(_loss, task, model),
        stateful=True,
        structure=structure,
        score=partial(_measure, task, model),
        summarize=lambda totals: task.summarize(totals)[task.score],
        receptive_field=_receptive_field(config, _head_layer(model)),
    )
    section = config.optimizer
    rule = optimizers.sgd(
        steps=config.steps,
        power=section.poly_power,
        warmup_steps=section.warmup_steps,
        momentum=section.momentum,
        weight_decay=section.weight_decay,
        grad_clip=section.grad_clip,
    )
    rows = {"row": task.row, "blank": task.blank}
    stream = data.eval_batches(eval_data, batch_size=config.eval_batch_size, **rows)
    with Feed(stream, "data") as batches:
        validation = [steps.arrays(batch) for batch in batches]
    batches = _Replayed(partial(loop.train_batches, config, train_data, task))
    return Setup(problem, rule, batches, validation, config.steps, train_data)


def _init(
    model: Any,
    structure: nn.Structure,
    inputs: tuple,
    key: jax.Array,
    candidate: Population,
) -> tuple:
    """Parameters with the candidate's covariances, and all other collections."""
    variables = states.initial_variables(model, key, *inputs)
    families = {size: name for name, size in covariance.FAMILIES.items()}

    def own(path: tuple, leaf: jax.Array) -> jax.Array:
        if structure.role(names(path)) != "covariance":
            return leaf
        start = candidate.covariance(families[leaf.shape[-1]])
        rows = leaf.reshape(-1, leaf.shape[-1])
        moved = start[None] + (rows - rows[:1])  # each stays as much wider than the first as it is
        return moved.reshape(leaf.shape).astype(leaf.dtype)

    params = jax.tree_util.tree_map_with_path(own, variables["params"])
    return params, {name: tree for name, tree in variables.items() if name != "params"}


def _loss(
    task: tasks.Task, model: Any, params: Any, state: Any, batch: Any, key: jax.Array
) -> tuple:
    """The loss of the task in training, and the other collections after it."""
    rngs = {name: key for name in steps.STREAMS}
    outputs, updates = model.apply(
        {"params": params, **state}, *task.inputs(batch), train=True, mutable=list(state), rngs=rngs
    )
    total, count = task.loss(outputs, batch, key)
    loss = total / jnp.where(count > 0, count, 1.0) if task.normalize == "count" else total
    return loss, state | updates


def _measure(task: tasks.Task, model: Any, params: Any, state: Any, batch: Any) -> Any:
    """What the task measures in evaluation."""
    outputs = model.apply({"params": params, **state}, *task.inputs(batch), train=False)
    return task.measure(outputs, batch)


class _Replayed:
    """The batches of an iterator by step; a step that is passed already starts it anew."""

    def __init__(self, make: Callable[[], Feed]):
        self._make = make
        self._feed: Feed | None = None
        self._next = 0

    def __call__(self, step: int) -> dict:
        if self._feed is None or step < self._next:
            self.close()
            self._feed, self._next = self._make(), 0
        while True:
            batch = next(self._feed)
            self._next += 1
            if self._next > step:
                return steps.arrays(batch)

    def close(self) -> None:
        """Ends the threads that make batches; they start anew when a batch is asked for."""
        if self._feed is not None:
            self._feed.close()
        self._feed = None


# -- receptive fields ------------------------------------------------------------------------------


@functools.cache
def _backbone(name: str, options: tuple[tuple[str, Any], ...]) -> Field:
    """The field of a network's features, followed through the network once."""
    return networks.of_backbone(name, backbone_options=dict(options))


def _head_layer(model: linen.Module) -> linen.Module | None:
    """The layer that makes the scores, of a network that has one."""
    return getattr(getattr(model, "head", None), "layer", None)


def _receptive_field(config: ConfigDict, head: linen.Module | None) -> Callable | None:
    """Sizes from the sigmas of the head; None unless it alone is composed, and only statically.

    A free covariance counts with its standard deviations (y, x), as if it were diagonal.
    """
    if not isinstance(head, nn.ComposedConv | nn.DoGConv) or config.model.composed.patterns:
        return None
    own = {name: getattr(head, name) for name in _REACH}
    options = tuple(sorted(configs.options(config.model.backbone_options).items()))

    def sizes(values: np.ndarray) -> np.ndarray:
        field = _backbone(config.model.name, options)
        reach = np.max(composed_reach(values, **own), axis=-2)  # the widest of a head's Gaussians
        return np.asarray(field.size) + 2 * np.asarray(field.stride) * reach

    return sizes


_REACH = ("kernel_size", "dilation", "truncate", "rate", "resample", "mode")
