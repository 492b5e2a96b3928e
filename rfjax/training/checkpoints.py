"""Saving and resuming a run, safe against being killed at any moment.

A checkpoint holds the variables, the optimizer's state, the position in the training data, the
config and what is needed to use the network without its data set. Its directory appears under its
final name only once it is complete, so whatever a kill leaves half-written is ignored. The latest
few are kept, and the one with the highest mean IU.
"""

import logging
from pathlib import Path
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from ml_collections import ConfigDict

from rfjax.training import config as configs
from rfjax.training.state import TrainState

ITEMS = ("variables", "optimizer", "meta")
UNSCORED = -1.0  # the mean IU of a checkpoint that was not evaluated


class CheckpointError(RuntimeError):
    """A checkpoint that is not there or does not fit; the message says what to do."""


class NonFiniteState(CheckpointError):
    """A state with a NaN or an infinity, which is never saved."""


def _options(keep_latest: int, read_only: bool) -> ocp.CheckpointManagerOptions:
    """Keeps the latest and the best; `max_to_keep` with `best_fn` would delete the latest."""
    policies = ocp.checkpoint_managers

    def score(metrics: dict[str, float]) -> float:
        return metrics["mean_iu"]

    return ocp.CheckpointManagerOptions(
        preservation_policy=policies.AnyPreservationPolicy(
            [policies.LatestN(keep_latest), policies.BestN(get_metric_fn=score, n=1)]
        ),
        best_fn=score,
        read_only=read_only,
        cleanup_tmp_directories=not read_only,
    )


class Checkpoints:
    """The checkpoints of the run in `workdir`; a context manager, which waits for the last save.

    Args:
        workdir: the run's directory, shared by all processes; checkpoints lie in `checkpoints/`.
        keep_latest: how many are kept besides the best one.
        read_only: whether to look without touching anything.
    """

    def __init__(self, workdir: Path, *, keep_latest: int = 2, read_only: bool = False):
        logging.getLogger("absl").setLevel(logging.ERROR)  # orbax tells every step of every save
        self.directory = Path(workdir).absolute() / "checkpoints"  # a relative path fails silently
        self._manager = ocp.CheckpointManager(
            self.directory, options=_options(keep_latest, read_only), item_names=ITEMS
        )

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, *error: Any) -> None:
        self._manager.close()

    @property
    def steps(self) -> list[int]:
        """The steps of all complete checkpoints."""
        return sorted(self._manager.all_steps())

    @property
    def latest_step(self) -> int | None:
        """The step of the newest complete checkpoint."""
        return self._manager.latest_step()

    @property
    def best_step(self) -> int | None:
        """The step of the highest mean IU, the newest step if none was evaluated."""
        best = self._manager.best_step()
        scored = best is not None and self._manager.metrics(best)["mean_iu"] > UNSCORED
        return best if scored else self.latest_step

    def wait(self) -> None:
        """Waits until what was saved is on disk; a save that failed raises here."""
        self._manager.wait_until_finished()

    def save(
        self,
        state: TrainState,
        *,
        meta: dict[str, Any],
        mean_iu: float | None = None,
    ) -> None:
        """Saves `state` in the background, unless its step is saved already.

        Args:
            state: the same in every process; process 0 writes it.
            meta: what JSON can hold, among it the position in the training data.
            mean_iu: of an evaluation at this step, if there was one.

        Raises:
            NonFiniteState: if the state has a NaN or an infinity; nothing is saved then.
        """
        host = jax.device_get(state)
        step = int(host.step)
        if step == self.latest_step:
            return
        scored = mean_iu is not None and np.isfinite(mean_iu)
        if bad := _non_finite(host):
            raise NonFiniteState(f"{bad} is not finite after step {step}")
        self._manager.save(
            step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardSave(host.variables),
                optimizer=ocp.args.StandardSave({"step": host.step, "state": host.opt_state}),
                meta=ocp.args.JsonSave(meta),
            ),
            metrics={"mean_iu": mean_iu if scored else UNSCORED},
        )

    def meta(self, step: int) -> dict[str, Any]:
        """What was stored beside the arrays: see `loop.Run.meta`."""
        args = ocp.args.Composite(meta=ocp.args.JsonRestore())
        return dict(self._manager.restore(step, args=args)["meta"])

    def variables(self, step: int) -> dict[str, Any]:
        """The network's variables at `step`, NumPy arrays."""
        args = ocp.args.Composite(variables=ocp.args.StandardRestore())
        return self._manager.restore(step, args=args)["variables"]

    def restore(self, state: TrainState) -> TrainState:
        """The newest state, in the form of `state`."""
        restored = self._manager.restore(
            self.latest_step,
            args=ocp.args.Composite(
                variables=ocp.args.StandardRestore(state.variables),
                optimizer=ocp.args.StandardRestore({"step": state.step, "state": state.opt_state}),
            ),
        )
        variables, optimizer = restored["variables"], restored["optimizer"]
        return TrainState(
            step=optimizer["step"],
            params=variables["params"],
            batch_stats=variables["batch_stats"],
            opt_state=optimizer["state"],
        )


def _non_finite(state: TrainState) -> str:
    """The path of the first float array with a NaN or an infinity, or ""."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(state):
        if np.issubdtype(leaf.dtype, np.floating) and not np.isfinite(leaf).all():
            return jax.tree_util.keystr(path)
    return ""


def check_compatible(old: ConfigDict, new: ConfigDict, workdir: Path) -> None:
    """Refuses to resume a run under a config that would have made it another run.

    Raises:
        configs.ConfigError: naming every key that differs, old -> new.
    """
    differences = configs.incompatible(old, new)
    if differences:
        listed = "\n".join(f"  {difference}" for difference in differences)
        raise configs.ConfigError(
            f"the run in {workdir} was started with another config (old -> new):\n{listed}\n"
            "Take these back, or give another --workdir. Free to change when resuming: "
            f"{', '.join(configs.FREE_ON_RESUME)}, and steps if optimizer.poly_power is 0."
        )


def load(
    workdir: str | Path, *, step: int | None = None
) -> tuple[dict[str, Any], dict[str, Any], int]:
    """The variables, the meta data and the step of the best checkpoint of a run, or of `step`.

    Args:
        workdir: the directory of a run.
        step: which checkpoint; None for the one of highest mean IU.

    Returns:
        Variables as NumPy arrays, the stored {"config", "dataset", "batches"}, and the step.

    Raises:
        CheckpointError: if there is no run, no checkpoint, or none of that step.
    """
    workdir = Path(workdir)
    if not workdir.is_dir():
        raise CheckpointError(f"{workdir} is not a directory; --workdir is that of a training run")
    if not (workdir / "checkpoints").is_dir():
        raise CheckpointError(f"{workdir} holds no checkpoints/; train a run there first")
    with Checkpoints(workdir, read_only=True) as checkpoints:
        steps = checkpoints.steps
        if not steps:
            raise CheckpointError(f"{workdir}/checkpoints has no complete checkpoint yet")
        chosen = checkpoints.best_step if step is None else step
        if chosen not in steps:
            listed = ", ".join(map(str, steps))
            raise CheckpointError(
                f"{workdir} has no checkpoint of step {chosen}; there are {listed}"
            )
        return checkpoints.variables(chosen), checkpoints.meta(chosen), chosen
