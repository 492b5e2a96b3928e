"""Deformable convolution, with offsets of its own at every pixel, against PyTorch.

"grid_sample" is the deformable convolution that a user of PyTorch writes: one bilinear read a tap,
stacked as channels, and one 1x1 convolution. torchvision's operator takes part where it is
installed. The plain 3x3 convolution and im2col (all samples stored, then one product) are our own.
"""

import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

import rfjax
from benchmarks import peers
from benchmarks.report import Row, compared
from benchmarks.timing import interleave

SUITE = "deform"
# (map [N, H, W, C], output channels): aims forward, forward + backward of grid_sample
CASES = {
    ((2, 64, 64, 64), 64): (0.9, 0.55),
    ((8, 32, 32, 512), 512): (0.6, 0.4),
    ((1, 100, 100, 256), 256): (0.6, 0.4),
}
CONVOLUTION_AIM = 1.7  # forward, of a plain convolution at 256 channels
TOLERANCE = 1e-4


def run(*, rounds: int, cases: dict = CASES) -> Iterator[Row]:
    """Free-form and Gaussian deformation: time, then memory."""
    for (shape, features), aims in cases.items():
        yield from _against_peers(shape, features, aims, rounds)
        yield from _gaussian(shape, features, rounds)
    yield from _memory(*list(cases)[-1])


def operands(shape: tuple[int, ...], features: int) -> tuple[np.ndarray, ...]:
    """(cotangent, map, kernel, offsets [N, H, W, 9, 2] of a few pixels)."""
    rng = np.random.default_rng(0)
    n, height, width, channels = shape
    cotangent = rng.normal(size=(n, height, width, features))
    kernel = rng.normal(size=(3, 3, channels, features)) / np.sqrt(9 * channels)
    # Away from whole pixels, on either side of which the slope of the interpolation differs.
    whole = np.floor(rng.normal(size=(n, height, width, 9, 2)) * 2.0)
    offsets = whole + rng.uniform(0.05, 0.95, size=whole.shape)
    found = cotangent, rng.normal(size=shape), kernel, offsets
    return tuple(array.astype(np.float32) for array in found)


def case(shape: tuple[int, ...], features: int) -> str:
    return f"{'x'.join(map(str, shape))} to {features}"


def convolution(x: jax.Array, kernel: jax.Array, dilation: int = 1) -> jax.Array:
    """The 3x3 convolution of XLA."""
    return jax.lax.conv_general_dilated(
        x,
        kernel,
        (1, 1),
        [(dilation, dilation)] * 2,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )


def im2col(x: jax.Array, kernel: jax.Array, offsets: jax.Array) -> jax.Array:
    """All samples stored, and one product with the kernel."""
    n, height, width, channels = x.shape
    taps = jnp.stack(jnp.meshgrid(*[jnp.arange(-1.0, 2.0)] * 2, indexing="ij"), -1).reshape(9, 2)
    centres = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij"), -1)
    places = centres[None, :, :, None].astype(x.dtype) + taps.reshape(1, 1, 1, 9, 2) + offsets
    samples = rfjax.bilinear_sample(x, places)
    columns = samples.reshape(n * height * width, 9 * channels)
    return (columns @ kernel.reshape(9 * channels, -1)).reshape(n, height, width, -1)


# Peers


def _grid_sample(x, kernel, offsets):
    """x [N, C, H, W], kernel [F, 9 C] by taps, offsets [N, H, W, 9, 2] in pixels (y, x)."""
    import torch
    from torch.nn.functional import grid_sample

    n, channels, height, width = x.shape
    line = torch.arange(-1.0, 2.0)
    taps = torch.stack(torch.meshgrid(line, line, indexing="ij"), -1).reshape(9, 2)
    rows, columns = torch.arange(float(height)), torch.arange(float(width))
    centres = torch.stack(torch.meshgrid(rows, columns, indexing="ij"), -1)
    places = centres[:, :, None] + taps + offsets
    scale = torch.tensor([2.0 / (height - 1), 2.0 / (width - 1)])
    grid = (places * scale - 1.0).flip(-1).reshape(n, height, width * 9, 2)
    samples = grid_sample(x, grid, align_corners=True, padding_mode="zeros")
    samples = samples.reshape(n, channels, height, width, 9).permute(0, 4, 1, 2, 3)
    stacked = samples.reshape(n, 9 * channels, height, width)
    return torch.nn.functional.conv2d(stacked, kernel[:, :, None, None])


def _torchvision(x, kernel, offsets):
    """kernel [F, C, 3, 3], offsets [N, 18, H, W]."""
    from torchvision.ops import deform_conv2d

    return deform_conv2d(x, offsets, kernel, padding=1)


def _torch_peers(cotangent, x, kernel, offsets) -> dict[str, tuple[Callable, Callable]]:
    """(forward, forward + backward) by name, each returning the result in our layout first."""
    if peers.find("torch") is None:
        return {}
    import torch

    def planes(array):
        return torch.from_numpy(array).permute(0, 3, 1, 2).contiguous()

    features = kernel.shape[-1]
    flat = torch.from_numpy(kernel.reshape(-1, features).T.copy())
    leaves = {"grid_sample": (_grid_sample, (planes(x), flat, torch.from_numpy(offsets)))}
    if peers.find("torchvision") is not None:
        taps = torch.from_numpy(kernel).permute(3, 2, 0, 1).contiguous()
        shifts = planes(offsets.reshape(*offsets.shape[:3], 18))
        leaves["torchvision"] = _torchvision, (planes(x), taps, shifts)
    found = {}
    for name, (function, tensors) in leaves.items():
        wanting = [tensor.clone().requires_grad_() for tensor in tensors]
        both = peers.torch_with_gradients(function, planes(cotangent), *wanting)

        def forward(function=function, tensors=tensors):
            with torch.no_grad():
                return function(*tensors)

        found[name] = forward, both
    return found


