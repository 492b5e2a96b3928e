"""The learned standard deviations of a network, by layer, and what else is one number."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util

from rfjax import covariance, nn


def standard_deviations(covariances: Mapping[str, jax.Array]) -> dict[str, jax.Array]:
    """The marginal standard deviations (y, x) of every static covariance, by the path of its layer.

    Args:
        covariances: log-Cholesky parameters [..., F] by layer, as those of `rfjax.nn.covariances`;
            traced or not.

    Returns:
        float arrays [2] in pixels of the map that the layer acts on; the mean over the channels for
        a layer with a covariance for each.

    Example:
        >>> of_two_channels = jnp.log(jnp.array([[1.0], [3.0]]))
        >>> print(standard_deviations({"head": of_two_channels})["head"].round(3))
        [2. 2.]
    """
    return {
        layer: jnp.mean(covariance.standard_deviations(params).reshape(-1, 2), 0)
        for layer, params in covariances.items()
    }


def single_numbers(structure: nn.Structure, params: Mapping[str, Any]) -> dict[str, jax.Array]:
    """The structure that is one number of a whole layer, as the factor of an inflation, by path.

    Args:
        structure: what the layers of the network declare.
        params: of the network, traced or not.
    """
    flat = traverse_util.flatten_dict(params)
    return {
        "/".join(path): leaf
        for path, leaf in flat.items()
        if jnp.ndim(leaf) == 0 and structure.role(path) == "other"
    }
