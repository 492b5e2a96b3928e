"""Gaussian filtering with a traced sigma against SciPy, OpenCV, PyTorch and kornia.

"Shelf" is the fastest of what a user finds ready-made, "expert" two Toeplitz products in PyTorch,
which is what somebody who knows would write. All compute the same filter, sampled on ceil(2 sigma)
pixels with zeros outside, which is checked before anything is timed.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import rfjax
from benchmarks import peers
from benchmarks.report import Row, compared
from benchmarks.timing import interleave
from rfjax._engine import native

SUITE = "gaussian"
SHAPES = ((1, 128, 128, 64), (8, 64, 64, 32), (2, 100, 100, 512), (1, 512, 512, 3))
SHAPES += ((1, 1024, 2048, 3),)
SIGMAS = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 32.0)
SHELF_AIMS = {0.5: 1.3, 1.0: 0.65, 2.0: 0.8, 4.0: 0.5, 8.0: 0.45, 16.0: 0.35}
FORWARD_AIMS = {0.5: 1.3, 1.0: 1.3, 2.0: 1.0, 4.0: 1.0, 8.0: 1.0, 16.0: 1.0}
OPENCV_CHANNELS = 128  # it does not take many more
TOLERANCE = 1e-5  # of peers; ours are held to less in the tests

# A peer that takes so many times longer than the fastest at first sight takes no part.
HOPELESS = 4.0


def run(
    *, rounds: int, shapes: tuple = SHAPES, sigmas: tuple[float, ...] = SIGMAS
) -> Iterator[Row]:
    """All comparisons of Gaussian filtering."""
    for shape in shapes:
        fitting = [sigma for sigma in sigmas if math.ceil(2 * sigma) <= shape[1]]
        for sigma in fitting:
            yield from _against_peers(shape, sigma, rounds)
        yield from _growth(shape, fitting, rounds)
        yield from _reduced(shape, fitting, rounds)
        yield from _variants(shape, rounds)
        yield from _full(shape, fitting, rounds)
    yield from _vmapped(rounds)


def _case(shape: tuple[int, ...], sigma: float | None = None) -> str:
    name = "x".join(map(str, shape))
    return name if sigma is None else f"{name} sigma {sigma:g}"


def _operands(shape: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A map and a cotangent."""
    rng = np.random.default_rng(0)
    return tuple(rng.normal(size=shape).astype(np.float32) for _ in range(2))


def _log(sigma: float) -> jax.Array:
    return jnp.log(jnp.array([sigma], jnp.float32))


# Peers, functions of (x [N, H, W, C], sigma) that return what, when called, filters


def _reference(x: np.ndarray, sigma: float, radius: int | None = None) -> np.ndarray:
    """The filter in float64 by SciPy."""
    from scipy import ndimage

    y = x.astype(np.float64)
    for axis in (1, 2):
        options = dict(mode="constant", radius=radius or math.ceil(2 * sigma))
        y = ndimage.gaussian_filter1d(y, sigma, axis, **options)
    return y


def _slope(x: np.ndarray, cotangent: np.ndarray, sigma: float) -> float:
    """d (cotangent * blur) / d log sigma, by differences of the reference."""
    step, radius = 1e-4, math.ceil(2 * sigma)
    up, down = (_reference(x, sigma * math.exp(h), radius) for h in (step, -step))
    return float((cotangent * (up - down)).sum() / (2 * step))


def _scipy(x: np.ndarray, sigma: float) -> Callable[[], np.ndarray]:
    from scipy import ndimage

    options = dict(mode="constant", radius=math.ceil(2 * sigma), axes=(1, 2))
    return lambda: ndimage.gaussian_filter(x, sigma, **options)


def _opencv(x: np.ndarray, sigma: float) -> Callable[[], np.ndarray]:
    import cv2

    taps = cv2.getGaussianKernel(2 * math.ceil(2 * sigma) + 1, sigma, cv2.CV_32F)
    options = dict(borderType=cv2.BORDER_CONSTANT)
    return lambda: np.stack([cv2.sepFilter2D(one, -1, taps, taps, **options) for one in x])


def _torch_taps(log_sigma, size):
    import torch

    distance = torch.arange(-size, size + 1, dtype=log_sigma.dtype)
    taps = torch.exp(-0.5 * (distance / log_sigma.exp()) ** 2)
    return taps / taps.sum()


