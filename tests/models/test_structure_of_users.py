"""Layers of users in a backbone: what they declare is structure, and nothing else is."""

from collections.abc import Mapping
from typing import ClassVar

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from rfjax import gaussian_blur, models, nn
from rfjax.models import torch_import
from rfjax.training import weights


class Spread(nn.Conv):
    """A convolution after a blur, which lacks nothing of a plain one but its structure."""

    STRUCTURE: ClassVar[Mapping[str, str]] = {"spread": "covariance", "aim": "regressor"}

    @linen.compact
    def __call__(self, x):
        x = gaussian_blur(x, self.param("spread", lambda key: jnp.log(jnp.array([0.3]))))
        x = x + linen.Conv(x.shape[-1], (1, 1), name="aim", kernel_init=linen.initializers.zeros)(x)
        return super().__call__(x)


class OffsetHead(nn.Conv):
    """A convolution with weights of its own in a child whose name looks like structure."""

    @linen.compact
    def __call__(self, x):
        return super().__call__(linen.Conv(x.shape[-1], (1, 1), name="offset_head")(x))


def create(conv):
    select = nn.select("*/layer1_0/conv2", conv)
    size = {"width": 4, "depth": 1}
    return models.create("resnet_tiny", num_classes=2, conv=select, backbone_options=size)


def variables_of(model, seed):
    return jax.jit(model.init)(jax.random.key(seed, impl="unsafe_rbg"), jnp.ones((1, 16, 16, 3)))


def test_imported_weights_lack_structure_and_nothing_else():
    complete = {
        name: np.zeros(shape, np.float32)
        for name, (_, shape) in torch_import.expected("resnet_18").items()
    }

    def imported(conv):
        conv = nn.select("*/layer1_0/conv2", conv)
        return models.import_torch("resnet_18", complete, num_classes=2, conv=conv)

    imported(nn.Conv), imported(Spread)
    layer = r"layer1\.0\.conv2\.offset_head"
    with pytest.raises(ValueError, match=rf"missing {layer}\.bias, {layer}\.weight$"):
        imported(OffsetHead)


def test_weights_of_a_run_go_to_a_backbone_of_another_structure():
    plain, spread = create(nn.Conv), create(Spread)
    given, fresh = variables_of(plain, 0), variables_of(spread, 1)
    placed = weights.transplant(given, fresh, [plain, spread])
    layer = placed["params"]["backbone"]["layer1_0"]["conv2"]
    before = given["params"]["backbone"]["layer1_0"]["conv2"]
    np.testing.assert_array_equal(layer["kernel"], before["kernel"])
    np.testing.assert_allclose(jnp.exp(layer["spread"]), [0.3], rtol=1e-6)
    back = weights.transplant(placed, given, [spread, plain])
    chex.assert_trees_all_equal(back, given)


def test_backbones_that_differ_in_weights_are_refused():
    plain, other = create(nn.Conv), create(OffsetHead)
    given, fresh = variables_of(plain, 0), variables_of(other, 1)
    with pytest.raises(ValueError, match=r"only one of them has .*conv2/offset_head"):
        weights.transplant(given, fresh, [plain, other])
