"""Training from cached maps of a frozen part of the network."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen
from ml_collections import ConfigDict

from rfjax import data, tasks
from rfjax.training import config as configs
from rfjax.training import optimizers


def cached(
    config: ConfigDict,
    workdir: Path,
    model: linen.Module,
    variables: dict[str, Any],
    task: tasks.Task,
    datasets: Sequence[data.Dataset],
    is_structure: optimizers.IsStructure,
) -> list[data.Dataset]:
    """The data sets of a run with the map that its config names, computed where it is not there.

    Args:
        config: of the run; `data.cache.map` is a name, or several.
        workdir: of the run.
        model, variables: the network as training starts from it, or goes on from it.
        task: makes what the network reads.
        datasets: of images.
        is_structure: of the path of a parameter.

    Raises:
        ConfigError: something before the map is trained, there is no such map, or the cache is
            another's or damaged.
    """
    try:
        last = _names(config)[-1]
        _check_frozen(last, config, model, variables, task, datasets[0], is_structure)
        return [with_maps(config, workdir, model, variables, task, each) for each in datasets]
    except (TypeError, ValueError) as error:
        raise configs.ConfigError(f"data.cache.map: {error}") from error


def with_maps(
    config: ConfigDict,
    workdir: Path,
    model: linen.Module,
    variables: dict[str, Any],
    task: tasks.Task,
    dataset: data.Dataset,
) -> data.Dataset:
    """A data set with the maps that the config of a run names, from where the run keeps them.

    Raises:
        ValueError: as `rfjax.data.cache_features`.
    """
    section, names = config.data.cache, _names(config)
    folder = Path(section.dir or workdir / "maps").expanduser() / "+".join(names) / dataset.split
    of = (model, variables, dataset, names, folder)
    return data.cache_features(*of, row=task.frame, dtype=section.dtype)


def _names(config: ConfigDict) -> list[str]:
    """Of the maps that a config names."""
    return [name.strip() for name in config.data.cache.map.split(",")]


def _check_frozen(
    name: str,
    config: ConfigDict,
    model: linen.Module,
    variables: dict[str, Any],
    task: tasks.Task,
    dataset: data.Dataset,
    is_structure: optimizers.IsStructure,
) -> None:
    """Raises if a stage up to the cached map of this name is trained."""
    params = variables["params"]
    trained, _ = optimizers.select(params, config.trainable, is_structure=is_structure)
    shape = task.row(dataset.source[0])["image"].shape
    image = jax.ShapeDtypeStruct((1, *shape), jnp.float32)
    init = lambda key, x: model.init(key, x, method="maps", until=name)
    before = configs.flatten(jax.eval_shape(init, jax.random.key(0), image)["params"])
    moved = sorted(before.keys() & configs.flatten(trained).keys())
    if moved:
        raise ValueError(
            f"what comes before {name} is frozen, but trainable={config.trainable!r} trains "
            f"{moved[0].replace('.', '/')}"
        )
