"""The examples of docs/networks.md run, and give what they say."""

import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import models
from tests import toys

TEXT = (Path(__file__).parents[2] / "docs" / "networks.md").read_text()


def test_networks_of_your_own():
    names = {}
    with toys.registered():
        for example in re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL):
            exec(example, names)
        assert {"plain"} <= set(models.names())
    assert names["scores"].shape == (1, 40, 56, 5) and list(names["maps"]) == ["conv1", "conv2"]
    whole = names["model"].apply(names["variables"], names["images"])
    np.testing.assert_array_equal(names["scores"], whole)
    images = jnp.zeros((1, 30, 41, 3))
    for name in ("gained", "padded", "skipping", "fcn"):
        model = names[name]
        shapes = jax.eval_shape(model.init, jax.random.key(0), images)
        assert jax.eval_shape(model.apply, shapes, images).shape == (1, 30, 41, 5)
