"""Saving and resuming a search, safe against being killed at any moment."""

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax._faults import CheckpointError
from rfjax._lock import held
from rfjax._runs import differences, refuse
from rfjax._store import Layout, Store

LAYOUT = Layout(items=("arrays",), documents={"meta": "meta/metadata"})


class Storage:
    """The two latest checkpoints of the search in `directory`; a context manager.

    See `rfjax._store` for how they are written and verified.

    Raises:
        InUse: another search works in the directory.
        CheckpointError: there are checkpoints, and none is sound.
    """

    def __init__(self, directory: str | Path):
        self.directory = Path(directory).absolute()
        self._open = ExitStack()

    def __enter__(self) -> "Storage":
        self.directory.mkdir(parents=True, exist_ok=True)
        with ExitStack() as opening:
            opening.enter_context(held(self.directory))
            store = Store(self.directory, LAYOUT, keep=lambda steps: sorted(steps)[-2:])
            self._store = opening.enter_context(store)
            self._open = opening.pop_all()
        return self

    def __exit__(self, *error: Any) -> bool | None:
        return self._open.__exit__(*error)

    @property
    def step(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return max(self._store.steps, default=None)

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves a pytree of NumPy arrays and what JSON can hold; returns when it is on disk."""
        self._store.save(step, {"arrays": _named(tree)}, {"meta": meta})
        self._store.wait()

    def meta(self, step: int) -> dict[str, Any]:
        """What `save` was given beside the arrays."""
        return self._store.document(step, "meta")

    def restore(self, step: int, tree: Any) -> Any:
        """The arrays in the form of `tree`."""
        restored = self._store.arrays(step, "arrays", _named(tree))
        leaves, structure = jax.tree.flatten(tree)
        filled = [np.asarray(restored.get(_name(i), leaf)) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(structure, filled)

    def check(self, stored: dict[str, Any], wanted: dict[str, Any]) -> None:
        """Raises a `CheckpointError` unless the stored search is the one that is wanted."""
        stored = {name: stored.get(name) for name in wanted}
        refuse(
            f"the search in {self.directory}",
            differences(stored, wanted),
            CheckpointError,
            instead="give another directory",
        )


def _name(index: int) -> str:
    return f"{index:05d}"


def _named(tree: Any) -> dict[str, np.ndarray]:
    """The leaves under names of their own, whatever kind of pytree they come from.

    Without those of no size, which orbax does not save.
    """
    leaves = enumerate(jax.tree.leaves(tree))
    return {_name(i): np.asarray(leaf) for i, leaf in leaves if np.size(leaf)}
