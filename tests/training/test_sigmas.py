"""Finding covariances in a tree of parameters."""

import jax.numpy as jnp
import numpy as np

from rfjax.training import sigmas


def test_static_layers_are_found_by_path():
    params = {
        "head": {
            "conv": {"kernel": jnp.zeros(3), "covariance": jnp.log(jnp.array([0.5, 2.0]))},
            "covariance_regressor": {"kernel": jnp.ones(3), "bias": jnp.zeros(1)},
        }
    }
    found = sigmas.standard_deviations(params)
    assert list(found) == ["head/conv"]
    np.testing.assert_allclose(found["head/conv"], [0.5, 2.0], rtol=1e-6)


def test_surround_is_the_sum_of_center_and_difference():
    """Variances add: 3^2 + 4^2 = 5^2."""
    layer = {
        "covariance_center": jnp.log(jnp.array([3.0])),
        "covariance_delta": jnp.log(jnp.array([4.0])),
    }
    found = sigmas.standard_deviations({"dog": layer}, max_surround=None)
    np.testing.assert_allclose(found["dog/center"], [3.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(found["dog/surround"], [5.0, 5.0], rtol=1e-6)
    bounded = sigmas.standard_deviations({"dog": layer}, max_surround=4.0)["dog/surround"]
    np.testing.assert_allclose(bounded, np.sqrt(9 + 16 / np.sqrt(2)) * np.ones(2), rtol=1e-6)


def test_channels_are_averaged():
    params = {"conv": {"covariance": jnp.log(jnp.array([[1.0], [3.0]]))}}
    np.testing.assert_allclose(sigmas.standard_deviations(params)["conv"], [2.0, 2.0], rtol=1e-6)
