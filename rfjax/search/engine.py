"""The compiled program: many steps in one dispatch, mapped over candidates, over devices.

    loop  one candidate after the other, each a dispatch of the same compiled program
    map   `lax.map` within one dispatch
    vmap  all at once

A CPU takes the loop: a native convolution is many times slower inside any loop that is compiled
(and vmapped over kernels it becomes a grouped convolution), while a dispatch costs little.
Accelerators take `vmap`. Steps within a dispatch are a `lax.scan`, which for the loop is unrolled.
"""

import dataclasses
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from rfjax._checks import choose, integer
from rfjax.search.population import Population
from rfjax.search.problem import Problem, constrain

MAPPINGS = ("auto", "loop", "map", "vmap")
AXIS = "candidates"


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Member:
    """All that a candidate carries from step to step.

    Attributes:
        params, state, opt_state: of the model and the optimizer.
        diverged: int32, the step whose update was not finite and was not made; -1 while it lives.
    """

    params: Any
    state: Any
    opt_state: Any
    diverged: Any


@dataclasses.dataclass(frozen=True)
class Layout:
    """How candidates are laid out for a dispatch.

    Attributes:
        mapping: loop | map | vmap.
        lanes: candidates of one dispatch on one device.
        devices: over which they are sharded.
    """

    mapping: str
    lanes: int
    devices: tuple

    @property
    def rows(self) -> int:
        """Candidates of one dispatch."""
        return self.lanes * len(self.devices)

    def chunks(self, count: int) -> list[np.ndarray]:
        """Indices into `count` candidates for each dispatch; the last is filled up by repeats."""
        filled = np.minimum(np.arange(math.ceil(count / self.rows) * self.rows), count - 1)
        return list(filled.reshape(-1, self.rows))

    def deal(self, tree: Any) -> Any:
        """Leaves [rows, ...] with the axes that a program wants: [devices, lanes, ...]."""
        _check_leading(tree, self.rows)
        if len(self.devices) == 1:
            return tree
        return jax.tree.map(
            lambda leaf: leaf.reshape(len(self.devices), self.lanes, *leaf.shape[1:]), tree
        )

    def gather(self, tree: Any) -> Any:
        """The inverse of `deal`, as NumPy arrays."""
        tree = jax.device_get(tree)
        if len(self.devices) == 1:
            return tree
        return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[2:]), tree)


def layout(
    count: int, *, mapping: str = "auto", chunk: int | None = None, devices: Any = None
) -> Layout:
    """The layout of `count` candidates.

    Args:
        count: number of candidates.
        mapping: auto | loop | map | vmap; auto is loop on a CPU and vmap elsewhere.
        chunk: the largest number of candidates of one dispatch on one device, to save memory;
            None for all.
        devices: a sequence of devices; None for the first one.

    Raises:
        ValueError: there is no such mapping, or `chunk` is less than 1.

    Example:
        >>> layout(16, mapping="vmap", chunk=6).chunks(16)[-1]
        array([12, 13, 14, 15, 15, 15])
    """
    choose("mapping", mapping, MAPPINGS)
    chunk = integer("chunk", chunk, optional=True)
    count = integer("count", count)
    devices = tuple(jax.local_devices()[:1] if devices is None else devices)
    if mapping == "auto":
        mapping = "loop" if devices[0].platform == "cpu" else "vmap"
    devices = devices[:count]
    share = math.ceil(count / len(devices))
    lanes = 1 if mapping == "loop" else min(share, chunk or share)
    return Layout(mapping, lanes, devices)


def over_candidates(function: Callable, how: Layout, axes: tuple, donate: tuple = ()) -> Callable:
    """`function` of one candidate, compiled for all of a dispatch.

    Args:
        function: of positional pytrees.
        how: mapping and devices.
        axes: for each argument, whether it is per candidate (0) or shared (None).
        donate: arguments whose memory may be used for results.
    """
    mapped = {"loop": _single, "map": _one_by_one, "vmap": _together}[how.mapping](function, axes)
    if len(how.devices) == 1:
        return jax.jit(mapped, donate_argnums=donate)
    return jax.pmap(
        mapped, axis_name=AXIS, in_axes=axes, donate_argnums=donate, devices=how.devices
    )


def _single(function: Callable, axes: tuple) -> Callable:
    """One candidate with an axis of one, and no loop around it."""

    def run(*arguments):
        own = [
            argument if axis is None else jax.tree.map(lambda leaf: leaf[0], argument)
            for argument, axis in zip(arguments, axes, strict=True)
        ]
        return jax.tree.map(lambda leaf: leaf[None], function(*own))

    return run


