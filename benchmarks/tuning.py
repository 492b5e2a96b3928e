"""What the numbers of `rfjax._engine.tuning` are worth: each against other values of it.

    python -m benchmarks tuning

Ratios are times (or errors) with the value that is set by those with another value. They are of a
CPU: what is tuned for other devices is not measured here.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import partial
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np

import rfjax
from benchmarks import peers
from benchmarks.report import Row, compared
from benchmarks.timing import interleave
from rfjax._engine import profile, reads, totals, tuning
from tests import reference

SUITE = "tuning"


@dataclasses.dataclass(frozen=True)
class Choice:
    """A number, other values of it, and a case that depends on it: a blur of a map by a sigma."""

    name: str
    others: tuple
    shape: tuple[int, ...]
    sigmas: tuple[float, ...]  # one for an axis each; three are an ellipse: major, minor, angle
    gradient: bool = True

    def operands(self) -> tuple[np.ndarray, jax.Array]:
        """The map and the parameters."""
        x = np.random.default_rng(0).normal(size=self.shape).astype(np.float32)
        full = len(self.sigmas) == 3
        return x, rfjax.from_ellipse(*self.sigmas) if full else jnp.log(jnp.array(self.sigmas))

    def function(self) -> Callable:
        """The blur, or its value and gradients."""
        return peers.with_gradients(rfjax.gaussian_blur) if self.gradient else rfjax.gaussian_blur


CHOICES = (
    Choice("FUSED", (0,), (1, 128, 128, 64), (0.5,), gradient=False),
    Choice("SHORT_SUM", (8,), (1, 128, 128, 64), (8.0,)),
    Choice("SHORT_SUM", (32,), (1, 128, 128, 64), (16.0,)),
    Choice("SHORT_SHARE", (8,), (8, 32, 32, 64), (4.0,)),
    Choice("SHORT_SHARE", (2,), (8, 32, 32, 64), (8.0,)),
    Choice("LONG_SUM", (16,), (1, 512, 512, 3), (16.0,)),
    Choice("LONG_SUM", (64,), (1, 512, 512, 3), (32.0,)),
    Choice("DENSE_GRID", (3,), (1, 64, 64, 32), (2.0, 1.5, 0.5)),
    Choice("DENSE_GRID", (6,), (1, 64, 64, 32), (3.0, 2.5, 0.5)),
    Choice("AXES_WHOLE", (2**19, 2**23), (32, 64, 64, 32), (1.0,)),
    Choice("AXES_SPLIT", (2**18, 2**23), (1, 256, 256, 64), (1.0,)),
    Choice("PLANE_WHOLE", (2**16, 2**21), (8, 64, 64, 32), (4.0, 2.0, 0.5)),
    Choice("LEAST_CHANNELS", (2, 32), (1, 512, 512, 32), (1.0,)),
    Choice("LONG_ROW", (256,), (1, 64, 64, 512), (1.0,)),
    Choice("SKEW", (0,), (1, 128, 128, 64), (2.0,)),
    Choice("MOST_READS", (20, 320), (1, 128, 128, 64), (2.0,)),
    Choice("WIDE_ROW", (2**30,), (8, 64, 64, 32), (16.0,)),
)


def run(*, rounds: int, choices: tuple[Choice, ...] = CHOICES) -> Iterator[Row]:
    """Times of all choices and of reads, then errors."""
    for choice in choices:
        x, params = choice.operands()
        what = f"{choice.shape}, sigma {', '.join(f'{s:g}' for s in choice.sigmas)}"
        yield from _against(
            rounds, choice.name, what, (getattr(tuning, choice.name), *choice.others),
            partial(mock.patch.object, tuning, choice.name),
            choice.function(), (x, x, params) if choice.gradient else (x, params),
        )  # fmt: skip
    yield from _reads(rounds)
    yield from _accuracy()


def _against(rounds, name, what, values, set_to, function, arguments) -> Iterator[Row]:
    """The first of the values against each of the others, in one interleaved run."""
    functions = {}
    for value in values:
        jax.clear_caches()  # the traces of another value
        with set_to(value):
            compiled = jax.jit(function).lower(*arguments).compile()
        functions[str(value)] = partial(_run, compiled, jax.device_put(arguments))
    times = interleave(functions, rounds=rounds)
    ours, *theirs = functions
    for other in theirs:
        yield compared(SUITE, f"{name} {ours}", what, times[ours], other, times[other])


def _run(compiled: Callable, arguments: tuple) -> None:
    jax.block_until_ready(compiled(*arguments))


def _reads(rounds: int, shape: tuple[int, ...] = (2, 64, 64, 64)) -> Iterator[Row]:
    """Those of a deformable convolution on a CPU, forward and backward."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2, *shape)).astype(np.float32)
    kernel = rng.normal(size=(3, 3, shape[-1], shape[-1])).astype(np.float32)
    offsets = rng.normal(size=(*shape[:3], 9, 2)).astype(np.float32)

    def block_of(value):
        return mock.patch.object(reads, "_CPU", reads._CPU._replace(block_elements=value))

    for name, others, set_to in (
        ("READ_BLOCK_CPU", (2**16, 2**22), block_of),
        ("SPLAT_UNROLL", (1, 16), partial(mock.patch.object, tuning, "SPLAT_UNROLL")),
    ):
        values = getattr(tuning, name), *others
        deform = peers.with_gradients(rfjax.deformable_conv)
        yield from _against(
            rounds, name, f"{shape}, deform", values, set_to, deform, (y, x, kernel, offsets)
        )


def _accuracy() -> Iterator[Row]:
    """The largest errors of taps and of their total, relative to the largest, in float32."""
    for name, others, what, error in (
        ("NARROW", (2.0, 20.0), "integrated taps", partial(_error_of_taps, "integrated")),
        ("DEBYE_SIGMA", (2.0, 12.0), "discrete taps", partial(_error_of_taps, "discrete")),
        ("BESSEL_START", (5, 80), "discrete taps", partial(_error_of_taps, "discrete")),
        ("SMOOTH_PERIODS", (2.0, 32.0), "total of integrated taps", _error_of_totals),
    ):
        values, found = (getattr(tuning, name), *others), []
        for value in values:
            with mock.patch.object(tuning, name, value):
                found.append(1e7 * error())
        for other, theirs in zip(others, found[1:], strict=True):
            ratio = found[0] / theirs
            yield Row(
                SUITE, f"{name} {values[0]}", what, found[0], str(other), theirs, ratio,
                (ratio, ratio), unit="e-7",
            )  # fmt: skip


SIGMAS = np.geomspace(0.3, 40.0, 25)
TRUNCATE = 4.0


def _error_of_taps(method: str) -> float:
    window = profile.Window(TRUNCATE, method)
    errors = []
    for sigma in SIGMAS:
        wanted = reference.taps(sigma, truncate=TRUNCATE, method=method)
        half = len(wanted) // 2
        got = profile.half_taps(jnp.float32(sigma), half, window)
        errors.append(peers.largest_error(got, wanted[half:]))
    return max(errors)


def _error_of_totals() -> float:
    window = profile.Window(TRUNCATE, "integrated")
    errors = []
    for sigma in SIGMAS:
        half = reference.half_size(sigma, TRUNCATE)
        wanted = math.fsum(
            reference.profile(d, sigma, "integrated") for d in range(-half, half + 1)
        )
        got = totals.total_profile(jnp.float32(sigma), window)
        errors.append(peers.largest_error(got, wanted))
    return max(errors)
