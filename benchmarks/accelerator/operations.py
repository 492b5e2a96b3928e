"""Filtering and sampling at full size: times, bytes and operations against the card's limits.

Bytes and operations come twice: counted by hand (every map read and written once), which gives the
limit, and told by XLA of the compiled program. Each form of a blur stands beside its prediction.
"""

import dataclasses
import math
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import rfjax
from benchmarks import deform, peers
from benchmarks.accelerator import cards, model
from benchmarks.accelerator.program import Case, case
from benchmarks.report import Row
from benchmarks.timing import interleave

SUITE = "operations"
BLURS = ("auto", *model.FORMS)
LARGE = (1, 1024, 2048, 64)
SIGMAS = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
ROUNDS = 5
LIMIT_AIM = 2.0  # of a blur at sigma 4 and below, of the time of reading and writing once
MEMORY_SHAPES = (LARGE, (8, 128, 128, 512))
GIB = 2.0**30


def cases(*, small: bool) -> list[Case]:
    """The largest map and the kernels first: what is cut short is what is known best."""
    shapes = ((1, 24, 40, 8),) if small else (LARGE, *model.SHAPES[:4])
    sigmas, titles = SIGMAS[:1] if small else SIGMAS, ("forward", "forward + backward")
    blurs = [
        case(f"gaussian {size(shape)} {titles[gradient]}", gaussian, shape, sigmas, gradient)
        for shape in shapes
        for gradient in (False, True)
    ]
    deformed = (((1, 12, 12, 8), 8),) if small else tuple(deform.CASES)
    read = [case(f"deformation {deform.case(*sizes)}", deformation, *sizes) for sizes in deformed]
    found = [*blurs[:2], *read, *blurs[2:]]
    found += [case(f"full covariance {size(shape)}", full, shape) for shape in shapes]
    found += [case(f"sampling {deform.case(*sizes)}", sampling, *sizes) for sizes in deformed]
    local = (1, 8, 8, 4) if small else (1, 128, 128, 64)
    found.append(case(f"local filtering {size(local)}", local_filtering, local))
    for shape in shapes if small else MEMORY_SHAPES:
        found.append(case(f"memory {size(shape)}", memory, shape))
    return found


def size(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))


def gaussian(shape: tuple[int, ...], sigmas: tuple[float, ...], gradient: bool) -> Iterator[Row]:
    """Every form of a blur, forward, or forward with backward: one program for all sigmas."""
    what, arrays = "forward + backward", _maps(shape)
    if not gradient:
        what, arrays = "forward", arrays[1:]
    programs = _blurs(arrays, gradient)
    for algorithm, program in programs.items():
        yield from program.account(size(shape), f"{what}, {algorithm}")
    placed = jax.device_put(arrays)
    for sigma in sigmas:
        arguments = *placed, _log(sigma)
        steps = {name: program.on(*arguments) for name, program in programs.items()}
        for name, times in interleave(steps, rounds=ROUNDS).items():
            yield from _blur_rows(shape, sigma, what, name, times.median, gradient)


def _blurs(arrays: tuple, gradient: bool) -> dict[str, "_Program"]:
    """The programs of all forms, compiled side by side where there are cores."""

    def made(algorithm):
        function = partial(rfjax.gaussian_blur, algorithm=algorithm)
        function = peers.with_gradients(function) if gradient else function
        return _Program(function, (*arrays, _log(1.0)))

    with ThreadPoolExecutor(min(len(BLURS), os.cpu_count() or 1)) as pool:
        return dict(zip(BLURS, pool.map(made, BLURS), strict=True))


def _blur_rows(shape, sigma, what, algorithm, ms, gradient) -> Iterator[Row]:
    """A time beside the limit of reading and writing once, and beside its prediction."""
    title, what = f"{size(shape)} sigma {sigma:g}", f"{what}, {algorithm}"
    bytes = 2.0 * model.NUMBER * math.prod(shape) * (3 if gradient else 1)
    aim = LIMIT_AIM if algorithm == "auto" and sigma <= 4 and not gradient else None
    of = {"form": algorithm, "shape": shape, "sigma": sigma, "dtype": "float32"}
    row = _against_limit(title, what, ms, bytes, 0.0, aim)
    yield dataclasses.replace(row, of=of | {"gradient": gradient})
    card = _card()
    if card and algorithm in model.FORMS:
        said = model.predict(algorithm, shape, sigma, card, gradient=gradient)
        if said is not None:
            yield Row(SUITE, title, what, ms, "the model's prediction", said, ms / said)


