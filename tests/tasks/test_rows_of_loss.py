"""Softmax and sigmoids, with and without a background, and sampled losses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models, tasks
from rfjax.tasks.losses import VOID, sampled, sigmoid_cross_entropy

FACTS = {"num_classes": 3, "mean": (0.0,) * 3, "std": (1.0,) * 3}
LABELS = np.random.default_rng(0).choice([0, 1, 2, VOID], size=(2, 4, 6))
LOGITS = np.random.default_rng(1).normal(size=(2, 4, 6, 3)).astype(np.float32)


@pytest.mark.parametrize("background", [True, False])
def test_sigmoids_equal_a_loop(background):
    total = 0.0
    for index in np.ndindex(LABELS.shape):
        if LABELS[index] != VOID:
            for k in range(0 if background else 1, 3):
                p = 1 / (1 + np.exp(-np.float64(LOGITS[index][k])))
                total -= np.log(p if LABELS[index] == k else 1 - p)
    found, count = sigmoid_cross_entropy(LOGITS, jnp.asarray(LABELS), background=background)
    np.testing.assert_allclose(found, total, rtol=1e-5)
    assert float(count) == (LABELS != VOID).sum()


def network(cross_entropy):
    task = tasks.create("segmentation", FACTS, cross_entropy=cross_entropy)

    def build(num_classes):
        options = {"width": 4}
        return models.create("resnet_tiny", num_classes=num_classes, backbone_options=options)

    model = task.model(build)
    return task, model, model.init(jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


def test_a_null_background_has_no_parameters_and_the_score_zero():
    _, _, whole = network("sigmoid")
    task, model, variables = network("null_background")
    count = lambda tree: sum(leaf.size for leaf in jax.tree.leaves(tree["params"]["head"]))
    features = whole["params"]["head"]["kernel"].shape[2]
    assert count(whole) - count(variables) == features + 1
    images = jax.random.normal(jax.random.key(1), (1, 16, 16, 3))
    scores = model.apply(variables, images)
    assert scores.shape == (1, 16, 16, 3)
    np.testing.assert_array_equal(scores[..., 0], 0.0)
    predicted = jnp.argmax(scores, -1)
    np.testing.assert_array_equal(predicted == 0, scores[..., 1:].max(-1) <= 0)
    labels = jnp.zeros((1, 16, 16), jnp.int32)
    total, _ = task.loss(scores, {"label": labels})
    np.testing.assert_allclose(total, jax.nn.softplus(scores[..., 1:]).sum(), rtol=1e-5)


@pytest.mark.parametrize("cross_entropy", ["softmax", "sigmoid", "null_background"])
def test_void_has_neither_loss_nor_gradient_nor_count(cross_entropy):
    """The eighth of the invariants of FCN, for each of the three losses."""
    task = tasks.create("segmentation", FACTS, cross_entropy=cross_entropy)
    batch = {"label": jnp.asarray(LABELS)}
    gradient = jax.grad(lambda z: task.loss(z, batch)[0])(jnp.asarray(LOGITS))
    void = LABELS == VOID
    assert not gradient[void].any() and np.abs(gradient[~void]).max(-1).all()
    assert task.measure(jnp.asarray(LOGITS), batch).sum() == (~void).sum()


def test_scores_of_zero_cost_the_logarithm_of_the_classes():
    """The seventh: a score layer that starts at zero."""
    task = tasks.create("segmentation", FACTS)
    total, count = task.loss(jnp.zeros_like(LOGITS), {"label": jnp.asarray(LABELS)})
    np.testing.assert_allclose(total, float(count) * np.log(3), rtol=1e-6)


def test_sampling_keeps_whole_cells_and_is_unbiased():
    """The thirteenth: the gradient in expectation is p times the whole one."""
    task = tasks.create("segmentation", FACTS, sampling=0.25, cell=2)
    logits, batch = jnp.asarray(LOGITS), {"label": jnp.asarray(LABELS)}
    gradient = jax.grad(lambda z, key: task.loss(z, batch, key)[0])
    keys = jax.random.split(jax.random.key(0), 4096)
    drawn = np.asarray(jax.jit(jax.vmap(gradient, (None, 0)))(logits, keys))
    cells = (drawn != 0).any(-1).reshape(4096, 2, 2, 2, 3, 2)
    valid = (LABELS != VOID).reshape(2, 2, 2, 3, 2)
    kept = (cells | ~valid).all((3, 5))  # all valid pixels of a cell, or none of them
    assert (kept | ~(cells.any((3, 5)))).all()
    whole = np.asarray(gradient(logits, None))
    # Of 4096 draws the mean is off by .007 in one standard deviation; a factor 1/p by .028.
    np.testing.assert_allclose(4 * drawn.mean(0), whole, atol=0.15)
    slope = (drawn.mean(0) * whole).sum() / (whole**2).sum()
    np.testing.assert_allclose(slope, 0.25, atol=0.005)
    np.testing.assert_array_equal(task.loss(logits, batch)[1], (LABELS != VOID).sum())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cross_entropy": "hinge"}, "softmax, sigmoid, null_background; got 'hinge'"),
        ({"sampling": 0.0}, "sampling must be above 0 and at most 1; got 0.0"),
        ({"cell": 0}, "cell must be a positive integer; got 0"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        tasks.create("segmentation", FACTS, **options)


def test_shapes_and_probabilities_of_sampling():
    with pytest.raises(ValueError, match="probability must be"):
        sampled(jax.random.key(0), jnp.zeros((2, 2), jnp.int32), 1.5)
    everything = sampled(jax.random.key(0), jnp.ones((3, 5), jnp.int32), 1.0, cell=4)
    np.testing.assert_array_equal(everything, 1)
    with pytest.raises(ValueError, match="labels must have shape"):
        sigmoid_cross_entropy(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 2, 2), jnp.int32))


def test_a_null_background_wants_one_head():
    task = tasks.create("segmentation", FACTS, cross_entropy="null_background")
    several = lambda n: models.create("resnet_tiny", num_classes={"a": n})
    with pytest.raises(TypeError, match="one head"):
        task.model(several)
