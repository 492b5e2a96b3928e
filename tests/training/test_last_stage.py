"""Heads that normalise are trained while the backbone is frozen, its statistics included."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from rfjax import models
from rfjax.training import composed, state, steps
from tests.training.test_steps import CLASSES, SIZE, make_batch, make_optimizer

HEADS = {
    "ccl": {"dilations": (2,), "width": 4, "blur": 0.5},
    "aspp": {"variant": "v3", "rates": (2,), "width": 4},
    "stn": {},
}


def make_model(head, axis_name=None, **options):
    return models.create(
        "resnet_tiny",
        num_classes=CLASSES,
        head=head,
        head_options=HEADS[head] | options,
        backbone_options={"width": 4},
        axis_name=axis_name,
    )


@functools.cache
def initial(head):
    return state.initial_variables(
        make_model(head), jax.random.key(0), np.zeros((1, SIZE, SIZE, 3), np.float32)
    )


@functools.cache
def is_structure(head):
    return composed.declared(make_model(head)).is_structure


@functools.cache
def parallel_step(head, devices, trainable):
    model = make_model(head, steps.AXIS)
    step = steps.make_train_step(model, make_optimizer(), trainable=trainable)
    return steps.data_parallel(step, donate=True, devices=jax.devices()[:devices])


def run(head, devices, *, trainable="last_stage", count=1):
    """The state and metrics after `count` steps on so many fake devices."""
    step = parallel_step(head, devices, trainable)
    chosen = {"trainable": trainable, "is_structure": is_structure(head)}
    current = state.create(initial(head), make_optimizer(), **chosen)
    current = steps.replicate(current, jax.devices()[:devices])
    for number in range(count):
        current, metrics = step(current, steps.shard(make_batch(number), devices))
    return jax.device_get((current, metrics))


def moved(head, result):
    """The paths of arrays whose bits differ from the initial ones."""
    before = traverse_util.flatten_dict(initial(head))
    after = traverse_util.flatten_dict(result.variables)
    assert before.keys() == after.keys()
    return {path for path in before if np.asarray(before[path]).tobytes() != after[path].tobytes()}


def in_head(head):
    """The paths of the head's parameters and statistics."""
    paths = {path for path in traverse_util.flatten_dict(initial(head)) if path[1] == "head"}
    assert {path[0] for path in paths} == {"params", "batch_stats"}
    return paths


def test_a_head_trains_with_its_statistics_and_the_backbone_stays_bit_identical():
    result, metrics = run("ccl", 1, count=3)
    assert moved("ccl", result) == in_head("ccl")
    assert np.isfinite(metrics["loss"])


def test_statistics_of_a_head_go_over_all_devices():
    (one, _), (four, _) = (run("ccl", devices) for devices in (1, 4))
    chex.assert_trees_all_close(one, four, atol=1e-5, rtol=1e-4)


def test_structure_moves_the_affinity_alone():
    result, _ = run("stn", 1, trainable="structure", count=2)
    assert moved("stn", result) == {("params", "head", "offset_affine")}


def test_the_head_of_a_frozen_backbone_sees_the_features_of_evaluation():
    model, variables = make_model("ccl"), initial("ccl")
    images = jnp.asarray(make_batch(0, rows=2)["image"])
    features = model.apply(variables, images, method="features")
    head = {name: variables[name]["head"] for name in variables}
    scores, updated = model.head.layer.apply(head, features, train=True, mutable=["batch_stats"])
    wanted = models.resizing.bilinear_upsample(scores, model.stride)[:, :SIZE, :SIZE]
    logits, found = model.apply(
        variables, images, train=False, train_head=True, mutable=["batch_stats"]
    )
    np.testing.assert_allclose(logits, wanted, atol=1e-5)
    chex.assert_trees_all_close(
        found["batch_stats"]["head"], updated["batch_stats"], atol=1e-6, rtol=0
    )


def test_dropout_draws_anew_in_every_step():
    model, variables = make_model("aspp", dropout=0.5), initial("aspp")
    optimizer = make_optimizer()
    step = jax.jit(steps.make_train_step(model, optimizer, trainable="last_stage", axis_name=None))
    start = state.create(variables, optimizer, trainable="last_stage")
    results = [step(start.replace(step=np.int32(number)), make_batch(0)) for number in (0, 0, 1)]
    first, again, later = (metrics["loss"] for _, metrics in results)
    assert first == again != later
    assert moved("aspp", jax.device_get(results[0][0])) == in_head("aspp")
