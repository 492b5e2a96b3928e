"""The loss against a loop, and at its edges."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.tasks.losses import VOID, cross_entropy


def test_equals_a_loop():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(2, 4, 5, 3)).astype(np.float32)
    labels = rng.choice([0, 1, 2, VOID], size=(2, 4, 5))
    total = 0.0
    for index in np.ndindex(labels.shape):
        if labels[index] != VOID:
            scores = logits[index].astype(np.float64)
            total += np.log(np.exp(scores).sum()) - scores[labels[index]]
    loss, count = cross_entropy(jnp.asarray(logits), jnp.asarray(labels))
    np.testing.assert_allclose(loss, total, rtol=1e-6)
    assert float(count) == (labels != VOID).sum()


def test_void_pixels_have_no_gradient_and_no_loss():
    labels = jnp.full((1, 2, 2), VOID)
    logits = jnp.full((1, 2, 2, 3), 7.0)
    value, gradient = jax.value_and_grad(lambda z: cross_entropy(z, labels)[0])(logits)
    assert value == 0.0
    np.testing.assert_array_equal(gradient, 0.0)


def test_bfloat16_logits_are_summed_in_float32():
    logits = jnp.ones((1, 100, 100, 2), jnp.bfloat16)
    loss, count = cross_entropy(logits, jnp.zeros((1, 100, 100), jnp.int32))
    assert loss.dtype == jnp.float32
    np.testing.assert_allclose(loss / count, np.log(2.0), rtol=1e-6)


def test_labels_of_another_size_are_refused():
    with pytest.raises(ValueError, match=r"labels must have shape \(1, 4, 4\)"):
        cross_entropy(jnp.zeros((1, 4, 4, 2)), jnp.zeros((1, 2, 2), jnp.int32))
