"""A network of clips whose head remembers: its memory is a collection of variables of its own."""

import jax
import jax.numpy as jnp
from flax import linen

from rfjax import models, nn


class Remembering(nn.Conv):
    """y = f * x + h, where h is kept: h <- (h + mean of y over all pixels) / 2."""

    axis_name: str | None = None

    @linen.compact
    def __call__(self, x):
        memory = self.variable("memory", "h", jnp.zeros, (self.features,), jnp.float32)
        y = super().__call__(x) + memory.value.astype(x.dtype).reshape(1, 1, 1, -1)
        mean = jnp.mean(y.astype(jnp.float32), (0, 1, 2))
        if not self.is_initializing():
            if self.axis_name is not None:
                mean = jax.lax.pmean(mean, self.axis_name)
            if self.is_mutable_collection("memory"):
                memory.value = 0.5 * (memory.value + mean)
        return y


class Clip(linen.Module):
    """Called with the frames [T, H, W, 3] of a clip, it sees them one after the other."""

    of_frames: models.segmentation.Segmenter
    stride: int

    @linen.compact
    def __call__(self, clip, train=False):
        if self.is_initializing():  # what a scan carries must be there before it
            return self.of_frames(clip, train)

        def step(model, carry, frame):
            return carry, model(frame[None], train)[0]

        states = ("memory", "batch_stats")
        moving = [name for name in states if self.is_mutable_collection(name)]
        scan = linen.scan(
            step,
            variable_broadcast=["params", *(name for name in states if name not in moving)],
            variable_carry=moving,
            split_rngs={"params": False, "dropout": True},
        )
        return scan(self.of_frames, (), clip)[1]


class Built:
    def network(self, *, head, **options):
        small = {"backbone_options": {"width": 4, "depth": 1}}
        model = models.create("resnet_tiny", head="toy_recurrent", **small, **options)
        return Clip(model, model.stride)


def build():
    return Built()


def register():
    models.register("toy_clip", build)
    models.register_head("toy_recurrent", Remembering, options=("dilation", "kernel_size"))
