"""Every layer as a function of a batch: what tests of devices and the benchmarks run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import nn

X = jnp.asarray(np.random.default_rng(0).normal(size=(4, 8, 8, 4)), jnp.float32)

LAYERS = {
    "DynamicFilter": nn.DynamicFilter(4, channels=5),
    "LSDFN": nn.LSDFN(4, channels=5, samples=3, sample_strides=(1, 2)),
    "Inflated": nn.Inflated(nn.Conv(4), initial=1.3, bounds=(0.5, 1.5)),
    "DynamicFilter released": nn.DynamicFilter(
        4, channels=3, variant="released", fusion="mean", sample_stride=2
    ),
    "Inflated of each image": nn.Inflated(
        nn.Conv(4), initial=1.3, bounds=(0.5, 1.5), gradient="true", per_image=True
    ),
    "AdaptiveDilationConv": nn.AdaptiveDilationConv(4, evaluation="expected"),
    "AdaptiveDilationConv gated": nn.AdaptiveDilationConv(4, prior="gated", evaluation="expected"),
    "ContinuousDilationConv": nn.ContinuousDilationConv(4),
    "AffineConv": nn.AffineConv(4),
    "ASPP": nn.ASPP(4, rates=(1, 2), blur=0.5),
    "ASPP v3": nn.ASPP(4, variant="v3", width=4, rates=(1, 2)),
    "BatchNorm": nn.BatchNorm(use_running_average=True),
    "BlurredDilatedConv": nn.BlurredDilatedConv(4, dilation=2),
    "CCL": nn.CCL(4, width=4, dilations=(2,)),
    "ComposedConv": nn.ComposedConv(4, family="full"),
    "ComposedConv channel": nn.ComposedConv(4, structure="channel", stride=2),
    "ComposedConv multiple": nn.ComposedConv(4, structure="multiple", resample=False),
    "Conv": nn.Conv(4, stride=2),
    "DeformableConv": nn.DeformableConv(4),
    "DeformableConv modulated": nn.DeformableConv(4, modulated=True, offset_groups=2),
    "ComposedConv of groups": nn.ComposedConv(4, groups=2, strides=(2, 1)),
    "DoGConv": nn.DoGConv(4),
    "DynamicComposedConv": nn.DynamicComposedConv(4),
    "GaussianBlur": nn.GaussianBlur(),
    "GaussianDeformableConv": nn.GaussianDeformableConv(4, mean=True),
    "StaticDeformableConv": nn.StaticDeformableConv(4),
}


@functools.cache
def case(name):
    """The layer as a function of a map and parameters, drawn so that no structure is trivial."""
    layer = LAYERS[name]
    variables = jax.jit(layer.init)(jax.random.key(0, impl="unsafe_rbg"), X)
    rng = np.random.default_rng(1)
    params = jax.tree.map(
        lambda leaf: leaf + jnp.asarray(0.1 * rng.normal(size=leaf.shape), leaf.dtype),
        variables["params"],
    )
    others = {key: value for key, value in variables.items() if key != "params"}

    def function(x, params):
        y = layer.apply({"params": params, **others}, x)
        return y[0] if isinstance(y, tuple) else y  # of a layer that hands something on

    return function, (True, False), (X, params)
