"""Gaussian filter taps: golden values, references, moments, limits and gradients."""

import inspect
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax._engine.totals import total_profile
from rfjax.gaussian import Window
from tests import reference as ref

# exp(-d^2 / 2 s^2) over |d| <= max(1, ceil(2 s)), divided by its sum, worked in float64 by hand.
GOLDEN_1D = {
    0.1: [0, 1, 0],
    0.3: [0.00383626, 0.99232748, 0.00383626],
    0.5: [0.10650698, 0.78698604, 0.10650698],
    1.0: [0.05448868, 0.24420134, 0.40261995, 0.24420134, 0.05448868],
    2.0: [
        *(0.02763055, 0.06628225, 0.12383154, 0.18017382, 0.20416369),
        *(0.18017382, 0.12383154, 0.06628225, 0.02763055),
    ],
}
# Covariance [[1, -2], [-2, 8]]: 5 x 13 taps.
GOLDEN_FULL_PARAMS = (0.0, -2.0, math.log(2.0))
GOLDEN_FULL_TAPS = {(0, 0): 0.08172332, (1, -2): 0.04956770, (1, 2): 0.00670826}
GOLDEN_FULL_MOMENTS = [[0.8891, -1.6674], [-1.6674, 6.8515]]
# Variance of the taps cut at 2 s, and variance / s^2 of the taps that are not cut.
CUT_VARIANCE = {0.5: 0.2130, 1.0: 0.9243, 2.0: 3.4283, 3.0: 7.4791}
UNCUT_RATIO = {
    "sampled": {0.2: 0.0002, 0.3: 0.085, 0.5: 0.860, 0.75: 0.999, 1.0: 1.000},
    "integrated": {0.2: 0.31, 0.3: 1.06, 0.5: 1.30, 0.75: 1.15, 1.0: 1.08},
    "discrete": {0.2: 1.000, 0.3: 1.000, 0.5: 1.000, 0.75: 1.000, 1.0: 1.000},
}

