"""A batch of no examples, such as the last shard of an evaluation, is a valid map."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from rfjax import models, nn
from rfjax.models import heads
from rfjax.models.decoders import Decoder

LAYERS = {
    "GaussianBlur": nn.GaussianBlur(per_channel=True),
    "Conv": nn.Conv(4, use_bias=True),
    "ComposedConv": nn.ComposedConv(4, stride=2),
    "ComposedConv, full": nn.ComposedConv(4, family="full"),
    "ComposedConv, blur alone": nn.ComposedConv(4, resample=False),
    "ComposedConv, channel": nn.ComposedConv(4, structure="channel"),
    "ComposedConv, channel, blur alone": nn.ComposedConv(4, structure="channel", resample=False),
    "ComposedConv, multiple": nn.ComposedConv(4, structure="multiple", components=2),
    "DoGConv": nn.DoGConv(4),
    "GaussianDeformableConv": nn.GaussianDeformableConv(4, stride=2),
    "DynamicComposedConv": nn.DynamicComposedConv(4),
    "DeformableConv": nn.DeformableConv(4),
    "AdaptiveDilationConv": nn.AdaptiveDilationConv(4, stride=2),
    "ContinuousDilationConv": nn.ContinuousDilationConv(4),
    "LSDFN": nn.LSDFN(4, channels=5, samples=3),
    "AffineConv": nn.AffineConv(4),
    "StaticDeformableConv": nn.StaticDeformableConv(4),
    "BlurredDilatedConv": nn.BlurredDilatedConv(4, dilation=2),
    "CCL": nn.CCL(4, width=2, dilations=(1, 2)),
    "ASPP": nn.ASPP(4, rates=(1, 2), blur=0.5),
    "ASPP, v3": nn.ASPP(4, variant="v3", rates=(1,), width=2),
}


def first(result):
    """The map, of a layer that hands something on as well."""
    return result[0] if isinstance(result, tuple) else result


def check_empty(model, x, **options):
    """Values and all gradients of a model at no examples, as of so many examples of `x`."""
    variables = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"), x)
    empty = x[:0]

    def total(params, empty):
        y = first(model.apply(variables | {"params": params}, empty, **options))
        return jnp.sum(y**2), y

    gradient = jax.jit(jax.grad(total, argnums=(0, 1), has_aux=True))
    (of_params, of_map), y = gradient(variables["params"], empty)
    assert y.shape == (0, *first(jax.eval_shape(model.apply, variables, x)).shape[1:])
    assert of_map.shape == empty.shape
    for path, leaf in traverse_util.flatten_dict(of_params).items():
        np.testing.assert_array_equal(leaf, np.zeros_like(leaf), err_msg="/".join(path))


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    check_empty(LAYERS[name], jnp.ones((2, 9, 12, 3)))


@pytest.mark.parametrize("name", ["resnet_tiny", "drn_tiny", "dla_tiny"])
def test_networks(name):
    options = {"backbone_options": {"width": 4}}
    check_empty(models.create(name, num_classes=3, **options), jnp.ones((1, 17, 20, 3)))


@pytest.mark.parametrize("head", ["composition", "deform", "ccl", "classify"])
def test_heads_of_a_network(head):
    options = {"head_options": {"width": 4}} if head == "ccl" else {}
    size = {"width": 4, "depth": 1}
    model = models.create("resnet_tiny", num_classes=3, head=head, backbone_options=size, **options)
    check_empty(model, jnp.ones((1, 16, 16, 3)))


def test_every_layer_is_here():
    kinds = {type(layer).__name__ for layer in LAYERS.values()}
    layers = {layer for layer, _ in heads.HEADS.values() if not issubclass(layer, Decoder)}
    assert {layer.__name__ for layer in layers} <= kinds
