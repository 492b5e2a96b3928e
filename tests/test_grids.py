import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import covariance, grids

# The corrected table of standard coordinates for 3x3 (reading order, (y, x), y down).
A = np.sqrt(0.5)
RING = [(-A, -A), (-1, 0), (-A, A), (0, -1), (0, 0), (0, 1), (A, -A), (1, 0), (A, A)]


def test_one_ring_is_the_table():
    np.testing.assert_allclose(grids.ring_points(), RING, atol=1e-7)
    np.testing.assert_array_equal(grids.circular_points(3), grids.ring_points())


@pytest.mark.parametrize(("rings", "count"), [(1, 4), (2, 8), (3, 12)])
def test_rings(rings, count):
    points = np.asarray(grids.ring_points(rings, count), np.float64)
    assert points.shape == (1 + rings * count, 2)
    np.testing.assert_array_equal(points[0], 0.0)
    circles = points[1:].reshape(rings, count, 2)
    radii = np.linalg.norm(circles, axis=-1)
    np.testing.assert_allclose(radii, np.broadcast_to(radii[:, :1], radii.shape), rtol=1e-6)
    assert np.all(np.diff(radii[:, 0]) > 0)
    # Second moment of the unit circle: 1/2 along each axis, no correlation.
    ring_points = points[1:]
    np.testing.assert_allclose(
        ring_points.T @ ring_points / len(ring_points), np.eye(2) / 2, atol=1e-6
    )
    # From +x towards +y (down).
    np.testing.assert_allclose(circles[:, 0, 0], 0.0, atol=0)
    assert np.all(circles[:, 0, 1] > 0) and np.all(circles[:, 1, 0] > 0)
    angles = np.unwrap(np.arctan2(circles[..., 0], circles[..., 1]))
    np.testing.assert_allclose(np.diff(angles), 2 * np.pi / count, rtol=1e-5)


def test_radii_are_quantiles():
    # SciPy: norm.ppf([0.65833, 0.81667, 0.975]) by its own implementation.
    stats = pytest.importorskip("scipy.stats")
    radii = np.linalg.norm(np.asarray(grids.ring_points(3, 8))[1::8], axis=-1)
    wanted = stats.norm.ppf(np.linspace(0.5, 0.975, 4)[1:])
    np.testing.assert_allclose(radii / radii[0], wanted / wanted[0], rtol=1e-6)


