"""Sigmas from 0 to infinity on maps from one pixel on: finite gradients, and the right limits."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax

METHODS = ("sampled", "integrated", "discrete")
SUPPORTS = ("hard", "faded")
PADDINGS = ("zero", "edge", "reflect", "wrap", "renormalized")
SIGMAS = np.array([0, 1e-9, 1e-3, 0.1, 0.5, 1, 4, 20, 100, 1e3, 1e4, 1e5, 1e6, 1e9, np.inf, np.nan])
MAPS = ((1, 1), (1, 9), (9, 1), (3, 5), (33, 33))


def spherical(log_sigma):
    return log_sigma[None]


def full(log_sigma):
    """As wide along x, and correlated as far as numbers allow."""
    slant = 0.5 * jnp.exp(jnp.clip(log_sigma, -30.0, 30.0))
    return jnp.stack([log_sigma, slant, log_sigma])


def blurred(shape, family, options, dtype):
    """The map, and for each sigma the values and the gradients by map and sigma."""
    x = jnp.asarray(np.random.default_rng(0).uniform(-1, 1, (*shape, 1)), dtype)

    def one(log_sigma):
        blur = lambda x, s: rfjax.gaussian_blur(x, family(s).astype(dtype), **options)
        y, pull = jax.vjp(blur, x, log_sigma)
        return y, *pull(jnp.cos(jnp.arange(x.size, dtype=dtype)).reshape(x.shape))

    with np.errstate(divide="ignore"):
        logs = jnp.asarray(np.log(SIGMAS), dtype)
    return x, jax.jit(lambda logs: jax.lax.map(one, logs))(logs)


def check(shape, family, dtype, **options):
    x, (y, grad_x, grad_sigma) = blurred(shape, family, options, dtype)
    known = ~np.isnan(SIGMAS)
    for name, values in {"y": y, "x": grad_x, "sigma": grad_sigma}.items():
        finite = np.isfinite(np.asarray(values)).reshape(len(SIGMAS), -1).all(1)
        assert finite[known].all(), f"{name} at sigma {SIGMAS[known & ~finite]}"
    largest = np.abs(np.asarray(y)[known]).reshape(known.sum(), -1).max(1)
    assert (largest <= float(jnp.abs(x).max()) * (1 + 1e-5)).all()
    np.testing.assert_array_equal(y[0], x)  # sigma 0 is the identity
    if options["padding"] == "renormalized":  # an infinite one the mean
        infinite = np.asarray(y[np.isinf(SIGMAS)])
        np.testing.assert_allclose(infinite, np.broadcast_to(x.mean(), infinite.shape), atol=1e-5)
    if options["padding"] == "zero":
        assert largest[-1] < 1e-3


def is_quick(shape, method, support, padding):
    """All take minutes: these are as many seconds, on the maps that are hardest for each."""
    if support == "faded":
        return False
    return (shape, method) == ((9, 1), "discrete") or (shape, padding) == ((3, 5), "zero")


CASES = [
    pytest.param(
        case[0],
        dict(zip(("method", "support", "padding"), case[1:], strict=True)),
        id=f"{case[0][0]}x{case[0][1]} {' '.join(case[1:])}",
        marks=() if is_quick(*case) else pytest.mark.slow,
    )
    for case in itertools.product(MAPS, METHODS, SUPPORTS, PADDINGS)
]


@pytest.mark.parametrize("shape, options", CASES)
def test_spherical(shape, options):
    check(shape, spherical, jnp.float32, **options)


@pytest.mark.slow
@pytest.mark.parametrize("shape, options", CASES)
def test_full(shape, options):
    check(shape, full, jnp.float32, **options)


@pytest.mark.slow
@pytest.mark.parametrize("shape, options", CASES)
def test_double_precision(shape, options):
    with jax.enable_x64(True):
        check(shape, spherical, jnp.float64, **options)


@pytest.mark.parametrize("log_sigma", [-np.inf, np.inf, -1e9, 1e9])
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("family", [1, 2, 3])
def test_nothing_inside_is_nan(log_sigma, dtype, family):
    """Not even where the result hides it, as `jax_debug_nans` would tell."""
    params = jnp.full(family, log_sigma, dtype)
    if family == 3:
        params = params.at[1].set(0.0)
    with jax.debug_nans(True):
        rfjax.covariance_matrix(params)
        rfjax.to_ellipse(params)
        rfjax.cascade(params, params)
        rfjax.sampling_offsets(params, rfjax.ring_points())
        jax.grad(lambda p: rfjax.cascade(p, p).astype(jnp.float32).sum())(params)


@pytest.mark.parametrize("blur", [0.0, 1e-30, 1e30, np.inf])
def test_blurred_dilation_has_no_nan_inside(blur):
    x, kernel = jnp.ones((1, 5, 5, 1)), jnp.ones((3, 3, 1, 1))

    def total(factor):
        return rfjax.blurred_dilated_conv(x, kernel, dilation=2, blur=factor).sum()

    with jax.debug_nans(True):
        value, slope = jax.jit(jax.value_and_grad(total))(jnp.float32(blur))
    assert np.isfinite(value) and np.isfinite(slope)
    if blur < 1e-9:
        np.testing.assert_allclose(value, total(None), rtol=1e-6)
