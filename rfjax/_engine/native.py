"""Kernels in C++ for CPUs, which `python -m rfjax.native` builds: where they are, and their calls.

    blur_filter   y = filter(x), both axes of a map in one reading of it
    blur_pull     its gradient
    plane_filter  y = filter(x) of a full covariance, tap by tap
    plane_pull    its gradient
    reads_read    samples of taps at any positions of a map
    reads_pull    their gradients by the map and the positions
    mixes_read    taps at several dilations, mixed at every output
    mixes_pull    their gradients by the map and the weights of dilations
    lines_read    a map between its pixels, along both axes
    lines_pull    its gradient, and those of the weights of pixels

XLA writes and reads a map between the passes of a blur, and pads it before each; `cpp/blur.cc`
filters a row along one axis into the caches, and from there along the other. XLA gathers the four
corners of samples one after the other; `cpp/reads.cc` reads and blends them at once, and
`cpp/mixes.cc` mixes dilations likewise. It interpolates along an axis by a product with a matrix
that is nearly all zeros; `cpp/lines.cc` reads what is not.

A library is for the processor, the version of JAX and the sources that it was built for and of.
Where there is none, everything works without it; the results agree to rounding.
"""

import ctypes
import functools
import hashlib
import os
import platform
import warnings
from collections.abc import Callable
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap

from rfjax._caches import user_cache
from rfjax._engine.devices import alike

SOURCES = Path(__file__).parent / "cpp"
PADDINGS = ("zero", "edge", "reflect", "wrap")  # in the order of cpp/blur.cc
_READS = ("reads", "mixes", "lines")
_SYMBOLS = tuple(f"{kind}_{what}" for kind in _READS for what in ("read", "pull"))
_SYMBOLS += ("blur_filter", "blur_pull", "plane_filter", "plane_pull")


# The library


def place() -> Path:
    """Where the library of this machine lies, if it was built."""
    return user_cache("native") / f"{_key()}.so"


@functools.cache
def is_loaded() -> bool:
    """Whether the kernels can be called: loads them where they were built.

    `RFJAX_NATIVE=0` in the environment leaves them alone.
    """
    if os.environ.get("RFJAX_NATIVE") == "0" or not place().exists():
        return False
    try:
        library = ctypes.CDLL(str(place()))
    except OSError as error:
        warnings.warn(
            f"kernels cannot be loaded, computing without them; python -m rfjax.native builds them "
            f"anew: {error}",
            stacklevel=2,
        )
        return False
    for symbol in _SYMBOLS:
        capsule = jax.ffi.pycapsule(getattr(library, symbol))
        jax.ffi.register_ffi_target(_target(symbol), capsule, platform="cpu")
    return True


def check_algorithm(algorithm: str) -> None:
    """Raises where "native" is asked for and the kernels were not built."""
    if algorithm == "native" and not is_loaded():
        raise ValueError(
            "algorithm 'native' wants kernels that are not built for this machine: "
            "run python -m rfjax.native, then start again"
        )


def _target(symbol: str) -> str:
    """The kernel's name in programs: compiled ones that are kept must not meet another version."""
    return f"rfjax_{symbol}_{_key()}"


@functools.cache
def _key() -> str:
    """What a library depends on: its sources, JAX, and what the processor can do."""
    parts = [path.read_bytes() for path in sorted(SOURCES.iterdir())]
    parts += [text.encode() for text in (jax.__version__, platform.machine(), _abilities())]
    return hashlib.sha256(b"\0".join(parts)).hexdigest()[:16]


