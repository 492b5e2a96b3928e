"""The task of guided segmentation: rows, inputs and scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import data, tasks
from rfjax.data import Augmentation
from rfjax.tasks.losses import VOID

FACTS = {"num_classes": 2, "class_names": ["background", "object"], "palette": [[0] * 3] * 2,
         "mean": [0.5] * 3, "std": [0.25] * 3}  # fmt: skip
SIDE = 8


def example(shots=2, **more):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (shots + 1, SIDE, SIDE, 3), np.uint8)
    labels = rng.choice([0, 1, VOID], (shots + 1, SIDE, SIDE)).astype(np.uint8)
    return {"image": images[0], "label": labels[0], "support": images[1:],
            "label/support": labels[1:], **more}  # fmt: skip


def task(ways=2, **options):
    return tasks.create("guided", {**FACTS, "num_classes": ways}, **options)


def test_a_row_is_normalized_and_a_blank_one_counts_for_nothing():
    row = task().row(example())
    np.testing.assert_allclose(
        row["support"][1], (example()["support"][1] / 255 - 0.5) / 0.25, 1e-5
    )
    np.testing.assert_array_equal(row["label/support"], example()["label/support"])
    batch = {name: array[None] for name, array in task().blank(row).items()}
    support, marks, query = task().inputs(batch)
    assert support.shape == (1, 2, SIDE, SIDE, 3) and query.shape == (1, SIDE, SIDE, 3)
    assert marks.shape == (1, 2, SIDE, SIDE, 2) and not marks.any()
    scores = jnp.ones((1, SIDE, SIDE, 2))
    assert [float(x) for x in task().loss(scores, batch)] == [0, 0]
    assert not any(leaf.any() for leaf in jax.tree.leaves(task().measure(scores, batch)))


def test_a_query_and_its_own_marks_are_varied_alike():
    own = {"image": example()["image"], "label": example()["label"]}
    own["label/support"] = own["label"][None]
    augmentation = Augmentation(flip=True, crop=(6, 6))
    for seed in range(4):
        row = task().row(own, np.random.default_rng(seed), augmentation)
        np.testing.assert_array_equal(row["label/support"][0], row["label"])
        assert task().inputs({name: array[None] for name, array in row.items()})[0] is None
    both = task().row(example(), np.random.default_rng(0), augmentation)
    assert both["support"].shape == (2, 6, 6, 3) and both["label/support"].shape == (2, 6, 6)


def test_scores_by_hand():
    """Two episodes: hits 2 of a union of 4, and 1 of 1; a third has no object at all."""
    label = np.array([[[1, 1, 1, 0]], [[1, 0, 0, VOID]], [[0, 0, 0, 0]]])
    found = np.array([[[1, 1, 0, 1]], [[1, 0, 0, 1]], [[0, 0, 0, 0]]])
    outputs = jax.nn.one_hot(found, 2)
    totals = jax.tree.map(np.asarray, task().measure(outputs, {"label": jnp.asarray(label)}))
    scores = task().summarize(totals)
    np.testing.assert_allclose(scores["positive_iu"], 3 / 5)
    np.testing.assert_allclose(scores["episode_iu"], (2 / 4 + 1) / 2)
    np.testing.assert_allclose(scores["class_iu"], [6 / 8, 3 / 5])
    assert np.isnan(task().summarize(None)["positive_iu"])


def test_an_object_for_another_is_wrong_for_both():
    label, found = jnp.array([[[1, 2, 2, 0]]]), jnp.array([[[2, 2, 2, 0]]])
    totals = task(3).measure(jax.nn.one_hot(found, 3), {"label": label})
    scores = task(3).summarize(jax.tree.map(np.asarray, totals))
    np.testing.assert_allclose(scores["positive_iu"], 2 / 4)
    np.testing.assert_allclose(scores["class_iu"], [1, 0, 2 / 3])


def test_options_are_checked():
    with pytest.raises(ValueError, match=r"fusion is one of late_global, .*; got 'late'"):
        task(fusion="late")
    with pytest.raises(ValueError, match="shared must be True or False; got 1"):
        task(shared=1)


def test_episodes_are_drawn():
    dataset = data.load("digit_episodes", "val", val_scenes=24, val_episodes=2, points=3)
    own = tasks.create("guided", dataset.facts)
    examples = [dataset.source[index] for index in range(2)]
    outputs = [one["label"] for one in examples]
    (figure,) = own.draw(examples, outputs, {}).values()
    assert len(figure().axes) == 8