def _depthwise(size, x, log_sigma):
    """Two depthwise convolutions of [N, C, H, W]."""
    from torch.nn.functional import conv2d

    taps, channels = _torch_taps(log_sigma, size), x.shape[1]
    along_x = taps.view(1, 1, 1, -1).expand(channels, 1, 1, -1)
    along_y = taps.view(1, 1, -1, 1).expand(channels, 1, -1, 1)
    y = conv2d(x, along_x, padding=(0, size), groups=channels)
    return conv2d(y, along_y, padding=(size, 0), groups=channels)


def _kornia(size, x, log_sigma):
    from kornia.filters import gaussian_blur2d

    side = 2 * size + 1
    return gaussian_blur2d(x, (side, side), log_sigma.exp().expand(1, 2), border_type="constant")


def _toeplitz_matrix(log_sigma, size, length):
    import torch

    i = torch.arange(length, dtype=log_sigma.dtype)
    distance = i[:, None] - i
    weight = torch.exp(-0.5 * (distance / log_sigma.exp()) ** 2) * (distance.abs() <= size)
    offsets = torch.arange(-size, size + 1, dtype=log_sigma.dtype)
    return weight / torch.exp(-0.5 * (offsets / log_sigma.exp()) ** 2).sum()


def _expert_planes(size, x, log_sigma):
    """K X K of [N, C, H, W]."""
    height, width = x.shape[2:]
    along_y = _toeplitz_matrix(log_sigma, size, height)
    along_x = along_y if height == width else _toeplitz_matrix(log_sigma, size, width)
    return along_y @ (x @ along_x)


def _expert_rows(size, x, log_sigma):
    """K X of [N, H, W C] and of [N H, W, C], for contiguous channels."""
    n, height, width, channels = x.shape
    along_y = _toeplitz_matrix(log_sigma, size, height)
    along_x = along_y if height == width else _toeplitz_matrix(log_sigma, size, width)
    y = along_x @ x.reshape(n * height, width, channels)
    return (along_y @ y.reshape(n, height, width * channels)).reshape(x.shape)


# name: (function, layout of its tensors, a module that it needs besides torch)
TORCH_SHELF = {
    "torch NCHW": (_depthwise, "planes", None),
    "torch channels-last": (_depthwise, "channels_last", None),
    "kornia NCHW": (_kornia, "planes", "kornia"),
    "kornia channels-last": (_kornia, "channels_last", "kornia"),
}
TORCH_EXPERT = {
    "expert NCHW": (_expert_planes, "planes", None),
    "expert NHWC": (_expert_rows, "rows", None),
}


def _tensor(array: np.ndarray, layout: str):
    import torch

    tensor = torch.from_numpy(array)
    if layout == "rows":
        return tensor
    tensor = tensor.permute(0, 3, 1, 2)
    return tensor if layout == "channels_last" else tensor.contiguous()


def _array(tensor, layout: str) -> np.ndarray:
    tensor = tensor.detach()
    return (tensor if layout == "rows" else tensor.permute(0, 2, 3, 1)).numpy()


def _torch_peers(shelf: dict, x, cotangent, sigma: float) -> dict[str, tuple[Callable, Callable]]:
    """(forward, forward + backward) by name; each returns its result in our layout first."""
    if peers.find("torch") is None:
        return {}
    import torch

    found = {}
    for name, (function, layout, needs) in shelf.items():
        if needs and peers.find(needs) is None:
            continue
        function = partial(function, math.ceil(2 * sigma))
        leaves = _tensor(x, layout), torch.tensor([math.log(sigma)])
        wanting = [leaf.clone().requires_grad_() for leaf in leaves]
        both = peers.torch_with_gradients(function, _tensor(cotangent, layout), *wanting)

        def forward(function=function, leaves=leaves, layout=layout):
            with torch.no_grad():
                return _array(function(*leaves), layout)

        def backward(both=both, layout=layout):
            y, (along_x, along_sigma) = both()
            return _array(y, layout), (_array(along_x, layout), along_sigma.numpy())

        found[name] = forward, backward
    return found


def _fastest(candidates: dict[str, Callable]) -> dict[str, Callable]:
    """Those that could be the fastest."""
    times = interleave(candidates, rounds=2, least=0.0)
    limit = HOPELESS * min(time.median for time in times.values())
    return {name: candidates[name] for name, time in times.items() if time.median <= limit}


