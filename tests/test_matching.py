"""Correlation of two maps: against loops, at borders, its gradient, and errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import rfjax


def _maps(*shape, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=shape), dtype) for _ in range(2)]


def _loops(first, second, reach, step):
    height, width, channels = first.shape
    line = range(-(reach // step) * step, reach + 1, step)
    y = np.zeros((height, width, len(line) ** 2))
    for i, j in np.ndindex(height, width):
        for number, (down, right) in enumerate((a, b) for a in line for b in line):
            if 0 <= i + down < height and 0 <= j + right < width:
                y[i, j, number] = first[i, j] @ second[i + down, j + right] / channels
    return y


@pytest.mark.parametrize(("reach", "step"), [(0, 1), (2, 1), (3, 2), (7, 3)])
def test_a_correlation_is_that_of_loops(reach, step):
    first, second = _maps(2, 5, 6, 3)
    found = rfjax.correlation(first, second, max_displacement=reach, displacement_stride=step)
    for example in range(2):
        wanted = _loops(np.asarray(first[example]), np.asarray(second[example]), reach, step)
        np.testing.assert_allclose(found[example], wanted, atol=1e-6)


def test_flownet_has_441_displacements():
    maps = _maps(3, 4, 8)
    assert rfjax.correlation(*maps).shape == (3, 4, 441)


def test_its_gradient_is_that_of_differences():
    with jax.enable_x64(True):
        maps = _maps(3, 3, 2, dtype=jnp.float64)
        check_grads(lambda *m: rfjax.correlation(*m, max_displacement=2), maps, 1)


def test_bfloat16_sums_in_float32():
    first, second = _maps(4, 5, 256, dtype=jnp.bfloat16)
    found = rfjax.correlation(first, second, max_displacement=1, displacement_stride=1)
    exact = rfjax.correlation(
        first.astype(jnp.float32),
        second.astype(jnp.float32),
        max_displacement=1,
        displacement_stride=1,
    )
    assert found.dtype == jnp.bfloat16
    np.testing.assert_array_equal(found, exact.astype(jnp.bfloat16))


def test_maps_must_have_one_shape():
    with pytest.raises(ValueError, match=r"must have one shape; got \(4, 5, 2\), \(4, 6, 2\)"):
        rfjax.correlation(jnp.ones((4, 5, 2)), jnp.ones((4, 6, 2)))
    with pytest.raises(TypeError, match="first must have a floating-point dtype"):
        rfjax.correlation(jnp.ones((4, 5, 2), int), jnp.ones((4, 5, 2)))