def _abilities() -> str:
    """The instructions that the processor knows, as far as the system tells."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.lower().startswith(("flags", "features"))), "")


# Blurs of maps [N, H, W, C] by taps [N | 1, C | 1, K] in float32, half sizes int32 [2]


def blur_filter(
    x: jax.Array, down: jax.Array, across: jax.Array, sizes: jax.Array, *, padding: str
) -> jax.Array:
    """x filtered along y by the taps `down` at distances 0 ... K - 1, and along x by `across`."""

    def kernel(x, down, across, sizes):
        index = np.int64(PADDINGS.index(padding))
        return _call("blur_filter", (x.shape,), x, down, across, sizes, padding=index)[0]

    def unfolded(size, y, share):
        return y.reshape(size, -1, *y.shape[1:])

    return _batched(kernel, unfolded)((x,), (down, across), sizes)


def blur_pull(
    x: jax.Array,
    cotangent: jax.Array,
    taps: tuple[jax.Array, jax.Array],
    changes: tuple[jax.Array, jax.Array],
    sizes: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and of sigma [N | 1, C | 1, 2], with zeros outside of the map.

    `changes` are the derivatives of the taps, `down` and `across`, by their sigmas.
    """

    def kernel(x, cotangent, down, across, down_change, across_change, sizes):
        shapes = x.shape, (*down.shape[:2], 2)
        operands = x, cotangent, down, across, down_change, across_change, sizes
        return _call("blur_pull", shapes, *operands)

    def unfolded(size, results, share):
        grad_x, grad_sigma = (array.reshape(size, -1, *array.shape[1:]) for array in results)
        # Where the examples of a map share a sigma, so does their gradient.
        return grad_x, grad_sigma.sum(1, keepdims=True) if share else grad_sigma

    return _batched(kernel, unfolded)((x, cotangent), (*taps, *changes), sizes)


def plane_filter(x: jax.Array, taps: jax.Array, sizes: jax.Array) -> jax.Array:
    """x filtered by point-symmetric taps [N | 1, 2 a + 1, 2 b + 1], in use up to the half sizes."""

    def kernel(x, taps, sizes):
        return _call("plane_filter", (x.shape,), x, taps, sizes)[0]

    def unfolded(size, y, share):
        return y.reshape(size, -1, *y.shape[1:])

    return _batched(kernel, unfolded)((x,), (taps,), sizes)


