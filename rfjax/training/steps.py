"""One update and one evaluation, as pure functions of (state, batch).

A step knows nothing of devices but the name of the axis over which its sums go; `data_parallel` is
the one place where a step is spread over them. What is learned, it asks the task. A batch is a
dictionary of arrays [N, ...], of segmentation {"image": [N, H, W, 3], "label": [N, H, W]}, and for
a parallel step has one axis more in front, the devices of this process.
"""

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import linen, traverse_util
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from rfjax import nn, tasks
from rfjax._names import PARALLEL
from rfjax._options import choose
from rfjax.training import optimizers
from rfjax.training.average import Average
from rfjax.training.sigmas import single_numbers, standard_deviations
from rfjax.training.state import TrainState

AXIS = "devices"
Batch = dict[str, Any]

# Random streams of layers by their names, and that of losses which draw what counts.
STREAMS = ("dropout", "dilation", "loss")
SEED = "seed"  # the entry of a batch that holds the seed of its streams
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


def repeated(step: Callable) -> Callable:
    """`step` over a stack of batches, one after the other, in one call of the devices.

    The host then waits for the devices, and they for it, once for so many steps: with a batch of
    one small image that is most of the time.

    Args:
        step: a function of (state, batch) that returns the next state and metrics.

    Returns:
        A function of (state, batches), each array [steps, ...], that returns the last state and the
        metrics of all steps, each [steps, ...].

    Example:
        >>> count = repeated(lambda state, batch: (state + batch["x"], 2 * state))
        >>> state, metrics = count(0, {"x": jnp.arange(4)})
        >>> int(state), metrics.tolist()
        (6, [0, 0, 2, 6])
    """
    return lambda state, batches: jax.lax.scan(step, state, batches)


def stack(batches: Sequence[Batch], devices: int) -> Batch:
    """Batches dealt to `devices`, as `repeated` takes them: [devices, steps, N / devices, ...]."""
    dealt = [shard(batch, devices) for batch in batches]
    return jax.tree.map(lambda *each: np.stack(each, 1), *dealt)


def seeded(batch: Batch, seed: int, devices: int, steps: int = 1) -> Batch:
    """A batch as `shard` or `stack` deals it, with the seed of the streams of its steps.

    A seed that comes with the data is no part of the program, which then serves runs of all seeds.
    """
    shape = (devices,) if steps == 1 else (devices, steps)
    return {**batch, SEED: np.full(shape, seed, np.uint32)}


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


def rows(batch: Batch) -> int:
    """The number of rows of a batch."""
    return len(next(iter(arrays(batch).values())))


def arrays(batch: Batch) -> Batch:
    """What of a batch is arrays: all but the names of its examples."""
    return {name: value for name, value in batch.items() if name != "id"}


def shard(batch: Batch, devices: int) -> Batch:
    """`batch` with its rows dealt to `devices`: [N, ...] -> [devices, N / devices, ...].

    A batch may have no rows at all; then each device gets none.

    Raises:
        ValueError: if the rows do not divide by the devices.
    """
    share, rest = divmod(rows(batch), devices)
    if rest:
        raise ValueError(f"{rows(batch)} rows do not divide by {devices} devices")
    return jax.tree.map(
        lambda array: np.reshape(array, (devices, share, *np.shape(array)[1:])), arrays(batch)
    )


def _sum(tree: Any, axis_name: str | None) -> Any:
    """The sum over the devices."""
    return tree if axis_name is None else jax.lax.psum(tree, axis_name)


def make_train_step(
    model: linen.Module,
    optimizer: optax.GradientTransformation,
    *,
    task: tasks.Task | None = None,
    trainable: str = "all",
    seed: int = 0,
    axis_name: str | None = AXIS,
    structure: nn.Structure | None = None,
    average: Average | None = None,
) -> Callable[[TrainState, Batch], tuple[TrainState, dict]]:
    """The function that makes one update.

        loss = sum of the losses of the batch / number of what they are the losses of

    The sum and the number, such as that of valid pixels, go over all devices before they are
    divided, so N devices make the update that one device would make of the whole batch. What is
    frozen runs as in evaluation (fixed batch normalisation) and comes back bit by bit: with
    `last_stage` the backbone, with `structure` the whole network, with patterns every
    normalisation of which no parameter is trained.

    Args:
        model: a module of (*inputs, train), such as those of `rfjax.models.create`, with
            `axis_name` as here.
        optimizer: acts on the trained parameters.
        task: what is learned; None for segmentation.
        trainable: all | last_stage | structure, or patterns, see `optimizers.select`.
        seed: of the random streams `STREAMS`, where the batch has none, see `seeded`; each step and
            device draws anew.
        axis_name: the axis of the devices; None for a step on its own.
        structure: what the layers of the model declare; None to ask them, at the first step.
        average: the rule of the running mean, where the state has one.

    Returns:
        A function of (state, batch) that returns the next state and the metrics of this step:
        `loss`, `measures` (what the task measures), `grad_norm`, `sigmas`, the standard
        deviations by layer after it, and `numbers`, other structure that is one number.
    """
    task = task or tasks.Segmentation()

    def loss_function(trained, frozen, state, batch, keys):
        variables = {"params": optimizers.merge(trained, frozen), **state.collections}
        outputs, collections = _apply(
            model, task.inputs(batch), variables, trained, trainable, keys
        )
        total, count = task.loss(outputs, batch, keys["loss"])
        if task.normalize == "count":
            number = _sum(count, axis_name)
            total = total / jnp.where(number > 0, number, 1.0)
        return total, (outputs, collections)

    def step(state: TrainState, batch: Batch) -> tuple[TrainState, dict]:
        keys = _keys(batch.get(SEED, seed), state.step, axis_name)
        batch = {name: array for name, array in batch.items() if name != SEED}
        declared = structure or nn.structure(model, state.variables, *task.inputs(batch))
        trained, frozen = optimizers.select(
            state.params, trainable, is_structure=declared.is_structure
        )
        gradient = jax.value_and_grad(loss_function, has_aux=True)
        (loss, (outputs, collections)), grads = gradient(trained, frozen, state, batch, keys)
        loss, grads = _sum((loss, grads), axis_name)
        updates, opt_state = optimizer.update(grads, state.opt_state, trained)
        params = optimizers.merge(optax.apply_updates(trained, updates), frozen)
        collections = _agreed(collections, axis_name)
        next_state = TrainState(state.step + 1, params, collections, opt_state)
        if average is not None:
            mean = average(state.average, next_state.variables, state.step)
            next_state = next_state.replace(average=mean)
        return next_state, {
            "loss": loss,
            "measures": _sum(task.measure(outputs, batch), axis_name),
            "grad_norm": optax.tree.norm(grads),
            "sigmas": standard_deviations(declared.covariances(params)),
            "numbers": single_numbers(declared, params),
        }

    return step


