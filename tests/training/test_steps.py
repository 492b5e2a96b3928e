"""Steps: one device or many, all of the network or a part of it."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from rfjax import models
from rfjax.tasks.losses import VOID
from rfjax.training import composed, optimizers, state, steps

CLASSES, SIZE = 3, 24


def make_model(axis_name=None):
    return models.create(
        "resnet_tiny",
        num_classes=CLASSES,
        head="composition",
        backbone_options={"width": 4},
        axis_name=axis_name,
    )


@functools.cache
def is_structure():
    return composed.declared(make_model()).is_structure


def make_optimizer():
    schedule = optimizers.poly_schedule(0.1, steps=10)
    decay = {"momentum": 0.9, "weight_decay": 1e-3}
    return optimizers.sgd(schedule, is_structure=is_structure(), covariance_multiplier=2.0, **decay)


def make_batch(seed, *, rows=16):
    """Rows differ in how many pixels are void, so that means of means would be wrong."""
    rng = np.random.default_rng(seed)
    label = rng.integers(0, CLASSES, (rows, SIZE, SIZE)).astype(np.int32)
    for row in range(rows):
        label[row, : row * SIZE // rows] = VOID
    image = rng.normal(size=(rows, SIZE, SIZE, 3)).astype(np.float32)
    return {"image": image + label[..., None] % 7, "label": label}


@pytest.fixture(scope="module")
def variables():
    return state.initial_variables(
        make_model(), jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32)
    )


@functools.cache
def parallel_step(devices, trainable, parallel="pmap"):
    step = steps.make_train_step(make_model(steps.AXIS), make_optimizer(), trainable=trainable)
    some = jax.devices()[:devices]
    return steps.data_parallel(step, donate=True, devices=some, parallel=parallel)


@functools.cache
def pure_step():
    return jax.jit(steps.make_train_step(make_model(), make_optimizer(), axis_name=None))


def run(variables, devices, *, trainable="all", count=1, parallel="pmap"):
    """The state and metrics after `count` steps on so many fake devices."""
    step = parallel_step(devices, trainable, parallel)
    current = state.create(
        variables, make_optimizer(), trainable=trainable, is_structure=is_structure()
    )
    current = steps.replicate(current, jax.devices()[:devices], parallel=parallel)
    for number in range(count):
        current, metrics = step(current, steps.shard(make_batch(number), devices))
    return jax.device_get((current, metrics))


def test_eight_devices_equal_one(variables):
    one, metrics_of_one = run(variables, 1)
    eight, metrics_of_eight = run(variables, 8)
    chex.assert_trees_all_close(one, eight, atol=1e-5, rtol=1e-5)
    np.testing.assert_allclose(metrics_of_one["loss"], metrics_of_eight["loss"], rtol=1e-6)
    np.testing.assert_array_equal(metrics_of_one["measures"], metrics_of_eight["measures"])
    assert metrics_of_one["measures"].sum() == (make_batch(0)["label"] != VOID).sum()


def test_both_ways_of_being_parallel_give_the_same_bits(variables):
    by_pmap = run(variables, 4, count=8)
    by_shard_map = run(variables, 4, count=8, parallel="shard_map")
    assert not changed(by_pmap, by_shard_map)


def test_there_are_two_ways_of_being_parallel():
    with pytest.raises(ValueError, match="parallel is one of pmap, shard_map; got 'vmap'"):
        steps.data_parallel(lambda state, batch: state, parallel="vmap")


def test_parallel_step_equals_the_pure_step(variables):
    pure, metrics = pure_step()(state.create(variables, make_optimizer()), make_batch(0))
    parallel, _ = run(variables, 1)
    chex.assert_trees_all_close(pure, parallel, atol=1e-5, rtol=1e-5)
    assert int(pure.step) == 1
    assert metrics["loss"].dtype == jnp.float32


def changed(before, after):
    """The paths whose bits differ."""
    pairs = zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True)
    return {
        jax.tree_util.keystr(path, simple=True, separator="/")
        for (path, old), new in pairs
        if np.asarray(old).tobytes() != np.asarray(new).tobytes()
    }


@pytest.mark.parametrize("trainable", ["last_stage", "structure"])
def test_what_is_frozen_stays_bit_identical(variables, trainable):
    result, _ = run(variables, 1, trainable=trainable, count=3)
    moved = changed(variables["params"], result.params)
    chosen = optimizers.SELECTIONS[trainable]
    everything = changed(variables["params"], jax.tree.map(lambda a: a + 1, variables["params"]))
    wanted = {path for path in everything if chosen(tuple(path.split("/")), is_structure())}
    assert moved == wanted
    assert not changed(variables["batch_stats"], result.collections["batch_stats"])


def test_training_all_moves_parameters_and_statistics(variables):
    result, _ = run(variables, 8, count=3)
    assert len(changed(variables["params"], result.params)) == len(
        jax.tree.leaves(variables["params"])
    )
    assert len(changed(variables["batch_stats"], result.collections["batch_stats"])) > 0


def test_the_optimizer_keeps_no_memory_for_what_is_frozen(variables):
    optimizer = make_optimizer()
    whole = state.create(variables, optimizer).opt_state
    part = state.create(
        variables, optimizer, trainable="structure", is_structure=is_structure()
    ).opt_state
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree))
    assert count(part) < 5 < count(whole)


def test_repeated_steps_compile_once():
    """A state from the host would make two programs, one for it and one for the state returned."""
    traces = []

    def step(current, batch):
        traces.append(1)
        return current + jax.lax.psum(jnp.sum(batch["image"]), steps.AXIS)

    parallel = steps.data_parallel(step, donate=True)
    current = steps.replicate(np.zeros((), np.float32))
    for _ in range(3):
        current = parallel(current, {"image": np.ones((8, 2), np.float32)})
    assert (len(traces), float(current)) == (1, 48.0)


def test_loss_falls(variables):
    _, first = run(variables, 1)
    _, later = run(variables, 1, count=8)
    assert later["loss"] < first["loss"]


def test_a_batch_without_labels_does_no_harm(variables):
    batch = make_batch(0) | {"label": np.full((16, SIZE, SIZE), VOID, np.int32)}
    result, metrics = pure_step()(state.create(variables, make_optimizer()), batch)
    assert metrics["loss"] == 0.0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(result))


def test_evaluation_counts_are_sums_over_devices(variables):
    batch = make_batch(3)
    pure = jax.jit(steps.make_eval_step(make_model(), axis_name=None))(variables, batch)
    step = steps.data_parallel(steps.make_eval_step(make_model()))
    counts = step(steps.replicate(variables), steps.shard(batch, 8))
    np.testing.assert_array_equal(pure["measures"], counts["measures"])
    np.testing.assert_allclose(pure["loss"], counts["loss"], rtol=1e-5)
    assert float(counts["count"]) == (batch["label"] != VOID).sum()


def test_shard_deals_rows_in_order():
    batch = {"image": np.arange(6).reshape(6, 1), "label": np.arange(6), "id": ["a"] * 6}
    dealt = steps.shard(batch, 3)
    assert dealt.keys() == {"image", "label"}
    np.testing.assert_array_equal(dealt["label"], [[0, 1], [2, 3], [4, 5]])


def test_a_seed_may_come_with_the_batch():
    """One program serves runs of all seeds, and each draws what it would draw on its own."""

    class Noisy(linen.Module):
        @linen.compact
        def __call__(self, images, train=False):
            images = linen.Dropout(0.5, deterministic=not train)(images)
            return linen.Dense(CLASSES)(images)

    model, optimizer = Noisy(), optax.sgd(0.1)
    batch = make_batch(0, rows=1)
    variables = model.init(jax.random.key(0), batch["image"])
    make = functools.partial(steps.make_train_step, model, optimizer, axis_name=None)
    serving = jax.jit(make())

    def loss(step, batch):
        return float(step(state.create(variables, optimizer), batch)[1]["loss"])

    losses = [loss(serving, batch | {steps.SEED: np.uint32(seed)}) for seed in (0, 2**32 - 1)]
    assert losses == [loss(jax.jit(make(seed=seed)), batch) for seed in (0, 2**32 - 1)]
    assert losses[0] != losses[1]
