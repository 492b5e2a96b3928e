"""Static resampling, the same tap positions at every pixel, against a dilated convolution.

The convolution of XLA is the floor: its taps lie on pixels, at the dilation nearest to the spread.
"""

from collections.abc import Iterator

import jax.numpy as jnp

import rfjax
from benchmarks import peers
from benchmarks.deform import case, convolution, operands
from benchmarks.report import Row, compared
from benchmarks.timing import interleave

SUITE = "resample"
CASES = (((2, 64, 64, 64), 64), ((1, 100, 100, 256), 256), ((2, 100, 100, 512), 19))
SIGMAS = (0.3, 1.0, 2.3, 6.0)


def run(*, rounds: int, cases: tuple = CASES, sigmas: tuple[float, ...] = SIGMAS) -> Iterator[Row]:
    """Resampling alone at several spreads, and the whole composition at one."""
    for shape, features in cases:
        cotangent, x, kernel, _ = operands(shape, features)
        for sigma in sigmas:
            positions = rfjax.lattice_points(3) * (1.0 + sigma)
            dilation = max(1, round(1.0 + sigma))
            yield from _pair(
                rounds, case(shape, features), f"sigma {sigma:g}", (1.8, 2.0),
                (rfjax.sampled_conv, x, kernel, positions),
                (lambda x, k, d=dilation: convolution(x, k, d), x, kernel),
                f"convolution of dilation {dilation}", cotangent,
            )  # fmt: skip
        yield from _pair(
            rounds, case(shape, features), "blur + resample, sigma 2", (None, None),
            (rfjax.blur_resample_conv, x, kernel, jnp.log(jnp.array([2.0]))),
            (convolution, x, kernel), "3x3 convolution", cotangent,
        )  # fmt: skip


def _pair(rounds, name, what, aims, mine, theirs, against, cotangent) -> Iterator[Row]:
    """Two functions with their arguments, forward and with gradients."""
    for label, aim, wrap in (
        ("forward", aims[0], lambda f, *a: peers.ours(f, *a)),
        ("f + b", aims[1], lambda f, *a: peers.ours(peers.with_gradients(f), cotangent, *a)),
    ):
        times = interleave({"ours": wrap(*mine), "theirs": wrap(*theirs)}, rounds=rounds)
        yield compared(
            SUITE, name, f"{what}, {label}", times["ours"], against, times["theirs"], aim=aim
        )
