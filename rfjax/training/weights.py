"""Starting from trained weights: a file of torch-named arrays, an exported one, or another run."""

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from zipfile import BadZipFile
from zlib import error as ZipError

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen, traverse_util
from ml_collections import ConfigDict

from rfjax import models
from rfjax._console import tell
from rfjax._faults import CheckpointError, reason
from rfjax._sgd import matches
from rfjax.models import fusion, matching, weight_files
from rfjax.models.guided import for_both_encoders
from rfjax.models.torch_import import not_finite
from rfjax.training import checkpoints, composed
from rfjax.training import config as configs

# What damaged files of arrays raise, and those that hold something else than the network wants.
_UNREADABLE = (KeyError, TypeError, ValueError, EOFError, OSError, BadZipFile, ZipError)


def load(
    config: ConfigDict,
    variables: dict[str, Any],
    *,
    num_classes: int,
    channels: int = fusion.COLORS,
) -> dict[str, Any]:
    """`variables` with the weights that `config.model.weights` names put in.

    Args:
        config: of the run; `model.weights` is the path of a file of torch-named arrays, a file
            that `rfjax.export` wrote, or the directory of another run, whose best checkpoint is
            taken; of a run with another task all but the head. With `model.late_fusion` it is that
            of a run with the same, or one path for each of the networks, or one for all of them.
            What `model.anew` matches stays as it is in `variables`.
        variables: freshly drawn ones, which say what is wanted.
        num_classes, channels: of the data.

    Raises:
        ConfigError: if there is nothing at a path, or it does not fit the network.
    """
    split = tuple(config.model.late_fusion)
    count, given = len(split), config.model.weights
    paths = [Path(part.strip()).expanduser() for part in (given.split(",") if count else [given])]
    if not count or (len(paths) == 1 and _is_fused(paths[0])):
        return _load(paths[0], config, variables, num_classes, channels)
    if len(paths) not in (1, count):
        raise configs.ConfigError(
            f"model.weights: got {len(paths)} paths; want one, or one for each of the {count} "
            "networks of model.late_fusion"
        )
    alone = configs.from_dict(config.to_dict())
    alone.model.late_fusion = ()
    paths = paths * count if len(paths) == 1 else paths
    return fusion.of_streams(
        [
            _load(path, alone, fusion.stream(variables, number), num_classes, own)
            for number, (path, own) in enumerate(zip(paths, split, strict=True))
        ]
    )


def _is_fused(path: Path) -> bool:
    """Whether it is a run of several networks whose scores are averaged, or was exported of one."""
    try:
        if path.is_file():
            names = weight_files.read(path).arrays
            return weight_files.is_own(names) and any("/stream_0/" in name for name in names)
        if not path.is_dir():
            return False
        _, meta, _ = checkpoints.load(path)
    except (CheckpointError, ValueError) as error:
        raise _fault(path, error) from error
    return "config" in meta and bool(configs.from_dict(meta["config"]).model.late_fusion)


def _fault(path: Path, error: Exception) -> configs.ConfigError:
    """What is wrong with weights, with their path said once."""
    said = reason(error)
    return configs.ConfigError(f"model.weights: {'' if str(path) in said else f'{path}: '}{said}")


def _load(
    path: Path, config: ConfigDict, variables: dict[str, Any], num_classes: int, channels: int
) -> dict[str, Any]:
    """`variables` of a network with the weights at a path."""
    try:
        if path.is_dir():
            given, meta, _ = checkpoints.load(path)
            networks = [composed.build_model(config, num_classes)]
            if "config" in meta:
                before = configs.from_dict(meta["config"])
                if before.task.name != config.task.name:  # its head learned something else
                    given = {name: _without_head(tree) for name, tree in given.items()}
                networks.append(composed.build_model(before, meta["dataset"]["num_classes"]))
            found = transplant(for_both_encoders(given, variables), variables, networks)
        else:
            found = _from_file(path, config, variables, num_classes, channels)
        return _but_for(config.model.anew, found, variables)
    except FileNotFoundError as error:
        raise configs.ConfigError(f"model.weights: there is no {path}") from error
    except (CheckpointError, *_UNREADABLE) as error:
        raise _fault(path, error) from error


def _but_for(patterns: str, given: dict[str, Any], drawn: dict[str, Any]) -> dict[str, Any]:
    """`given` but for what the patterns match, which is as drawn."""
    if not patterns:
        return given
    flat, fresh = traverse_util.flatten_dict(given), traverse_util.flatten_dict(drawn)
    chosen = {path: fresh[path] for path in flat if matches(path[1:], patterns)}
    if not chosen:
        raise ValueError(f"model.anew={patterns!r} matches no parameter of this model")
    return traverse_util.unflatten_dict(flat | chosen)


def _without_head(collection: dict[str, Any]) -> dict[str, Any]:
    return {name: tree for name, tree in collection.items() if name != "head"}


def _from_file(
    path: Path, config: ConfigDict, variables: dict[str, Any], num_classes: int, channels: int
) -> dict[str, Any]:
    """The variables that a file of arrays makes."""
    arrays, notes = weight_files.read(path)
    for note in notes:
        tell(f"model.weights: {path}: {note}")
    if weight_files.is_own(arrays):
        given = traverse_util.unflatten_dict(arrays, sep="/")
    else:
        given = _from_torch(arrays, config, num_classes, channels)
        made, wanted = map(traverse_util.flatten_dict, (given, variables))
        if made.keys() == wanted.keys():
            return given
        given = {name: _without_head(tree) for name, tree in given.items()}  # another task's
    given = for_both_encoders(given, variables)
    return transplant(given, variables, [composed.build_model(config, num_classes)])