def _against_peers(shape: tuple[int, ...], sigma: float, rounds: int) -> Iterator[Row]:
    x, cotangent = _operands(shape)
    params, wanted = _log(sigma), _reference(x, sigma)
    shelf = _torch_peers(TORCH_SHELF, x, cotangent, sigma)
    expert = _torch_peers(TORCH_EXPERT, x, cotangent, sigma)
    forward = {"scipy": _scipy(x, sigma)}
    if peers.find("cv2") is not None and shape[-1] <= OPENCV_CHANNELS:
        forward["opencv"] = _opencv(x, sigma)
    forward |= {name: pair[0] for name, pair in shelf.items()}
    backward = {name: pair[1] for name, pair in shelf.items()}
    mine = peers.ours(rfjax.gaussian_blur, x, params)
    mine_both = peers.ours(peers.with_gradients(rfjax.gaussian_blur), cotangent, x, params)
    others = backward | {name: pair[1] for name, pair in expert.items()}
    gradients = _check(mine_both(), wanted, _slope(x, cotangent, sigma), others)
    for name, function in forward.items():
        _agrees(name, function(), wanted)

    measures = (
        ("forward", mine, forward, 0, peers.largest_error(mine(), wanted)),
        ("forward + backward", mine_both, backward, 1, gradients),
    )
    for what, function, ready, index, error in measures:
        candidates = _fastest(ready) if ready else {}
        candidates |= {name: pair[index] for name, pair in expert.items()}
        times = interleave({"ours": function, **candidates}, rounds=rounds)
        for kind, names in (("shelf", ready), ("expert", expert)):
            took_part = [name for name in names if name in times]
            if not took_part:
                continue
            best = min(took_part, key=lambda name: times[name].median)
            aims = SHELF_AIMS if index else FORWARD_AIMS
            aim = aims.get(sigma) if kind == "shelf" else (1.0 if index else None)
            yield compared(
                SUITE,
                _case(shape, sigma),
                what,
                times["ours"],
                best,
                times[best],
                aim=aim,
                error=error,
            )


def _agrees(name: str, got: np.ndarray, wanted: np.ndarray) -> None:
    error = peers.largest_error(got, wanted)
    if error > TOLERANCE:
        raise AssertionError(f"{name} computes something else: relative error {error:.1e}")


def _check(mine: tuple, wanted: np.ndarray, slope: float, others: dict[str, Callable]) -> float:
    """Our largest relative error, of the gradients too; peers must filter alike."""
    y, (along_x, along_sigma) = mine
    error = peers.largest_error(y, wanted)
    for name, function in others.items():
        value, (peer_x, _) = function()
        _agrees(name, value, wanted)
        error = max(error, peers.largest_error(along_x, peer_x))
    # A sum of terms of either sign: held to the size of a random walk.
    walk = math.sqrt(y.size)
    return max(error, abs(float(along_sigma[0]) - slope) / max(abs(slope), walk))


# Against ourselves


def _growth(shape: tuple[int, ...], sigmas: list[float], rounds: int) -> Iterator[Row]:
    """How time grows with sigma."""
    if not {1.0, 16.0} <= set(sigmas):
        return
    x, cotangent = _operands(shape)
    both = peers.with_gradients(rfjax.gaussian_blur)
    for what, function, arguments in (
        ("forward", rfjax.gaussian_blur, (x,)),
        ("forward + backward", both, (cotangent, x)),
    ):
        times = interleave(
            {f"sigma {s:g}": peers.ours(function, *arguments, _log(s)) for s in (1.0, 16.0)},
            rounds=rounds,
        )
        yield compared(
            SUITE,
            _case(shape, 16.0),
            what,
            times["sigma 16"],
            "ours at sigma 1",
            times["sigma 1"],
            # With kernels a short filter is so quick that the long one has no aim by it.
            aim=None if native.is_loaded() else 2.6,
        )


def _reduced(shape: tuple[int, ...], sigmas: list[float], rounds: int) -> Iterator[Row]:
    """A loss that reduces the blur, in which fusion of the reduction would be a trap."""
    x, cotangent = _operands(shape)
    both = peers.with_gradients(rfjax.gaussian_blur)
    gradient = jax.grad(lambda x, p: jnp.mean(rfjax.gaussian_blur(x, p) ** 2), argnums=(0, 1))
    for sigma in sigmas:
        times = interleave(
            {
                "loss": peers.ours(gradient, x, _log(sigma)),
                "blur": peers.ours(both, cotangent, x, _log(sigma)),
            },
            rounds=rounds,
        )
        yield compared(
            SUITE,
            _case(shape, sigma),
            "grad(mean(blur^2))",
            times["loss"],
            "ours, blur alone",
            times["blur"],
            aim=1.2,
        )


