"""The learned standard deviations of a network, by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models, nn
from rfjax.training import sigmas


def test_channels_are_averaged():
    params = {"conv": jnp.log(jnp.array([[1.0], [3.0]]))}
    np.testing.assert_allclose(sigmas.standard_deviations(params)["conv"], [2.0, 2.0], rtol=1e-6)


@pytest.mark.parametrize("bound, surround", [(None, 5.0), (4.0, np.sqrt(9 + 16 / np.sqrt(2)))])
def test_a_surround_is_the_one_that_is_computed_with(bound, surround):
    """Variances add: 3^2 + 4^2 = 5^2; bounded by 4, what is added is 4 / 2^(1/4)."""
    options = {"max_surround": bound, "sigma_center": 0.5, "sigma_surround": 0.6}
    model = models.create("resnet_tiny", num_classes=2, head="dog", head_options=options)
    params = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))["params"]
    params["head"]["covariance_center"] = jnp.log(jnp.array([3.0]))
    params["head"]["covariance_delta"] = jnp.log(jnp.array([4.0]))
    found = sigmas.standard_deviations(nn.covariances(model, {"params": params}))
    np.testing.assert_allclose(found["head/center"], [3.0, 3.0], rtol=1e-6)
    np.testing.assert_allclose(found["head/surround"], [surround, surround], rtol=1e-6)
