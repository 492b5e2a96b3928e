"""Training image by image, as FCN does: momentum, sums, native sizes, many steps in a call."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import linen

from rfjax import data, receptive_field, tasks
from rfjax.data import rows
from rfjax.tasks.losses import VOID
from rfjax.training import config as configs
from rfjax.training import loop, optimizers, state, steps
from tests.training.runs import arrays, tiny_config

PARAMS = {"kernel": jnp.array([1.0, -2.0])}


def caffe(value, gradients, rates, *, momentum, decay):
    """caffe::SGDSolver, step by step."""
    value, memory = np.asarray(value, np.float64), 0.0
    for gradient, rate in zip(gradients, rates, strict=True):
        memory = momentum * memory + rate * (gradient + decay * value)
        value = value - memory
    return value


def follow(optimizer, gradients, params=PARAMS):
    memory = optimizer.init(params)
    for gradient in gradients:
        updates, memory = optimizer.update({"kernel": jnp.asarray(gradient)}, memory, params)
        params = optax.apply_updates(params, updates)
    return params["kernel"]


def test_the_rate_is_in_the_momentum():
    rate = optimizers.poly_schedule(0.1, steps=6)
    gradients = np.random.default_rng(0).normal(size=(6, 2)).astype(np.float32)
    options = {"momentum": 0.9, "weight_decay": 0.05}
    found = follow(optimizers.sgd(rate, rate_in_momentum=True, **options), gradients)
    wanted = caffe(
        PARAMS["kernel"], gradients, [float(rate(t)) for t in range(6)], momentum=0.9, decay=0.05
    )
    np.testing.assert_allclose(found, wanted, rtol=1e-5)
    outside = follow(optimizers.sgd(rate, **options), gradients)
    assert np.abs(outside - wanted).max() > 0.01  # since the rate falls


def test_a_constant_rate_may_stand_anywhere():
    gradients = np.random.default_rng(1).normal(size=(6, 2)).astype(np.float32)
    both = [
        follow(optimizers.sgd(lambda t: 0.1, momentum=0.9, rate_in_momentum=inside), gradients)
        for inside in (False, True)
    ]
    np.testing.assert_allclose(*both, rtol=1e-5)


@pytest.mark.parametrize(("momentum", "every"), [(0.9, 1), (0.9, 4), (0.99, 1)])
def test_an_example_fades_by_powers_of_the_momentum(momentum, every):
    """The eleventh invariant: the step holds the j-th last example p^(j // k) times."""
    examples = 12
    optimizer = optimizers.accumulated(
        optimizers.sgd(lambda t: 1.0, momentum=momentum, rate_in_momentum=True), every, "sum"
    )
    params = {"kernel": jnp.zeros(examples)}
    memory = optimizer.init(params)
    for example in range(examples):  # the gradient of a linear loss, one axis for each example
        gradient = {"kernel": jnp.zeros(examples).at[example].set(1.0)}
        updates, memory = optimizer.update(gradient, memory, params)
    wanted = [momentum ** (j // every) for j in range(examples)]
    np.testing.assert_allclose(-updates["kernel"][::-1], wanted, rtol=1e-5)


class Plain(linen.Module):
    """A first layer that sees zeros around the image, and others that see no border."""

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.relu(linen.Conv(4, (3, 3), padding=3)(x))
        x = linen.relu(linen.Conv(4, (3, 3), padding="VALID")(x))
        return linen.Conv(3, (3, 3), padding="VALID")(x)


TASK = tasks.create("segmentation", {"num_classes": 3}, normalize="none")


def example(seed, size):
    rng = np.random.default_rng(seed)
    label = rng.choice([0, 1, 2, VOID], size=size).astype(np.int32)
    return {"image": rng.normal(size=(*size, 3)).astype(np.float32), "label": label}


def batch_of(*rows):
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def sgd():
    return optimizers.sgd(
        optimizers.poly_schedule(1e-3, steps=100), momentum=0.99, rate_in_momentum=True
    )


def start(optimizer=None):
    variables = Plain().init(jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    return state.create(variables, optimizer or sgd())


def make_step(optimizer=None):
    return steps.make_train_step(Plain(), optimizer or sgd(), task=TASK, axis_name=None)


def close(left, right, **tolerance):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, **tolerance), left, right)


def test_twenty_accumulated_are_a_batch_of_twenty():
    """The twelfth invariant, with sums."""
    images = [example(seed, (6, 8)) for seed in range(20)]
    several = optimizers.accumulated(sgd(), 20, "sum")
    one_by_one, step = start(several), jax.jit(make_step(several))
    for image in images:
        one_by_one, _ = step(one_by_one, batch_of(image))
    at_once, _ = jax.jit(make_step())(start(), batch_of(*images))
    close(one_by_one.params, at_once.params, rtol=1e-5, atol=1e-7)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), start().params, at_once.params)
    assert min(jax.tree.leaves(moved)) > 1e-3


class Sliding(linen.Module):
    """Layers without padding: scores of every second window of ten pixels."""

    @linen.compact
    def __call__(self, x, train=False):
        x = linen.relu(linen.Conv(4, (3, 3), padding="VALID")(x))
        x = linen.max_pool(x, (2, 2), strides=(2, 2))
        x = linen.relu(linen.Conv(4, (3, 3), padding="VALID")(x))
        return linen.Conv(3, (2, 2), padding="VALID")(x)


