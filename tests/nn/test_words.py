"""Layers in other words: Flax's names of arguments, and the options of a blur at once."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from rfjax import Blur, nn

X = jnp.asarray(np.random.default_rng(0).normal(size=(1, 8, 9, 4)), jnp.float32)
LAYERS = {
    "Conv": nn.Conv,
    "ComposedConv": nn.ComposedConv,
    "DoGConv": nn.DoGConv,
    "GaussianDeformableConv": nn.GaussianDeformableConv,
    "DynamicComposedConv": nn.DynamicComposedConv,
    "DeformableConv": nn.DeformableConv,
    "AdaptiveDilationConv": nn.AdaptiveDilationConv,
    "ContinuousDilationConv": nn.ContinuousDilationConv,
    "AffineConv": nn.AffineConv,
    "StaticDeformableConv": nn.StaticDeformableConv,
    "BlurredDilatedConv": nn.BlurredDilatedConv,
    "CCL": nn.CCL,
    "ASPP": nn.ASPP,
}
every_layer = pytest.mark.parametrize("name", LAYERS)


@every_layer
def test_flaxs_words_are_the_layers_own(name):
    layer = LAYERS[name]
    flax = layer(4, (3, 3), strides=(2, 1), kernel_dilation=2, feature_group_count=2)
    assert flax == layer(4, (3, 3), stride=(2, 1), dilation=2, groups=2)
    assert flax.clone(padding="SAME", stride=1).stride == 1
    y, variables = jax.eval_shape(flax.init_with_output, jax.random.key(0), X)
    y = y[0] if isinstance(y, tuple) else y
    assert y.shape == (1, 4, 9, 4)
    kernels = {
        leaf.shape
        for path, leaf in jax.tree_util.tree_leaves_with_path(variables["params"])
        if leaf.ndim == 4 and "regressor" not in str(path) and leaf.shape[0] == 3
    }
    assert all(shape[2] in (2, 256) for shape in kernels)


@every_layer
def test_one_thing_twice_is_an_error(name):
    layer = LAYERS[name]
    for word, own in (("strides", "stride"), ("kernel_dilation", "dilation"),
                      ("feature_group_count", "groups")):  # fmt: skip
        with pytest.raises(ValueError, match=f"{word} says what {own} says: give one of them"):
            layer(4, **{word: 1, own: 1})
    with pytest.raises(ValueError, match="strides says what stride says"):
        layer(4, 3, 1, strides=1)
    with pytest.raises(TypeError, match="unexpected keyword argument 'stridess'"):
        layer(4, stridess=1)


@every_layer
def test_padding_same_is_what_layers_do_at_stride_1(name):
    layer = LAYERS[name]
    assert layer(4, padding="SAME") == layer(4)
    assert layer(4, 1, strides=2, padding="SAME") == layer(4, 1, 2)
    with pytest.raises(ValueError, match="padding 'SAME' at stride 2 depends on the size"):
        layer(4, 3, strides=2, padding="SAME")


@pytest.mark.parametrize("groups, dilation", [(1, 1), (2, 2), (4, 1)])
def test_conv_is_flaxs(groups, dilation):
    """The same parameters give the same numbers as `flax.linen.Conv`."""
    words = dict(feature_group_count=groups, kernel_dilation=dilation, padding="SAME")
    theirs = linen.Conv(8, (3, 3), use_bias=False, **words)
    variables = jax.jit(theirs.init)(jax.random.key(0, impl="unsafe_rbg"), X)
    ours = nn.Conv(8, (3, 3), use_bias=False, **words)
    np.testing.assert_allclose(ours.apply(variables, X), theirs.apply(variables, X), atol=1e-6)


def test_a_layer_in_a_model_of_somebody_else():
    class Block(linen.Module):
        conv: type = linen.Conv

        @linen.compact
        def __call__(self, x):
            y = self.conv(8, (3, 3), strides=(2, 2), use_bias=False, name="first")(x)
            return self.conv(8, kernel_size=(3, 3), padding="SAME", name="second")(linen.relu(y))

    shapes = jax.eval_shape(Block(nn.ComposedConv).init, jax.random.key(0), X)["params"]
    assert shapes["first"]["kernel"].shape == (3, 3, 4, 8)
    assert shapes["second"]["covariance"].shape == (1,)


@pytest.mark.parametrize("layer", [nn.GaussianBlur, lambda **o: nn.ComposedConv(4, **o),
                                   lambda **o: nn.DoGConv(4, **o)])  # fmt: skip
def test_the_options_of_a_blur_at_once(layer):
    options = {"truncate": 3.0, "padding": "edge", "method": "discrete", "support": "faded"}
    assert layer(blur=Blur(**options)) == layer(**options)
    assert layer(blur=Blur(**options)).clone().padding == "edge"
    with pytest.raises(ValueError, match="blur says what method, padding says: give one of them"):
        layer(blur=Blur(), padding="edge", method="discrete")
    with pytest.raises(TypeError, match=r"blur must be an rfjax\.Blur or None; got 'edge'"):
        layer(blur="edge")
    assert layer(blur=None) == layer()


def test_groups_that_do_not_fit():
    with pytest.raises(ValueError, match="groups must divide the 4 channels of x and the 8 feat"):
        jax.eval_shape(nn.Conv(8, groups=3).init, jax.random.key(0), X)


@pytest.mark.parametrize("groups", [1, 2])
def test_a_new_modulated_layer_is_the_plain_convolution(groups):
    layer = nn.DeformableConv(4, offset_groups=groups, modulated=True, stride=(2, 1))
    variables = jax.jit(layer.init)(jax.random.key(0, impl="unsafe_rbg"), X)
    shapes = {name: leaf["kernel"].shape for name, leaf in variables["params"].items()
              if "regressor" in name}  # fmt: skip
    assert shapes == {"offset_regressor": (3, 3, 4, 18 * groups),
                      "mask_regressor": (3, 3, 4, 9 * groups)}  # fmt: skip
    plain = nn.Conv(4, stride=(2, 1))
    wanted = plain.apply({"params": {"kernel": variables["params"]["kernel"]}}, X)
    got, sown = layer.apply(variables, X, mutable=["intermediates"])
    np.testing.assert_allclose(got, wanted, atol=1e-5)
    assert sown["intermediates"]["scale_map"][0].shape == (1, 4, 9)
    np.testing.assert_allclose(sown["intermediates"]["scale_map"][0], np.sqrt(4 / 3), rtol=1e-5)
