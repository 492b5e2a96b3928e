"""Two sets of labels: one trunk, two heads, losses summed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import data, models, tasks
from rfjax.data import rows
from rfjax.tasks.losses import VOID, cross_entropy
from rfjax.training import optimizers, state, steps

SETS = {"semantic": 4, "geometric": 2}
FACTS = {"num_classes": 4, "mean": (0.0,) * 3, "std": (1.0,) * 3, "label_sets": SETS}
TASK = tasks.create("segmentations", FACTS, normalize="none")


def example(seed, size=(12, 16)):
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 2, 3, VOID], size).astype(np.uint8)
    other = np.where(label == VOID, 0, label % 2).astype(np.uint8)
    image = rng.integers(0, 256, (*size, 3)).astype(np.uint8)
    return {"image": image, "label": label, "label/geometric": other, "id": str(seed)}


BATCH = {
    name: np.stack([TASK.row(example(seed))[name] for seed in range(2)])
    for name in ("image", "label", "label/geometric")
}


@pytest.fixture(scope="module")
def network():
    options = {"width": 4}
    build = lambda n: models.create("resnet_tiny", num_classes=n, backbone_options=options)
    model = TASK.model(build)
    return model, model.init(jax.random.key(0), jnp.zeros((1, 12, 16, 3)))


def test_losses_and_measures_are_those_of_each(network):
    model, variables = network
    outputs = jax.jit(model.apply)(variables, BATCH["image"])
    assert {name: scores.shape[-1] for name, scores in outputs.items()} == SETS
    total, count = TASK.loss(outputs, BATCH)
    keys = {"semantic": "label", "geometric": "label/geometric"}
    wanted = [cross_entropy(outputs[name], BATCH[key]) for name, key in keys.items()]
    np.testing.assert_allclose(total, wanted[0][0] + wanted[1][0], rtol=1e-6)
    assert float(count) == (BATCH["label"] != VOID).sum()
    totals = jax.device_get(TASK.measure(outputs, BATCH))
    alone = tasks.create("segmentation", FACTS)
    scores = TASK.summarize(totals)
    assert scores["mean_iu"] == alone.summarize(totals["semantic"])["mean_iu"]
    assert scores["geometric_mean_iu"] == alone.summarize(totals["geometric"])["mean_iu"]
    assert totals["geometric"].sum() == BATCH["label"].size
    assert np.isnan(TASK.summarize(None)["geometric_pixel_accuracy"])


def test_both_heads_learn_in_one_step(network):
    model, variables = network
    optimizer = optimizers.sgd(lambda t: 1e-3, momentum=0.9)
    step = jax.jit(steps.make_train_step(model, optimizer, task=TASK, axis_name=None))
    current, losses = state.create(variables, optimizer), []
    for _ in range(3):
        current, metrics = step(current, BATCH)
        losses.append(float(metrics["loss"]))
    assert losses[2] < losses[0]
    before, after = variables["params"]["head"], current.params["head"]
    assert set(before) == set(SETS)
    for name in SETS:
        assert np.abs(after[name]["kernel"] - before[name]["kernel"]).max() > 0


def test_labels_are_varied_alike():
    augmentation = data.Augmentation(rotation=90.0, crop=(8, 8), flip=True)
    for seed in range(4):
        row = TASK.row(example(seed), np.random.default_rng(seed), augmentation)
        known = row["label"] != VOID
        assert known.any()
        np.testing.assert_array_equal(row["label/geometric"][known], row["label"][known] % 2)


def test_what_fills_up_is_void_in_both():
    row = TASK.row(example(0))
    assert (TASK.blank(row)["label/geometric"] == VOID).all()
    assert (rows.padded(row, (14, 16), "a")["label/geometric"][12:] == VOID).all()


def test_predictions_are_those_of_the_first(network):
    model, variables = network
    found, _ = TASK.predictor(model)(variables, [example(0), example(1)])
    wanted = model.apply(variables, BATCH["image"])["semantic"].argmax(-1)
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize(
    ("facts", "options", "message"),
    [
        ({"label_sets": {"semantic": 4}}, {}, "wants data of several sets of labels"),
        ({}, {"cross_entropy": "null_background"}, "softmax or sigmoid"),
    ],
)
def test_what_cannot_be(facts, options, message):
    with pytest.raises(ValueError, match=message):
        tasks.create("segmentations", FACTS | facts, **options)
