"""Levels of images as the numbers that networks read."""

import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.data.normalization import SCHEMES, Normalization

MEAN, STD = (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)


@pytest.mark.parametrize("order", ["rgb", "bgr"])
def test_against_the_formula(order):
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3)).astype(np.uint8)[:, ::-1]
    normalization = Normalization(MEAN, STD, order)
    expected = (image / 255.0 - MEAN) / STD
    if order == "bgr":
        expected = expected[..., ::-1]
    host, device = normalization(image), normalization.on_device(jnp.asarray(image)[None])[0]
    for normalized in (host, device):
        assert normalized.dtype == np.float32
        np.testing.assert_allclose(normalized, expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize("channels", [1, 4, 6, 7])
def test_other_channels(channels):
    """Each three are turned; what they leave over keeps its place."""
    mean, std = np.linspace(0.1, 0.5, channels), np.linspace(0.5, 0.9, channels)
    image = np.random.default_rng(1).integers(0, 256, (5, 7, channels)).astype(np.uint8)
    expected = (image / 255.0 - mean) / std
    for start in range(0, channels - 2, 3):
        expected[..., start : start + 3] = expected[..., start : start + 3][..., ::-1]
    normalization = Normalization(mean.tolist(), std.tolist(), "bgr")
    host, device = normalization(image), normalization.on_device(jnp.asarray(image)[None])[0]
    for normalized in (host, device):
        np.testing.assert_allclose(normalized, expected, rtol=0, atol=1e-6)


def test_scheme_of_caffe():
    """Levels 0..255, blue first, less the mean of each channel."""
    pixel = np.array([[[200, 100, 50]]], np.uint8)
    expected = [50 - 104.00699, 100 - 116.66877, 200 - 122.67892]
    np.testing.assert_allclose(SCHEMES["caffe"](pixel)[0, 0], expected, atol=2e-4)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"order": "gbr"}, "order is one of rgb, bgr"),
        ({"mean": (0.0, 0.0)}, "mean and std have a number for each channel; got 2 and 3"),
        ({"mean": (), "std": ()}, "mean is finite numbers, one a channel; got"),
        ({"std": (1.0, 0.0, 1.0)}, "std is finite numbers above 0, one a channel; got"),
        ({"mean": (0.0, float("nan"), 0.0)}, "mean is finite numbers, one a channel; got"),
    ],
)
def test_refused(options, message):
    with pytest.raises(ValueError, match=message):
        Normalization(**options)
