"""Batches by step, from a function of the step or from an iterable."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np


class Batches:
    """Batches by step, [S, ...] at a time.

    Args:
        source: a function of the step, or an iterable.
        steps: how many there have to be, for messages.
        rows: of every leaf of a batch, one for each candidate; None where candidates share them.
    """

    def __init__(
        self,
        source: Callable[[int], Any] | Iterable[Any],
        *,
        steps: int | None = None,
        rows: int | None = None,
    ):
        self._function = source if callable(source) else None
        self._iterator: Any = None if callable(source) else iter(source)
        self._steps, self._rows = steps, rows

    def take(self, first: int, count: int) -> Any:
        """The batches of the steps from `first` on, stacked."""
        if self._function is not None:
            batches = [self._function(first + i) for i in range(count)]
        else:
            batches = [self._next(first + i) for i in range(count)]
        stacked = jax.tree.map(_stack, *batches)
        leaves = jax.tree.leaves(stacked)
        if not leaves:
            raise ValueError(f"the batch of step {first} holds no arrays; got {batches[0]!r}")
        wrong = [leaf.shape[1:] for leaf in leaves if leaf.shape[1:2] != (self._rows,)]
        if self._rows is not None and wrong:
            raise ValueError(
                f"with shared_batches=False each leaf of a batch has {self._rows} rows, one for "
                f"each candidate; got the shape {wrong[0]}"
            )
        return stacked

    def _next(self, step: int) -> Any:
        try:
            return next(self._iterator)
        except StopIteration:
            whole = "" if self._steps is None else f" of {self._steps}"
            raise ValueError(f"batches ended at step {step}{whole}") from None

    def state(self) -> Any:
        """The position of an iterator that can tell it."""
        return self._iterator.get_state() if hasattr(self._iterator, "get_state") else None

    def go_to(self, step: int, state: Any) -> None:
        """Leaves out what was used before."""
        if state is not None:
            self._iterator.set_state(state)
        elif self._iterator is not None:
            for number in range(step):
                self._next(number)


def _stack(*leaves: Any) -> Any:
    """Always a copy: whoever makes batches may fill the same arrays again."""
    return jnp.stack(leaves) if isinstance(leaves[0], jax.Array) else np.stack(leaves)


def tiled(source: Callable[[int], Any] | Iterable[Any], times: int) -> Any:
    """Batches whose rows are repeated, [K, ...] -> [times K, ...], in the form of `source`."""

    def repeat(batch: Any) -> Any:
        return jax.tree.map(lambda leaf: np.concatenate([np.asarray(leaf)] * times), batch)

    if callable(source):
        return lambda step: repeat(source(step))
    return _Mapped(iter(source), repeat)


class _Mapped:
    """An iterator through a function; its position is that of the iterator, if that has one."""

    def __init__(self, iterator: Iterator, function: Callable):
        self._iterator, self._function = iterator, function

    def __iter__(self) -> "_Mapped":
        return self

    def __next__(self) -> Any:
        return self._function(next(self._iterator))

    def __getattr__(self, name: str) -> Any:
        if name not in ("get_state", "set_state"):
            raise AttributeError(name)
        return getattr(self._iterator, name)