def _variants(shape: tuple[int, ...], rounds: int) -> Iterator[Row]:
    """What options cost, at sigma 2."""
    x, cotangent = _operands(shape)
    per_channel = jnp.full((shape[-1], 1), _log(2.0)[0])
    half = jnp.asarray(x, jnp.bfloat16), jnp.asarray(cotangent, jnp.bfloat16)
    variants = {
        "float32": (rfjax.gaussian_blur, x, cotangent, _log(2.0)),
        "bfloat16": (rfjax.gaussian_blur, *half, _log(2.0)),
        "per channel": (rfjax.gaussian_blur, x, cotangent, per_channel),
        "faded": (partial(rfjax.gaussian_blur, support="faded"), x, cotangent, _log(2.0)),
        "renormalized": (
            partial(rfjax.gaussian_blur, padding="renormalized"), x, cotangent, _log(2.0),
        ),
    }  # fmt: skip
    times = interleave(
        {
            name: peers.ours(peers.with_gradients(blur), g, x, p)
            for name, (blur, x, g, p) in variants.items()
        },
        rounds=rounds,
    )
    for name in list(variants)[1:]:
        yield compared(
            SUITE,
            _case(shape, 2.0),
            f"f + b, {name}",
            times[name],
            "ours, float32 shared",
            times["float32"],
        )


def _full(shape: tuple[int, ...], sigmas: list[float], rounds: int) -> Iterator[Row]:
    """A full covariance against the diagonal one of the same extent."""
    x, cotangent = _operands(shape)
    both = peers.with_gradients(rfjax.gaussian_blur)
    for sigma in sigmas:
        full = rfjax.from_ellipse(1.2 * sigma, 0.7 * sigma, 0.6)
        extent = rfjax.standard_deviations(full)
        diagonal = jnp.log(extent)
        wanted = _full_reference(x[:1, ..., :1], np.asarray(full, np.float64))
        got = jax.jit(rfjax.gaussian_blur)(x[:1, ..., :1], full)
        error = peers.largest_error(got, wanted)
        for what, function, arguments in (
            ("full, forward", rfjax.gaussian_blur, (x,)),
            ("full, f + b", both, (cotangent, x)),
        ):
            times = interleave(
                {
                    "full": peers.ours(function, *arguments, full),
                    "diagonal": peers.ours(function, *arguments, diagonal),
                },
                rounds=rounds,
            )
            yield compared(
                SUITE,
                _case(shape, sigma),
                what,
                times["full"],
                "ours, diagonal",
                times["diagonal"],
                aim=3.0,
                error=error,
            )


def _full_reference(x: np.ndarray, params: np.ndarray) -> np.ndarray:
    """One channel filtered by a full covariance in float64, by SciPy."""
    from scipy import signal

    u_yy, u_yx, u_xx = math.exp(params[0]), params[1], math.exp(params[2])
    half = math.ceil(2 * u_yy), math.ceil(2 * math.hypot(u_yx, u_xx))
    y, across = np.mgrid[-half[0] : half[0] + 1, -half[1] : half[1] + 1]
    z_y = y / u_yy
    z_x = (across - u_yx * z_y) / u_xx
    taps = np.exp(-0.5 * (z_y**2 + z_x**2))
    taps /= taps.sum()
    plane = signal.fftconvolve(x[0, ..., 0].astype(np.float64), taps, mode="same")
    if any(side < 2 * h + 1 for side, h in zip(x.shape[1:3], half, strict=True)):
        wide = signal.fftconvolve(x[0, ..., 0].astype(np.float64), taps, mode="full")
        plane = wide[half[0] : -half[0] or None, half[1] : -half[1] or None]
    return plane[None, ..., None]


def _vmapped(rounds: int) -> Iterator[Row]:
    """Sixteen covariances mapped over, against sixteen calls."""
    x, cotangent = _operands((1, 64, 64, 16))
    both = peers.with_gradients(rfjax.gaussian_blur)
    for what, function, arguments in (
        ("forward", rfjax.gaussian_blur, (x,)),
        ("forward + backward", both, (cotangent, x)),
    ):
        for low, high in ((0.5, 8.0), (1.0, 1.9), (6.0, 8.0)):
            params = jnp.log(jnp.geomspace(low, high, 16))[:, None]
            one = jax.jit(function)
            operands = jax.device_put(arguments)
            axes = (None,) * len(arguments) + (0,)

            def sixteen(one=one, operands=operands, params=tuple(params)):
                return jax.block_until_ready([one(*operands, p) for p in params])

            times = interleave(
                {
                    "vmap": peers.ours(jax.vmap(function, axes), *arguments, params),
                    "calls": sixteen,
                },
                rounds=rounds,
            )
            yield compared(
                SUITE,
                f"16 sigmas {low:g}-{high:g}",
                f"vmap, {what}",
                times["vmap"],
                "sixteen calls",
                times["calls"],
                aim=1.1,
            )
