"""A switch between static sizes that stays a switch under `vmap`."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.custom_batching import custom_vmap

from rfjax._engine.devices import by_device


def size_switch(branches: Sequence[Callable]) -> Callable:
    """The function (index, *operands) -> branches[index](*operands).

    Every branch also serves all smaller indices. `lax.switch` with a batched index runs every
    branch and selects. Here a CPU takes one example after the other, and elsewhere the branch of
    the batch's largest index runs for all. There is no derivative under `vmap`: the operations that
    are made of this have theirs written out.

    Args:
      branches: functions of the operands with equal results; none may close over a traced value.
        The index is an int32 scalar, traced; the operands are floating-point arrays, or trees of
        them.
    """
    if len(branches) == 1:
        return lambda index, *operands: branches[0](*operands)

    @custom_vmap
    def run(index, *operands):
        # A known index would leave one branch, which XLA then fuses with what comes before and
        # after: its passes and the pads between them become scalar code, up to twice as slow.
        return jax.lax.switch(jax.lax.optimization_barrier(index), branches, *operands)

    @run.def_vmap
    def rule(axis_size: int, in_batched: list, index: jax.Array, *operands: Any) -> Any:
        # The index is one number for all in `mapped`: only the operands have a batch.
        axes = jax.tree.map(lambda batched: 0 if batched else None, tuple(in_batched[1:]))
        mapped = [jax.vmap(branch, in_axes=axes) for branch in branches]

        def smallest(index, *operands):
            return mapped[0](*operands)

        def by_largest(index, *operands):
            # A branch serves all smaller indices, so that the largest one serves the batch.
            index = jnp.max(index, 0) if in_batched[0] else index
            return size_switch(mapped)(index, *operands)

        def one_by_one(index, *operands):
            flat, tree = jax.tree.flatten((index, *operands))
            flags = jax.tree.leaves(in_batched)
            # What the batch shares is not scanned over, but read in every turn.
            scanned = [leaf for leaf, batched in zip(flat, flags, strict=True) if batched]

            def body(leaves):
                rest = iter(leaves)
                pairs = zip(flat, flags, strict=True)
                return run(*tree.unflatten(next(rest) if b else leaf for leaf, b in pairs))

            return jax.lax.map(body, scanned)

        # Equal operands for the whole batch: the result is the same for all.
        if not any(jax.tree.leaves(in_batched[1:])):
            out, batched = run(jnp.max(index, 0), *operands), False
        elif in_batched[0]:
            # A CPU gains nothing by working on all at once, and each then has its own branch.
            out = by_device(index, *operands, cpu=one_by_one, default=by_largest, like=smallest)
            batched = True
        else:
            out, batched = by_largest(index, *operands), True
        return out, jax.tree.map(lambda _: batched, out)

    return run
