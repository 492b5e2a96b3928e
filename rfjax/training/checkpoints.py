"""Saving and resuming a run, safe against being killed at any moment.

A checkpoint holds the variables, the optimizer's state, the position in the training data, the
config and what is needed to use the network without its data set. Where training keeps a running
mean of the variables, "variables" are this mean, which is what is used, and those that training
goes on with lie beside the optimizer's state. How it is written, and verified
before it is read: `rfjax._store`. The latest few are kept, and the one with the highest score,
which is what its task takes for one: the mean IU of a segmentation.
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from rfjax._faults import CheckpointError
from rfjax._store import Layout, Store
from rfjax.training import folders
from rfjax.training.state import TrainState

LAYOUT = Layout(
    items=("variables", "optimizer"),
    documents={"meta": "meta/metadata", "metrics": "metrics/metrics"},
)
UNSCORED = -math.inf  # of a checkpoint that was not evaluated


class NonFiniteState(CheckpointError):
    """A state with a NaN or an infinity, which is never saved."""


class Checkpoints:
    """The checkpoints of the run in `workdir`; a context manager, which waits for the last save.

    Args:
        workdir: the run's directory, shared by all processes; checkpoints lie in `checkpoints/`.
        keep_latest: how many are kept besides the best one.
        read_only: whether to look without touching anything.

    Raises:
        CheckpointError: there are checkpoints, and none is sound.
    """

    def __init__(self, workdir: Path, *, keep_latest: int = 2, read_only: bool = False):
        self.directory = Path(workdir).absolute() / "checkpoints"
        self._keep_latest = keep_latest
        self._store = Store(self.directory, LAYOUT, keep=self._kept, read_only=read_only)
        self._scores = {
            step: _score(self._store.document(step, "metrics")) for step in self._store.steps
        }

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        self._store.__exit__(*error)

    @property
    def steps(self) -> list[int]:
        """The steps of all sound checkpoints."""
        return sorted(self._store.steps)

    @property
    def latest_step(self) -> int | None:
        """The step of the newest sound checkpoint."""
        return max(self._store.steps, default=None)

    @property
    def best_step(self) -> int | None:
        """The step of the highest score, the newest step if none was evaluated."""
        return max(self._store.steps, key=lambda step: (self._scores[step], step), default=None)

    @property
    def best_score(self) -> float | None:
        """The highest score, None if none was evaluated."""
        score = max((self._scores[step] for step in self._store.steps), default=UNSCORED)
        return None if score == UNSCORED else score

    def _kept(self, steps: Sequence[int]) -> set[int]:
        """The latest and the best, the newest of equal ones."""
        best = max(steps, key=lambda step: (self._scores[step], step))
        return {*sorted(steps)[-self._keep_latest :], best}

    def wait(self) -> None:
        """Waits until what was saved is on disk; a save that failed raises here."""
        self._store.wait()

    def save(
        self,
        state: TrainState,
        *,
        meta: dict[str, Any],
        score: float | None = None,
    ) -> None:
        """Saves `state` in the background, unless its step is saved already.

        Args:
            state: the same in every process; process 0 writes it.
            meta: what JSON can hold, among it the position in the training data.
            score: of an evaluation at this step, if there was one; higher is better.

        Raises:
            NonFiniteState: if the state has a NaN or an infinity; nothing is saved then.
            CheckpointError: the state before this one could not be saved.
        """
        # Copies, because what comes from a CPU may be a view of memory that the next step reuses.
        host = jax.tree.map(np.array, jax.device_get(state))
        step = int(host.step)
        if step == self.latest_step:
            return
        if bad := _non_finite(host):
            raise NonFiniteState(f"{bad} is not finite after step {step}")
        scored = score is not None and np.isfinite(score)
        self._scores[step] = float(score) if scored else UNSCORED
        self._store.save(
            step,
            {
                "variables": host.result,
                "optimizer": _behind(host),
            },
            {"meta": meta, "metrics": {"score": float(score) if scored else None}},
        )

    def meta(self, step: int) -> dict[str, Any]:
        """What was stored beside the arrays: see `loop.Run.meta`."""
        return self._store.document(step, "meta")

    def variables(self, step: int) -> dict[str, Any]:
        """The network's variables at `step`, or their running mean, NumPy arrays."""
        return self._store.arrays(step, "variables")

    def restore(self, state: TrainState) -> TrainState:
        """The newest state, in the form of `state`."""
        step = self.latest_step
        result = self._store.arrays(step, "variables", state.result)
        behind = self._store.arrays(step, "optimizer", _behind(state))
        variables = behind.get("variables", result)
        return TrainState(
            step=behind["step"],
            params=variables["params"],
            collections={name: variables[name] for name in state.collections},
            opt_state=behind["state"],
            average=None if state.average is None else result,
        )


def _behind(state: TrainState) -> dict[str, Any]:
    """What only training reads."""
    raw = {} if state.average is None else {"variables": state.variables}
    return {"step": state.step, "state": state.opt_state, **raw}


def _score(metrics: dict[str, Any]) -> float:
    """The score that a checkpoint was saved with; "mean_iu" is what it was called before."""
    score = metrics["score"] if "score" in metrics else metrics["mean_iu"]
    return UNSCORED if score is None or ("mean_iu" in metrics and score < 0) else float(score)


def _non_finite(state: TrainState) -> str:
    """The path of the first float array with a NaN or an infinity, or ""."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
            return jax.tree_util.keystr(path)
    return ""


def load(
    workdir: str | Path, *, step: int | None = None
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The variables, the meta data and the step of the best checkpoint of a run, or of `step`.

    Args:
        workdir: the directory of a run.
        step: which checkpoint; None for the one of the highest score.

    Returns:
        Variables as NumPy arrays, the stored {"config", "dataset", "batches"}, and the step.

    Raises:
        CheckpointError: if there is no run, no sound checkpoint, or none of that step.
    """
    folders.check(workdir, step=step)
    with Checkpoints(Path(workdir), read_only=True) as checkpoints:
        chosen = checkpoints.best_step if step is None else step
        if chosen not in checkpoints.steps:
            raise CheckpointError(f"the checkpoint of step {chosen} in {workdir} is damaged")
        return checkpoints.variables(chosen), checkpoints.meta(chosen), chosen
