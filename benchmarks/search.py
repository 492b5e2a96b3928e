"""Many small networks trained at once, against a Python loop over compiled steps.

Each candidate is a network of three convolutions with a composed one among them, which starts at
a sigma of its own. "Search" is `rfjax.search` itself, with all that it records, in the mapping that
it takes by default; the other mappings are measured beside it. The loop is what a user writes: a
compiled step with optax's momentum for one candidate after the other.
"""

import itertools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax

import rfjax
from benchmarks import peers
from benchmarks.deform import convolution
from benchmarks.report import Row, compared
from benchmarks.timing import interleave
from rfjax import search
from rfjax.search import driver, engine

SUITE = "search"
CANDIDATES = 16
STEPS = 4  # of each candidate in one timed call
RATE, HORIZON = 0.01, 10**6  # so many steps that the learning rate does not change
CPU_AIM, ACCELERATOR_AIM = 1.05, 0.25


def run(*, rounds: int, candidates: int = CANDIDATES, size: int = 64) -> Iterator[Row]:
    """Steps of all candidates, mapped in several ways, against one after the other."""
    params, x, label = _operands(candidates, size)
    batch = {"x": x, "label": label}
    loop = _Loop(params, batch)
    default = engine.layout(candidates).mapping
    plans = {default: STEPS if default == "vmap" else 1, "vmap": STEPS, "map": STEPS}
    searches = {how: _Search(params, batch, how, burst) for how, burst in plans.items()}
    loop(), [one() for one in searches.values()]
    errors = {how: _error(one, loop) for how, one in searches.items()}
    case = f"{candidates} networks, {size}x{size}x3"
    aim = CPU_AIM if jax.default_backend() == "cpu" else ACCELERATOR_AIM
    for how, one in searches.items():
        # The mappings that are not for this platform may be many times slower.
        turns = rounds if how == default else max(1, rounds // 5)
        times = interleave({"loop of steps": loop, how: one}, rounds=turns)
        yield compared(
            SUITE,
            case,
            f"{STEPS} steps, search by {how}",
            times[how],
            "a loop of steps",
            times["loop of steps"],
            aim=aim if how == default else None,
            error=errors[how],
        )
    yield from _memory(searches, loop, case)


def _memory(searches: dict, loop: "_Loop", case: str) -> Iterator[Row]:
    """What one dispatch needs besides its arguments and results."""
    theirs = loop.megabytes()
    for how, one in searches.items():
        ours = one.megabytes()
        ratio = ours / theirs
        yield Row(
            SUITE, case, f"memory, search by {how}", ours, "a loop of steps", theirs, ratio,
            (ratio, ratio), unit="MB",
        )  # fmt: skip


def _megabytes(compiled: jax.stages.Wrapped, *arguments) -> float:
    """Of the temporary buffers of a program."""
    return compiled.lower(*arguments).compile().memory_analysis().temp_size_in_bytes / 1e6


class _Loop:
    """A Python loop over the candidates; a call makes STEPS steps of each."""

    def __init__(self, params: dict, batch: dict):
        rule = optax.sgd(RATE, momentum=0.9)
        self.batch = batch
        alone = [jax.tree.map(lambda leaf, k=k: leaf[k], params) for k in range(_count(params))]
        self.states = [(jax.device_put(one), rule.init(jax.device_put(one))) for one in alone]

        @jax.jit
        def step(params, state, batch):
            value, gradient = jax.value_and_grad(_loss)(params, batch)
            updates, state = rule.update(gradient, state)
            return optax.apply_updates(params, updates), state, value

        self.step = step

    def __call__(self) -> None:
        for _ in range(STEPS):
            stepped = [self.step(*state, self.batch) for state in self.states]
            self.states = [(params, state) for params, state, _ in stepped]
            self.losses = [float(value) for _, _, value in stepped]

    def megabytes(self) -> float:
        return _megabytes(self.step, *self.states[0], self.batch)


class _Search:
    """`rfjax.search` between two stations; a call makes STEPS steps of each candidate."""

    def __init__(self, params: dict, batch: dict, mapping: str, burst: int):
        count = _count(params)
        starts = search.population(seed=np.arange(count), learning_rate=RATE, extra=params)
        self.search = driver.Search(
            key=jax.random.key(0),
            problem=search.Problem(lambda key, candidate: dict(candidate.extra), _loss),
            population=starts,
            steps=STEPS * 1000,
            optimizer=search.sgd(steps=HORIZON),
            validation=None,
            eval_every=0,
            shared=True,
            how=engine.layout(count, mapping=mapping),
            burst=burst,
            halving=None,
            every=0,
            progress=None,
            stop=lambda step: None,
        )
        self.batches = driver.Batches(lambda step: batch)
        self.chunks = self.search.place(np.arange(count))
        self.step = 0

    def __call__(self) -> None:
        self.step = self.step % (STEPS * 900)
        for _ in range(STEPS // self.search.burst):
            self.step = self.search.advance(self.batches, self.chunks, self.step)
        self.search.flush()

    def losses(self) -> np.ndarray:
        return self.search.records.arrays["losses"][:, self.step - 1]

    def megabytes(self) -> float:
        chunk, stacked = self.chunks[0], self.batches.take(0, self.search.burst)
        arguments = (self.search.key, np.int32(0), chunk.candidates, chunk.members, stacked)
        return _megabytes(self.search.programs.train, *arguments)


def _count(params: dict) -> int:
    return len(params["covariance"])


def _error(one: _Search, loop: _Loop) -> float:
    """Of the losses after the first call of both."""
    return peers.largest_error(one.losses(), loop.losses)


def _loss(params: dict, batch: dict) -> jax.Array:
    y = jax.nn.relu(convolution(batch["x"], params["kernel0"]))
    y = convolution(rfjax.gaussian_blur(y, params["covariance"]), params["kernel1"])
    y = convolution(jax.nn.relu(y), params["kernel2"])
    return jnp.mean((y - batch["label"]) ** 2)


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
