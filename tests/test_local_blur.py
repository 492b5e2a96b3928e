"""Differences of Gaussians, and exact filtering with a covariance of its own at every pixel."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from tests import reference as ref

STATIC = ("max_half_size", "truncate", "padding", "method", "support")
local = jax.jit(rfjax.local_gaussian_blur, static_argnames=STATIC)
dog = jax.jit(rfjax.difference_of_gaussians, static_argnames=STATIC[1:])


def f32(values):
    return jnp.asarray(values, jnp.float32)


def maps(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=shape)


def params_map(*shape, seed=0):
    """Deviations from 0.2 to 1.6 (half sizes 1 to 4), and tilts."""
    generator = np.random.default_rng(seed)
    params = generator.uniform(math.log(0.2), math.log(1.6), size=shape)
    if shape[-1] == 3:
        params[..., 1] = generator.uniform(-0.6, 0.6, size=shape[:-1])
    return params


# Difference of Gaussians


@pytest.mark.parametrize(
    "center, surround",
    [([-0.7], [0.7]), ([-0.7, -0.2], [0.7, 0.9]), ([-0.7, 0.2, 0.1], [0.4, 1, 1])],
)
@pytest.mark.parametrize("padding", ["zero", "reflect"])
def test_difference_of_gaussians_is_a_difference(center, surround, padding):
    x = maps(1, 17, 19, 2)
    got = dog(f32(x), f32(center), f32(surround), padding=padding)
    wanted = ref.blur(x, center, padding=padding) - ref.blur(x, surround, padding=padding)
    np.testing.assert_allclose(got, wanted, atol=2e-6)


def test_difference_of_gaussians_sees_contrast_only():
    x, center, surround = f32(maps(1, 17, 19, 2)), f32([-0.7]), f32([0.7])  # half size 5
    np.testing.assert_allclose(dog(x, surround, surround), 0, atol=1e-6)
    shifted = dog(x + 3, center, surround)
    np.testing.assert_allclose(
        shifted[:, 5:-5, 5:-5], dog(x, center, surround)[:, 5:-5, 5:-5], atol=3e-6
    )
    assert np.abs(dog(jnp.ones_like(x), center, surround)[:, 5:-5, 5:-5]).max() < 1e-6
    point = dog(x, f32([-9.0]), surround)
    np.testing.assert_allclose(point, x - ref.blur(np.asarray(x), surround), atol=2e-6)


def test_difference_of_gaussians_passes_its_options_on():
    x, center, surround = maps(1, 17, 19, 2), [-0.7], [0.7]
    options = dict(truncate=3.0, method="discrete", support="faded", padding="renormalized")
    wanted = ref.blur(x, center, **options) - ref.blur(x, surround, **options)
    np.testing.assert_allclose(
        dog(f32(x), f32(center), f32(surround), **options), wanted, atol=2e-6
    )


# Local filtering


@pytest.mark.parametrize(
    "features, method, support, padding",
    [
        (1, "sampled", "hard", "zero"),
        (1, "discrete", "faded", "edge"),
        (2, "integrated", "hard", "reflect"),
        (2, "sampled", "faded", "renormalized"),
        (3, "sampled", "hard", "wrap"),
        (3, "integrated", "faded", "zero"),
        (3, "discrete", "hard", "renormalized"),
    ],
)
def test_local_blur_against_the_reference(features, method, support, padding):
    """Several examples and channels: each pixel of each example has its own filter."""
    x, params = maps(2, 9, 8, 3), params_map(2, 9, 8, features)
    options = dict(max_half_size=4, method=method, support=support, padding=padding)
    got = local(f32(x), f32(params), **options)
    assert got.dtype == jnp.float32
    wanted = np.stack([ref.local_blur(x[n], params[n], **options) for n in range(2)])
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_local_blur_in_float64():
    x, params = maps(1, 9, 8, 2), params_map(1, 9, 8, 3)
    with jax.enable_x64(True):
        got = local(x, params, max_half_size=4)
    np.testing.assert_allclose(got[0], ref.local_blur(x[0], params[0], max_half_size=4), atol=1e-12)


@pytest.mark.parametrize("params", [[0.3], [0.3, -0.8], [0.3, 0.5, -0.4]])
def test_a_constant_map_of_parameters_is_the_static_blur(params):
    x = maps(2, 9, 8, 2)
    spread = np.broadcast_to(params, (2, 9, 8, len(params)))
    got = local(f32(x), f32(spread), max_half_size=5)
    np.testing.assert_allclose(got, rfjax.gaussian_blur(f32(x), f32(params)), atol=1e-6)


def test_one_map_of_parameters_without_batch_axes():
    x, params = maps(9, 8, 2), params_map(9, 8, 3)
    got = local(f32(x), f32(params), max_half_size=4)
    np.testing.assert_allclose(got, ref.local_blur(x, params, max_half_size=4), atol=1e-6)


def test_local_blur_saturates_at_its_limit():
    x, params = maps(1, 9, 8, 2), params_map(1, 9, 8, 3) + np.array([0.9, 0.0, 0.9])
    got = local(f32(x), f32(params), max_half_size=2)
    np.testing.assert_allclose(got[0], ref.local_blur(x[0], params[0], max_half_size=2), atol=1e-6)


def test_local_blur_rounds_half_precision_once():
    x = jnp.asarray(maps(1, 9, 8, 2) * 0.5 + 1, jnp.bfloat16)
    params = params_map(1, 9, 8, 2)
    got = local(x, f32(params), max_half_size=4, padding="edge")
    assert got.dtype == jnp.bfloat16
    same = np.asarray(x[0], np.float64)
    wanted = ref.local_blur(same, params[0], max_half_size=4, padding="edge")
    np.testing.assert_allclose(np.asarray(got[0], np.float64), wanted, rtol=4e-3)


@pytest.mark.parametrize("features", [1, 3])
def test_local_blur_gradients_against_finite_differences(features):
    x = maps(1, 4, 5, 2)
    params = np.random.default_rng(3).uniform(-0.35, -0.1, size=(1, 4, 5, features))
    weights = np.random.default_rng(4).normal(size=x.shape)

    def loss(x, p):
        return (weights * rfjax.local_gaussian_blur(x, p, max_half_size=2)).sum()

    with jax.enable_x64(True):
        value = jax.jit(loss)
        got_x, got_p = jax.jit(jax.grad(loss, (0, 1)))(x, params)
        wanted_p = ref.numeric_jacobian(lambda p: value(x, p), params)
        np.testing.assert_allclose(got_p, wanted_p, rtol=1e-6, atol=1e-7)
        wanted_x = ref.numeric_jacobian(lambda v: value(v, params), x)
        np.testing.assert_allclose(got_x, wanted_x, rtol=1e-6, atol=1e-9)


def test_local_blur_sees_only_its_own_support():
    params = np.full((9, 9, 1), math.log(0.4))
    params[4, 4] = math.log(1.2)  # half size 3 in the middle, 1 elsewhere

    def reach(i, j):
        def pixel(x):
            return rfjax.local_gaussian_blur(x, f32(params), max_half_size=4)[i, j, 0]

        return np.abs(jax.grad(pixel)(jnp.zeros((9, 9, 1))))[:, :, 0] > 1e-7

    for (i, j), half in (((4, 4), 3), ((4, 5), 1), ((2, 2), 1)):
        wanted = np.zeros((9, 9), bool)
        wanted[i - half : i + half + 1, j - half : j + half + 1] = True
        np.testing.assert_array_equal(reach(i, j), wanted)