def plane_pull(
    x: jax.Array, cotangent: jax.Array, taps: jax.Array, sizes: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The cotangents of x and of each tap in y = `plane_filter`."""

    def kernel(x, cotangent, taps, sizes):
        return _call("plane_pull", (x.shape, taps.shape), x, cotangent, taps, sizes)

    def unfolded(size, results, share):
        grad_x, grad_taps = (array.reshape(size, -1, *array.shape[1:]) for array in results)
        return grad_x, grad_taps.sum(1, keepdims=True) if share else grad_taps

    return _batched(kernel, unfolded)((x, cotangent), (taps,), sizes)


def _batched(kernel: Callable, unfolded: Callable) -> Callable:
    """The function (maps, taps, sizes) of a kernel, whose batch under `vmap` is more examples.

    Taps are arrays [N | 1, ...]; sizes are None where a kernel has none.
    """

    @custom_vmap
    def run(maps, taps, sizes):
        return kernel(*maps, *taps, sizes)

    @run.def_vmap
    def rule(size, in_batched, maps, taps, sizes):
        def spread(array, batched):
            return array if batched else jnp.broadcast_to(array, (size, *array.shape))

        maps, taps = jax.tree.map(spread, (maps, taps), tuple(in_batched[:2]))
        count = maps[0].shape[1]
        share = taps[0].shape[1] == 1
        # [B, N | 1, ...] as taps of B N examples
        each = [jnp.broadcast_to(t, (size, count, *t.shape[2:])) for t in taps]
        merged = jax.tree.map(lambda a: a.reshape(size * count, *a.shape[2:]), (maps, tuple(each)))
        # The largest support serves all: taps are zero beyond their own.
        sizes = jnp.max(sizes, 0) if in_batched[2] else sizes
        results = unfolded(size, _batched(kernel, partial(unfolded))(*merged, sizes), share)
        return results, jax.tree.map(lambda _: True, results)

    return run


# Reads of a map's rows [R, C] in float32 by taps [P, T]: row int32, y, x and factor


def read_taps(
    rows: jax.Array,
    row: jax.Array,
    y: jax.Array,
    x: jax.Array,
    factor: jax.Array,
    *,
    width: int,
) -> jax.Array:
    """The samples [P, T, C] of taps at (y, x) in the cells that begin at `row`, times the factor.

    A line of the map has `width` rows.
    """
    shape = (*row.shape, rows.shape[-1])
    return _call("reads_read", (shape,), rows, row, y, x, factor, width=np.int64(width))[0]


def pull_taps(
    rows: jax.Array,
    rows_gradient: jax.Array,
    gradient: jax.Array,
    row: jax.Array,
    y: jax.Array,
    x: jax.Array,
    factor: jax.Array,
    *,
    width: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the samples' gradient [P, T, C] makes of that of the rows so far, samples, and slopes.

    Returns:
      `rows_gradient` with what the samples add to it, the samples [P, T, C], and the gradients by
      y, x and the factor [P, T, 3].
    """
    shapes = rows.shape, gradient.shape, (*row.shape, 3)
    operands = rows, rows_gradient, gradient, row, y, x, factor
    aliases = {1: 0}
    return _call("reads_pull", shapes, *operands, aliases=aliases, width=np.int64(width))


# Mixes of a map's rows [R, C] in float32: centers int32 [P], distances int32 [T, D], w [P, D]


def read_mixes(
    rows: jax.Array, center: jax.Array, distance: jax.Array, weight: jax.Array
) -> jax.Array:
    """The sums over n of w[p, n] rows[center[p] + distance[t, n]]: [P, T, C]."""
    shape = (center.shape[0], distance.shape[0], rows.shape[-1])
    return _call("mixes_read", (shape,), rows, center, distance, weight)[0]


def pull_mixes(
    rows: jax.Array,
    rows_gradient: jax.Array,
    gradient: jax.Array,
    center: jax.Array,
    distance: jax.Array,
    weight: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What the mixes' gradient [P, T, C] makes of that of the rows so far.

    Returns:
      `rows_gradient` with what the mixes add to it, the mixes [P, T, C], and the gradient by w.
    """
    shapes = rows.shape, gradient.shape, weight.shape
    operands = rows, rows_gradient, gradient, center, distance, weight
    return _call("mixes_pull", shapes, *operands, aliases={1: 0})


# Maps [N, H, W, C] in float32 at rows int32 [N | 1, I, 2] and columns [N | 1, J, 2] with weights


def read_lines(x: jax.Array, *lines: jax.Array) -> jax.Array:
    """[N, I, J, C]: x at `lines`, which are rows, their weights, columns and theirs."""

    def kernel(x, rows, row_weights, columns, column_weights, _):
        shape = (x.shape[0], rows.shape[1], columns.shape[1], x.shape[3])
        return _call("lines_read", (shape,), x, rows, row_weights, columns, column_weights)[0]

    def unfolded(size, y, share):
        return y.reshape(size, -1, *y.shape[1:])

    return _batched(kernel, unfolded)((x,), lines, None)


def pull_lines(
    x: jax.Array, cotangent: jax.Array, *lines: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The cotangents of x and of the weights of rows and columns in y = `read_lines`."""

    def kernel(x, cotangent, rows, row_weights, columns, column_weights, _):
        shapes = x.shape, rows.shape, columns.shape
        operands = x, cotangent, rows, row_weights, columns, column_weights
        return _call("lines_pull", shapes, *operands)

    def unfolded(size, results, share):
        grad_x, *by_weights = (array.reshape(size, -1, *array.shape[1:]) for array in results)
        return grad_x, *(by.sum(1, keepdims=True) if share else by for by in by_weights)

    return _batched(kernel, unfolded)((x, cotangent), lines, None)


def _call(
    symbol: str,
    shapes: tuple,
    first: jax.Array,
    *operands: jax.Array,
    aliases: dict[int, int] | None = None,
    **options: np.int64,
) -> tuple:
    """The results of a kernel, of these shapes; of aliases a result may take an operand's place."""
    results = tuple(jax.ShapeDtypeStruct(shape, first.dtype) for shape in shapes)
    call = jax.ffi.ffi_call(_target(symbol), results, input_output_aliases=aliases)
    # Inside of `shard_map` they vary as the map does, which a call does not tell by itself.
    return tuple(alike(result, first)[0] for result in call(first, *operands, **options))
