"""Layers that choose between dilations, each from what the one before has chosen."""

import dataclasses

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import models, nn
from rfjax.models import resnet
from rfjax.models.backbone import Architecture

DILATIONS = (1, 2)


class Choosing(nn.Conv):
    """sum_d p_d conv_d(x), p = softmax(log prior + logits(x)), in training with noise.

    The prior is the p of the layer before, uniform at first.
    """

    @linen.compact
    def __call__(self, x, train, carry):
        prior = carry or (jnp.full((x.shape[0], len(DILATIONS)), 0.5),)
        mean = jnp.mean(x.astype(jnp.float32), (1, 2))
        logits = linen.Dense(len(DILATIONS), name="choice")(mean) + jnp.log(prior[0])
        if train:
            logits = logits + jax.random.gumbel(self.make_rng("dilation"), logits.shape)
        chosen = jax.nn.softmax(logits)
        self.sow("intermediates", "chosen", chosen)
        maps = [self.at(dilation)(x) for dilation in DILATIONS]
        weights = jnp.split(chosen.astype(maps[0].dtype)[:, None, None], len(DILATIONS), -1)
        return sum(weight * y for weight, y in zip(weights, maps, strict=True)), (chosen,)

    def at(self, dilation):
        shared = {"stride": self.stride, "dtype": self.dtype, "name": f"at_{dilation}"}
        return nn.Conv(self.features, dilation=dilation, **shared)


class Chosen(Architecture):
    def build(self, **options):
        return super().build(**options | {"conv": nn.select("*/layer*/conv[12]", Choosing)})


def build(*, depth: int = 1):
    plain = resnet.resnet_tiny(width=4, depth=depth)
    return Chosen(**{field.name: getattr(plain, field.name) for field in dataclasses.fields(plain)})


def register():
    models.register("toy_carry", build)
