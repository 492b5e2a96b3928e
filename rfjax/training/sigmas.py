"""The learned covariances of a network, by layer."""

from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from rfjax import covariance, nn

MAX_SURROUND = nn.DoGConv.max_surround


def covariances(
    params: dict[str, Any], *, max_surround: float | None = MAX_SURROUND
) -> dict[str, jax.Array]:
    """The log-Cholesky parameters of every static covariance, by the path of its layer.

    The components of a mixture are found under "<layer>/0", "<layer>/1" ... The center of a
    difference of Gaussians is found under "<layer>/center", and its surround, by
    `rfjax.nn.surround_covariance`, under "<layer>/surround".

    Args:
        params: nested dictionary of parameters; traced or not.
        max_surround: that of the layers, static.

    Returns:
        Arrays [..., F] in the order of their paths; {} for a network without covariances.
    """
    flat = traverse_util.flatten_dict(params)
    found = {}
    for path in sorted(flat):
        layer, leaf = "/".join(path[:-1]), flat[path]
        if path[-1] == "covariance":
            found[layer] = leaf
        elif path[-1] == "covariance_components":
            found |= {f"{layer}/{number}": each for number, each in enumerate(leaf)}
        elif path[-1] == "covariance_center":
            found[f"{layer}/center"] = leaf
        elif path[-1] == "covariance_delta":
            center = flat[(*path[:-1], "covariance_center")]
            found[f"{layer}/surround"] = nn.surround_covariance(
                center, leaf, max_surround=max_surround
            )
    return found


def standard_deviations(
    params: dict[str, Any], *, max_surround: float | None = MAX_SURROUND
) -> dict[str, jax.Array]:
    """The marginal standard deviations (y, x) of every static covariance, by the path of its layer.

    Args:
        params, max_surround: as in `covariances`.

    Returns:
        float arrays [2] in pixels of the map that the layer acts on; the mean over the channels for
        a layer with a covariance for each.
    """
    return {
        layer: jnp.mean(covariance.standard_deviations(leaf).reshape(-1, 2), 0)
        for layer, leaf in covariances(params, max_surround=max_surround).items()
    }
