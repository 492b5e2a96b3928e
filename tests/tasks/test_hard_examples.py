"""Online hard example mining, against NumPy in float64 and over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import tasks
from rfjax.tasks.losses import VOID, balanced_cross_entropy, hardest
from rfjax.training import optimizers, state, steps
from tests.tasks.test_balanced_losses import (
    CLASSES,
    FACTS,
    LABELS,
    LOGITS,
    Scores,
    dice_of,
    softmax,
)  # fmt: skip

SHARE = 0.3


def by_sorting(weights, focal, dice):
    """Picture by picture: the pixels of the largest cross-entropies among those that weigh."""
    likely, total, count = softmax(LOGITS), 0.0, 0.0
    for q, labels in zip(likely, LABELS, strict=True):
        pixels = [(y, x) for y, x in np.ndindex(labels.shape) if labels[y, x] != VOID]
        pixels = [p for p in pixels if weights[labels[p]] > 0]
        order = sorted(pixels, key=lambda p: q[p][labels[p]])
        kept = order[: int(np.ceil(SHARE * len(pixels)))]
        for p in kept:
            right, weight = q[p][labels[p]], weights[labels[p]]
            share = dice * dice_of(q, labels) if dice else 0.0
            total += weight * ((1 - right) ** focal * -np.log(right) + share)
            count += weight
    return total, count


@pytest.mark.parametrize(
    ("weights", "focal", "dice"),
    [((), 0.0, 0.0), ((0.5, 2.0, 0.0), 0.0, 0.0), ((), 2.0, 0.7), ((0.5, 2.0, 0.0), 1.5, 0.7)],
)
def test_sums_are_those_of_the_hardest_pixels(weights, focal, dice):
    found = balanced_cross_entropy(
        jnp.asarray(LOGITS), jnp.asarray(LABELS),
        class_weights=weights, focal=focal, dice=dice, hard_examples=SHARE,
    )  # fmt: skip
    wanted = by_sorting(weights or (1.0,) * CLASSES, focal, dice)
    np.testing.assert_allclose(found, wanted, rtol=1e-5)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.5, 1.0])
def test_the_number_of_pixels_of_each_picture(share):
    """ceil(share n) of n, more only where losses are equal; none of a picture without labels."""
    rng = np.random.default_rng(1)
    losses = np.round(rng.exponential(size=(4, 6, 5)), 1).astype(np.float32)
    losses[3] = 0.7  # all alike: none is harder than another
    counted = rng.random((4, 6, 5)) < 0.8
    counted[2] = False
    kept = np.asarray(jax.jit(hardest, static_argnums=2)(losses, counted, share))
    for loss, counts, chosen in zip(losses, counted, kept, strict=True):
        number = int(np.ceil(round(share * counts.sum(), 9)))
        least = np.sort(loss[counts])[-number] if number else np.inf
        np.testing.assert_array_equal(chosen, counts & (loss >= least))


def test_thirty_percent_of_ten_are_three():
    losses = jnp.arange(10.0).reshape(1, 2, 5)
    for share, number in ((0.3, 3), (0.1, 1), (0.7, 7), (0.31, 4)):
        assert hardest(losses, losses >= 0, share).sum() == number


def test_the_gradient_is_that_of_the_kept_pixels_alone():
    logits, labels = jnp.asarray(LOGITS), jnp.asarray(LABELS)
    options = {"class_weights": (0.5, 2.0, 1.0), "hard_examples": SHARE}
    grads = jax.grad(lambda x: balanced_cross_entropy(x, labels, **options)[0])(logits)
    losses = -np.log(np.take_along_axis(softmax(LOGITS), np.minimum(LABELS, 2)[..., None], -1))
    kept = np.asarray(hardest(jnp.asarray(losses[..., 0]), labels != VOID, SHARE))
    moved = np.abs(np.asarray(grads)).sum(-1) > 0
    np.testing.assert_array_equal(moved, kept)


def test_training_chooses_and_evaluation_does_not():
    task = tasks.create("segmentation", FACTS, hard_examples=SHARE)
    logits, rows = jnp.asarray(LOGITS), {"label": jnp.asarray(LABELS)}
    plain = tasks.create("segmentation", FACTS)
    np.testing.assert_array_equal(task.loss(logits, rows), plain.loss(logits, rows))
    found = task.loss(logits, rows, jax.random.key(0))
    np.testing.assert_allclose(found, by_sorting((1.0,) * CLASSES, 0.0, 0.0), rtol=1e-5)
    every = tasks.create("segmentation", FACTS, hard_examples=1.0)
    np.testing.assert_array_equal(
        every.loss(logits, rows, jax.random.key(0)), plain.loss(logits, rows, jax.random.key(0))
    )


def test_four_devices_make_the_update_of_one():
    options = {"hard_examples": SHARE, "class_weights": (0.5, 2.0, 1.0)}
    task = tasks.create("segmentation", FACTS, **options)
    rows = {"image": LOGITS[..., :3], "label": LABELS}
    model, optimizer = Scores(), optimizers.sgd(lambda step: 1.0)
    start = state.create(model.init(jax.random.key(0), rows["image"]), optimizer)

    def updated(devices):
        step, some = steps.make_train_step(model, optimizer, task=task), jax.devices()[:devices]
        parallel = steps.data_parallel(step, devices=some)
        return parallel(steps.replicate(start, some), steps.shard(rows, devices))

    (one, told), (four, also) = updated(1), updated(4)
    np.testing.assert_allclose(told["loss"], also["loss"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one.params, four.params)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"hard_examples": 0.0}, "hard_examples must be above 0 and at most 1; got 0.0"),
        ({"hard_examples": 1.5}, "hard_examples must be above 0 and at most 1; got 1.5"),
        ({"hard_examples": 0.5, "cross_entropy": "sigmoid"}, "hard_examples want cross_entropy so"),
        ({"hard_examples": 0.5, "sampling": 0.5}, "both choose what is learned from: give one"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        tasks.create("segmentation", FACTS, **options)


def test_several_sets_of_labels_have_hard_examples_of_their_own():
    facts = FACTS | {"label_sets": {"first": CLASSES, "second": CLASSES}}
    task = tasks.create("segmentations", facts, hard_examples=SHARE)
    logits = {"first": jnp.asarray(LOGITS), "second": jnp.asarray(LOGITS[::-1].copy())}
    rows = {"label": jnp.asarray(LABELS), "label/second": jnp.asarray(LABELS[::-1].copy())}
    total, count = task.loss(logits, rows, jax.random.key(0))
    wanted = by_sorting((1.0,) * CLASSES, 0.0, 0.0)
    np.testing.assert_allclose((total, count), (2 * wanted[0], wanted[1]), rtol=1e-5)
    assert tasks.create("segmentations", {}).headline({"mean_iu": 0.5}) == "mean IU 50.00 %"