def _from_torch(
    state_dict: dict[str, np.ndarray], config: ConfigDict, num_classes: int, channels: int
) -> dict[str, Any]:
    """The variables that torch-named arrays make."""
    section = config.model
    null_background = config.task.cross_entropy == "null_background"  # which has no score
    imported = functools.partial(
        models.import_torch,
        section.name,
        state_dict,
        num_classes=num_classes - null_background,
        key=jax.random.key(config.seed),
        head=section.head,
        head_options=configs.options(section.head_options),
        backbone_options=configs.options(section.backbone_options),
        conv=composed.convolutions(config),
        channels=channels,
    )
    try:
        return imported()
    except ValueError as error:
        best = matching.nearest(state_dict)
        if best.name == section.name or not best.found:
            raise
        told = f"{error}; of the networks here they fit {best.name} best"
        raise ValueError(f"{told} ({best.found} of {best.wanted} arrays)") from error


def transplant(
    given: dict[str, Any], variables: dict[str, Any], networks: Sequence[linen.Module]
) -> dict[str, Any]:
    """`variables` with every array of `given` that has its place there.

    An array goes to the one of the same path. A 1x1 kernel goes into the centre of a larger kernel,
    with zeros around it, so that a head which is widened starts from what the narrow one computes.
    Of a kernel that reads colors, channels that are none start as the mean over the colors.
    Arrays of `variables` without a counterpart, as the covariances of a composed head, stay as they
    are.

    A layer of the head whose kernel has no counterpart stays as it is as a whole. So FCN-16s starts
    from the scores of FCN-32s, and its new score layer from zero. A truncated network leaves out
    the stages that it does not run.

    Args:
        given: trained variables, nested dictionaries.
        variables: fresh variables of the network to be trained.
        networks: of both, whose layers say what their structure is.

    Raises:
        ValueError: if the backbones differ in more than their structure, an array has a shape
        that cannot be fitted, or numbers are not finite.
    """
    flat, source = traverse_util.flatten_dict(variables), traverse_util.flatten_dict(given)
    shared = [path for path in flat if path in source]
    if not shared:
        paths = ("/".join(min(found)) for found in (source, flat) if found)
        raise ValueError(
            "no array has the path of one in this network: they are "
            + ", …, where the network has ".join(paths)
            + ", …"
        )
    declared = [composed.declared(network) for network in networks]
    unread = _unread(networks[0], source.keys() - flat.keys())
    differing = [
        "/".join(path)
        for path in sorted((flat.keys() ^ source.keys()) - unread)
        if path[1] == "backbone" and not any(each.is_structure(path[1:]) for each in declared)
    ]
    if differing:
        listed = ", ".join(differing[:4]) + ", …" * (len(differing) > 4)
        raise ValueError(f"the backbones are not the same: only one of them has {listed}")
    drawn = {path[1:-1] for path in flat.keys() - source.keys() if path[-1] == "kernel"}
    shared = [path for path in shared if path[1] != "head" or path[1:-1] not in drawn]
    faults = not_finite({"/".join(path): source[path] for path in shared})
    if faults:
        raise ValueError(f"not finite (NaN or infinite): {', '.join(sorted(faults))}")
    placed = {path: _fit("/".join(path), source[path], flat[path]) for path in shared}
    return traverse_util.unflatten_dict(flat | placed)


def _unread(network: linen.Module, more: set[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Of the paths that a network lacks, those of stages after the last that its head reads."""
    if not more or not hasattr(network, "maps"):
        return set()
    images = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    init = lambda key, x: network.init(key, x, method="maps")
    whole = jax.eval_shape(init, jax.random.key(0), images)
    return more & traverse_util.flatten_dict(whole).keys()


def anew(fresh: dict[str, Any], started: dict[str, Any]) -> tuple[str, ...]:
    """The layers whose parameters no weights were found for, so that they start as drawn.

    Args:
        fresh: the variables as drawn.
        started: those that training starts from.

    Example:
        >>> score, fc = {"kernel": np.zeros(2)}, {"kernel": np.ones(3)}
        >>> drawn = {"params": {"head": {"score": score}, "backbone": {"fc": score}}}
        >>> anew(drawn, {"params": {"head": {"score": score}, "backbone": {"fc": fc}}})
        ('head/score',)
    """
    before = traverse_util.flatten_dict(fresh["params"])
    after = traverse_util.flatten_dict(started["params"])
    same = [p for p in before if p[-1] == "kernel" and np.array_equal(before[p], after[p])]
    return tuple("/".join(path[:-1]) for path in sorted(same))


def _fit(name: str, given: np.ndarray, wanted: np.ndarray) -> jnp.ndarray:
    """`given` in the shape of `wanted`."""
    if given.shape == wanted.shape:
        return jnp.asarray(given, wanted.dtype)
    of_colors = given.ndim == 4 and given.shape[2] == fusion.COLORS
    if of_colors and given.shape[:2] + given.shape[3:] == wanted.shape[:2] + wanted.shape[3:]:
        return fusion.of_channels(given, wanted.shape[2]).astype(wanted.dtype)
    if given.ndim != 4 or given.shape[:2] != (1, 1) or given.shape[2:] != wanted.shape[2:]:
        raise ValueError(f"{name} has shape {given.shape}; this network wants {wanted.shape}")
    y, x = wanted.shape[0] // 2, wanted.shape[1] // 2
    return jnp.zeros(wanted.shape, wanted.dtype).at[y, x].set(given[0, 0])
