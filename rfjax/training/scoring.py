"""The scores of a network over batches: sums on the devices, added up exactly on the host."""

from collections.abc import Callable, Iterable
from typing import Any

import jax
import numpy as np

from rfjax import tasks
from rfjax.tasks import metrics
from rfjax.training import steps


def evaluate(
    eval_step: Callable,
    variables: dict[str, Any],
    batches: Iterable[dict],
    *,
    task: tasks.Task | None = None,
) -> dict[str, Any]:
    """The scores of a network over all `batches`.

    Args:
        eval_step: `steps.make_eval_step`, made parallel.
        variables: of the network.
        batches: of this process; padded with rows that count for nothing where there are too few
            examples. They may differ in the size of their images, and have no rows (then in all
            processes).
        task: what is scored; None for segmentation.

    Returns:
        `loss`, the mean over all that it counts in all processes, and what the task's `summarize`
        makes of all batches. Without examples all are nan.
    """
    return scored(measured(eval_step, variables, batches), task or tasks.Segmentation())


def scored(totals: dict[str, Any], task: tasks.Task) -> dict[str, Any]:
    """The scores that the sums of `measured` make."""
    loss = totals["loss"] / totals["count"] if totals["count"] else float("nan")
    return {"loss": loss, **task.summarize(totals["measures"])}


def measured(
    eval_step: Callable, variables: dict[str, Any], batches: Iterable[dict]
) -> dict[str, Any]:
    """The sums over all `batches` of what an evaluation step returns, NumPy; see `evaluate`."""
    totals, pending = {"measures": None, "loss": 0.0, "count": 0.0}, None
    for batch in batches:
        if not steps.rows(batch):  # nothing to count, and the partitioner fails on no rows
            continue
        found = eval_step(variables, steps.shard(batch, jax.local_device_count()))
        totals, pending = _add(totals, pending), found
    return _add(totals, pending)


def _add(totals: dict[str, Any], found: dict[str, Any] | None) -> dict[str, Any]:
    """`totals` with the sums of one batch, in int64 and float64."""
    if found is None:
        return totals
    found = jax.tree.map(metrics.widened, jax.device_get(found))
    if totals["measures"] is None:
        return found
    return jax.tree.map(np.add, totals, found)


def eval_rows(batch_size: int) -> int:
    """The rows of an evaluation batch in this process: enough for all its devices."""
    devices = jax.device_count()
    return -(-batch_size // devices) * devices // jax.process_count()
