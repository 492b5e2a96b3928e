"""A further mark in a picture whose features are kept, against a whole pass, of guided networks."""

from collections.abc import Iterator
from functools import partial

import jax
import jax.numpy as jnp

from benchmarks.report import Row, compared
from benchmarks.timing import interleave
from rfjax import models
from rfjax.models.guided import guided

SUITE = "guide"
VGG = ("vgg_16", {"border": 0, "light": 256}, "fc6")
CASES = (
    (*VGG, (240, 432)),  # half the size of DAVIS
    ("resnet_18", {}, "last", (240, 432)),
    ("resnet_tiny", {"depth": 4, "output_stride": 8}, "last", (64, 64)),
)
AIM = 0.1


def run(*, rounds: int, cases: tuple = CASES) -> Iterator[Row]:
    """The mask after a further mark, by what is kept, and from the picture."""
    for name, options, at, size in cases:
        build = partial(_build, name, options)
        network = guided(build, 2, at=at)
        image = jax.random.normal(jax.random.key(0), (1, *size, 3))
        marks = jnp.zeros((1, 1, *size, 2)).at[0, 0, 30, 40, 1].set(1.0).at[0, 0, 9, 9, 0].set(1.0)
        variables = jax.jit(network.init)(jax.random.key(1), None, marks, image)
        apply = partial(network.apply, variables)
        features = jax.jit(partial(apply, method="encode"))(image)

        def marked(features, marks, apply=apply, size=size):
            guide = apply(features[None], marks, method="guide")
            return jnp.argmax(apply(features, guide["mean"], size, method="segment"), -1)

        def whole(image, marks, apply=apply):
            return jnp.argmax(apply(None, marks, image), -1)

        calls = {"marked": (jax.jit(marked), features), "whole": (jax.jit(whole), image)}
        times = interleave(
            {
                what: lambda function=function, seen=seen, marks=marks: jax.block_until_ready(
                    function(seen, marks)
                )
                for what, (function, seen) in calls.items()
            },
            rounds=rounds,
        )
        case = f"{name}, {size[0]}x{size[1]}"
        marked_time, whole_time = times["marked"], times["whole"]
        yield compared(SUITE, case, "a mark", marked_time, "whole pass", whole_time, aim=AIM)


def _build(name: str, options: dict, outputs: int):
    return models.create(name, num_classes=outputs, backbone_options=options)
