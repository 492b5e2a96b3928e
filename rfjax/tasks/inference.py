"""From examples to outputs, classes and scales, for figures and predictions."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen, traverse_util


def make_apply(
    model: linen.Module, inputs: Callable[[Mapping[str, Any]], tuple]
) -> Callable[[Mapping[str, Any], Mapping[str, Any]], tuple[Any, dict[str, jax.Array]]]:
    """The compiled function of (variables, batch) that runs a network as in evaluation.

    Args:
        model: a Linen module of (*inputs, train).
        inputs: of a batch, what the network is called with.

    Returns:
        A function that returns the outputs of the network, and by layer the scale maps float32
        [N, H', W'] of those whose receptive field depends on the input, in pixels of the map that
        the layer acts on. Batches of another shape compile it anew.
    """

    @jax.jit
    def apply(variables: Mapping[str, Any], batch: Mapping[str, Any]) -> tuple:
        outputs, sown = model.apply(
            variables, *inputs(batch), train=False, mutable=["intermediates"]
        )
        return outputs, _scale_maps(sown.get("intermediates", {}))

    return apply


def make_segment(model: linen.Module, normalization: Any) -> Callable:
    """The compiled function of (variables, images) that segments images.

    Args:
        model: a module of `rfjax.models.create`.
        normalization: that the network was trained with, a `rfjax.data.Normalization`.

    Returns:
        A function of the network's variables and uint8 images [N, H, W, C], which returns
        {"classes": int32 [N, H, W], "scale_maps": {layer: float32 [N, H', W']}}, the maps as those
        of `make_apply`. Images of another size compile it anew. It raises a TypeError for images of
        another type or shape: floats in 0..1, taken for levels, would be black.
    """
    apply = make_apply(model, lambda images: (images,))

    @jax.jit
    def segment(variables: Mapping[str, Any], images: jax.Array) -> dict[str, Any]:
        channels = normalization.channels
        if images.dtype != jnp.uint8 or images.ndim != 4 or images.shape[-1] != channels:
            raise TypeError(
                f"images are uint8 [N, H, W, {channels}]; got {images.dtype} {list(images.shape)}"
            )
        logits, scale_maps = apply(variables, normalization.on_device(images))
        return {
            "classes": jnp.argmax(logits, -1).astype(jnp.int32),
            "scale_maps": scale_maps,
        }

    return segment


def _scale_maps(intermediates: dict[str, Any]) -> dict[str, jax.Array]:
    """The scale maps that layers left, by layer."""
    flat = traverse_util.flatten_dict(intermediates)
    return {"/".join(path[:-1]): maps[-1] for path, maps in flat.items() if path[-1] == "scale_map"}


def distinct(names: Sequence[str]) -> list[str]:
    """`names`, with numbers added where names repeat, so that each can be a file of its own.

    Names that differ in upper and lower case alone are one file on many systems: they count as
    equal. A name that is there once stays as it is.

    Example:
        >>> distinct(["a", "a", "a_1", "b"])
        ['a_2', 'a_3', 'a_1', 'b']
    """
    counts = Counter(name.casefold() for name in names)
    taken = {name for name, count in counts.items() if count == 1}
    chosen = []
    for number, name in enumerate(names, 1):
        if counts[name.casefold()] > 1:
            while f"{name}_{number}".casefold() in taken:
                number += 1
            name = f"{name}_{number}"
            taken.add(name.casefold())
        chosen.append(name)
    return chosen


def file_names(layers: Sequence[str]) -> dict[str, str]:
    """What stands for each layer in the name of a file: its path with "_" for "/"."""
    return dict(zip(layers, distinct([layer.replace("/", "_") for layer in layers]), strict=True))