def _log(sigma: float) -> jax.Array:
    return jnp.log(jnp.array([sigma], jnp.float32))


def full(shape: tuple[int, ...]) -> Iterator[Row]:
    """A full covariance of sums, and one of transforms."""
    cotangent, x = _maps(shape)
    for sigmas in ((1.5, 0.8, 0.5), (6.0, 2.0, 0.5)):
        params = rfjax.from_ellipse(*sigmas)
        what = f"full {sigmas[0]:g}, {sigmas[1]:g}"
        function = rfjax.gaussian_blur
        yield from _timed(size(shape), what, function, cotangent, (x, params), 2 * x.nbytes, 0.0)


def deformation(shape: tuple[int, ...], features: int) -> Iterator[Row]:
    """A free-form deformable convolution in both forms and types, and one by Gaussians."""
    cotangent, x, kernel, offsets = deform.operands(shape, features)
    flops, title = 2.0 * cotangent.size * 9 * shape[-1], deform.case(shape, features)
    bytes = x.nbytes + cotangent.nbytes + kernel.nbytes
    for dtype in ("float32", "bfloat16"):
        narrow = [array.astype(dtype) for array in (cotangent, x, kernel)]
        share = narrow[0].itemsize / cotangent.itemsize
        for algorithm in model.READ_FORMS:
            what = f"deformable_conv, {dtype}, {algorithm}"
            function = partial(rfjax.deformable_conv, algorithm=algorithm)
            operands, total = (*narrow[1:], offsets), share * bytes + offsets.nbytes
            of = {"form": algorithm, "shape": shape, "features": features, "dtype": dtype}
            yield from _timed(title, what, function, narrow[0], operands, total, flops, of)
    params = 0.2 * offsets[..., :3, 0]
    what, function = "gaussian_deformable_conv", rfjax.gaussian_deformable_conv
    total, operands = bytes + params.nbytes, (x, kernel, params)
    yield from _timed(title, what, function, cotangent, operands, total, flops)


def sampling(shape: tuple[int, ...], features: int) -> Iterator[Row]:
    """Taps at the same positions everywhere, beside a dilated convolution, and bilinear reads."""
    cotangent, x, kernel, offsets = deform.operands(shape, features)
    flops, title = 2.0 * cotangent.size * 9 * shape[-1], deform.case(shape, features)
    bytes = x.nbytes + cotangent.nbytes + kernel.nbytes
    dilated = partial(deform.convolution, dilation=2)
    for what, function, operands in (
        ("sampled_conv", rfjax.sampled_conv, (x, kernel, offsets[0, 0, 0])),
        ("dilated convolution", dilated, (x, kernel)),
    ):
        yield from _timed(title, what, function, cotangent, operands, bytes, flops)
    places = offsets[..., 0, :] + 4.0
    total = 2 * x.nbytes + places.nbytes
    yield from _timed(title, "bilinear_sample", rfjax.bilinear_sample, x, (x, places), total, 0.0)


def local_filtering(shape: tuple[int, ...]) -> Iterator[Row]:
    """A Gaussian of its own at every pixel, in its exact form."""
    cotangent, x = _maps(shape)
    params = np.zeros((*shape[:3], 1), np.float32)
    function = partial(rfjax.local_gaussian_blur, max_half_size=2)
    bytes, flops = 2.0 * x.nbytes + params.nbytes, 2.0 * 25 * x.size
    yield from _timed(size(shape), "local", function, cotangent, (x, params), bytes, flops)