def _against_peers(shape, features, aims, rounds) -> Iterator[Row]:
    cotangent, x, kernel, offsets = operands(shape, features)
    both = peers.with_gradients(rfjax.deformable_conv)
    mine = peers.ours(rfjax.deformable_conv, x, kernel, offsets)
    mine_both = peers.ours(both, cotangent, x, kernel, offsets)
    others = _torch_peers(cotangent, x, kernel, offsets)
    errors = _check(mine_both(), others)
    for what, function, index in (("forward", mine, 0), ("forward + backward", mine_both, 1)):
        candidates = {name: pair[index] for name, pair in others.items()}
        plain = (peers.ours(convolution, x, kernel), peers.ours(
            peers.with_gradients(convolution), cotangent, x, kernel))[index]  # fmt: skip
        candidates["3x3 convolution"] = plain
        times = interleave({"ours": function, **candidates}, rounds=rounds)
        for name in candidates:
            aim = aims[index] if name == "grid_sample" else None
            if name == "3x3 convolution" and index == 0 and features >= 256:
                aim = CONVOLUTION_AIM
            yield compared(
                SUITE,
                case(shape, features),
                what,
                times["ours"],
                name,
                times[name],
                aim=aim,
                error=errors.get(name),
            )


def _check(mine: tuple, others: dict[str, tuple[Callable, Callable]]) -> dict[str, float]:
    """The largest relative difference to each peer, of results and gradients."""
    y, (along_x, along_kernel, along_offsets) = mine
    errors = {}
    for name, (_, both) in others.items():
        value, (peer_x, peer_kernel, peer_offsets) = both()
        if name == "grid_sample":
            peer_kernel = peer_kernel.T.reshape(along_kernel.shape)
        else:
            peer_kernel = peer_kernel.permute(2, 3, 1, 0)
            peer_offsets = peer_offsets.permute(0, 2, 3, 1).reshape(along_offsets.shape)
        pairs = (
            (y, value.detach().permute(0, 2, 3, 1)),
            (along_x, peer_x.permute(0, 2, 3, 1)),
            (along_kernel, peer_kernel),
            (along_offsets, peer_offsets),
        )
        errors[name] = max(peers.largest_error(a, b) for a, b in pairs)
        if errors[name] > TOLERANCE:
            raise AssertionError(f"{name} computes something else: {errors[name]:.1e}")
    return errors


def _gaussian(shape, features, rounds) -> Iterator[Row]:
    """Gaussian deformation by the families, against the free form."""
    cotangent, x, kernel, offsets = operands(shape, features)
    times_of = {
        "free": peers.ours(
            peers.with_gradients(rfjax.deformable_conv), cotangent, x, kernel, offsets
        )
    }
    for family, size in (("spherical", 1), ("diagonal", 2), ("full", 3)):
        params = 0.2 * offsets[..., :size, 0]
        function = peers.with_gradients(rfjax.gaussian_deformable_conv)
        times_of[family] = peers.ours(function, cotangent, x, kernel, params)
    times = interleave(times_of, rounds=rounds)
    for family in list(times_of)[1:]:
        yield compared(
            SUITE,
            case(shape, features),
            f"f + b, Gaussian {family}",
            times[family],
            "ours, free form",
            times["free"],
        )


# Memory


def _memory(shape: tuple[int, ...], features: int) -> Iterator[Row]:
    """The peak of a process that takes one gradient, less that of one which only holds its data."""
    held, mine, columns = (_peak(name, shape, features) for name in ("nothing", "ours", "im2col"))
    mine, columns = mine - held, columns - held
    ratio = mine / columns
    yield Row(
        suite=SUITE,
        case=case(shape, features),
        what="peak memory, f + b",
        ours=mine,
        against="im2col",
        theirs=columns,
        ratio=ratio,
        spread=(ratio, ratio),
        aim=1 / 3,
        unit="MiB",
    )


def _peak(name: str, shape: tuple[int, ...], features: int) -> float:
    """MiB of a process of its own."""
    code = f"from benchmarks import deform; deform.hold({name!r}, {shape}, {features})"
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return float(done.stdout.split()[-1])


def hold(name: str, shape: tuple[int, ...], features: int) -> None:
    """Takes the gradient of `name` and prints this process's peak in MiB."""
    function = {"ours": rfjax.deformable_conv, "im2col": im2col}.get(name)
    arrays = jax.device_put(operands(shape, features))
    # Compiled for a map of another size first, so that the compiler's memory is in all figures.
    small = operands((1, 8, 8, 4), 4)
    for values in (small, arrays) if name != "nothing" else (small,):
        both = peers.with_gradients(function or rfjax.deformable_conv)
        jax.block_until_ready(jax.jit(both)(*values))
    # Of this program alone: what `resource` tells may be that of the parent.
    status = Path("/proc/self/status").read_text()
    print(int(re.search(r"VmHWM:\s+(\d+) kB", status)[1]) / 1024)
