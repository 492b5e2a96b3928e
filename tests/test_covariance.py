"""Log-Cholesky parameters, ellipses and sums of covariances against plain linear algebra."""

import math

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from tests import reference as ref

# Worked by hand: U = [[1, -2], [0, 2]] gives U^T U = [[1, -2], [-2, 8]].
WORKED_PARAMS = (0.0, -2.0, math.log(2.0))
WORKED_FACTOR = ((1.0, -2.0), (0.0, 2.0))
WORKED_COVARIANCE = ((1.0, -2.0), (-2.0, 8.0))

FAMILIES = {"spherical": 1, "diagonal": 2, "full": 3}
FLOAT_TYPES = (jnp.bfloat16, jnp.float16, jnp.float32)


def random_params(family, shape=(), seed=0, scale=1.0):
    return scale * np.random.default_rng(seed).normal(size=(*shape, FAMILIES[family]))


def over(function, params):
    """`function` of every parameter vector of a batch, in a loop."""
    flat = [function(p) for p in params.reshape(-1, params.shape[-1])]
    return np.array(flat).reshape(*params.shape[:-1], *flat[0].shape)


def test_worked_example():
    params = jnp.array(WORKED_PARAMS)
    np.testing.assert_allclose(rfjax.cholesky_factor(params), WORKED_FACTOR, atol=1e-6)
    np.testing.assert_allclose(rfjax.covariance_matrix(params), WORKED_COVARIANCE, atol=1e-6)
    np.testing.assert_allclose(
        rfjax.log_cholesky(jnp.array(WORKED_COVARIANCE)), WORKED_PARAMS, atol=1e-6
    )
    np.testing.assert_allclose(rfjax.standard_deviations(params), [1, math.sqrt(8)], atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_factor_matrix_and_deviations(family):
    params = random_params(family, (2, 5))
    with jax.enable_x64(True):
        upper = np.asarray(rfjax.cholesky_factor(params))
        matrix = np.asarray(rfjax.covariance_matrix(params))
        deviations = np.asarray(rfjax.standard_deviations(params))
    assert upper.shape == matrix.shape == (2, 5, 2, 2) and deviations.shape == (2, 5, 2)
    np.testing.assert_allclose(upper, over(ref.factor, params), rtol=1e-12)
    np.testing.assert_array_equal(upper[..., 1, 0], 0)
    np.testing.assert_allclose(matrix, over(ref.covariance, params), rtol=1e-12, atol=1e-14)
    wanted = np.sqrt(np.diagonal(matrix, axis1=-2, axis2=-1))
    np.testing.assert_allclose(deviations, wanted, rtol=1e-12)


def test_smaller_families_are_special_cases_of_larger_ones():
    spherical, diagonal = jnp.array([0.3]), jnp.array([0.3, 0.3])
    for function in (rfjax.cholesky_factor, rfjax.covariance_matrix, rfjax.standard_deviations):
        np.testing.assert_allclose(function(spherical), function(diagonal), rtol=1e-6)
        full, diagonal2 = jnp.array([0.3, 0.0, -0.7]), jnp.array([0.3, -0.7])
        np.testing.assert_allclose(function(diagonal2), function(full), rtol=1e-6)


@pytest.mark.parametrize("enable, tolerance", [(False, 1e-5), (True, 1e-12)])
def test_round_trip(enable, tolerance):
    with jax.enable_x64(enable):
        params = jnp.asarray(random_params("full", (64,), seed=1), jnp.result_type(float))
        back = rfjax.log_cholesky(rfjax.covariance_matrix(params))
        # The cancellation in U_xx costs digits in proportion to Sigma_xx / U_xx^2.
        lost = 1 + np.square(params[:, 1:2]) / np.exp(2 * params[:, 2:3])
        assert np.max(np.abs(back - params) / lost) < tolerance
        matrix = rfjax.covariance_matrix(params)
        again = rfjax.covariance_matrix(rfjax.log_cholesky(matrix))
        np.testing.assert_allclose(again, matrix, rtol=20 * tolerance)


@pytest.mark.parametrize("family", FAMILIES)
def test_symmetric_positive_definite_for_any_parameters(family):
    with jax.enable_x64(True):
        params = jnp.asarray(random_params(family, (256,), seed=2, scale=2.0))
        matrix = np.asarray(rfjax.covariance_matrix(params))
    np.testing.assert_array_equal(matrix, matrix.swapaxes(-1, -2))
    assert np.linalg.eigvalsh(matrix).min() > 0


def test_log_cholesky_of_any_covariance():
    sources = np.random.default_rng(3).normal(size=(32, 2, 3))
    matrices = sources @ sources.swapaxes(-1, -2)
    with jax.enable_x64(True):
        params = rfjax.log_cholesky(matrices)
    assert params.shape == (32, 3)
    np.testing.assert_allclose(params, [ref.log_cholesky(m) for m in matrices], atol=1e-9)


# Ellipses


@pytest.mark.parametrize(
    "angle, wanted",
    [
        (0.0, [[1, 0], [0, 9]]),  # along x: the columns
        (math.pi / 2, [[9, 0], [0, 1]]),  # along y: the rows
        (math.pi / 4, [[5, 4], [4, 5]]),  # along the main diagonal, down and to the right
        (-math.pi / 4, [[5, -4], [-4, 5]]),
    ],
)
def test_from_ellipse_at_known_angles(angle, wanted):
    matrix = rfjax.covariance_matrix(rfjax.from_ellipse(3.0, 1.0, angle))
    np.testing.assert_allclose(matrix, wanted, atol=2e-5)


def test_from_ellipse_over_arrays():
    generator = np.random.default_rng(4)
    minor, extra = generator.uniform(0.2, 2, size=(2, 20))
    angle = generator.uniform(-math.pi, math.pi, size=20)
    with jax.enable_x64(True):
        params = rfjax.from_ellipse(minor + extra, minor, angle)
        matrices = rfjax.covariance_matrix(params)
    assert params.shape == (20, 3)
    for k in range(20):
        wanted = ref.ellipse_covariance(minor[k] + extra[k], minor[k], angle[k])
        np.testing.assert_allclose(matrices[k], wanted, atol=1e-12)


def test_to_ellipse_is_the_eigendecomposition():
    params = random_params("full", (32,), seed=5)
    with jax.enable_x64(True):
        major, minor, angle = (np.asarray(v) for v in rfjax.to_ellipse(params))
    assert major.shape == minor.shape == angle.shape == (32,)
    for k in range(32):
        values = np.linalg.eigvalsh(ref.covariance(params[k]))
        np.testing.assert_allclose([minor[k] ** 2, major[k] ** 2], values, rtol=1e-9)
        rebuilt = ref.ellipse_covariance(major[k], minor[k], angle[k])
        np.testing.assert_allclose(rebuilt, ref.covariance(params[k]), atol=1e-10)


def test_ellipse_round_trip_up_to_half_a_turn():
    angles = np.linspace(-1.5, 1.5, 13, dtype=np.float32)
    for major, minor in ((2.0, 0.5), (8.0, 1.0), (0.3, 0.2)):
        got = rfjax.to_ellipse(rfjax.from_ellipse(major, minor, angles))
        np.testing.assert_allclose(got[0], major, rtol=1e-4)
        np.testing.assert_allclose(got[1], minor, rtol=1e-3)
        turn = np.mod(np.asarray(got[2]) - angles + math.pi / 2, math.pi) - math.pi / 2
        np.testing.assert_allclose(turn, 0, atol=1e-4)


@pytest.mark.parametrize("family, major, minor", [("spherical", 1.5, 1.5), ("diagonal", 2, 0.5)])
def test_to_ellipse_of_the_smaller_families(family, major, minor):
    params = {"spherical": [math.log(1.5)], "diagonal": [math.log(2), math.log(0.5)]}[family]
    got = rfjax.to_ellipse(jnp.array(params))
    np.testing.assert_allclose(got[:2], (major, minor), rtol=1e-5)
    assert np.isfinite(got[2])
    if family == "diagonal":
        np.testing.assert_allclose(abs(got[2]), math.pi / 2, atol=1e-5)


# Sums


@pytest.mark.parametrize("family", FAMILIES)
def test_cascade_adds_covariances(family):
    a, b = random_params(family, (7,), seed=6), random_params(family, (7,), seed=7)
    with jax.enable_x64(True):
        total = rfjax.cascade(a, b)
        got = rfjax.covariance_matrix(total)
    assert total.shape == a.shape
    wanted = over(ref.covariance, a) + over(ref.covariance, b)
    np.testing.assert_allclose(got, wanted, rtol=1e-10, atol=1e-12)


def test_cascade_of_spheres_is_pythagorean():
    total = rfjax.cascade(jnp.log(jnp.array([3.0])), jnp.log(jnp.array([4.0])))
    np.testing.assert_allclose(jnp.exp(total), [5.0], rtol=1e-6)


def test_cascade_keeps_its_digits_when_one_is_tiny():
    big, tiny = jnp.array([1.0]), jnp.array([-40.0])
    np.testing.assert_allclose(rfjax.cascade(big, tiny), big, rtol=1e-6)
    np.testing.assert_allclose(rfjax.cascade(tiny, tiny), tiny + 0.5 * math.log(2), rtol=1e-6)


# Types, transforms and gradients


@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("family", FAMILIES)
def test_the_dtype_that_goes_in_comes_out(dtype, family):
    params = jnp.asarray(random_params(family, (3,)), dtype)
    matrix = rfjax.covariance_matrix(params)
    results = [rfjax.cholesky_factor(params), matrix, rfjax.standard_deviations(params)]
    results += [rfjax.cascade(params, params), *rfjax.to_ellipse(params)]
    if family == "full":
        results += [rfjax.from_ellipse(*(jnp.ones(3, dtype) * k for k in (2, 1, 0.5)))]
        results += [rfjax.log_cholesky(jnp.eye(2, dtype=dtype))]
    assert [r.dtype for r in results] == [dtype] * len(results)
    exact = over(ref.covariance, np.asarray(params, np.float64))
    tolerance = 4 * float(jnp.finfo(dtype).eps)
    np.testing.assert_allclose(
        np.asarray(matrix, np.float64), exact, rtol=tolerance, atol=tolerance
    )


def test_leading_axes_are_vmap():
    params = jnp.asarray(random_params("full", (3, 4)), jnp.float32)
    for function in (rfjax.covariance_matrix, rfjax.standard_deviations, rfjax.to_ellipse):
        batched, mapped = function(params), jax.vmap(jax.vmap(function))(params)
        chex.assert_trees_all_close(batched, mapped, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_against_finite_differences(family):
    params = random_params(family, seed=8)

    def everything(p):
        major, minor, angle = rfjax.to_ellipse(p)
        parts = [rfjax.cholesky_factor(p), rfjax.covariance_matrix(p), rfjax.cascade(p, 0.5 * p)]
        parts += [rfjax.standard_deviations(p)]
        if family != "spherical":  # a circle has no axes
            parts += [major, minor]
        if family == "full":
            parts += [angle, rfjax.log_cholesky(rfjax.covariance_matrix(p))]
            parts += [rfjax.from_ellipse(2 + p[0], 0.5 + p[1] ** 2, p[2])]
        return jnp.concatenate([part.ravel() for part in parts])

    with jax.enable_x64(True):
        jacobian = jax.jit(jax.jacrev(everything))
        wanted = ref.numeric_jacobian(jax.jit(everything), params)
        np.testing.assert_allclose(jacobian(params), wanted, rtol=1e-6, atol=1e-8)
        forward = jax.jit(jax.jacfwd(everything))(params)
        np.testing.assert_allclose(forward, wanted, rtol=1e-6, atol=1e-8)
        hessian = jax.jit(jax.jacrev(jax.jacrev(everything)))(params)
        wanted = ref.numeric_jacobian(jacobian, params)
        np.testing.assert_allclose(hessian, wanted, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_are_finite_everywhere(family):
    scales = jnp.linspace(-40, 10, 51)
    params = jnp.stack([scales] * FAMILIES[family], -1)
    if family == "full":
        params = params.at[:, 1].set(0.5 * jnp.exp(scales))

    def total(p):
        parts = (rfjax.cholesky_factor(p), rfjax.covariance_matrix(p), rfjax.cascade(p, p))
        return sum(part.sum() for part in (*parts, rfjax.standard_deviations(p)))

    assert jnp.isfinite(jax.vmap(jax.grad(total))(params)).all()


@pytest.mark.parametrize("params", [[0.4], [0.4, 0.4], [0.4, 0.0, 0.4]])
def test_ellipse_of_a_circle_has_finite_gradients(params):
    for output in range(3):
        gradient = jax.grad(lambda p, k=output: rfjax.to_ellipse(p)[k])(jnp.array(params))
        assert jnp.isfinite(gradient).all()
