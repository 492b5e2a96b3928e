"""Clockwork networks: on video, every stage of a network runs on a clock of its own.

    stages = (shallow, middle, deep, fuse)         functions (variables, maps so far) -> maps
    init, step = clockwork.make(stages, "alternating")
    state = init(variables, frame)
    state, output, fired = step(variables, state, frame)     for every frame of a clip

A stage whose clock does not fire hands on what it computed last, as its features change slowly from
frame to frame; the last function fuses what all have. A clock is a rate, or looks at the frames.
`equations` has the equations of clockwork recurrent networks, which these clocks generalize.

Reference:
  Shelhamer, Rakelly, Hoffman, Darrell, "Clockwork Convnets for Video Semantic Segmentation", 2016;
  Shelhamer, "Local Adaptive Visual Recognition", 2019, chapter 3.
"""

from rfjax import _lazy

__all__ = _lazy.install(  # pyright: ignore[reportUnsupportedDunderAll]  its names are lazy
    __name__,
    {
        "clocks": ("change", "confidence", "difference"),
        "costs": ("cost",),
        "equations": (),
        "machine": ("make",),
        "networks": ("stages",),
        "schedules": ("SCHEDULES",),
        "watching": (),
        "tuning": ("tune",),
    },
)