def _one_by_one(function: Callable, axes: tuple) -> Callable:
    def run(*arguments):
        own = [a for a, axis in zip(arguments, axes, strict=True) if axis == 0]

        def body(own):
            rest = iter(own)
            pairs = zip(arguments, axes, strict=True)
            return function(*[a if axis is None else next(rest) for a, axis in pairs])

        return jax.lax.map(body, own)

    return run


def _together(function: Callable, axes: tuple) -> Callable:
    return jax.vmap(function, in_axes=axes)


# -- what one candidate does -----------------------------------------------------------------------


def candidate_key(key: jax.Array, candidate: Population, purpose: int) -> jax.Array:
    """The key of a candidate, which depends on its seed but not on its place or neighbours."""
    return jax.random.fold_in(jax.random.fold_in(key, candidate.seed), purpose)


def start(problem: Problem, optimizer: Callable, key: jax.Array, candidate: Population) -> Member:
    """A candidate before its first step."""
    params, state = problem.initialize(candidate_key(key, candidate, 0), candidate)
    params, state = jax.tree.map(jnp.asarray, (params, state))
    opt_state = optimizer(candidate).init(params)
    return Member(params, state, opt_state, jnp.full((), -1, jnp.int32))


def train(
    problem: Problem,
    optimizer: Callable,
    unroll: bool,
    key: jax.Array,
    first: jax.Array,
    candidate: Population,
    member: Member,
    batches: Any,
) -> tuple[Member, dict[str, jax.Array]]:
    """A candidate after the steps of `batches` [S, ...], and its records [S, ...]."""
    count = jax.tree.leaves(batches)[0].shape[0]
    _check_leading(batches, count)
    numbers = first + jnp.arange(count, dtype=jnp.int32)
    step = partial(_step, problem, optimizer, candidate_key(key, candidate, 1), candidate)
    if not unroll:
        return jax.lax.scan(step, member, (numbers, batches))
    records = []
    for place in range(count):
        member, record = step(member, jax.tree.map(lambda leaf: leaf[place], (numbers, batches)))
        records.append(record)
    return member, jax.tree.map(lambda *leaves: jnp.stack(leaves), *records)


def _step(
    problem: Problem,
    optimizer: Callable,
    key: jax.Array,
    candidate: Population,
    member: Member,
    numbered: tuple[jax.Array, Any],
) -> tuple[Member, dict[str, Any]]:
    """One update; a candidate whose loss or parameters would not be finite stays as it is."""
    number, batch = numbered

    def loss(params):
        return problem.evaluate(params, member.state, batch, jax.random.fold_in(key, number))

    (value, state), gradients = jax.value_and_grad(loss, has_aux=True)(member.params)
    gradients = constrain(gradients, candidate, problem, gradients=True)
    rule = optimizer(candidate)
    with jax.numpy_dtype_promotion("standard"):  # optax counts on it
        updates, opt_state = rule.update(gradients, member.opt_state, member.params)
    updates = constrain(updates, candidate, problem, gradients=False)
    params = optax.apply_updates(member.params, updates)
    alive = member.diverged < 0
    fine = _finite((value, params, state))
    diverged = jnp.where(alive & ~fine, number, member.diverged)
    new = Member(params, state, opt_state, diverged)
    old = dataclasses.replace(member, diverged=diverged)
    member = jax.tree.map(lambda a, b: jnp.where(alive & fine, a, b), new, old)
    recorded = jnp.where(alive, value.astype(jnp.float32), jnp.nan)
    return member, {"loss": recorded, "covariances": problem.entries(member.params)}


def _finite(tree: Any) -> jax.Array:
    """Whether all floating-point numbers of a tree are finite."""
    leaves = [jnp.asarray(leaf) for leaf in jax.tree.leaves(tree)]
    floats = [leaf for leaf in leaves if jnp.issubdtype(leaf.dtype, jnp.inexact)]
    return jnp.all(jnp.stack([jnp.all(jnp.isfinite(leaf)) for leaf in floats]))


def score(problem: Problem, member: Member, batch: Any) -> Any:
    """The score of a candidate on one batch."""
    return problem.measure(member.params, member.state, batch)


def _check_leading(tree: Any, count: int) -> None:
    """Raises where a leaf has not `count` rows, which no caller hands over."""
    assert all(leaf.shape[:1] == (count,) for leaf in jax.tree.leaves(tree))
