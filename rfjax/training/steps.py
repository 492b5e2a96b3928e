"""One update and one evaluation, as pure functions of (state, batch).

A step knows nothing of devices but the name of the axis over which its sums go; `data_parallel` is
the one place where a step is spread over them. A batch is {"image": [N, H, W, 3], "label": [N, H,
W]}, and for a parallel step has one axis more in front, the devices of this process.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rfjax import nn
from rfjax._options import choose
from rfjax.training import losses, metrics, optimizers
from rfjax.training.config import PARALLEL
from rfjax.training.sigmas import standard_deviations
from rfjax.training.state import TrainState

AXIS = "devices"
Batch = dict[str, Any]

# How the network runs where not all of it runs as in evaluation.
MODES = {"all": {"train": True}, "last_stage": {"train": False, "train_head": True}}


def data_parallel(
    step: Callable,
    *,
    donate: bool = False,
    devices: list | None = None,
    parallel: str = "pmap",
) -> Callable:
    """`step` over all devices: the first argument on every one, the batch split between them.

    Args:
        step: a function of (state, batch) whose results are the same on all devices, which sums
            over the axis `AXIS` make them.
        donate: whether the state's memory may be used for the result.
        devices: the devices, all of them by default.
        parallel: pmap | shard_map. Both give the same bits.

    Returns:
        A function of (state, batch), where the first state comes from `replicate`, told the same
        `parallel`, and batches come from `shard`. State and results have no axis of devices: they
        read as ordinary arrays.

    Raises:
        ValueError: there is no such way to be parallel.
    """
    if choose("parallel", parallel, PARALLEL) == "shard_map":
        return _by_shard_map(step, donate, _mesh(devices, parallel))
    return jax.pmap(
        step,
        axis_name=AXIS,
        in_axes=(None, 0),
        out_axes=None,
        donate_argnums=0 if donate else (),
        devices=devices,
    )


def _by_shard_map(step: Callable, donate: bool, mesh: Mesh) -> Callable:
    def of_one_device(state, batch):
        return step(state, jax.tree.map(lambda rows: rows[0], batch))

    # Steps sum over the devices themselves. With the check, JAX would sum gradients before.
    specs = {"in_specs": (P(), P(AXIS)), "out_specs": P(), "check_vma": False}
    mapped = jax.shard_map(of_one_device, mesh=mesh, **specs)
    compiled = jax.jit(mapped, donate_argnums=0 if donate else ())
    dealt = NamedSharding(mesh, P(AXIS))

    def run(state, batch):
        # Of every process the rows of its own devices.
        place = partial(jax.make_array_from_process_local_data, dealt)
        return compiled(state, jax.tree.map(place, batch))

    return run


def replicate(tree: Any, devices: list | None = None, *, parallel: str = "pmap") -> Any:
    """`tree` on every device, in the form in which parallel steps return it.

    A step takes arrays of the host as well, but would be compiled once for them and again for the
    arrays that it returned.
    """
    return jax.device_put(tree, NamedSharding(_mesh(devices, parallel), P()))


def _mesh(devices: list | None, parallel: str) -> Mesh:
    """The devices: pmap sees those of its process alone, shard_map those of all."""
    everywhere = jax.local_devices() if parallel == "pmap" else jax.devices()
    return Mesh(np.array(devices or everywhere), (AXIS,))


def shard(batch: Batch, devices: int) -> Batch:
    """`batch` with its rows dealt to `devices`: [N, ...] -> [devices, N / devices, ...].

    A batch may have no rows at all; then each device gets none.

    Raises:
        ValueError: if the rows do not divide by the devices.
    """
    rows, rest = divmod(len(batch["image"]), devices)
    if rest:
        raise ValueError(f"{len(batch['image'])} rows do not divide by {devices} devices")
    return {
        key: np.reshape(batch[key], (devices, rows, *np.shape(batch[key])[1:]))
        for key in ("image", "label")
    }


def _sum(tree: Any, axis_name: str | None) -> Any:
    """The sum over the devices."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def make_train_step(
    model: linen.Module,
    optimizer: optax.GradientTransformation,
    *,
    trainable: str = "all",
    seed: int = 0,
    axis_name: str | None = AXIS,
    structure: nn.Structure | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """The function that makes one update.

        loss = sum over all valid pixels of the batch of the cross-entropy / their number

    The sum and the number go over all devices before they are divided, so N devices make the update
    that one device would make of the whole batch. What is frozen runs as in evaluation (fixed batch
    normalisation, no dropout) and comes back bit by bit: with `last_stage` the backbone, with
    `structure` the whole network.

    Args:
        model: a module of `rfjax.models.create`, with `axis_name` as here.
        optimizer: acts on the trained parameters.
        trainable: all | last_stage | structure.
        seed: of dropout; each step and device draws anew.
        axis_name: the axis of the devices; None for a step on its own.
        structure: what the layers of the model declare; None to ask them, at the first step.

    Returns:
        A function of (state, batch) that returns the next state and the metrics of this step:
        `loss`, `confusion`, `grad_norm` and `sigmas`, the standard deviations by layer after it.
    """
    mode = MODES.get(trainable)

    def loss_function(trained, frozen, state, batch):
        params = optimizers.merge(trained, frozen)
        variables = {"params": params, "batch_stats": state.batch_stats}
        if mode:
            rngs = {"dropout": _dropout_key(seed, state.step, axis_name)}
            logits, updates = model.apply(
                variables, batch["image"], **mode, mutable=["batch_stats"], rngs=rngs
            )
            batch_stats = updates.get("batch_stats", state.batch_stats)
        else:
            logits, batch_stats = (
                model.apply(variables, batch["image"], train=False),
                state.batch_stats,
            )
        total, count = losses.cross_entropy(logits, batch["label"])
        return total / jnp.maximum(_sum(count, axis_name), 1.0), (logits, batch_stats)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        declared = structure or nn.structure(model, state.variables, batch["image"])
        trained, frozen = optimizers.select(
            state.params, trainable, is_structure=declared.is_structure
        )
        gradient = jax.value_and_grad(loss_function, has_aux=True)
        (loss, (logits, batch_stats)), grads = gradient(trained, frozen, state, batch)
        loss, grads = _sum((loss, grads), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = optimizers.merge(optax.apply_updates(trained, updates), frozen)
        next_state = TrainState(state.step + 1, params, batch_stats, opt_state)
        return next_state, {
            "loss": loss,
            "confusion": _sum(_confusion(logits, batch["label"]), axis_name),
            "grad_norm": optax.tree.norm(grads),
            "sigmas": standard_deviations(declared.covariances(params)),
        }

    return step


def make_eval_step(model: linen.Module, *, axis_name: str | None = AXIS) -> Callable:
    """The function of (variables, batch) that counts the right and wrong pixels of one batch.

    Batches may differ in the size of their images; each size compiles it anew.

    Returns:
        A function that returns {"confusion": int32 [K, K], "loss": the sum of the pixels'
        cross-entropies, "count": their number}, over all devices.
    """

    def step(variables: dict[str, Any], batch: Batch) -> dict[str, jax.Array]:
        logits = model.apply(variables, batch["image"], train=False)
        total, count = losses.cross_entropy(logits, batch["label"])
        counts = {"confusion": _confusion(logits, batch["label"]), "loss": total, "count": count}
        return _sum(counts, axis_name)

    return step


def _confusion(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """The confusion matrix of the highest scores."""
    predictions = jnp.argmax(logits, -1)
    return metrics.confusion_matrix(labels, predictions, num_classes=logits.shape[-1])


def _dropout_key(seed: int, step: jax.Array, axis_name: str | None) -> jax.Array:
    """A key of its own for each step and device."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    return key if axis_name is None else jax.random.fold_in(key, jax.lax.axis_index(axis_name))