SIGMAS = (0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
PARAMS = {
    "spherical": lambda s: [math.log(s)],
    "diagonal": lambda s: [math.log(s), math.log(0.7 * s)],
    "full": lambda s: [math.log(s), 0.4 * s, math.log(0.8 * s)],
}
DEFAULTS = dict(truncate=2.0, method="sampled", support="hard")
STATIC = ("max_half_size", *DEFAULTS)
compiled1d = jax.jit(rfjax.gaussian_kernel1d, static_argnames=STATIC)
compiled2d = jax.jit(rfjax.gaussian_kernel, static_argnames=STATIC)
every_method = pytest.mark.parametrize("method", ref.METHODS)
every_support = pytest.mark.parametrize("support", ref.SUPPORTS)


def kernel1d(sigma, **options):
    """Every option spelled out, so that all tests share one compilation of each combination."""
    return compiled1d(sigma, **(DEFAULTS | options))


def kernel2d(params, **options):
    """Likewise, for the taps in two dimensions."""
    return compiled2d(params, **(DEFAULTS | options))


def test_defaults():
    for function in (rfjax.gaussian_kernel1d, rfjax.gaussian_kernel):
        signature = inspect.signature(function).parameters
        assert {name: signature[name].default for name in DEFAULTS} == DEFAULTS
    assert inspect.signature(rfjax.half_size).parameters["truncate"].default == 2.0


def test_half_size():
    got = rfjax.half_size(jnp.array([0.01, 0.1, 0.5, 0.6, 1.0, 1.01, 2.0, 16.0, 1000.0]))
    assert got.dtype == jnp.int32
    np.testing.assert_array_equal(got, [1, 1, 1, 2, 2, 3, 4, 32, 2000])
    np.testing.assert_array_equal(rfjax.half_size(jnp.array([1.1, 2.0]), truncate=3.0), [4, 6])
    assert int(jax.jit(rfjax.half_size)(0.75)) == 2


@pytest.mark.parametrize("sigma", SIGMAS[2:])
def test_half_size_survives_a_trip_through_the_logarithm(sigma):
    assert int(rfjax.half_size(jnp.exp(jnp.log(jnp.float32(sigma))))) == math.ceil(2 * sigma)


@pytest.mark.parametrize("sigma", GOLDEN_1D)
def test_golden_taps(sigma):
    wanted = ref.embed(np.array(GOLDEN_1D[sigma]), 17)
    np.testing.assert_allclose(kernel1d(sigma, max_half_size=8), wanted, atol=2e-8)
    square = kernel2d(jnp.log(jnp.array([sigma])), max_half_size=8)
    np.testing.assert_allclose(square, np.outer(wanted, wanted), atol=1e-7)


def test_golden_full_covariance():
    taps = np.asarray(kernel2d(jnp.array(GOLDEN_FULL_PARAMS), max_half_size=7), np.float64)
    assert taps.shape == (15, 15)
    rows, columns = np.nonzero(taps)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (5, 9, 1, 13)  # 5 x 13
    for (y, x), value in GOLDEN_FULL_TAPS.items():
        assert taps[7 + y, 7 + x] == pytest.approx(value, abs=1e-7)
    np.testing.assert_allclose(ref.moments(taps), GOLDEN_FULL_MOMENTS, atol=1e-4)


@every_method
@every_support
@pytest.mark.parametrize("truncate", [2.0, 3.5])
def test_taps_against_the_reference(method, support, truncate):
    options = dict(truncate=truncate, method=method, support=support)
    for sigma in SIGMAS:
        wanted = ref.embed(ref.taps(sigma, **options), 121)
        got = kernel1d(sigma, max_half_size=60, **options)
        assert got.dtype == jnp.float32
        np.testing.assert_allclose(got, wanted, atol=1e-6, err_msg=f"sigma {sigma}")
        with jax.enable_x64(True):
            got = kernel1d(sigma, max_half_size=60, **options)
        np.testing.assert_allclose(got, wanted, atol=1e-12, err_msg=f"sigma {sigma}")


@every_method
@every_support
@pytest.mark.parametrize("family", PARAMS)
def test_kernels_against_the_reference(family, method, support):
    options = dict(method=method, support=support)
    for sigma in SIGMAS:
        params = np.array(PARAMS[family](sigma))
        wanted = ref.kernel(params, **options)
        full = np.zeros((67, 67))
        pad_y, pad_x = ((67 - n) // 2 for n in wanted.shape)
        full[pad_y : 67 - pad_y, pad_x : 67 - pad_x] = wanted
        got = np.asarray(kernel2d(params, max_half_size=33, **options), np.float64)
        np.testing.assert_allclose(got, full, atol=1e-6, err_msg=f"sigma {sigma}")
        assert got.min() >= 0 and abs(got.sum() - 1) < 1e-5
        np.testing.assert_allclose(got, got[::-1, ::-1], atol=1e-7)  # g(v) = g(-v)


@every_support
def test_kernels_in_float64(support):
    for params in (PARAMS[family](sigma) for family in PARAMS for sigma in (0.3, 1.0, 4.0)):
        wanted = ref.kernel(params, support=support)
        pad = [(10 - n // 2, 10 - n // 2) for n in wanted.shape]
        with jax.enable_x64(True):
            got = kernel2d(np.array(params), max_half_size=10, support=support)
        np.testing.assert_allclose(got, np.pad(wanted, pad), atol=1e-12)


@every_method
def test_room_for_a_larger_kernel_changes_nothing(method):
    options = dict(method=method, support="faded")
    for params in ([math.log(1.2)], [0.1, math.log(0.4)], [0.1, 0.6, -0.2]):
        tight = kernel2d(np.array(params), max_half_size=3, **options)
        wide = kernel2d(np.array(params), max_half_size=9, **options)
        np.testing.assert_allclose(np.pad(tight, 6), wide, atol=1e-7)


@every_method
@every_support
def test_traced_support_saturates_at_its_limit(method, support):
    options = dict(method=method, support=support)
    got = kernel1d(5.0, max_half_size=4, **options)
    np.testing.assert_allclose(got, ref.taps(5.0, limit=4, **options), atol=1e-6)
    for params in ([math.log(5.0)], [math.log(0.5), math.log(5.0)], [math.log(3.0), 2.0, 0.7]):
        wanted = ref.kernel(params, limit=4, **options)
        pad = [(4 - n // 2, 4 - n // 2) for n in wanted.shape]
        got = kernel2d(np.array(params), max_half_size=4, **options)
        np.testing.assert_allclose(got, np.pad(wanted, pad), atol=1e-6)


@every_method
def test_faded_support_is_continuous_where_the_hard_one_jumps(method):
    def jump(support):
        options = dict(max_half_size=5, method=method, support=support)
        below, above = (kernel1d(1.5 + e, **options) for e in (-1e-3, 1e-3))
        return float(jnp.abs(above - below).max())

    assert jump("faded") < 2e-3 < 5e-3 < jump("hard")


# Moments


@every_method
def test_effective_variance(method):
    for sigma, wanted in UNCUT_RATIO[method].items():
        with jax.enable_x64(True):
            got = kernel1d(sigma, max_half_size=12, truncate=12 / sigma, method=method)
        ratio = ref.variance(np.asarray(got)) / sigma**2
        assert ratio == pytest.approx(wanted, abs=6e-3 if method == "integrated" else 6e-4)


def test_variance_that_the_support_keeps():
    for sigma, wanted in CUT_VARIANCE.items():
        got = ref.variance(np.asarray(kernel1d(sigma, max_half_size=6), np.float64))
        assert got == pytest.approx(wanted, abs=6e-5)
    for sigma in (1.0, 2.0, 4.0):
        wide = kernel1d(sigma, max_half_size=16, truncate=4.0)
        assert ref.variance(np.asarray(wide)) / sigma**2 == pytest.approx(0.999, abs=1.5e-3)


def test_gradient_of_the_variance_near_the_identity():
    def spread(sigma, method):
        options = dict(max_half_size=6, truncate=99.0, method=method)
        return (rfjax.gaussian_kernel1d(sigma, **options) * np.arange(-6.0, 7) ** 2).sum()

    with jax.enable_x64(True):
        sampled = jax.jit(jax.grad(lambda s: spread(s, "sampled")))
        assert sampled(0.2) == pytest.approx(0.0009, abs=6e-5)
        assert sampled(0.1) == pytest.approx(4e-19, abs=5e-20)
        discrete = jax.jit(jax.grad(lambda s: spread(s, "discrete")))
        for sigma in (0.05, 0.1, 0.2, 0.25):  # twice sigma: alive however near the identity
            assert discrete(sigma) == pytest.approx(2 * sigma, rel=1e-6)


@pytest.mark.parametrize("angle", [0.0, 0.3, math.pi / 4, 1.2, -0.6, -math.pi / 4, math.pi / 2])
@pytest.mark.parametrize("major, minor", [(0.4, 0.2), (1.5, 0.6), (3.0, 0.5)])
def test_discrete_kernel_has_exactly_the_covariance(major, minor, angle):
    matrix = ref.ellipse_covariance(major, minor, angle)
    params = ref.log_cholesky(matrix)
    got = kernel2d(params, max_half_size=32, truncate=10.0, method="discrete")
    got = np.asarray(got, np.float64)
    np.testing.assert_allclose(ref.moments(got), matrix, atol=2e-4 * major**2)
    assert got.min() >= 0


# Products: cascade


@pytest.mark.parametrize("a, b, at_two", [(1.0, 1.0, 0.020), (2.0, 1.5, 0.037), (3.0, 4.0, 0.052)])
def test_cascade_of_sampled_taps(a, b, at_two):
    def gap(truncate):
        with jax.enable_x64(True):
            sizes = dict(max_half_size=64, truncate=truncate)
            taps = [np.asarray(kernel1d(s, **sizes)) for s in (a, b, math.hypot(a, b))]
        product = np.convolve(taps[0], taps[1])
        return np.abs(product - ref.embed(taps[2], len(product))).sum()

    assert gap(2.0) == pytest.approx(at_two, abs=5e-3)
    assert gap(8.0) < (2e-4 if a == b == 1 else 1e-8)


@pytest.mark.parametrize("family", PARAMS)
def test_discrete_taps_are_a_semigroup(family):
    """Blurring twice is blurring once, at any sigma: the property that only this method has."""
    if family == "full":  # along shared directions, so that the decompositions agree
        a, b = (ref.log_cholesky(m) for m in ([[1.0, 0.3], [0.3, 0.8]], [[0.5, 0.2], [0.2, 0.6]]))
    else:
        a, b = np.array(PARAMS[family](0.6)), np.array(PARAMS[family](1.1))
    options = dict(max_half_size=14, truncate=20.0, method="discrete")
    with jax.enable_x64(True):
        total = rfjax.cascade(a, b)
        first, second, both = (np.asarray(kernel2d(p, **options)) for p in (a, b, total))
    product = ref.correlate(np.pad(first, 14)[None, :, :, None], second)[0, 14:-14, 14:-14, 0]
    np.testing.assert_allclose(product, both, atol=1e-7)


# Limits and gradients


@every_method
@every_support
def test_limits(method, support):
    options = dict(max_half_size=3, method=method, support=support)
    identity = kernel1d(1e-17, **options)
    np.testing.assert_allclose(identity, [0, 0, 0, 1, 0, 0, 0], atol=1e-7)
    np.testing.assert_allclose(kernel1d(1e6, **options), np.full(7, 1 / 7), atol=1e-6)
    for params in ([-40.0], [-40.0, -40.0], [-40.0, 1e-18, -40.0]):
        np.testing.assert_allclose(
            kernel2d(np.array(params), **options), np.pad([[1.0]], 3), atol=1e-7
        )
    uniform = np.full((7, 7), 1 / 49)
    for params in ([10.0], [10.0, 10.0], [10.0, 0.3, 10.0]):
        np.testing.assert_allclose(kernel2d(np.array(params), **options), uniform, atol=1e-6)


@every_method
@every_support
def test_gradients_against_finite_differences(method, support):
    weights = np.random.default_rng(0).normal(size=(13, 13))
    options = dict(max_half_size=6, method=method, support=support)

    def along(log_sigma):
        return (weights[0] * rfjax.gaussian_kernel1d(jnp.exp(log_sigma), **options)).sum()

    def across(params):
        return (weights * rfjax.gaussian_kernel(params, **options)).sum()

    def check(function, points):
        value, gradient = jax.jit(function), jax.jit(jax.grad(function))
        for point in map(np.array, points):
            wanted = ref.numeric_jacobian(value, point)
            np.testing.assert_allclose(gradient(point), wanted, rtol=1e-6, atol=2e-7)

    with jax.enable_x64(True):  # twice each deviation is far from an integer
        check(along, np.log([0.3, 0.63, 1.13, 2.71]))
        check(across, np.log([[0.63, 2.2], [0.3, 1.13]]))
        check(across, [[math.log(1.13), 0.8, math.log(0.7)], [math.log(0.63), -0.45, -0.2]])


@every_method
def test_second_derivatives_against_finite_differences(method):
    weights = np.random.default_rng(0).normal(size=(13, 13))
    options = dict(max_half_size=6, method=method)

    def along(log_sigma):
        return (weights[0] * rfjax.gaussian_kernel1d(jnp.exp(log_sigma), **options)).sum()

    def across(params):
        return (weights * rfjax.gaussian_kernel(params, **options)).sum()

    with jax.enable_x64(True):
        for function, point in ((along, math.log(1.13)), (across, [0.12, 0.8, -0.35])):
            gradient = jax.grad(function)
            got = jax.jit(jax.jacrev(gradient))(np.array(point))
            wanted = ref.numeric_jacobian(jax.jit(gradient), np.array(point))
            np.testing.assert_allclose(got, wanted, rtol=1e-6, atol=1e-6)


@every_method
@every_support
def test_gradients_are_finite_at_any_scale(method, support):
    options = dict(max_half_size=2, method=method, support=support)
    weights = jnp.asarray(np.random.default_rng(1).normal(size=(5, 5)), jnp.float32)
    scales = jnp.linspace(-40, 10, 51)
    full = jnp.stack([scales, 0.5 * jnp.exp(scales), scales], -1)

    def loss(params):
        return (weights * rfjax.gaussian_kernel(params, **options)).sum()

    def loss1d(log_sigma):
        return (weights[0] * rfjax.gaussian_kernel1d(jnp.exp(log_sigma), **options)).sum()

    for function, params in ((loss1d, scales), (loss, full)):
        assert jnp.isfinite(jax.jit(jax.vmap(jax.grad(function)))(params)).all()


def test_dtypes():
    for dtype in (jnp.bfloat16, jnp.float32):
        assert rfjax.gaussian_kernel1d(dtype(1), max_half_size=2).dtype == dtype
        taps = rfjax.gaussian_kernel(jnp.zeros(2, dtype), max_half_size=2)
        assert taps.dtype == dtype
        wanted = ref.kernel([0.0])
        np.testing.assert_allclose(np.asarray(taps, np.float64), wanted, rtol=4e-3, atol=1e-6)


# Sigmas at which one formula of the taps gives way to another.
SEAMS = {"integrated": 6.0, "discrete": 5.0}


@pytest.mark.parametrize("method", SEAMS)
def test_gradient_on_a_seam(method):
    """Exactly between two formulas the gradient is that of the neighbours."""
    options = dict(max_half_size=13, method=method, truncate=2.1)
    slope = jax.jit(jax.grad(lambda s: rfjax.gaussian_kernel1d(s, **options)[13]))
    with jax.enable_x64(True):
        seam = jnp.float64(SEAMS[method])
        np.testing.assert_allclose(slope(seam), slope(seam * (1 + 1e-9)), rtol=1e-5)
        np.testing.assert_allclose(slope(seam), slope(seam * (1 - 1e-9)), rtol=1e-5)


def test_gradient_of_the_total_on_a_seam():
    total = jax.jit(jax.grad(lambda s: total_profile(s, Window())))
    with jax.enable_x64(True):
        wanted = total(jnp.float64(8.0 * (1 - 1e-9)))
        np.testing.assert_allclose(total(jnp.float64(8.0)), wanted, rtol=1e-5)


def test_gradient_of_the_discrete_covariance_without_correlation():
    """Its integer directions change there; the kernel's covariance follows Sigma all the same."""
    offsets = np.arange(-20.0, 21.0)
    options = dict(max_half_size=20, method="discrete", truncate=8.0)

    def moments(params):
        kernel = rfjax.gaussian_kernel(params, **options)
        yy = (kernel.sum(1) * offsets**2).sum()
        xx = (kernel.sum(0) * offsets**2).sum()
        return jnp.stack([yy, offsets @ kernel @ offsets, xx])

    def wanted(params):
        matrix = rfjax.covariance_matrix(params)
        return jnp.stack([matrix[0, 0], matrix[0, 1], matrix[1, 1]])

    with jax.enable_x64(True):
        params = jnp.array([0.2, 0.0, -0.1])
        got = jax.jit(jax.jacrev(moments))(params)
        np.testing.assert_allclose(got, jax.jacrev(wanted)(params), atol=1e-6)
