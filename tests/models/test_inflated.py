"""The head of inflated paths: what they share, how gradients are weighted, what they learn."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from scipy.ndimage import gaussian_filter

from rfjax import models, tasks
from rfjax.models.heads import create_head
from rfjax.models.paths import Paths
from rfjax.places import Place
from rfjax.training import state, steps

KEY = jax.random.key(0, impl="unsafe_rbg")
TWO = {
    **{"paths": 2, "sets": ((0,), (1, 2)), "width": 4, "dilation": 1, "dropout": 0.0},
    "bounds": (0.5, 1.0),
}


def count(tree):
    return sum(leaf.size for leaf in jax.tree.leaves(tree))


@functools.cache
def tiny(**options):
    options = TWO | options
    model = models.create(
        "vgg_tiny",
        num_classes=3,
        head="inflated",
        head_options=options,
        backbone_options={"output_stride": 8},
    )
    images = jnp.asarray(np.random.default_rng(0).normal(size=(2, 48, 40, 3)), jnp.float32)
    return model, jax.jit(model.init)(KEY, images), images


def test_parameters_of_one_path_and_of_several_on_vgg_16():
    """fc6 of 3x3 taps, fc7 and fc8, each path with its own and a factor; one normalization."""
    path = 9 * 512 * 1024 + 1024 + 1024**2 + 1024 + 1024 * 21 + 21 + 1
    for paths, sets, wanted in ((1, (), path), (3, ((1,), (2,), ()), 3 * path + 2 * 512)):
        model = models.create(
            "vgg_16",
            num_classes=21,
            head="inflated",
            head_options={"paths": paths, "sets": sets},
            backbone_options={"output_stride": 8, "border": 0},
        )
        shapes = jax.eval_shape(model.init, KEY, jnp.zeros((1, 64, 64, 3)))["params"]
        assert count(shapes["head"]) == wanted
        assert count(shapes["backbone"]) == 14_714_688  # the thirteen convolutions alone


def test_paths_start_alike_and_are_summed():
    """Invariants 8 and 9: without weights what starts alike stays alike."""
    model, variables, images = tiny()
    head = variables["params"]["head"]
    jax.tree.map(np.testing.assert_array_equal, head["path_0"], head["path_1"])
    assert np.std(head["path_0"]["layer"]["fc6"]["kernel"]) > 0.05
    silent = jax.tree.map(jnp.zeros_like, head["path_1"]) | {"factor": jnp.ones(())}
    params = variables["params"] | {"head": head | {"path_1": silent}}
    both, one = (apply(model)({**variables, "params": p}, images)
                 for p in (variables["params"], params))  # fmt: skip
    np.testing.assert_allclose(both, 2 * one, rtol=1e-5, atol=1e-6)


@functools.cache
def apply(model):
    return jax.jit(model.apply)


def test_training_hands_out_the_paths_and_evaluation_their_sum():
    model, variables, images = tiny()
    train = functools.partial(model.apply, train=True, mutable=["batch_stats"])
    paths, _ = jax.eval_shape(train, variables, images)
    assert isinstance(paths, Paths) and len(paths.scores) == 2
    assert {scores.shape for scores in paths.scores} == {(2, 48, 40, 3)}
    logits = apply(model)(variables, images)
    assert logits.shape == (2, 48, 40, 3) and logits.dtype == jnp.float32


def test_gradients_of_a_path_are_weighted_at_the_pixels_of_its_classes():
    """Invariant 7, through the loss of the task."""
    rng = np.random.default_rng(1)
    labels = jnp.asarray(rng.choice([0, 1, 2, 255], (2, 4, 5)))
    scores = tuple(jnp.asarray(rng.normal(size=(2, 4, 5, 3)), jnp.float32) for _ in range(2))
    task = tasks.create("segmentation", {"num_classes": 3})
    loss = lambda outputs: task.loss(outputs, {"label": labels})[0]
    plain = jax.grad(loss)(scores[0] + scores[1])
    weighed = jax.grad(loss)(Paths(scores, ((0,), (1, 2)), 5.0)).scores
    of_first = jnp.where(labels == 0, 5.0, 1.0)[..., None]
    of_second = jnp.where((labels == 1) | (labels == 2), 5.0, 1.0)[..., None]
    np.testing.assert_allclose(weighed[0], plain * of_first, rtol=1e-6)
    np.testing.assert_allclose(weighed[1], plain * of_second, rtol=1e-6)
    outputs = Paths(scores, ((0,), (1, 2)), 5.0)
    for name in ("loss", "measure"):
        ours, theirs = (
            getattr(task, name)(each, {"label": labels})
            for each in (outputs, scores[0] + scores[1])
        )
        jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-6), ours, theirs)


def test_scores_lie_where_the_map_does():
    """The pooled map of stride 8 begins at pixel 15.5; what is seen there is scored there."""
    model, variables, _ = tiny(paths=1, sets=())
    images = jnp.asarray(np.random.default_rng(0).normal(size=(1, 160, 160, 3)), jnp.float32)
    score = lambda x: model.apply(variables, x)[0, 80, 80].sum()
    seen = np.abs(np.asarray(jax.jit(jax.grad(score))(images))).sum((0, 3))
    for axis in (0, 1):
        rows = np.flatnonzero(seen.sum(axis))
        assert 60 < rows[-1] - rows[0] < 130 and abs((rows[0] + rows[-1]) / 2 - 80) <= 8


WRONG = {
    "too few sets": ({"sets": ((0,),)}, "sets wants the classes of each of several paths"),
    "sets of one path": ({"paths": 1}, "none for a single one; got 2 sets for 1"),
    "no such class": ({"sets": ((0,), (3,))}, r"sets: classes are 0 to 2; got \[3\]"),
    "paths": ({"paths": 0}, "paths must be"),
    "weight": ({"weight": -1.0}, "weight must be at least 0"),
    "gradient": ({"gradient": "none"}, "gradient is one of paper, true, released"),
    "dropout": ({"dropout": 1.0}, "dropout must be"),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_options_say_what_is_wanted(name):
    options, message = WRONG[name]
    head = create_head("inflated", num_classes=3, options=TWO | options)
    with pytest.raises(ValueError, match=message):
        head.init(KEY, {"last": jnp.ones((1, 8, 8, 2))}, {"last": Place(8)})


# Learning


def _scenes(rng, size):
    """Maps and labels: left of the middle what counts is two pixels away, right of it six.

    A map has a smooth texture u, and says on which side a pixel is. The label is the sign of
    u(x + d) - u(x - d), 0 or 1 on the left (d = 2), 2 or 3 on the right (d = 6).
    """
    texture = gaussian_filter(rng.normal(size=(4, size, 2 * size)), (0, 1.5, 1.5), mode="wrap")
    texture /= np.std(texture)
    right = np.broadcast_to(np.arange(2 * size) >= size, texture.shape)
    slope = lambda d: np.roll(texture, -d, 2) > np.roll(texture, d, 2)
    labels = np.where(right, 2 + slope(6), slope(2))
    return np.stack([texture, right], -1).astype(np.float32), labels.astype(np.int32)


def _training(steps):
    """The function of a weight: factors of two paths in training, and the loss of new scenes."""
    rng = np.random.default_rng(0)
    options = {"paths": 2, "sets": ((0, 1), (2, 3)), "width": 8, "dilation": 2}
    options |= {"dropout": 0.0, "initial": 0.6, "bounds": (0.25, 1.0)}
    head, places = create_head("inflated", num_classes=4, options=options), {"last": Place(1)}
    maps, labels = map(np.stack, zip(*(_scenes(rng, 16) for _ in range(8)), strict=True))
    variables = jax.jit(lambda x: head.init(KEY, {"last": x}, places))(maps[0])
    task = tasks.create("segmentation", {"num_classes": 4})
    optimizer = optax.adam(0.02)

    def loss(params, index, weight):
        own = {"params": params, "batch_stats": variables["batch_stats"]}
        maps_of = {"last": jnp.asarray(maps)[index]}
        outputs, _ = head.apply(own, maps_of, places, True, mutable=["batch_stats"])
        outputs = dataclasses.replace(outputs, weight=weight)
        total, number = task.loss(outputs, {"label": jnp.asarray(labels)[index]})
        return total / number

    def step(carry, index):
        params, state, weight = carry
        value, gradient = jax.value_and_grad(loss)(params, index, weight)
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(gradient, state)
        factors = jnp.stack([params[f"path_{b}"]["factor"] for b in (0, 1)])
        return (optax.apply_updates(params, updates), state, weight), (value, factors)

    def run(weight):
        start = (variables["params"], optimizer.init(variables["params"]), weight)
        order = jnp.where(jnp.arange(steps) < steps - 1, jnp.arange(steps) % 7, 7)
        _, (losses, factors) = jax.lax.scan(step, start, order)
        return factors, losses[-1]

    return jax.jit(run)


def test_two_paths_drift_apart_by_weighted_gradients_and_gain():
    """One comes to read closer, the other further; the same two without weights stay one."""
    train = _training(200)
    alike, worse = train(1.0)
    apart, better = train(5.0)
    np.testing.assert_allclose(alike[:, 0], alike[:, 1], atol=1e-3)
    assert apart[-1, 0] > 0.8 and 0.4 < alike[-1, 0] < 0.7 and apart[-1, 1] < 0.35
    assert better < 0.9 * worse


def test_the_trunk_takes_the_weights_of_a_classifier():
    _, variables, _ = tiny()
    trunk = variables["params"]["backbone"]
    state = {}
    for name, leaves in trunk.items():
        state[f"{name}.weight"] = np.full(leaves["kernel"].shape, 0.5).transpose(3, 2, 0, 1)
        state[f"{name}.bias"] = np.ones(leaves["bias"].shape)
    options = {"head": "inflated", "head_options": TWO, "backbone_options": {"output_stride": 8}}
    with pytest.warns(UserWarning, match=r"drawn anew: head\.norm, head\.path_0\.layer\.fc6"):
        found = models.import_torch("vgg_tiny", state, num_classes=3, **options)["params"]
    assert all(np.all(leaves["kernel"] == 0.5) for leaves in found["backbone"].values())
    paths = [found["head"][name] for name in ("path_0", "path_1")]
    jax.tree.map(np.testing.assert_array_equal, *paths)


def test_a_step_of_training_moves_both_factors_each_in_its_own_way():
    model, variables, images = tiny()
    labels = jnp.asarray(np.random.default_rng(2).choice([0, 1, 2, 255], images.shape[:3]))
    task = tasks.create("segmentation", {"num_classes": 3})
    step = steps.make_train_step(model, optax.sgd(0.1), task=task, axis_name=None)
    start = state.create(variables, optax.sgd(0.1))
    after, metrics = jax.jit(step)(start, {"image": images, "label": labels})
    first, second = (after.params["head"][name]["factor"] for name in ("path_0", "path_1"))
    assert len({1.0, float(first), float(second)}) == 3
    assert metrics["measures"].sum() == (labels != 255).sum()
