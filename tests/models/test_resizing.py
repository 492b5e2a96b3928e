"""Enlarging and cropping, against loops over the definition."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.models.resizing import HalfPixelBilinear, TransposedBilinear, align
from rfjax.places import Place


def _map(*shape):
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


def _transposed(x, factor, size):
    """Every pixel adds its taps."""
    number, height, width, channels = x.shape
    y = np.zeros((number, factor * (height - 1) + size, factor * (width - 1) + size, channels))
    taps = 1 - np.abs(np.arange(size) - (size - 1) / 2) / factor
    for i, j in np.ndindex(height, width):
        place = (slice(None), slice(factor * i, factor * i + size))
        block = np.einsum("a,b,nc->nabc", taps, taps, x[:, i, j])
        y[(*place, slice(factor * j, factor * j + size))] += block
    return y


@pytest.mark.parametrize("factor", [1, 2, 3, 8])
@pytest.mark.parametrize("aligned, lacking", [("half-pixel", 0), ("index", 1)])
def test_transposed_is_a_transposed_convolution(factor, aligned, lacking):
    x, size = _map(2, 3, 4, 2), 2 * factor - lacking
    y = jax.jit(TransposedBilinear(factor, aligned=aligned).apply)({}, x)
    np.testing.assert_allclose(y, _transposed(x, factor, size), atol=1e-5)


@pytest.mark.parametrize("resize", [
    HalfPixelBilinear(3), TransposedBilinear(4), TransposedBilinear(4, aligned="index"),
    TransposedBilinear(3, aligned="index"),
])  # fmt: skip
def test_a_map_of_where_its_pixels_lie_stays_one(resize):
    place = Place((12, 8), (-5, 2.5))
    held = np.stack(
        np.meshgrid(np.arange(6.0) * 12 - 5, np.arange(7.0) * 8 + 2.5, indexing="ij"), -1
    )
    y = resize.apply({}, jnp.asarray(held, jnp.float32)[None])[0]
    found, inside = resize.place(place), 2 * resize.factor
    for axis in (0, 1):
        positions = found.offset[axis] + found.stride[axis] * np.arange(y.shape[axis])
        line = y[:, inside, 0] if axis == 0 else y[inside, :, 1]
        np.testing.assert_allclose(line[inside:-inside], positions[inside:-inside], atol=1e-4)


def test_the_image_is_cut_from_where_it_begins():
    place = Place(4, -8)
    resize = TransposedBilinear(4, aligned="index")
    x = _map(1, 9, 9, 1)
    whole = _transposed(x, 4, 7)  # its pixel 0 lies at -8 - 3
    y = jax.jit(functools.partial(resize.apply, method="to_image", size=(20, 13), place=place))(
        {}, x
    )
    np.testing.assert_allclose(y, whole[:, 11:31, 11:24], atol=1e-5)


@pytest.mark.parametrize("place, aligned, size, message", [
    (Place(4, 4), "index", (8, 8), "do not reach over an image of size"),
    (Place(4, 0), "index", (40, 8), "do not reach over an image of size"),
    (Place(4, 0), "half-pixel", (8, 8), "whole pixels apart"),
    (Place(4, 0), "edge", (8, 8), "aligned is one of half-pixel, index; got 'edge'"),
])  # fmt: skip
def test_scores_that_do_not_fit_an_image_are_refused(place, aligned, size, message):
    resize = TransposedBilinear(4, aligned=aligned)
    with pytest.raises(ValueError, match=message):
        resize.apply({}, jnp.zeros((1, 9, 9, 1)), place, size, method="to_image")


@pytest.mark.parametrize("first, second", [((0, 8), (-4, 12)), ((-4, 12), (0, 8))])
def test_the_map_that_begins_first_is_cropped(first, second):
    def held(place, *shape):
        axes = (
            s * np.arange(n) + b for n, s, b in zip(shape, place.stride, place.offset, strict=True)
        )
        return jnp.asarray(np.stack(np.meshgrid(*axes, indexing="ij"), -1)[None], jnp.float32)

    one, other = Place(4, first), Place(4, second)
    a, b = align(held(one, 5, 7), one, held(other, 9, 6), other)
    np.testing.assert_array_equal(a, b)
    np.testing.assert_array_equal(a[0, 0, 0], [0, 12])


def test_maps_without_a_common_pixel_are_refused():
    with pytest.raises(ValueError, match="no pixel in common"):
        align(jnp.zeros((1, 2, 2, 1)), Place(4, 0), jnp.zeros((1, 2, 2, 1)), Place(4, 16))
