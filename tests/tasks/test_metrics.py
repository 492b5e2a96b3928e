"""Measures against loops over pixels and classes."""

import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.tasks.losses import VOID
from rfjax.tasks.metrics import confusion_matrix, summarize


def loop_confusion(labels, predictions, num_classes):
    counts = np.zeros((num_classes, num_classes), np.int64)
    for true, predicted in zip(labels.ravel(), predictions.ravel(), strict=True):
        if true != VOID:
            counts[true, predicted] += 1
    return counts


def loop_scores(counts):
    """The measures, class by class, from their definitions."""
    classes, pixels = len(counts), counts.sum()
    ious, accuracies, weighted = [], [], 0.0
    for k in range(classes):
        true, predicted, hit = counts[k, :].sum(), counts[:, k].sum(), counts[k, k]
        union = true + predicted - hit
        ious.append(hit / union if union else np.nan)
        if true:
            accuracies.append(hit / true)
            weighted += true * hit / union
    seen = [iou for iou in ious if not np.isnan(iou)]
    return {
        "class_iu": ious,
        "mean_iu": sum(seen) / len(seen),
        "pixel_accuracy": np.trace(counts) / pixels,
        "mean_accuracy": sum(accuracies) / len(accuracies),
        "frequency_weighted_iu": weighted / pixels,
    }


@pytest.fixture
def maps():
    """Truth without class 3, prediction without class 2, nobody has class 4."""
    rng = np.random.default_rng(1)
    labels = rng.choice([0, 1, 2, VOID], size=(3, 7, 5))
    predictions = rng.choice([0, 1, 3], size=(3, 7, 5))
    return labels, predictions


def test_confusion_equals_a_loop(maps):
    labels, predictions = maps
    counts = confusion_matrix(jnp.asarray(labels), jnp.asarray(predictions), num_classes=5)
    assert counts.dtype == jnp.int32
    np.testing.assert_array_equal(counts, loop_confusion(labels, predictions, 5))


def test_scores_equal_loops(maps):
    counts = loop_confusion(*maps, 5)
    scores, expected = summarize(counts), loop_scores(counts)
    assert scores.keys() == expected.keys()
    for name in expected:
        np.testing.assert_allclose(scores[name], expected[name], rtol=1e-12, err_msg=name)
    assert np.isnan(scores["class_iu"][4])  # nowhere: left out of the mean
    assert scores["class_iu"][3] == 0.0  # predicted but never true: counts as wrong
    assert scores["mean_iu"] <= scores["mean_accuracy"]


def test_perfect_and_empty():
    perfect = summarize(np.diag([5, 7]))
    assert (
        perfect["mean_iu"] == perfect["pixel_accuracy"] == perfect["frequency_weighted_iu"] == 1.0
    )
    empty = summarize(np.zeros((2, 2)))
    assert np.isnan([empty["mean_iu"], empty["pixel_accuracy"], empty["mean_accuracy"]]).all()


def test_counts_beyond_float32_stay_exact():
    """2^24 + 1 is the first whole number that float32 cannot hold."""
    counts = np.array([[2**24 + 1, 0], [0, 1]], np.int64)
    assert summarize(counts)["class_iu"] == [1.0, 1.0]
    assert summarize(counts + np.array([[0, 1], [0, 0]]))["class_iu"][0] < 1.0


def test_different_shapes_are_refused():
    with pytest.raises(ValueError, match="predictions must have shape"):
        confusion_matrix(jnp.zeros((2, 2), int), jnp.zeros((2, 3), int), num_classes=2)
