"""Bands along the borders of classes, against distances that are counted pixel by pixel."""

import numpy as np
import pytest

from rfjax.tasks.boundaries import boundary_band


def test_the_band_of_a_straight_edge_is_twice_the_radius_wide():
    label = np.zeros((9, 40), np.uint8)
    label[:, 20:] = 3
    for foreground in (False, True):
        band = boundary_band(label, foreground=foreground)
        near = np.abs(np.arange(40) - 19.5) < 5
        np.testing.assert_array_equal(band, np.broadcast_to(near, band.shape))


@pytest.mark.parametrize("foreground", [False, True])
def test_another_label_within_the_radius(foreground):
    rng = np.random.default_rng(0)
    label = np.kron(rng.choice([0, 1, 2, 255], (3, 4)), np.ones((5, 6), int))
    seen = (label != 0) & (label != 255) if foreground else label
    places = np.argwhere(np.ones_like(label))
    near = np.hypot(*(places[:, None] - places).transpose(2, 0, 1)) <= 3
    other = seen.reshape(-1, 1) != seen.reshape(1, -1)
    expected = (near & other).any(1).reshape(label.shape)
    found = boundary_band(label, radius=3, foreground=foreground)
    np.testing.assert_array_equal(found, expected)


def test_void_has_outlines_too():
    label = np.zeros((1, 9), np.uint8)
    label[0, 4] = 255
    assert boundary_band(label, radius=1)[0].tolist() == [False] * 3 + [True] * 3 + [False] * 3
    assert not boundary_band(label, radius=1, foreground=True).any()
