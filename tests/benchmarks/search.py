"""Many small networks trained at once, against a Python loop over compiled steps.

Each candidate is a network of three convolutions with a composed one among them, which starts at
a sigma of its own. What mapping is quickest depends on the platform.
"""

import itertools
from collections.abc import Callable, Iterator
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

import rfjax
from tests.benchmarks import peers
from tests.benchmarks.deform import convolution
from tests.benchmarks.report import Row, compared
from tests.benchmarks.timing import interleave

SUITE = "search"
CANDIDATES = 16
CPU_AIM, ACCELERATOR_AIM = 1.05, 0.25


def run(*, rounds: int, candidates: int = CANDIDATES, size: int = 64) -> Iterator[Row]:
    """One step of all candidates, mapped in several ways, against one after the other."""
    params, x, label = _operands(candidates, size)
    step = jax.jit(partial(_step, convolution))
    alone = [jax.tree.map(lambda leaf, k=k: leaf[k], params) for k in range(candidates)]

    def loop():
        return jax.block_until_ready([step(one, x, label) for one in alone])

    mapped = {
        f"{how}, {form}": peers.ours(partial(_mapped, how, convolve), params, x, label)
        for how in ("lax.map", "vmap")
        for form, convolve in (("products", _products), ("convolutions", convolution))
    }
    wanted = loop()
    times = interleave({"loop": loop, **mapped}, rounds=rounds)
    on_cpu = jax.default_backend() == "cpu"
    chosen = "lax.map, products" if on_cpu else "vmap, convolutions"
    for name, function in mapped.items():
        got = function()["kernel1"]
        error = max(peers.largest_error(got[k], wanted[k]["kernel1"]) for k in range(candidates))
        yield compared(
            SUITE,
            f"{candidates} networks, {size}x{size}x3",
            f"a step, {name}",
            times[name],
            "a loop of steps",
            times["loop"],
            aim=(CPU_AIM if on_cpu else ACCELERATOR_AIM) if name == chosen else None,
            error=error,
        )


def _mapped(how: str, convolve: Callable, params: dict, x: jax.Array, label: jax.Array) -> dict:
    if how == "vmap":
        return jax.vmap(partial(_step, convolve), (0, None, None))(params, x, label)
    return jax.lax.map(lambda one: _step(convolve, one, x, label), params)


def _products(x: jax.Array, kernel: jax.Array) -> jax.Array:
    """A convolution as one matrix product: in loops and under vmap a CPU is slow at native ones."""
    _, height, width, channels = x.shape
    padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
    columns = [padded[:, i : i + height, j : j + width] for i in range(3) for j in range(3)]
    return jnp.concatenate(columns, -1) @ kernel.reshape(9 * channels, -1)


def _operands(candidates: int, size: int) -> tuple[dict, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    widths = (3, 16, 16, 4)
    params = {
        f"kernel{k}": rng.normal(size=(candidates, 3, 3, a, b)) / np.sqrt(9 * a)
        for k, (a, b) in enumerate(itertools.pairwise(widths))
    }
    params["covariance"] = np.log(np.geomspace(0.5, 4.0, candidates))[:, None]
    x = rng.normal(size=(4, size, size, 3))
    label = rng.normal(size=(4, size, size, 4))
    as_float = lambda array: np.asarray(array, np.float32)
    return jax.tree.map(as_float, params), as_float(x), as_float(label)


def _step(convolve: Callable, params: dict, x: jax.Array, label: jax.Array) -> dict:
    """The parameters after one step of gradient descent."""

    def loss(params):
        y = jax.nn.relu(convolve(x, params["kernel0"]))
        y = convolve(rfjax.gaussian_blur(y, params["covariance"]), params["kernel1"])
        y = convolve(jax.nn.relu(y), params["kernel2"])
        return jnp.mean((y - label) ** 2)

    return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))
