"""What is trained, how fast and how much decays, by patterns of the paths of parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfjax.training import optimizers, state, steps
from tests.training.runs import assert_identical
from tests.training.test_last_stage import initial, make_model, moved, run
from tests.training.test_steps import make_batch, make_optimizer

PARAMS = {"conv": {"kernel": jnp.array([1.0, -2.0]), "bias": jnp.array([0.5])}}
GRADS = {"conv": {"kernel": jnp.array([0.5, 0.25]), "bias": jnp.array([-1.0])}}


def one_update(optimizer, gradients=GRADS):
    updates, _ = optimizer.update(gradients, optimizer.init(PARAMS), PARAMS)
    return optax.apply_updates(PARAMS, updates)


def test_rates_and_decays_by_pattern():
    """As Caffe trains: biases at twice the rate, and without decay."""
    factors = {"rates": {"*/bias": 2.0}, "decays": {"*/bias": 0.0}}
    moved = one_update(optimizers.sgd(lambda t: 0.1, momentum=0.0, weight_decay=0.2, **factors))
    np.testing.assert_allclose(moved["conv"]["kernel"], [1 - 0.1 * 0.7, -2 - 0.1 * (0.25 - 0.4)])
    np.testing.assert_allclose(moved["conv"]["bias"], [0.5 + 0.1 * 2.0])


def test_the_last_pattern_that_matches_holds():
    factors = optimizers.factors(("*=3", "conv/kernel=0.5"))
    moved = one_update(optimizers.sgd(lambda t: 0.1, momentum=0.0, rates=factors))
    np.testing.assert_allclose(moved["conv"]["kernel"], [1 - 0.05 * 0.5, -2 - 0.05 * 0.25])
    np.testing.assert_allclose(moved["conv"]["bias"], [0.5 + 0.3], rtol=1e-6)


@pytest.mark.parametrize(("how", "divisor"), [("mean", 3.0), ("sum", 1.0)])
def test_accumulated_gradients_make_one_update(how, divisor):
    """Three steps of one gradient each are one step of their mean, or of their sum."""
    rate = optimizers.poly_schedule(0.1, steps=4)
    plain = lambda: optimizers.sgd(rate, momentum=0.9, weight_decay=0.1)
    several = optimizers.accumulated(plain(), 3, how)
    memory, params = several.init(PARAMS), PARAMS
    known, wanted = plain().init(PARAMS), PARAMS
    for number in range(6):
        gradients = optax.tree.scale(jnp.float32(1 + number), GRADS)
        updates, memory = several.update(gradients, memory, params)
        params = optax.apply_updates(params, updates)
        if number % 3 == 2:
            total = optax.tree.scale(
                jnp.float32(sum(range(number - 1, number + 2)) / divisor), GRADS
            )
            updates, known = plain().update(total, known, wanted)
            wanted = optax.apply_updates(wanted, updates)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5), params, wanted)


def test_patterns_of_the_head_are_the_last_stage():
    by_pattern, _ = run("ccl", 1, trainable="head/*", count=2)
    last_stage, _ = run("ccl", 1, count=2)
    flat = [
        {jax.tree_util.keystr(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(t)}
        for t in (by_pattern.variables, last_stage.variables)
    ]
    assert_identical(*flat)


def test_what_no_pattern_names_stays_with_its_statistics():
    """Of the backbone one block is trained: it alone moves, and it alone keeps new statistics."""
    trainable = "backbone/layer1_1/*, head/*"
    result, _ = run("ccl", 1, trainable=trainable, count=2)
    parts = {path[1:3] if path[1] == "backbone" else ("head",) for path in moved("ccl", result)}
    assert parts == {("backbone", "layer1_1"), ("head",)}
    kinds = {path[0] for path in moved("ccl", result) if path[1] == "backbone"}
    assert kinds == {"params", "batch_stats"}


def test_patterns_that_name_nothing_are_refused():
    with pytest.raises(ValueError, match="trainable='trunk/\\*' selects no parameter"):
        state.create(initial("ccl"), make_optimizer(), trainable="trunk/*")


def test_sums_are_not_divided():
    """Without normalisation the loss is the sum over the pixels of the batch."""
    from rfjax import tasks

    model, batch = make_model("stn"), make_batch(0)
    losses = {}
    for normalize in ("count", "none"):
        task = tasks.Segmentation(normalize=normalize)
        step = steps.make_train_step(model, make_optimizer(), task=task, axis_name=None)
        current = state.create(initial("stn"), make_optimizer())
        losses[normalize] = float(jax.jit(step)(current, batch)[1]["loss"])
    valid = (batch["label"] != 255).sum()
    np.testing.assert_allclose(losses["none"], losses["count"] * valid, rtol=1e-5)
