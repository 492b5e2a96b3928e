"""Saving and resuming a search, safe against being killed at any moment."""

import json
import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp

from rfjax.training.checkpoints import CheckpointError


class Storage:
    """The latest checkpoint of the search in `directory`; a context manager.

    A directory appears under its final name only once it is complete, so whatever a kill leaves
    half-written is ignored.
    """

    def __init__(self, directory: str | Path):
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells every step of every save
        self.directory = Path(directory).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=2, cleanup_tmp_directories=True)
        self._manager = ocp.CheckpointManager(
            self.directory, options=options, item_names=("arrays", "meta")
        )

    def __enter__(self) -> "Storage":
        return self

    def __exit__(self, *error: Any) -> None:
        self._manager.close()

    @property
    def step(self) -> int | None:
        """The step of the newest checkpoint, or None."""
        return self._manager.latest_step()

    def save(self, step: int, tree: Any, meta: dict[str, Any]) -> None:
        """Saves a pytree of NumPy arrays and what JSON can hold; returns when it is on disk."""
        self._manager.save(
            step,
            args=ocp.args.Composite(
                arrays=ocp.args.StandardSave(_named(tree)), meta=ocp.args.JsonSave(meta)
            ),
        )
        self._manager.wait_until_finished()

    def meta(self) -> dict[str, Any]:
        """What `save` was given beside the arrays."""
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return dict(self._manager.restore(self.step, args=args)["meta"])

    def restore(self, tree: Any) -> Any:
        """The newest arrays in the form of `tree`."""
        template = _named(tree)
        args = ocp.args.Composite(arrays=ocp.args.StandardRestore(template))
        restored = self._manager.restore(self.step, args=args)["arrays"]
        leaves, structure = jax.tree.flatten(tree)
        filled = [np.asarray(restored.get(_name(i), leaf)) for i, leaf in enumerate(leaves)]
        return jax.tree.unflatten(structure, filled)


def _name(index: int) -> str:
    return f"{index:05d}"


def _named(tree: Any) -> dict[str, np.ndarray]:
    """The leaves under names of their own, whatever kind of pytree they come from.

    Without those of no size, which orbax does not save.
    """
    leaves = enumerate(jax.tree.leaves(tree))
    return {_name(i): np.asarray(leaf) for i, leaf in leaves if np.size(leaf)}


def check(stored: dict[str, Any], wanted: dict[str, Any], directory: Path) -> None:
    """Raises a `CheckpointError` unless the stored search is the one that is wanted."""
    wanted = json.loads(json.dumps(wanted))
    different = [name for name in wanted if stored.get(name) != wanted[name]]
    if different:
        listed = ", ".join(different)
        raise CheckpointError(
            f"the search in {directory} was started with other values of {listed}; take them back "
            "or give another directory"
        )