def memory(shape: tuple[int, ...], sigma: float = 4.0) -> Iterator[Row]:
    """Temporary arrays of every form of a blur: as compiled, beside what the model says."""
    x, params = jax.ShapeDtypeStruct(shape, jnp.float32), jnp.log(jnp.array([sigma]))
    for algorithm in BLURS:
        function = partial(rfjax.gaussian_blur, algorithm=algorithm)
        compiled = jax.jit(function).lower(x, params).compile()
        taken = compiled.memory_analysis().temp_size_in_bytes / GIB
        known = algorithm in model.FORMS
        said = model.memory(algorithm, shape, sigma) / GIB if known else None
        ratio = taken / said if said else None
        yield Row(
            SUITE, size(shape), f"memory, {algorithm}", taken, "the model", said, ratio, unit="GiB"
        )


class _Program:
    """A compiled function, and what XLA tells of it."""

    def __init__(self, function: Callable, arguments: tuple):
        self.compiled = jax.jit(function).lower(*arguments).compile()

    def on(self, *arguments: Any) -> Callable[[], Any]:
        """The function on arguments that lie on the device, run to its end."""
        placed = jax.device_put(arguments)
        return lambda: jax.block_until_ready(self.compiled(*placed))

    def account(self, title: str, what: str) -> Iterator[Row]:
        """Bytes and operations as XLA counts them, where it does."""
        told = self.compiled.cost_analysis() or {}
        for key, unit, scale in (("bytes accessed", "MB", 1e6), ("flops", "MFLOP", 1e6)):
            if key in told:
                yield Row(SUITE, title, f"{what}, {key} by XLA", told[key] / scale, unit=unit)


def _timed(
    title: str,
    what: str,
    function: Callable,
    cotangent: Any,
    operands: tuple,
    bytes: float,
    flops: float,
    of: dict[str, Any] | None = None,
) -> Iterator[Row]:
    """Forward, and forward with backward, against the limit of so many bytes and operations.

    Of a form whose time the model predicts, and the table of choices is made of, `of` tells which.
    """
    arguments = {"forward": operands, "forward + backward": (cotangent, *operands)}
    functions = {"forward": function, "forward + backward": peers.with_gradients(function)}
    programs = {name: _Program(functions[name], arguments[name]) for name in functions}
    steps = {name: program.on(*arguments[name]) for name, program in programs.items()}
    for name, found in interleave(steps, rounds=ROUNDS).items():
        times_over = 3.0 if name != "forward" else 1.0
        dtype = of["dtype"] if of else "float32"
        row = _against_limit(
            title, f"{name}, {what}", found.median, times_over * bytes, times_over * flops,
            dtype=dtype,
        )  # fmt: skip
        yield from _told(row, of | {"gradient": times_over > 1}) if of else (row,)
        yield from programs[name].account(title, f"{name}, {what}")


def _told(row: Row, of: dict[str, Any]) -> Iterator[Row]:
    """The time of a deformable convolution and, in float32, the same beside its prediction."""
    yield dataclasses.replace(row, of=of)
    card = _card()
    if card and of["dtype"] == "float32":
        sizes = of["form"], of["shape"], of["features"]
        said = model.predict_reads(*sizes, card, gradient=of["gradient"])
        yield Row(
            SUITE, row.case, row.what, row.ours, "the model's prediction", said, row.ours / said
        )


def _against_limit(
    title: str,
    what: str,
    ms: float,
    bytes: float,
    flops: float,
    aim: float | None = None,
    dtype: str = "float32",
) -> Row:
    """A time beside the least that the card allows; by itself where the card is not known."""
    card = _card()
    if card is None:
        return Row(SUITE, title, what, ms)
    limit = 1e3 * card.seconds(bytes=bytes, flops=flops, dtype=dtype)
    return Row(SUITE, title, what, ms, f"limit of the {card.name}", limit, ms / limit, aim=aim)


def _card() -> cards.Card | None:
    return cards.find(jax.devices()[0].device_kind)


def _maps(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A cotangent and a map."""
    rng = np.random.default_rng(0)
    return tuple(rng.standard_normal(size=shape, dtype=np.float32) for _ in range(2))
