"""The networks and data sets of this library as a problem to search over."""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from rfjax import covariance, data, models
from rfjax.models.backbone import Architecture
from rfjax.search import optimizers
from rfjax.search.population import Population
from rfjax.search.problem import Problem, is_covariance, names
from rfjax.training import config as configs
from rfjax.training import loop, losses, metrics, sigmas


@dataclasses.dataclass(frozen=True)
class Task:
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


def segmentation(config: ConfigDict) -> Task:
    """The network, data, loss and scores of a training config as a problem to search over.

    Candidates start from their own sigma in every composed layer (of a difference of Gaussians in
    its center), and learn with their own rates; `seed`, `optimizer.learning_rate`,
    `optimizer.covariance_multiplier` and `head_options.sigma` of the config have no effect.

    Args:
        config: made from `rfjax.training.config.base`; its `trainable` is "all".

    Returns:
        A `Task`. The problem is stateful (batch statistics), its score the mean IU of the
        validation data, which are kept in memory.

    Raises:
        ConfigError: the config cannot be run, or trains only a part of the network.
    """
    configs.validate(config)
    if config.trainable != "all":
        raise configs.ConfigError(f"a search trains all parameters; trainable={config.trainable!r}")
    train_data, eval_data = loop.datasets(config)
    model = loop.build_model(config, train_data.num_classes)
    image_shape = np.shape(train_data.source[0]["image"])
    head = configs.options(config.model.head_options)
    max_surround = head.get("max_surround", sigmas.MAX_SURROUND)
    problem = Problem(
        init=partial(_init, model, image_shape),
        loss=partial(_loss, model),
        stateful=True,
        covariances=partial(sigmas.covariances, max_surround=max_surround),
        score=partial(_confusion, model),
        summarize=lambda confusion: metrics.summarize(confusion)["mean_iu"],
        receptive_field=_receptive_field(config, head),
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
    validation = [
        {"image": batch["image"], "label": batch["label"]}
        for batch in data.eval_batches(eval_data, batch_size=config.eval_batch_size)
    ]
    batches = _Replayed(partial(loop.train_batches, config, train_data))
    return Task(problem, rule, batches, validation, config.steps, train_data)


def _init(model: Any, shape: tuple[int, ...], key: jax.Array, candidate: Population) -> tuple:
    """Parameters with the candidate's covariances, and batch statistics."""
    variables = model.init(key, jnp.zeros((1, *shape), jnp.float32), train=False)
    families = {size: name for name, size in covariance.FAMILIES.items()}

    def own(path: tuple, leaf: jax.Array) -> jax.Array:
        path = names(path)
        if not is_covariance(path, leaf) or path[-1] == "covariance_delta":
            return leaf
        start = candidate.covariance(families[leaf.shape[-1]])
        return jnp.broadcast_to(start, leaf.shape).astype(leaf.dtype)

    params = jax.tree_util.tree_map_with_path(own, variables["params"])
    return params, variables.get("batch_stats", {})


def _loss(model: Any, params: Any, state: Any, batch: Any, key: jax.Array) -> tuple:
    """Mean cross-entropy over the valid pixels, and the new batch statistics."""
    variables = {"params": params, "batch_stats": state}
    logits, updates = model.apply(
        variables, batch["image"], train=True, mutable=["batch_stats"], rngs={"dropout": key}
    )
    total, count = losses.cross_entropy(logits, batch["label"])
    return total / jnp.maximum(count, 1.0), updates.get("batch_stats", state)


def _confusion(model: Any, params: Any, state: Any, batch: Any) -> jax.Array:
    """Counts of true and predicted classes."""
    variables = {"params": params, "batch_stats": state}
    logits = model.apply(variables, batch["image"], train=False)
    predictions = jnp.argmax(logits, -1)
    return metrics.confusion_matrix(batch["label"], predictions, num_classes=logits.shape[-1])


class _Replayed:
    """The batches of an iterator by step; a step that is passed already starts it anew."""

    def __init__(self, make: Callable[[], Iterator]):
        self._make = make
        self._iterator, self._next = None, 0

    def __call__(self, step: int) -> dict:
        if self._iterator is None or step < self._next:
            self._iterator, self._next = self._make(), 0
        while True:
            batch = next(self._iterator)
            self._next += 1
            if self._next > step:
                return {"image": batch["image"], "label": batch["label"]}


# -- receptive fields ------------------------------------------------------------------------------


def dense_field(architecture: Architecture) -> int:
    """The size in pixels of what one output of a plain backbone sees, along one axis.

    Example:
        >>> dense_field(models.registry.architecture("resnet_tiny"))
        31
    """
    stem = architecture.stem
    layers = [(stem.kernel_size, stem.stride, 1)] + [(3, 2, 1)] * stem.pool
    for stage in architecture.stages:
        for index in range(stage.depth):
            stride, dilations = stage.step(index)
            count = 2 if stage.block == "basic" else 1
            layers += [
                (3, stride if place == 0 else 1, dilation)
                for place, dilation in zip(range(count), dilations, strict=False)
            ]
    size, jump = 1, 1
    for kernel, stride, dilation in layers:
        size += jump * dilation * (kernel - 1)
        jump *= stride
    return size


def _receptive_field(config: ConfigDict, head: dict[str, Any]) -> Callable | None:
    """Sizes from the sigmas of the head; None if it is not a single composed layer."""
    if config.model.head not in ("composition", "dog"):
        return None
    options = configs.options(config.model.backbone_options)
    architecture = models.registry.architecture(config.model.name, options)
    base, stride = dense_field(architecture), architecture.stride
    taps = (head.get("kernel_size", 3) - 1) // 2 * head.get("dilation", 1)
    truncate, rate = head.get("truncate", 2.0), head.get("rate", 1.0)
    resample, residual = head.get("resample", True), head.get("mode", "residual") == "residual"

    def sizes(values: np.ndarray) -> np.ndarray:
        blur = np.maximum(1, np.ceil(truncate * values))
        spread = math.ceil(taps)
        if resample:  # bilinear reads reach the next whole pixel
            spread = np.ceil((taps if residual else 0) + rate * max(taps, 1) * values)
        return base + 2 * stride * np.max(blur + spread, axis=-2)

    return sizes
