"""The network and the task of a run, from its config, and what the layers declare."""

from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from ml_collections import ConfigDict

from rfjax import _names, data, models, nn, tasks
from rfjax.data.normalization import SCHEMES
from rfjax.data.survey import median_frequency, survey
from rfjax.models.heads import HEADS
from rfjax.training import config as configs


def convolutions(config: ConfigDict) -> nn.Selection | None:
    """What `rfjax.models.create` takes as `conv`: layers that adapt where the config names them.

    Args:
        config: of a run; `model.composed.patterns` are those of `rfjax.nn.select`,
            `model.composed.layer` is the head whose layer is taken, `rfjax.nn.ComposedConv` unless
            told, and the rest of `model.composed` are options of it.

    Returns:
        A selection, or None without patterns: all convolutions are plain.

    Example:
        >>> from rfjax.training.config import base
        >>> config = base()
        >>> config.model.composed.patterns = ("backbone/*/conv2",)
        >>> config.model.composed.sigma = 1.0
        >>> convolutions(config).layer.keywords
        {'sigma': 1.0}
    """
    options = configs.options(config.model.composed)
    patterns = options.pop("patterns")
    layer, fixed = HEADS[options.pop("layer")]
    if not patterns:
        return None
    return nn.select(patterns, partial(layer, **fixed, **options))


def build_model(
    config: ConfigDict,
    num_classes: int | Mapping[str, int],
    *,
    axis_name: str | None = None,
    head: str | None = None,
) -> linen.Module:
    """The network that a config names.

    Args:
        config: of a run.
        num_classes: of the data, of several sets of labels by name.
        axis_name: the axis of the devices, or None.
        head: in place of the config's.

    Raises:
        ConfigError: if the model, its head or their options are wrong.
    """
    section = config.model
    try:
        return models.create(
            section.name,
            num_classes=num_classes,
            head=head or section.head,
            head_options=configs.options(section.head_options),
            backbone_options=configs.options(section.backbone_options),
            conv=convolutions(config),
            dtype=jnp.dtype(section.dtype),
            axis_name=axis_name,
            remat=section.remat,
            norm=partial(nn.BatchNorm, unbiased=section.batch_norm.unbiased),
            late_fusion=section.late_fusion,
        )
    except (TypeError, ValueError) as error:
        raise configs.ConfigError(f"model: {error}") from error


def build(config: ConfigDict, task: tasks.Task, *, axis_name: str | None = None) -> linen.Module:
    """The network of a task, as a config describes it.

    Raises:
        ConfigError: if it cannot be built.
    """
    try:
        return task.model(partial(build_model, config, axis_name=axis_name))
    except (TypeError, ValueError) as error:
        raise configs.ConfigError(f"task.name={config.task.name}: {error}") from error


def create_task(config: ConfigDict, facts: Mapping[str, Any]) -> tasks.Task:
    """The task that a config names, for data of which `facts` are known.

    Args:
        config: of a run; what its section "task" holds besides the name are options of the task.
        facts: of the data set as it is, or as a run has stored them.

    Raises:
        ConfigError: the task does not fit the data, or has no such option.
    """
    chosen = configs.options(config.task)
    name = chosen.pop("name")
    if chosen.get("class_weights") == _names.MEASURED:
        chosen["class_weights"] = tuple(facts.get("class_weights", ()))
    try:
        return tasks.create(name, facts, **chosen)
    except (KeyError, TypeError, ValueError) as error:
        raise configs.ConfigError(f"task.name={name}: {error}") from error


def facts(
    config: ConfigDict, dataset: data.Dataset, *, stored: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """What a task wants to know of a data set, images normalised as the config says.

    Args:
        config: of a run.
        dataset: to be trained on; all of its labels are read if class weights are to be measured.
        stored: the facts of the run that is resumed, whose class weights are taken over.

    Raises:
        ValueError: labels from which class weights are to be measured cannot be read.
    """
    scheme = SCHEMES.get(config.data.normalization)
    own = {} if scheme is None else scheme.of_pictures(dataset.facts)
    if config.task.class_weights == _names.MEASURED:
        kept = (stored or {}).get("class_weights")
        own["class_weights"] = kept or list(median_frequency(survey(dataset)))
    return {**dataset.facts, **own}


def declared(model: linen.Module) -> nn.Structure:
    """What the layers of a network of `rfjax.models` declare, whatever its variables.

    Example:
        >>> declared(models.create("resnet_tiny", num_classes=2, head="stn")).role(
        ...     ("head", "offset_affine"))
        'other'
    """
    channels = getattr(model, "channels", 3)  # a network that is whole may not tell
    shape = (1, 2 * model.stride, 2 * model.stride, channels)
    images = jax.ShapeDtypeStruct(shape, jnp.float32)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    return nn.structure(model, variables, images)
