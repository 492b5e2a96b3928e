"""A network with each head as a function of a batch: what tests and benchmarks run."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from rfjax import models
from rfjax.models.heads import HEADS

# A head of several strides wants a network of stride 32.
FITTING = {head: "vgg_tiny" for head in HEADS if head.startswith("fcn_")}
# Smaller than by default, where that is large.
OPTIONS = {
    "inflated": {"paths": 2, "sets": ((0, 1), (2,)), "width": 4, "dilation": 1},
    "lsdfn": {"sample_strides": (1, 2), "samples": 3, "channels": 4},
    "lsdfn_concat": {"outputs": 3, "width": 4, "samples": 3, "channels": 4},
    "deeplab_v3_plus": {"width": 4, "low": 4, "depth": 1, "rates": (1, 2)},
}
IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(4, 16, 16, 3)), jnp.float32)


@functools.cache
def case(head):
    name, options = FITTING.get(head, "resnet_tiny"), {} if head in FITTING else {"width": 4}
    chosen = {"head": head, "head_options": OPTIONS.get(head, {}), "backbone_options": options}
    model = models.create(name, num_classes=4, **chosen)
    variables = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"), IMAGES)
    others = {key: value for key, value in variables.items() if key != "params"}

    def function(images, params):
        return model.apply({"params": params, **others}, images)

    return function, (True, False), (IMAGES, variables["params"])