def _apply(
    model: linen.Module,
    inputs: tuple,
    variables: dict[str, Any],
    trained: dict[str, Any],
    trainable: str,
    keys: dict[str, jax.Array],
) -> tuple[Any, dict[str, Any]]:
    """The outputs in training, and every collection but the parameters afterwards."""
    collections = {name: tree for name, tree in variables.items() if name != "params"}
    if trainable == "structure":
        return model.apply(variables, *inputs, train=False), collections
    mode = MODES.get(trainable, {"train": True})
    with nullcontext() if trainable in MODES else linen.intercept_methods(_freezing(trained)):
        outputs, updates = model.apply(
            variables, *inputs, **mode, mutable=list(collections), rngs=keys
        )
    return outputs, collections | updates


def _freezing(trained: dict[str, Any]) -> Callable:
    """An interceptor: normalisations without a trained parameter run as in evaluation."""
    trained_paths = traverse_util.flatten_dict(trained).keys()

    def intercept(call: Callable, args: tuple, kwargs: dict, context: Any) -> Any:
        module = context.module
        if isinstance(module, linen.BatchNorm) and context.method_name == "__call__":
            path = module.path
            if not any(other[: len(path)] == path for other in trained_paths):
                # Made with the mode of the whole network; the instance lives for this call alone.
                object.__setattr__(module, "use_running_average", True)
        return call(*args, **kwargs)

    return intercept


def _agreed(collections: dict[str, Any], axis_name: str | None) -> dict[str, Any]:
    """Collections that are the same on all devices: the mean over them, of numbers.

    Batch statistics agree already, since normalisations average them; what else layers keep is
    whatever they made of the device's own rows.
    """
    if axis_name is None:
        return collections

    def mean(leaf: jax.Array) -> jax.Array:
        inexact = jnp.issubdtype(leaf.dtype, jnp.inexact)
        return jax.lax.pmean(leaf, axis_name) if inexact else jax.lax.pmax(leaf, axis_name)

    return {
        name: tree if name == "batch_stats" else jax.tree.map(mean, tree)
        for name, tree in collections.items()
    }


def make_eval_step(
    model: linen.Module, *, task: tasks.Task | None = None, axis_name: str | None = AXIS
) -> Callable:
    """The function of (variables, batch) that measures one batch.

    Batches may differ in the size of their images; each size compiles it anew.

    Args:
        model: a module of (*inputs, train).
        task: what is learned; None for segmentation.
        axis_name: the axis of the devices; None for a step on its own.

    Returns:
        A function that returns {"measures": what the task measures, "loss": the sum of the losses,
        "count": the number of what they are the losses of}, over all devices.
    """
    task = task or tasks.Segmentation()

    def step(variables: dict[str, Any], batch: Batch) -> dict[str, Any]:
        outputs = model.apply(variables, *task.inputs(batch), train=False)
        total, count = task.loss(outputs, batch)
        found = {"measures": task.measure(outputs, batch), "loss": total, "count": count}
        return _sum(found, axis_name)

    return step


def _keys(
    seed: jax.typing.ArrayLike, step: jax.Array, axis_name: str | None
) -> dict[str, jax.Array]:
    """By stream, a key of its own for each step and device."""
    key = jax.random.fold_in(jax.random.key(seed), step)
    if axis_name is not None:
        key = jax.random.fold_in(key, jax.lax.axis_index(axis_name))
    others = {
        name: jax.random.fold_in(key, number) for number, name in enumerate(STREAMS[1:], start=1)
    }
    return {STREAMS[0]: key} | others
