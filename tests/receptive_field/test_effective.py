"""Effective receptive fields, of which Gaussian layers' are known."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax import nn
from rfjax import receptive_field as rf
from rfjax.data import Normalization
from rfjax.receptive_field import networks

SIGMAS = np.array([[[4.0, 1.5], [1.5, 3.0]], [[1.0, -0.3], [-0.3, 2.0]], [[2.0, 0.0], [0.0, 1.0]]])


def blurs(x):
    """Gaussian layers one after the other."""
    for matrix in SIGMAS:
        x = rfjax.gaussian_blur(x, rfjax.log_cholesky(jnp.asarray(matrix)), truncate=6.0)
    return x


def test_covariances_add():
    """A cascade's field has the sum of the covariances."""
    field = rf.effective(blurs, (49, 51, 1), draws=1)
    np.testing.assert_allclose(field.covariance, SIGMAS.sum(0), atol=2e-3)
    np.testing.assert_allclose(field.center, (24, 25), atol=1e-4)
    np.testing.assert_allclose(field.map.sum(), 1.0)


def test_ellipse_sigma_and_radius():
    params = rfjax.from_ellipse(4.0, 4.0, 0.0)
    blur = lambda x: rfjax.gaussian_blur(x, params, truncate=5.0)
    field = rf.effective(blur, (61, 61, 1), draws=1)
    np.testing.assert_allclose(field.ellipse[:2], (4.0, 4.0), rtol=2e-3)
    assert field.sigma == pytest.approx(4.0, rel=2e-3)
    # Rayleigh: sigma sqrt(-2 log 0.05); on pixels to less than one.
    assert field.radius(0.95) == pytest.approx(4.0 * np.sqrt(-2 * np.log(0.05)), abs=0.5)
    assert field.radius(1.0) > field.radius(0.5)


def test_gradients_are_those_of_the_output_in_question():
    shifted = lambda x: 2.0 * jnp.roll(x, (1, -2), (1, 2))
    field = rf.effective(shifted, (8, 9, 3), unit=(3, 4), draws=2)
    wanted = np.zeros((8, 9))
    wanted[2, 6] = 1.0
    np.testing.assert_array_equal(field.map, wanted)


def test_several_outputs_are_moved_onto_each_other():
    """Of a strided function that looks to the right."""
    function = lambda x: x[:, ::2, ::2] + 3.0 * jnp.roll(x, -1, 2)[:, ::2, ::2]
    places = [(2, 2), (3, 5), (5, 3)]
    field = rf.effective(function, (16, 16, 1), unit=(4, 4), units=places, draws=1)
    assert field.draws == 3
    np.testing.assert_allclose(field.map[8, 8:10], [0.25, 0.75])


@pytest.mark.parametrize(
    ("function", "places"),
    [
        (lambda x: mean3(x)[:, 1:-1, 1:-1], [(15, 15), (13, 13), (17, 17)]),
        (lambda x: mean3(x).repeat(2, 1).repeat(2, 2), [(32, 32), (28, 28), (36, 36)]),
    ],
)
def test_outputs_are_moved_by_the_stride_of_their_fields(function, places):
    """Where sizes do not tell it: a mean of three pixels has variance 2 / 3."""
    field = rf.effective(function, (33, 33, 1), unit=places[0], units=places, draws=1)
    np.testing.assert_allclose(field.covariance, np.eye(2) * 2 / 3, atol=1e-6)


def mean3(x):
    return jax.lax.reduce_window(x, 0.0, jax.lax.add, (1, 3, 3, 1), (1, 1, 1, 1), "SAME") / 9


def test_images_take_turns():
    """The gradient of a square is the image itself."""
    images = np.zeros((2, 3, 3, 1), np.float32)
    images[0, 1, 0], images[1, 1, 2] = 1.0, 3.0
    total = lambda x: jnp.broadcast_to((x**2).sum((1, 2, 3), keepdims=True), x.shape)
    field = rf.effective(total, (3, 3, 1), images=images, draws=4, chunk=3)
    np.testing.assert_allclose(field.map[1], [0.25, 0.0, 0.75])


def test_it_grows_with_what_a_head_has_learned():
    layer, shape = nn.ComposedConv(3), (32, 32, 2)
    variables = jax.jit(layer.init)(jax.random.key(0), jnp.zeros((1, *shape)))
    apply = lambda x, v: layer.apply(v, x)
    found = []
    for sigma in (0.3, 2.0):
        variables["params"]["covariance"] = jnp.log(jnp.array([sigma]))
        found.append(rf.effective(apply, shape, variables, draws=2))
    assert found[1].sigma > 2.0 * found[0].sigma
    assert found[1].radius() > 2.0 * found[0].radius()


def test_images_are_normalised_as_in_training():
    images = np.full((1, 2, 2, 3), 255, np.uint8)
    seen = networks.normalized(images, Normalization((0.5,) * 3, (0.25,) * 3))
    np.testing.assert_allclose(seen, 2.0)
    blue_first = Normalization((0.1, 0.2, 0.3), order="bgr")
    seen = networks.normalized(images, blue_first)
    np.testing.assert_allclose(seen[0, 0, 0], [0.7, 0.8, 0.9], rtol=1e-6)
    with pytest.raises(ValueError, match=r"uint8 \[M, H, W, 3\]; got float32 \(2, 2, 3\)"):
        networks.normalized(np.zeros((2, 2, 3), np.float32), Normalization())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"input_shape": (8, 8)}, r"must be \(H, W, C\)"),
        ({"draws": 0}, "draws must be a positive integer; got 0"),
        ({"images": np.zeros((1, 4, 4, 3))}, "images must have shape"),
        ({"unit": (8, 0)}, r"must be \(y, x\) within \(8, 8\)"),
        ({"apply_fn": lambda x: x * 0.0}, "no gradient reaches the input"),
        ({"apply_fn": lambda x: x.sum(-1)}, r"must return \[N, H', W', K\]"),
    ],
)
def test_bad_arguments_are_named(options, message):
    arguments = {"apply_fn": lambda x: x, "input_shape": (8, 8, 3)} | options
    with pytest.raises(ValueError, match=message):
        rf.effective(**arguments)


def test_mass_is_a_part():
    field = rf.effective(lambda x: x, (5, 5, 1), draws=1)
    assert field.radius() == 0.0
    with pytest.raises(ValueError, match="mass must lie in"):
        field.radius(1.5)
