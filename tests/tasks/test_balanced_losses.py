"""Class weights, focal and Dice losses, against NumPy in float64 and over devices."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen

from rfjax import tasks
from rfjax.tasks.losses import VOID, balanced_cross_entropy, cross_entropy, soft_dice
from rfjax.training import optimizers, state, steps

CLASSES = 3
FACTS = {"num_classes": CLASSES, "mean": (0.0,) * 3, "std": (1.0,) * 3}
WEIGHTS = (0.5, 2.0, 0.0)
OPTIONS = {"class_weights": WEIGHTS, "focal": 2.0, "dice": 0.7}
RNG = np.random.default_rng(0)
LOGITS = RNG.normal(size=(4, 5, 6, CLASSES)).astype(np.float32)
LABELS = RNG.choice([0, 1, 2, VOID], size=(4, 5, 6))
LABELS[1][LABELS[1] == 2] = VOID  # a class that is not in the picture
LABELS[2] = VOID


def softmax(scores):
    scores = np.exp(scores.astype(np.float64))
    return scores / scores.sum(-1, keepdims=True)


def dice_of(likely, labels):
    """1 - the mean over classes in the picture, class by class and pixel by pixel."""
    valid, found = labels != VOID, []
    for k in np.unique(labels[valid]):
        q, g = likely[valid][:, k], (labels[valid] == k).astype(np.float64)
        found.append(2 * (q @ g) / (q @ q + g @ g))
    return 1 - np.mean(found) if found else 1.0


def by_loops(class_weights=(1.0,) * CLASSES, focal=0.0, dice=0.0):
    total = count = 0.0
    for likely, labels in zip(softmax(LOGITS), LABELS, strict=True):
        for p in np.argwhere(labels != VOID):
            q, weight = likely[tuple(p)][labels[tuple(p)]], class_weights[labels[tuple(p)]]
            total += weight * (-((1 - q) ** focal) * np.log(q) + dice * dice_of(likely, labels))
            count += weight
    return total, count


@pytest.mark.parametrize("keys", ["class_weights", "focal", "dice", "class_weights focal dice"])
def test_the_loss_equals_a_loop(keys):
    options = {key: OPTIONS[key] for key in keys.split()}
    task = tasks.create("segmentation", FACTS, **options)
    found = task.loss(jnp.asarray(LOGITS), {"label": jnp.asarray(LABELS)})
    np.testing.assert_allclose(found, by_loops(**options), rtol=1e-5)


def test_without_options_it_is_the_cross_entropy():
    logits, labels = jnp.asarray(LOGITS), jnp.asarray(LABELS)
    np.testing.assert_array_equal(
        balanced_cross_entropy(logits, labels), cross_entropy(logits, labels)
    )


def test_void_has_no_gradient():
    """Nor has a picture without labels, in which there is nothing to divide by."""
    logits, labels = jnp.asarray(LOGITS), jnp.asarray(LABELS)
    options = OPTIONS | {"class_weights": (1.0, 2.0, 3.0)}
    gradient = jax.grad(lambda z: balanced_cross_entropy(z, labels, **options)[0])(logits)
    assert np.isfinite(gradient).all()
    assert not gradient[LABELS == VOID].any() and np.abs(gradient[LABELS != VOID]).max(-1).all()


@pytest.mark.parametrize("focal", [0.5, 2.0])
def test_certain_pixels_cost_nothing_and_have_finite_gradients(focal):
    logits = jnp.array([[[[200.0, 0.0], [0.0, 0.0]]]])
    loss = lambda z: balanced_cross_entropy(z, jnp.zeros((1, 1, 2), jnp.int32), focal=focal)[0]
    value, gradient = jax.value_and_grad(loss)(logits)
    np.testing.assert_allclose(value, 0.5**focal * np.log(2), rtol=1e-6)
    assert np.isfinite(gradient).all() and not gradient[0, 0, 0].any()


def test_dice_is_zero_where_all_is_right():
    labels = jnp.asarray(np.where(LABELS == VOID, 0, LABELS))
    perfect = 100 * jax.nn.one_hot(labels, CLASSES)
    np.testing.assert_allclose(soft_dice(perfect, labels), 0, atol=1e-6)


class Scores(linen.Module):
    """A score of the classes at every pixel."""

    @linen.compact
    def __call__(self, x, train=False):
        return linen.Dense(CLASSES)(x)


def test_four_devices_make_the_update_of_one():
    """Pictures differ in void and classes, so means of means would be wrong; weights are tiny."""
    task = tasks.create("segmentation", FACTS, **OPTIONS | {"class_weights": (1e-4, 3e-4, 1e-5)})
    batch = {"image": RNG.normal(size=(4, 5, 6, 3)).astype(np.float32), "label": LABELS}
    model, optimizer = Scores(), optimizers.sgd(lambda step: 1.0)
    start = state.create(model.init(jax.random.key(0), batch["image"]), optimizer)

    def updated(devices):
        step = steps.make_train_step(model, optimizer, task=task)
        some = jax.devices()[:devices]
        parallel = steps.data_parallel(step, devices=some)
        return parallel(steps.replicate(start, some), steps.shard(batch, devices))

    (one, told), (four, also) = updated(1), updated(4)
    np.testing.assert_allclose(told["loss"], also["loss"], rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), one.params, four.params)
    total, count = task.loss(model.apply(start.variables, batch["image"]), batch)
    np.testing.assert_allclose(told["loss"], total / count, rtol=1e-5)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"class_weights": (1.0, 2.0)}, r"class_weights wants 3 numbers.*got \(1.0, 2.0\)"),
        ({"class_weights": (0, 0, 0)}, "class_weights wants 3 numbers, one a class, not all 0"),
        ({"class_weights": (1, -1, 1)}, "class_weights must be at least 0; got -1"),
        ({"focal": -1.0}, "focal must be at least 0; got -1.0"),
        ({"dice": float("nan")}, "dice must be at least 0; got nan"),
        ({"dice": 1.0, "cross_entropy": "sigmoid"}, "dice want cross_entropy softmax"),
    ],
)
def test_wrong_options(options, message):
    with pytest.raises(ValueError, match=message):
        tasks.create("segmentation", FACTS, **options)


def test_wrong_weights_of_the_function():
    with pytest.raises(ValueError, match="class_weights wants 3, one a class; got 2"):
        balanced_cross_entropy(jnp.asarray(LOGITS), jnp.asarray(LABELS), class_weights=(1, 2))
    facts = FACTS | {"label_sets": {"semantic": 3, "geometric": 2}}
    with pytest.raises(ValueError, match="several sets of classes: no class_weights"):
        tasks.create("segmentations", facts, class_weights=(1, 1, 1))
