"""The primitives under jit, vmap, pmap, scan, remat and export, and without recompilation."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

import rfjax

SIGMAS = np.array([0.01, 0.3, 0.8, 1.3, 2.6, 5.2, 11.0, 60.0], np.float32)  # one per device
FAMILIES = {
    "spherical": np.log(SIGMAS)[:, None],
    "diagonal": np.log(np.stack([SIGMAS, 0.7 * SIGMAS], -1)),
    "full": np.stack([np.log(SIGMAS), 0.4 * SIGMAS, np.log(0.8 * SIGMAS)], -1),
}
X = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, size=(1, 17, 19, 1)), jnp.float32)
WEIGHTS = jnp.asarray(np.random.default_rng(1).normal(size=X.shape), jnp.float32)
every_family = pytest.mark.parametrize("family", FAMILIES)


def blur(params):
    return rfjax.gaussian_blur(X, params)


def loss(params):
    return (WEIGHTS * blur(params)).sum()


def scanned(function):
    def step(carry, params):
        return carry, function(params)

    return lambda batch: jax.lax.scan(step, 0, batch)[1]


@every_family
def test_every_transform_gives_the_same_maps(family):
    """Scales from the identity to far beyond the map, so that no choice of algorithm can hide."""
    batch = FAMILIES[family]
    jitted = jax.jit(blur)
    eager = np.stack([blur(jnp.asarray(p)) for p in batch])
    results = {
        "jit": jnp.stack([jitted(p) for p in batch]),
        "vmap": jax.jit(jax.vmap(blur))(batch),
        "pmap": jax.pmap(blur)(batch),
        "scan": jax.jit(scanned(blur))(batch),
        "remat": jax.jit(scanned(jax.checkpoint(blur)))(batch),
    }
    for name, got in results.items():
        np.testing.assert_allclose(got, eager, atol=1e-6, err_msg=name)


@pytest.mark.parametrize("family", ["spherical", "full"])
def test_every_transform_gives_the_same_gradients(family):
    batch = FAMILIES[family]
    jitted = jax.jit(jax.grad(loss))
    wanted = np.stack([jitted(p) for p in batch])
    assert np.isfinite(wanted).all() and np.abs(wanted).max() > 0.1
    results = {
        "vmap of grad": jax.jit(jax.vmap(jax.grad(loss)))(batch),
        "grad of vmap": jax.jit(jax.grad(lambda b: jax.vmap(loss)(b).sum()))(batch),
        "grad of scan": jax.jit(jax.grad(lambda b: scanned(loss)(b).sum()))(batch),
        "remat": jax.jit(scanned(jax.grad(jax.checkpoint(loss))))(batch),
    }
    if family == "spherical":
        results["pmap"] = jax.pmap(jax.grad(loss))(batch)
    for name, got in results.items():
        np.testing.assert_allclose(got, wanted, rtol=2e-4, atol=1e-5, err_msg=name)


@pytest.mark.parametrize("family", ["diagonal", "full"])
def test_vmap_over_maps_and_over_both(family):
    batch = FAMILIES[family][2:6]
    maps = jnp.stack([X, 2 * X, X[:, ::-1], X + 1])
    one = jax.jit(rfjax.gaussian_blur)
    shared = jax.jit(jax.vmap(rfjax.gaussian_blur, (0, None)))(maps, batch[1])
    both = jax.jit(jax.vmap(rfjax.gaussian_blur))(maps, batch)
    for k in range(4):
        np.testing.assert_allclose(shared[k], one(maps[k], batch[1]), atol=2e-6)
        np.testing.assert_allclose(both[k], one(maps[k], batch[k]), atol=2e-6)


@pytest.mark.parametrize("family", ["spherical", "full"])
def test_gradient_of_the_gradient_under_jit_and_vmap(family):
    batch = FAMILIES[family][2:5]

    def curvature(params):
        return jax.grad(lambda p: jax.grad(loss)(p).sum())(params)

    jitted = jax.jit(curvature)
    wanted = np.stack([jitted(p) for p in batch])
    assert np.isfinite(wanted).all()
    np.testing.assert_allclose(jax.jit(jax.vmap(curvature))(batch), wanted, rtol=1e-3, atol=1e-4)


@every_family
def test_no_recompilation_as_sigma_moves(family):
    traces = []

    def counted(params):
        traces.append(1)
        return blur(params)

    jitted = jax.jit(counted)
    start, end = FAMILIES[family][0], FAMILIES[family][-1]
    for t in np.linspace(0, 1, 50, dtype=np.float32):
        out = jitted((1 - t) * start + t * end)
    assert len(traces) == 1 and jitted._cache_size() == 1
    assert jnp.isfinite(out).all()


@every_family
def test_export_and_reload_with_sigma_traced(family):
    batch = FAMILIES[family]
    shape = jax.ShapeDtypeStruct(batch[0].shape, jnp.float32)
    image = jax.ShapeDtypeStruct(X.shape, jnp.float32)
    saved = export.export(jax.jit(rfjax.gaussian_blur))(image, shape).serialize()
    reloaded = export.deserialize(saved)
    for params in batch:
        got = reloaded.call(X, jnp.asarray(params))
        np.testing.assert_allclose(got, blur(params), atol=1e-6)


def test_export_with_gradients():
    function = jax.jit(lambda x, p: rfjax.gaussian_blur(x, p).sum())
    params = jnp.log(jnp.array([1.3]))
    saved = export.export(function)(X, params).serialize(vjp_order=1)
    got = jax.grad(export.deserialize(saved).call, argnums=1)(X, params)
    np.testing.assert_allclose(got, jax.grad(function, argnums=1)(X, params), rtol=1e-5)


@pytest.mark.parametrize("method", ["sampled", "integrated", "discrete"])
def test_taps_under_transforms(method):
    def taps(sigma):
        return rfjax.gaussian_kernel1d(sigma, max_half_size=8, method=method, support="faded")

    eager = np.stack([taps(jnp.float32(s)) for s in SIGMAS[:5]])
    for function in (jax.vmap(taps), jax.jit(jax.vmap(taps)), scanned(taps)):
        np.testing.assert_allclose(function(SIGMAS[:5]), eager, atol=1e-6)


def test_local_and_difference_under_transforms():
    params = jnp.full((1, 17, 19, 1), math.log(0.8))

    def both(p):
        local = rfjax.local_gaussian_blur(X, p, max_half_size=3)
        return local + rfjax.difference_of_gaussians(X, p[0, 0, 0], p[0, 0, 0] + 1)

    batch = jnp.stack([params, params + 0.2, params - 0.5])
    eager = jnp.stack([both(p) for p in batch])
    for function in (jax.jit(jax.vmap(both)), jax.jit(scanned(both))):
        np.testing.assert_allclose(function(batch), eager, atol=2e-6)