def test_an_image_makes_the_step_of_all_its_receptive_fields():
    """The gradient of a sum over cells is the sum of the gradients of what the cells see."""
    variables = Sliding().init(jax.random.key(0), jnp.zeros((1, 10, 10, 3)))
    field = receptive_field.theoretical(lambda x: Sliding().apply(variables, x), (1, None, None, 3))
    assert (field.size, field.stride) == ((10, 10), (2, 2))
    whole = example(0, (16, 14))
    cells = list(np.ndindex(4, 3))
    whole["label"] = np.random.default_rng(1).choice([0, 1, 2, VOID], size=(4, 3)).astype(np.int32)
    windows = [
        {
            "image": whole["image"][2 * i : 2 * i + 10, 2 * j : 2 * j + 10],
            "label": whole["label"][i : i + 1, j : j + 1],
        }
        for i, j in cells
    ]
    step = jax.jit(steps.make_train_step(Sliding(), sgd(), task=TASK, axis_name=None))
    begin = lambda: state.create(variables, sgd())
    at_once, metrics = step(begin(), batch_of(whole))
    patches, expected = step(begin(), batch_of(*windows))
    close(at_once.params, patches.params, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["loss"], expected["loss"], rtol=1e-5)
    moved = jax.tree.map(lambda a, b: np.abs(a - b).max(), variables["params"], at_once.params)
    assert min(jax.tree.leaves(moved)) > 1e-4


def test_sums_grow_with_the_image():
    """The tenth invariant: twice the pixels pull twice, at a rate that knows no number of them."""
    image = example(0, (6, 8))
    once, _ = jax.jit(make_step())(start(), batch_of(image))
    twice, _ = jax.jit(make_step())(start(), batch_of(image, image))
    change = lambda new: jax.tree.map(lambda a, b: a - b, new.params, start().params)
    close(change(twice), jax.tree.map(lambda leaf: 2 * leaf, change(once)), rtol=1e-3, atol=1e-7)


def test_a_padded_image_makes_the_step_of_the_image():
    """Where what lies around the image is what the network sees around it, and void."""
    sizes = [(6, 8), (9, 5), (10, 10)]
    native, padded = start(), start()
    step, traces = make_step(), []

    @jax.jit
    def counted(current, batch):
        traces.append(1)
        return step(current, batch)

    for seed, size in enumerate(sizes):
        row = example(seed, size)
        native, before = jax.jit(step)(native, batch_of(row))
        padded, after = counted(padded, batch_of(rows.padded(row, (10, 10), "one")))
        np.testing.assert_allclose(before["loss"], after["loss"], rtol=1e-5)
        np.testing.assert_array_equal(before["measures"], after["measures"])
    close(native.params, padded.params, rtol=1e-5, atol=1e-7)
    assert len(traces) == 1


def test_steps_of_one_call_are_those_of_many():
    batches = [batch_of(example(seed, (6, 8))) for seed in range(4)]
    alone, step = start(), jax.jit(make_step())
    losses = []
    for batch in batches:
        alone, metrics = step(alone, batch)
        losses.append(metrics["loss"])
    stacked = jax.tree.map(lambda each: each[0], steps.stack(batches, 1))
    together, metrics = jax.jit(steps.repeated(make_step()))(start(), stacked)
    close(alone, together, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-5)


def test_a_run_of_calls_equals_a_run_of_steps(tmp_path):
    changes = {"steps": 4, "checkpoint_every": 4, "task__normalize": "none"}
    changes |= {"optimizer__learning_rate": 1e-5, "optimizer__rate_in_momentum": True}
    for calls in (1, 2):
        config = tiny_config(tmp_path / "data", steps_per_call=calls, **changes)
        loop.train(config, tmp_path / str(calls))
    one, two = arrays(tmp_path / "1"), arrays(tmp_path / "2")
    assert one.keys() == two.keys()
    for name, found in one.items():
        np.testing.assert_allclose(found, two[name], rtol=1e-4, atol=1e-6, err_msg=name)
    records = [
        [record["loss"] for record in loop.reporting.read_records(tmp_path / calls)]
        for calls in ("1", "2")
    ]
    np.testing.assert_allclose(*records, rtol=1e-4)


def test_calls_divide_all_counts(tmp_path):
    config = tiny_config(tmp_path, steps=9, steps_per_call=2)
    with pytest.raises(configs.ConfigError, match=r"steps_per_call: got 2; .* not steps=9"):
        configs.validate(config)


class _Sizes:
    """Images of two sizes."""

    def __len__(self):
        return 4

    def __getitem__(self, index):
        size = (4 + index, 6)
        return {
            "image": np.zeros((*size, 3), np.uint8),
            "label": np.full(size, index, np.uint8),
            "id": str(index),
        }


def test_images_of_many_sizes_are_one_batch():
    dataset = data.Dataset("sizes", "train", _Sizes(), num_classes=4)
    stream = data.train_iterator(dataset, batch_size=4, seed=0, pad=(8, 7), threads=0)
    batch = next(stream)
    assert batch["image"].shape == (4, 8, 7, 3)
    for label in batch["label"]:
        index = label[0, 0]
        assert (label != VOID).sum() == (4 + index) * 6
        np.testing.assert_array_equal(label[: 4 + index, :6], index)
    with pytest.raises(ValueError, match="has 5x6 pixels; want at most pad=4x8"):
        stream = data.train_iterator(dataset, batch_size=4, seed=0, pad=(4, 8), threads=0)
        next(stream)
