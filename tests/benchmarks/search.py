"""Many small networks trained at once, against a Python loop over compiled steps.

Each candidate is a network of three convolutions with a composed one among them, which starts at
a sigma of its own. What mapping is quickest depends on the platform.
"""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

import rfjax
from rfjax.nn.convolution import convolve
from tests.benchmarks import peers
from tests.benchmarks.report import Row, compared
from tests.benchmarks.timing import interleave

SUITE = "search"
CANDIDATES = 16
CPU_AIM, ACCELERATOR_AIM = 1.05, 0.25


def run(*, rounds: int, candidates: int = CANDIDATES) -> Iterator[Row]:
    """One step of all candidates, by `lax.map` and by `vmap`, against one after the other."""
    params, x, label = _operands(candidates)
    step = jax.jit(_step)
    alone = [jax.tree.map(lambda leaf, k=k: leaf[k], params) for k in range(candidates)]

    def loop():
        return jax.block_until_ready([step(one, x, label) for one in alone])

    mapped = {
        "lax.map": peers.ours(lambda p, x, t: jax.lax.map(lambda q: _step(q, x, t), p),
                              params, x, label),
        "vmap": peers.ours(jax.vmap(_step, (0, None, None)), params, x, label),
    }  # fmt: skip
    wanted = loop()
    times = interleave({"loop": loop, **mapped}, rounds=rounds)
    on_cpu = jax.default_backend() == "cpu"
    for name, function in mapped.items():
        got = function()
        error = max(
            peers.largest_error(jax.tree.leaves(got)[0][k], jax.tree.leaves(wanted[k])[0])
            for k in range(candidates)
        )
        chosen = (name == "lax.map") == on_cpu
        aim = (CPU_AIM if on_cpu else ACCELERATOR_AIM) if chosen else None
        yield compared(
            SUITE,
            f"{candidates} networks, 64x64x3",
            f"one step, {name}",
            times[name],
            "a loop of steps",
            times["loop"],
            aim=aim,
            error=error,
        )


def _operands(candidates: int) -> tuple[dict, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    widths = (3, 16, 16, 4)
    params = {
        f"kernel{k}": rng.normal(size=(candidates, 3, 3, a, b)) / np.sqrt(9 * a)
        for k, (a, b) in enumerate(itertools.pairwise(widths))
    }
    params["covariance"] = np.log(np.geomspace(0.5, 4.0, candidates))[:, None]
    x = rng.normal(size=(4, 64, 64, 3))
    label = rng.normal(size=(4, 64, 64, 4))
    as_float = lambda array: np.asarray(array, np.float32)
    return jax.tree.map(as_float, params), as_float(x), as_float(label)


def _step(params: dict, x: jax.Array, label: jax.Array) -> dict:
    """The parameters after one step of gradient descent."""

    def loss(params):
        y = jax.nn.relu(convolve(x, params["kernel0"], 1, 1))
        y = rfjax.blur_conv(y, params["kernel1"], params["covariance"])
        y = convolve(jax.nn.relu(y), params["kernel2"], 1, 1)
        return jnp.mean((y - label) ** 2)

    return jax.tree.map(lambda p, g: p - 0.1 * g, params, jax.grad(loss)(params))
