"""Evaluation of images of any sizes: the scores of each image alone, with few compilations."""

import jax
import numpy as np
import pytest
from scipy.special import logsumexp

from rfjax import data, models, tasks
from rfjax.data import Dataset
from rfjax.tasks import inference
from rfjax.tasks.losses import VOID
from rfjax.training import pictures, scoring, state, steps

CLASSES = 3
SIZES = ((24, 24), (17, 32), (24, 24), (32, 17), (17, 32), (24, 24), (24, 24), (24, 24), (17, 32))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.2, 0.3)


class Source:
    """Noise of different sizes, each image with a share of void of its own."""

    def __init__(self, sizes):
        self._sizes = sizes

    def __len__(self):
        return len(self._sizes)

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        image = rng.integers(0, 256, (*self._sizes[index], 3), dtype=np.uint8)
        label = rng.integers(0, CLASSES, self._sizes[index], dtype=np.uint8)
        label[: 2 * index] = VOID
        return {"image": image, "label": label, "id": str(index)}


def dataset(sizes=SIZES, *, source=None):
    palette = np.eye(CLASSES, 3, dtype=np.uint8) * 255
    names = ("a", "b", "c")
    return Dataset("noise", "val", source or Source(sizes), CLASSES, names, palette, MEAN, STD)


@pytest.fixture(scope="module")
def model():
    options = {"backbone_options": {"width": 4, "depth": 1}}
    return models.create("resnet_tiny", num_classes=CLASSES, head="composition", **options)


@pytest.fixture(scope="module")
def variables(model):
    return state.initial_variables(model, jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))


@pytest.fixture(scope="module")
def alone(model, variables):
    """Confusion matrix, sum of losses and number of pixels, one image after the other."""
    apply = jax.jit(model.apply)
    confusion, loss = np.zeros((CLASSES, CLASSES), int), 0.0
    source = Source(SIZES)
    for example in map(source.__getitem__, range(len(source))):
        image = (example["image"] / 255.0 - MEAN) / STD
        logits = np.asarray(apply(variables, image[None].astype(np.float32)), np.float64)[0]
        valid = example["label"] != VOID
        true, scores = example["label"][valid], logits[valid]
        np.add.at(confusion, (true, scores.argmax(-1)), 1)
        loss += (logsumexp(scores, axis=-1) - scores[np.arange(len(true)), true]).sum()
    return confusion, loss


def counted_step(model):
    """The parallel step of evaluation, and the shapes that it was compiled for."""
    step, traced = steps.make_eval_step(model), []

    def counting(variables, batch):
        traced.append(batch["image"].shape)
        return step(variables, batch)

    return steps.data_parallel(counting), traced


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 8), (2, 16)])
def test_scores_are_those_of_each_image_alone(model, variables, alone, processes, batch_size):
    """On eight devices, in batches that are not full; `processes` take turns here."""
    eval_step, traced = counted_step(model)
    confusion, loss, count = np.zeros((CLASSES, CLASSES), int), 0.0, 0.0
    replicated = steps.replicate(variables)
    for process in range(processes):
        batches = list(
            data.eval_batches(
                dataset(),
                batch_size=batch_size,
                process_index=process,
                process_count=processes,
                devices=8,
            )
        )
        for batch in batches:
            counts = eval_step(replicated, steps.shard(batch, 8))
            confusion += np.asarray(counts["measures"])
            loss, count = loss + float(counts["loss"]), count + float(counts["count"])
    np.testing.assert_array_equal(confusion, alone[0])
    np.testing.assert_allclose(loss, alone[1], rtol=1e-5)
    assert count == alone[0].sum()
    assert sorted(traced) == [(1, 17, 32, 3), (1, 24, 24, 3), (1, 32, 17, 3)]


def test_the_loop_adds_them_up_and_compiles_once_a_size(model, variables, alone):
    eval_step, traced = counted_step(model)
    replicated = steps.replicate(variables)
    for _ in range(2):  # the second evaluation compiles nothing
        batches = data.eval_batches(dataset(), batch_size=scoring.eval_rows(3), devices=8)
        scores = scoring.evaluate(eval_step, replicated, batches)
    assert len(traced) == len(set(SIZES))
    confusion, loss = alone
    hits = np.diag(confusion)
    union = confusion.sum(0) + confusion.sum(1) - hits
    np.testing.assert_allclose(scores["class_iu"], hits / union)
    assert scores["mean_iu"] == pytest.approx(np.mean(hits / union))
    assert scores["pixel_accuracy"] == pytest.approx(hits.sum() / confusion.sum())
    assert scores["loss"] == pytest.approx(loss / confusion.sum(), rel=1e-5)


def test_a_set_without_images_has_no_scores(model, variables):
    eval_step, traced = counted_step(model)
    scores = scoring.evaluate(eval_step, variables, data.eval_batches(dataset(()), batch_size=8))
    assert np.isnan([scores["loss"], scores["mean_iu"], scores["pixel_accuracy"]]).all()
    assert scores["class_iu"] == [] and traced == []


def test_a_batch_without_rows_counts_nothing():
    batch = {"image": np.zeros((0, 16, 16, 3), np.float32), "label": np.zeros((0, 16, 16), int)}
    dealt = steps.shard(batch, 8)
    assert dealt["image"].shape == (8, 0, 16, 16, 3) and dealt["label"].shape == (8, 0, 16, 16)

    class Scores:
        """A model whose scores are its input."""

        def apply(self, variables, images, *, train):
            return images

    counts = jax.jit(steps.make_eval_step(Scores(), axis_name=None))({}, batch)
    assert not np.any(counts["measures"]) and counts["loss"] == counts["count"] == 0
    eval_step = steps.data_parallel(steps.make_eval_step(Scores()))
    assert np.isnan(scoring.evaluate(eval_step, {}, [batch])["mean_iu"])
    label = np.array([0, 1, 2, VOID] * 2)[:, None, None]
    full = {"image": np.eye(3, dtype=np.float32)[label % 3], "label": label}
    scores = scoring.evaluate(eval_step, {"none": np.zeros(1)}, [batch, full, batch])
    assert scores["class_iu"] == [1.0, 1.0, 1.0]


def test_rows_that_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="6 rows do not divide by 4 devices"):
        steps.shard({"image": np.zeros((6, 1)), "label": np.zeros(6)}, 4)


def test_figures_of_images_of_different_sizes_and_of_none(model, variables, tmp_path):
    variables = jax.device_get(variables)
    seen = []

    class Watched(Source):
        def __getitem__(self, index):
            seen.append(index)
            return super().__getitem__(index)

        def shape(self, index):
            return self._sizes[index]

    def draw(dataset):
        task = tasks.Segmentation(dataset.facts)
        return pictures.Pictures(tmp_path, task, model, dataset).draw(variables, {})

    drawn = draw(dataset(source=Watched(SIZES[1:4])))
    assert drawn.keys() == {"curves", "examples"}
    assert seen == [0]
    seen.clear()
    draw(dataset(source=Watched(((8, 8), *SIZES[:3]))))
    assert seen == [1, 3]  # of the commonest size
    assert draw(dataset(())).keys() == {"curves"}


@pytest.mark.parametrize("images", [np.zeros((1, 8, 8, 3)), np.zeros((8, 8, 3), np.uint8)])
def test_only_levels_are_segmented(model, variables, images):
    segment = inference.make_segment(model, data.Normalization(MEAN, STD))
    with pytest.raises(TypeError, match=r"images are uint8 \[N, H, W, 3\]; got"):
        segment(variables, images)
