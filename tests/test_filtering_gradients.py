"""Derivatives of the Gaussian blur: finite differences, second order, and any scale."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import rfjax
from tests import reference as ref

pytestmark = pytest.mark.usefixtures("few_sums")

# Twice each marginal deviation is far from an integer, where the hard support jumps.
POINTS = {
    "spherical": [math.log(1.13)],
    "diagonal": [math.log(0.63), math.log(3.2)],
    "full": [math.log(1.13), 0.8, math.log(0.7)],
}
SHAPE = (1, 8, 9, 1)
COMBINATIONS = [  # every family, method, support and padding
    ("spherical", "sampled", "hard", "zero"),
    ("spherical", "integrated", "faded", "renormalized"),
    ("diagonal", "discrete", "hard", "reflect"),
    ("diagonal", "sampled", "faded", "wrap"),
    ("full", "sampled", "hard", "zero"),
    ("full", "integrated", "hard", "edge"),
    ("full", "discrete", "faded", "renormalized"),
]


def weighted(shape, seed=0, **options):
    """A scalar of a blur with fixed weights: loss(x, params)."""
    weights = np.random.default_rng(seed).normal(size=shape)
    return lambda x, p: (weights * rfjax.gaussian_blur(x, p, **options)).sum()


@pytest.mark.parametrize("family, method, support, padding", COMBINATIONS)
def test_gradients_against_finite_differences(family, method, support, padding):
    loss = weighted(SHAPE, method=method, support=support, padding=padding)
    x, point = np.random.default_rng(1).normal(size=SHAPE), np.array(POINTS[family])
    with jax.enable_x64(True):
        value = jax.jit(loss)
        got_x, got_p = jax.jit(jax.grad(loss, argnums=(0, 1)))(x, point)
        wanted = ref.numeric_jacobian(lambda p: value(x, p), point)
        np.testing.assert_allclose(got_p, wanted, rtol=1e-6, atol=1e-6)
        probe = np.random.default_rng(2).normal(size=SHAPE)  # linear in x: one direction will do
        along = value(x + probe, point) - value(x, point)
        np.testing.assert_allclose((got_x * probe).sum(), along, rtol=1e-9)


@pytest.mark.parametrize(
    "family, method, support, padding",
    [  # those of sampled taps are in `test_hessian`
        ("diagonal", "integrated", "faded", "renormalized"),
        pytest.param("diagonal", "discrete", "hard", "reflect", marks=pytest.mark.slow),
        pytest.param("full", "discrete", "faded", "zero", marks=pytest.mark.slow),
    ],
)
def test_gradients_of_gradients(family, method, support, padding):
    loss = weighted(SHAPE, method=method, support=support, padding=padding)
    x, point = np.random.default_rng(1).normal(size=SHAPE), np.array(POINTS[family])
    direction = 1.0 + np.arange(len(point))

    def slope(p):
        return (jax.grad(loss, argnums=1)(x, p) * direction).sum()

    with jax.enable_x64(True):
        wanted = ref.numeric_jacobian(jax.jit(slope), point)
        np.testing.assert_allclose(jax.jit(jax.grad(slope))(point), wanted, rtol=1e-6, atol=1e-5)


@pytest.mark.parametrize("family", POINTS)
def test_hessian(family):
    """All rows at once: the gradient of the gradient under vmap."""
    loss = weighted(SHAPE, method="sampled")
    x, point = np.random.default_rng(1).normal(size=SHAPE), np.array(POINTS[family])
    with jax.enable_x64(True):
        gradient = jax.grad(loss, argnums=1)
        hessian = jax.jit(jax.jacrev(gradient, argnums=1))(x, point)
        wanted = ref.numeric_jacobian(lambda p: jax.jit(gradient)(x, p), point)
    np.testing.assert_allclose(hessian, wanted, rtol=1e-6, atol=1e-5)


def test_jaxs_own_check_of_gradients():
    """Both arguments at once, at a scale where the support is as large as the map."""
    shape = (1, 17, 19, 1)
    loss = jax.jit(weighted(shape, padding="renormalized"))
    x, point = np.random.default_rng(1).normal(size=shape), np.log([4.63])
    with jax.enable_x64(True):
        check_grads(loss, (x, point), order=1, modes=["rev"], rtol=1e-4, atol=1e-4)


def test_gradients_per_channel_and_per_example():
    x = np.random.default_rng(1).normal(size=(2, 7, 8, 2))
    loss = weighted((2, 7, 8, 2))
    for shape in ((2, 1), (2, 1, 3)):
        p = np.random.default_rng(3).uniform(-0.3, -0.1, size=shape)
        with jax.enable_x64(True):
            got = jax.jit(jax.grad(loss, argnums=1))(x, p)
            value = jax.jit(loss)
            wanted = ref.numeric_jacobian(lambda q: value(x, q), p)
        np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("family, method, support, padding", COMBINATIONS)
def test_gradients_are_finite_at_any_scale(family, method, support, padding):
    loss = weighted(SHAPE, method=method, support=support, padding=padding)
    x = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE), jnp.float32)
    scales = jnp.linspace(-40, 10, 51)
    params = jnp.stack([scales] * len(POINTS[family]), -1)
    if family == "full":
        params = params.at[:, 1].set(0.5 * jnp.exp(scales))

    def value_and_gradients(p):
        return jax.value_and_grad(loss, argnums=(0, 1))(x, p)

    # One scale after another, which takes one branch each, and (where cheap) all together.
    sweeps = [lambda p: jax.lax.map(value_and_gradients, p)]
    if method == "sampled":
        sweeps.append(jax.vmap(value_and_gradients))
    for sweep in sweeps:
        for leaf in jax.tree.leaves(jax.jit(sweep)(params)):
            assert jnp.isfinite(leaf).all()


def test_discrete_gradient_is_alive_near_the_identity():
    """Sampled taps stop learning there; discrete ones go on: d blur / d variance = Laplacian/2."""
    x = jnp.asarray(np.random.default_rng(1).normal(size=SHAPE), jnp.float32)
    padded = np.pad(np.asarray(x)[0, :, :, 0], 1)
    laplacian = padded[2:, 1:-1] + padded[:-2, 1:-1] + padded[1:-1, 2:] + padded[1:-1, :-2]
    laplacian = laplacian - 4 * padded[1:-1, 1:-1]
    weights = np.random.default_rng(0).normal(size=SHAPE[1:3])
    wanted = (weights * laplacian).sum() / 2
    slopes = {}
    for method in ("sampled", "discrete"):
        gradient = jax.jit(jax.grad(weighted(SHAPE, method=method), argnums=1))
        for sigma in (0.1, 0.01):
            per_log = gradient(x, jnp.log(jnp.array([sigma])))
            slopes[method, sigma] = float(per_log[0]) / (2 * sigma**2)  # per unit of variance
    for sigma in (0.1, 0.01):
        assert abs(slopes["sampled", sigma]) < 1e-6
        assert slopes["discrete", sigma] == pytest.approx(wanted, rel=0.05)
