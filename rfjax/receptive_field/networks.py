"""Receptive fields of Linen networks by layer, of the registry's networks, and of trained runs."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen
from jax.typing import ArrayLike

from rfjax import _markdown, models
from rfjax.models import heads, registry
from rfjax.receptive_field import published
from rfjax.receptive_field.effective import EffectiveField, effective
from rfjax.receptive_field.functions import followed, theoretical
from rfjax.receptive_field.layers import ReceptiveField, compose, theoretical_of_layers

_OPEN = (1, None, None, 3)


class LayerField(NamedTuple):
    """A layer's field: what its outputs see of the image, and what the map that it reads does."""

    output: ReceptiveField
    input: ReceptiveField | None


def by_layer(
    model: linen.Module,
    variables: Any,
    input_shape: Sequence[int | None] = _OPEN,
    *,
    method: str | Callable | None = None,
) -> dict[str, LayerField]:
    """The receptive fields of all layers of a Linen network, in the order that they are computed.

    Args:
      model: of (x); without remat or other lifted transforms around its layers.
      variables: its variables, arrays or `jax.ShapeDtypeStruct`, see `theoretical`.
      input_shape: of x, None for sizes that are chosen.
      method: of the model; None for calling it.

    Returns:
      `LayerField`s by the path of the layer, without those that have no spatial map, and the
      model's own result under "output".

    Example:
      >>> from rfjax import nn
      >>> net = linen.Sequential([nn.Conv(4, stride=2), nn.ComposedConv(4)])
      >>> variables = net.init(jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
      >>> {name: field.output.size for name, field in by_layer(net, variables).items()}
      {'layers_0': (3, 3), 'layers_1': (15, 15), 'output': (15, 15)}
    """

    def function(x, variables):
        seen = {}

        def record(call, args, kwargs, context):
            result = call(*args, **kwargs)
            y = _map_of(result)
            path = "/".join(context.module.path)
            maps = bool(args) and hasattr(args[0], "ndim") and hasattr(y, "ndim")
            if path and maps and context.method_name in ("__call__", "run"):
                seen[path] = (y, jnp.asarray(args[0]))
            return result

        with linen.intercept_methods(record):
            y = model.apply(variables, x, method=method)
        return seen | {"output": (y, x)}

    fields, order, tree = followed(function, input_shape, variables)
    found = jax.tree.unflatten(tree, range(len(fields)))
    rows = sorted(found.items(), key=lambda row: (row[0] == "output", order[row[1][0]]))
    return {
        name: LayerField(fields[y], fields[x]) for name, (y, x) in rows if fields[y] is not None
    }


def _map_of(result: Any) -> Any:
    """The map in what a module returns: perhaps with a carry, or the last one among others."""
    y = result[0] if isinstance(result, tuple) else result
    return y.get("last") if isinstance(y, Mapping) else y


def changes(fields: Mapping[str, LayerField]) -> dict[str, ReceptiveField]:
    """Those layers at which the field differs from that of the layer before."""
    rows: dict[str, ReceptiveField] = {}
    last = None
    for name, (field, _) in fields.items():
        seen = field.size, field.stride, field.offset
        if seen != last or name == "output":
            rows[name] = field
        last = seen
    return rows


def of_backbone(name: str, **options: Any) -> ReceptiveField:
    """The field of the features of a network of `rfjax.models`, which is not initialised for it.

    Example:
      >>> of_backbone("drn_c_26").size
      (581, 581)
    """
    model = models.create(name, num_classes=1, **options)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    return theoretical(lambda x, v: model.apply(v, x, method="features"), _OPEN, variables)


def of_head(head: str, options: Mapping[str, Any] | None = None) -> ReceptiveField:
    """The field of a head that is not trained yet, in pixels of the features.

    Example:
      >>> of_head("conv3").size
      (3, 3)
    """
    decoder = heads.create_decoder(head, 2, options=options)
    variables = decoder.init(jax.random.key(0), {"last": jnp.zeros((1, 16, 16, 2))})
    scores = lambda x, v: _map_of(decoder.apply(v, {"last": x}))
    return theoretical(scores, (1, None, None, 2), variables)