@pytest.mark.parametrize("size", [1, 3, (1, 5), (3, 7)])
def test_lattice_is_in_reading_order(size):
    height, width = size if isinstance(size, tuple) else (size, size)
    wanted = [(i - height // 2, j - width // 2) for i in range(height) for j in range(width)]
    np.testing.assert_array_equal(grids.lattice_points(size), wanted)


def test_circular_points_keep_ring_and_direction():
    lattice = np.asarray(grids.lattice_points(7))
    points = np.asarray(grids.circular_points(7))
    np.testing.assert_allclose(np.linalg.norm(points, axis=-1), np.abs(lattice).max(-1), rtol=1e-6)
    np.testing.assert_allclose(
        points[:, 0] * lattice[:, 1], points[:, 1] * lattice[:, 0], atol=1e-5
    )
    assert np.all(np.sum(points * lattice, -1) >= 0)


@pytest.mark.parametrize("params", [[0.3], [0.3, -0.4], [0.3, -0.8, -0.4]])
def test_offsets_are_the_factor_times_the_points(params):
    points = np.random.default_rng(0).normal(size=(5, 2)).astype(np.float32)
    factor = np.asarray(covariance.cholesky_factor(jnp.array(params)))
    wanted = np.array([1.5 * factor.T @ point for point in points])
    offsets = grids.sampling_offsets(jnp.array(params), points, rate=1.5)
    np.testing.assert_allclose(offsets, wanted, rtol=1e-5, atol=1e-6)


def test_offsets_spread_with_the_covariance():
    params = jnp.array([0.2, 0.7, -0.5])
    offsets = np.asarray(grids.sampling_offsets(params, grids.ring_points(2, 16)))[1:]
    np.testing.assert_allclose(
        offsets.T @ offsets / len(offsets), covariance.covariance_matrix(params) / 2, rtol=1e-5
    )


def test_offsets_of_many_covariances():
    params = jnp.array(np.random.default_rng(1).normal(size=(2, 4, 3)), jnp.float32)
    points = grids.ring_points()
    offsets = grids.sampling_offsets(params, points, rate=2.0)
    assert offsets.shape == (2, 4, 9, 2)
    one = grids.sampling_offsets(params[1, 2], points, rate=2.0)
    np.testing.assert_allclose(offsets[1, 2], one, rtol=1e-6)
    mapped = jax.jit(jax.vmap(jax.vmap(lambda p: grids.sampling_offsets(p, points, rate=2.0))))
    np.testing.assert_allclose(mapped(params), offsets, rtol=1e-6)


def test_offsets_keep_the_dtype():
    points = grids.ring_points()
    assert grids.sampling_offsets(jnp.zeros(1, jnp.bfloat16), points).dtype == jnp.bfloat16
    with jax.enable_x64(True):
        assert grids.sampling_offsets(jnp.zeros(1), grids.ring_points()).dtype == jnp.float64


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda: grids.ring_points(0), ValueError, "rings must be a positive integer; got 0"),
        (lambda: grids.ring_points(1, 0), ValueError, "points_per_ring must be a positive int"),
        (lambda: grids.ring_points(1.5), TypeError, "rings must be a positive integer; got 1.5"),
        (lambda: grids.lattice_points(4), ValueError, "kernel_size must be odd"),
        (lambda: grids.circular_points((3, 2)), ValueError, r"kernel_size must be odd.*\(3, 2\)"),
        (lambda: grids.lattice_points((3, 3, 3)), ValueError, "integer or two of them"),
        (lambda: grids.lattice_points("3"), TypeError, "kernel_size must be a positive"),
        (
            lambda: grids.sampling_offsets(jnp.zeros(4), jnp.zeros((9, 2))),
            ValueError,
            "params must",
        ),
        (lambda: grids.sampling_offsets(jnp.zeros(1), jnp.zeros((9, 3))), ValueError, r"\[K, 2\]"),
        (lambda: grids.sampling_offsets(jnp.zeros(1), jnp.zeros(2)), ValueError, r"\[K, 2\]"),
        (
            lambda: grids.sampling_offsets(jnp.zeros(1), jnp.zeros((9, 2)), rate=jnp.ones(2)),
            ValueError,
            "rate must be a scalar",
        ),
        (
            lambda: grids.sampling_offsets(jnp.zeros(1, jnp.int32), jnp.zeros((9, 2))),
            TypeError,
            "params must have a floating-point dtype",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()


@pytest.mark.parametrize("stride", [1, (2, 3)])
def test_affine_coordinates_by_loops(stride):
    affine = np.array([[0.1, -0.2, 1.5], [0.3, 0.05, -0.5]])
    size, steps = (5, 8), np.broadcast_to(stride, 2)
    got = grids.affine_coordinates(affine, size, stride=stride)
    center = (np.array(size) - 1) / 2
    assert got.shape == ((5 - 1) // steps[0] + 1, (8 - 1) // steps[1] + 1, 2)
    for i, j in np.ndindex(got.shape[:2]):
        pixel = steps * [i, j]
        wanted = center + (np.eye(2) + affine[:, :2]) @ (pixel - center) + affine[:, 2]
        np.testing.assert_allclose(got[i, j], wanted, rtol=1e-5)


def test_dilated_lattices_of_odd_sizes_are_multiples_of_the_lattice():
    for size, dilation in (((3, 5), (2, 3)), ((1, 7), (4, 1))):
        wanted = np.array(dilation) * np.asarray(grids.lattice_points(size))
        np.testing.assert_array_equal(grids.dilated_lattice(size, dilation), wanted)
    np.testing.assert_array_equal(grids.dilated_lattice((2, 1), (1, 1)), [[0, 0], [1, 0]])
    np.testing.assert_array_equal(grids.dilated_lattice((2, 1), (2, 1)), [[-1, 0], [1, 0]])
