"""Receptive fields that adapt, each against what it is built of, in one interleaved run.

adaptive dilation (PAD)    the 3x3 convolution
continuous dilation        our deformable convolution, whose taps are free
inflation                  PyTorch's bilinear resize to the same size
dynamic filters (LS-DFN)   the same with a filter of all taps and channels for every pixel
"""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

import rfjax
from benchmarks import peers
from benchmarks.deform import case, convolution
from benchmarks.report import Row, compared
from benchmarks.timing import interleave

SUITE = "adaptive"
CASES = (((1, 64, 64, 128), 128), ((1, 48, 48, 256), 256))
DILATIONS = ((1, 2), (1, 2, 4), (1, 2, 4, 8))
AIMS = {"PAD": 1.6, "continuous": 1.1, "inflation": 1.3, "dynamic": 1 / 5}
FACTORS = (0.75, 1.5, 2.0)


def run(*, rounds: int, cases: tuple = CASES, dilations: tuple = DILATIONS) -> Iterator[Row]:
    """All four, forward and with gradients."""
    for shape, features in cases:
        yield from _adaptive(shape, features, rounds, dilations)
        yield from _continuous(shape, features, rounds)
        yield from _inflation(shape, rounds)
    yield from _dynamic((1, 24, 24, 64), 16, rounds)


def _normal(*shape: int, seed: int = 0) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _times(rounds: int, cotangent: jax.Array, **functions: tuple) -> Iterator[tuple[str, dict]]:
    """Of functions with their arguments: forward, and with gradients."""
    forward = {name: peers.ours(*each) for name, each in functions.items()}
    yield "forward", interleave(forward, rounds=rounds)
    both = {
        name: peers.ours(peers.with_gradients(function), cotangent, *arguments)
        for name, (function, *arguments) in functions.items()
    }
    yield "f + b", interleave(both, rounds=rounds)


def _adaptive(shape, features, rounds, dilations) -> Iterator[Row]:
    """Several dilations mixed at every pixel, against one of them."""
    x, kernel = _normal(*shape), _normal(3, 3, shape[-1], features, seed=1)
    cotangent = _normal(*shape[:-1], features, seed=2)
    for distances in dilations:
        weights = jax.nn.softmax(_normal(*shape[:-1], len(distances), seed=3))

        def pad(x, kernel, weights, distances=distances):
            return rfjax.adaptive_dilated_conv(x, kernel, weights, dilations=distances)

        functions = {"ours": (pad, x, kernel, weights), "plain": (convolution, x, kernel)}
        for what, times in _times(rounds, cotangent, **functions):
            yield compared(
                SUITE,
                case(shape, features),
                f"PAD of {len(distances)} dilations, {what}",
                times["ours"],
                "3x3 convolution",
                times["plain"],
                aim=AIMS["PAD"],
            )


def _continuous(shape, features, rounds) -> Iterator[Row]:
    """A real dilation at every pixel, against free offsets that put taps at the same places."""
    x, kernel = _normal(*shape), _normal(3, 3, shape[-1], features, seed=1)
    cotangent = _normal(*shape[:-1], features, seed=2)
    rates = 1.5 + 0.4 * jnp.tanh(_normal(*shape[:-1], 1, seed=3))
    lattice = jnp.asarray(rfjax.lattice_points(3), jnp.float32)
    offsets = (rates[..., None] - 1) * lattice.reshape(1, 1, 1, 9, 2)
    functions = {
        "ours": (rfjax.continuous_dilated_conv, x, kernel, rates),
        "free": (rfjax.deformable_conv, x, kernel, offsets),
    }
    for what, times in _times(rounds, cotangent, **functions):
        yield compared(
            SUITE,
            case(shape, features),
            f"continuous dilation, {what}",
            times["ours"],
            "deformable convolution",
            times["free"],
            aim=AIMS["continuous"],
        )


def _inflation(shape, rounds) -> Iterator[Row]:
    """A map enlarged or reduced, against a resize of PyTorch."""
    torch = peers.find("torch")
    if torch is None:
        return
    x = _normal(*shape)
    planes = torch.from_numpy(np.asarray(x)).permute(0, 3, 1, 2).contiguous()
    for factor in FACTORS:
        size = [int(factor * (n - 1)) + 1 for n in shape[1:3]]

        def resized(planes=planes, size=size):
            options = {"size": size, "mode": "bilinear", "align_corners": True}
            with torch.no_grad():
                return torch.nn.functional.interpolate(planes, **options)

        def inflated(x, factor):
            return rfjax.inflate(x, factor, max_factor=max(1.0, FACTORS[-1]))[0]

        functions = {"ours": peers.ours(inflated, x, jnp.float32(factor)), "torch": resized}
        times = interleave(functions, rounds=rounds)
        yield compared(
            SUITE,
            case(shape, shape[-1]),
            f"inflation by {factor:g}, canvas of {FACTORS[-1]:g}, forward",
            times["ours"],
            "resize of PyTorch",
            times["torch"],
            aim=AIMS["inflation"],
        )


def naive_filter(x, within, across, *, samples: int, sample_stride: int) -> jax.Array:
    """The dynamic filter with all of its weights [H, W, C', C, k, k] stored, of one example."""
    size = within.shape[-1]
    center = (size - 1) // 2
    whole = jnp.broadcast_to(within[..., None, :, :], (*across.shape, size, size))
    whole = whole.at[..., center, center].add(across)
    reach = sample_stride * (samples // 2) + center
    bordered = jnp.pad(x, [(0, 0), (reach, reach), (reach, reach), (0, 0)])
    height, width = x.shape[1:3]
    y = jnp.zeros((*across.shape[:-1],), x.dtype)
    for down in range(0, samples * sample_stride, sample_stride):
        for right in range(0, samples * sample_stride, sample_stride):
            for j in range(size):
                for i in range(size):
                    rows = bordered[:, down + j : down + j + height]
                    seen = rows[:, :, right + i : right + i + width]
                    y += jnp.einsum("nhwoc,nhwc->nhwo", whole[..., j, i], seen)
    return y


def _dynamic(shape, outputs, rounds) -> Iterator[Row]:
    """Filters of every pixel at 3 x 3 samples, by their two parts and with all weights."""
    x = _normal(*shape)
    within = _normal(*shape[:-1], outputs, 3, 3, seed=1)
    across = _normal(*shape[:-1], outputs, shape[-1], seed=2)
    cotangent = _normal(*shape[:-1], outputs, seed=3)

    def ours(*operands):
        return rfjax.dynamic_filter(*operands, samples=3, sample_stride=2)

    def naive(*operands):
        return naive_filter(*operands, samples=3, sample_stride=2)

    error = peers.largest_error(ours(x, within, across), naive(x, within, across))
    if error > 1e-4:
        raise AssertionError(f"the naive filter computes something else: {error:.1e}")
    functions = {"ours": (ours, x, within, across), "naive": (naive, x, within, across)}
    for what, times in _times(rounds, cotangent, **functions):
        yield compared(
            SUITE,
            case(shape, outputs),
            f"dynamic filter at 3x3 samples, {what}",
            times["ours"],
            "all weights stored",
            times["naive"],
            aim=AIMS["dynamic"],
            error=error,
        )