def backbones() -> tuple[str, ...]:
    """The networks of `rfjax.models` that have a backbone, whose features a head reads."""
    return tuple(
        name
        for name in models.names()
        if not isinstance(registry.architecture(name), registry.Network)
    )


def table(names: Sequence[str] | None = None, *, sigmas: Sequence[float] = (0.5, 2.0)) -> str:
    """A table in Markdown: stride and field of every network, and with a composed head.

    Args:
      names: of networks of `rfjax.models`; None for all that have a backbone.
      sigmas: of composition heads, in pixels of the features.
    """
    composed = {f"composition, σ = {s:g}": of_head("composition", {"sigma": s}) for s in sigmas}
    rows = []
    for name in backbones() if names is None else names:
        field = of_backbone(name)
        sizes = [field, *(compose(field, head) for head in composed.values())]
        rows.append([f"`{name}`", f"{field.stride[0]:g}", *map(_text, sizes)])
    heading = ["network", "stride", "field", *composed]
    return _markdown.table(heading, rows, right=range(1, len(heading))).rstrip()


def published_table() -> str:
    """A table in Markdown of the networks of `published`."""
    listed = {name: build() for name, build in published.NETWORKS.items()}
    listed["googlenet, no average pooling"] = published.googlenet(average_pool=False)
    rows = []
    for name, layers in listed.items():
        field = theoretical_of_layers(list(layers.values()))
        rows.append([name, f"{field.stride[0]:g}", field.size[0], f"{field.offset[0]:g}"])
    heading = ["network", "stride", "field", "offset"]
    return _markdown.table(heading, rows, right=range(1, 4)).rstrip()


def _text(field: ReceptiveField) -> str:
    bound = "≥ " if any(field.clipped) else ""
    if field.data_dependent:
        return "by the input"
    size = field.size[0] if field.size[0] == field.size[1] else f"{field.size[0]} × {field.size[1]}"
    return f"{bound}{size}"


class Run(NamedTuple):
    """A trained network.

    Attributes:
      model: without remat.
      variables: of the checkpoint.
      normalization: of the images that it was trained with, a `rfjax.data.Normalization`.
      step: of the checkpoint.
    """

    model: linen.Module
    variables: dict[str, Any]
    normalization: Any
    step: int


def load_run(workdir: str | Path, *, step: int | None = None) -> Run:
    """The network of a training run, of its best checkpoint or that of `step`.

    Raises:
      CheckpointError: there is no such run or checkpoint.
    """
    from rfjax.data import Normalization
    from rfjax.training import composed, runs

    trained = runs.load(workdir, step=step)
    config = trained.config
    with config.unlocked():
        config.model.remat = False
    model = composed.build(config, trained.task)
    normalization = Normalization.of(trained.task.facts)
    return Run(model, trained.variables, normalization, trained.step)


def effective_of_run(
    workdir: str | Path,
    images: ArrayLike,
    *,
    step: int | None = None,
    method: str | Callable | None = None,
    **options: Any,
) -> EffectiveField:
    """The effective receptive field of a trained network on images, as those of its data.

        data.load("digit_scenes", "val").source[i]["image"]

    Args:
      workdir: of the run.
      images: [M, H, W, C] uint8.
      step: which checkpoint; None for the best.
      method: of the network: None for the class scores, "features" for what the head reads.
      **options: of `effective`.

    Returns:
      An `EffectiveField`; its `sigma` and `radius()` grow with what the head has learned.

    Raises:
      CheckpointError: there is no such run or checkpoint.
      ValueError: the images do not fit, or an option.
    """
    run = load_run(workdir, step=step)
    images = normalized(images, run.normalization)
    options = {"draws": len(images)} | options
    return effective(
        lambda x, variables: run.model.apply(variables, x, method=method),
        images.shape[1:],
        run.variables,
        images=images,
        **options,
    )


def normalized(images: ArrayLike, normalization: Any) -> np.ndarray:
    """uint8 [M, H, W, C] as the network reads them, float32."""
    images, channels = np.asarray(images), normalization.channels
    if images.ndim != 4 or images.shape[-1] != channels or images.dtype != np.uint8:
        raise ValueError(
            f"images must be uint8 [M, H, W, {channels}]; got {images.dtype} {images.shape}"
        )
    return np.asarray(normalization.on_device(jnp.asarray(images)))
