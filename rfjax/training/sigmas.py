"""The learned standard deviations of a network, by layer."""

from collections.abc import Mapping

import jax
import jax.numpy as jnp

from rfjax import covariance


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
