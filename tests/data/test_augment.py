"""Augmentation: image and label stay together, and each change is what its formula says."""

import cv2
import numpy as np
import pytest

from rfjax.data import Augmentation, augment

HEIGHT, WIDTH = 90, 120


@pytest.fixture
def rng():
    return np.random.default_rng(0)


def index_pair():
    """An image whose red is its row and whose green is its column; the label is the row."""
    rows, columns = np.mgrid[:HEIGHT, :WIDTH].astype(np.uint8)
    return np.stack([rows, columns, rows], axis=-1), rows.copy()


def random_pair(rng, height=HEIGHT, width=WIDTH):
    image = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return image, rng.integers(0, 11, (height, width), dtype=np.uint8)


@pytest.mark.parametrize("degrees", [-10.0, 3.5, 45.0, 90.0])
def test_rotation_keeps_image_and_label_together(degrees):
    image, label = augment.rotate(*index_pair(), degrees)
    inside = label != 255
    # Nearest against bilinear: half a pixel, and one for rounding to whole levels.
    assert np.abs(image[..., 0][inside].astype(int) - label[inside]).max() <= 1
    # and both have turned: source coordinates by hand, anticlockwise as displayed
    angle = np.deg2rad(degrees)
    y, x = np.mgrid[:HEIGHT, :WIDTH] - np.array([(HEIGHT - 1) / 2, (WIDTH - 1) / 2])[:, None, None]
    source_y = np.cos(angle) * y + np.sin(angle) * x + (HEIGHT - 1) / 2
    source_x = np.cos(angle) * x - np.sin(angle) * y + (WIDTH - 1) / 2
    assert np.abs(source_y[inside] - label[inside]).max() <= 0.52
    assert np.abs(source_x[inside] - image[..., 1][inside]).max() <= 0.6
    outside = (
        (source_y < -0.52)
        | (source_y > HEIGHT - 0.48)
        | (source_x < -0.52)
        | (source_x > WIDTH - 0.48)
    )
    assert outside.any() and (label[outside] == 255).all()


@pytest.mark.parametrize("channels", [1, 4, 6])
def test_other_channels_move_alike_and_only_colors_change(rng, channels):
    one, label = random_pair(rng)
    one = np.repeat(one[..., :1], channels, axis=2)
    options = {"scale": (0.5, 2.0), "rotation": 20.0, "crop": (40, 50), "flip": True}
    moved, _ = Augmentation(**options)(np.random.default_rng(2), one, label)
    assert moved.shape == (40, 50, channels)
    np.testing.assert_array_equal(moved, np.repeat(moved[..., :1], channels, axis=2))
    colored, _ = Augmentation(color=0.5, lighting=0.1)(np.random.default_rng(2), one, label)
    kept = slice(3, None) if channels > 3 else slice(None)
    np.testing.assert_array_equal(colored[..., kept], one[..., kept])
    assert channels < 3 or (colored[..., :3] != one[..., :3]).any()


def test_rotation_reflects_the_image():
    image = np.full((40, 60, 3), 200, np.uint8)
    turned, label = augment.rotate(image, np.zeros((40, 60), np.uint8), 20.0)
    assert (turned == 200).all() and set(np.unique(label)) == {0, 255}


@pytest.mark.parametrize("factor", [0.5, 0.73, 1.4, 2.0])
def test_scaling_keeps_image_and_label_together(factor):
    image, label = augment.resize(*index_pair(), factor)
    assert label.shape == image.shape[:2] == (round(HEIGHT * factor), round(WIDTH * factor))
    # Half a pixel of the coarser of the two grids, and rounding.
    assert np.abs(image[..., 0].astype(int) - label).max() <= 1
    rows = (np.arange(len(label)) + 0.5) * HEIGHT / len(label) - 0.5
    assert np.abs(label - rows[:, None]).max() <= 0.52


def test_shrinking_does_not_alias():
    # Nine pixels of a checkerboard average to 4/9 or 5/9 of white; a read at their centre, which
    # is what plain interpolation gives at a third of the size, is black or white.
    board = (np.indices((63, 63)).sum(0) % 2 * 255).astype(np.uint8)
    image, _ = augment.resize(np.stack([board] * 3, -1), board, 1 / 3)
    assert image.shape == (21, 21, 3) and set(np.unique(image)) == {113, 142}


def test_enlarging_is_cubic():
    # Keys' cubic convolution with a = -.75, which OpenCV documents: an edge overshoots.
    edge = np.repeat(np.array([50, 50, 50, 50, 200, 200, 200, 200], np.uint8)[None], 8, 0)
    image, _ = augment.resize(np.stack([edge] * 3, -1), edge, 2.0)
    assert image.min() < 50 and image.max() > 200


def test_crop_is_a_window(rng):
    image, label = index_pair()
    seen = set()
    for _ in range(200):
        cut, cut_label = augment.random_crop(rng, image, label, (88, 117))
        assert cut.shape == (88, 117, 3) and cut_label.shape == (88, 117)
        top, left = int(cut[0, 0, 0]), int(cut[0, 0, 1])
        np.testing.assert_array_equal(cut, image[top : top + 88, left : left + 117])
        np.testing.assert_array_equal(cut_label, label[top : top + 88, left : left + 117])
        seen.add((top, left))
    assert seen == {(top, left) for top in range(3) for left in range(4)}


def test_crop_larger_than_the_image_pads(rng):
    image, label = random_pair(rng, 10, 12)
    cut, cut_label = augment.random_crop(rng, image, label, (15, 12))
    np.testing.assert_array_equal(cut, np.pad(image, ((2, 3), (0, 0), (0, 0)), mode="reflect"))
    expected = np.pad(label, ((2, 3), (0, 0)), constant_values=255)
    np.testing.assert_array_equal(cut_label, expected)
    large, large_label = augment.random_crop(rng, image, label, (50, 64))  # several reflections
    assert large.shape == (50, 64, 3)
    assert (large_label != 255).sum() == 120


def test_brightness_contrast_saturation(rng):
    image, _ = random_pair(rng)
    x = image.astype(float)
    grey = x @ [0.299, 0.587, 0.114]  # luma of ITU-R BT.601
    cases = {
        augment.brightness: lambda a: a * x,
        augment.contrast: lambda a: grey.mean() + a * (x - grey.mean()),
        augment.saturation: lambda a: grey[..., None] + a * (x - grey[..., None]),
    }
    for change, formula in cases.items():
        for factor in (0.5, 1.0, 1.5):
            expected = np.clip(formula(factor), 0, 255)
            assert np.abs(change(image, factor) - expected).max() <= 1.01, change.__name__
        np.testing.assert_array_equal(change(image, 1.0), image)


def test_color_uses_all_three_in_every_order(rng, monkeypatch):
    image, label = random_pair(rng)
    calls, orders, factors = [], set(), []
    for name in ("contrast", "brightness", "saturation"):

        def record(picture, factor, name=name):
            calls.append(name)
            factors.append(factor)
            return picture

        monkeypatch.setattr(augment, name, record)
    for _ in range(100):
        calls.clear()
        augment.random_color(rng, image, label, 0.5)
        orders.add(tuple(calls))
    assert len(orders) == 6 and all(len(set(order)) == 3 for order in orders)
    assert 0.5 <= min(factors) < 0.55 and 1.45 < max(factors) <= 1.5


def test_lighting_shifts_along_the_principal_colours():
    image = np.full((4, 4, 3), 128, np.uint8)
    label = np.zeros((4, 4), np.uint8)
    shifts = []
    for seed in range(3000):
        shifted, _ = augment.random_lighting(np.random.default_rng(seed), image, label, 0.1)
        assert (shifted == shifted[0, 0]).all()
        shifts.append(shifted[0, 0].astype(float) - 128)
    vectors, values = augment._PCA_VECTORS, augment._PCA_VALUES
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(3), atol=1e-3)
    # rounding to levels adds 1/12 to the variances
    expected = vectors @ np.diag((0.1 * values) ** 2) @ vectors.T + np.eye(3) / 12
    np.testing.assert_allclose(np.cov(np.array(shifts).T), expected, atol=0.1 * expected.max())


def test_flip_mirrors_half_of_the_examples(rng):
    image, label = index_pair()
    flipped = 0
    for _ in range(400):
        mirrored, mirrored_label = augment.random_flip(rng, image, label, True)
        np.testing.assert_array_equal(mirrored[..., 0], mirrored_label)
        if mirrored[0, 0, 1]:
            np.testing.assert_array_equal(mirrored, image[:, ::-1])
            flipped += 1
    assert abs(flipped - 200) < 3 * 10  # three standard deviations of 400 tosses


@pytest.mark.parametrize("whole", [True, False])
def test_angles(rng, whole, monkeypatch):
    angles = []
    monkeypatch.setattr(augment, "rotate", lambda *args: angles.append(args[2]))
    for _ in range(500):
        augment.random_rotation(rng, *random_pair(rng, 4, 4), 3.0, whole=whole)
    assert min(angles) >= -3 and max(angles) <= 3
    assert (set(angles) == {-3, -2, -1, 0, 1, 2, 3}) == whole


def test_default_changes_nothing(rng):
    pair = random_pair(rng)
    for before, after in zip(pair, Augmentation()(rng, *pair), strict=True):
        np.testing.assert_array_equal(before, after)


def test_order_and_determinism(rng, monkeypatch):
    augmentation = Augmentation(
        scale=(0.5, 2.0), rotation=10, crop=(32, 40), color=0.5, lighting=0.1, flip=True
    )
    pair = random_pair(rng)
    first = augmentation(np.random.default_rng(5), *pair)
    again = augmentation(np.random.default_rng(5), *pair)
    other = augmentation(np.random.default_rng(6), *pair)
    np.testing.assert_array_equal(first[0], again[0])
    np.testing.assert_array_equal(first[1], again[1])
    assert (first[0] != other[0]).any()
    order = []
    for name in ("rotation", "scale", "crop", "color", "lighting", "flip"):

        def record(rng, image, label, amount, name=name, **kwargs):
            order.append(name)
            return image, label

        monkeypatch.setattr(augment, f"random_{name}", record)
    augmentation(rng, *pair)
    assert order == ["rotation", "scale", "crop", "color", "lighting", "flip"]


def test_whole_chain_keeps_image_and_label_together():
    image, label = index_pair()
    chain = Augmentation(scale=(0.5, 2.0), rotation=10, crop=(64, 80), flip=True)
    for seed in range(20):
        moved, moved_label = chain(np.random.default_rng(seed), image, label)
        inside = moved_label != 255
        # Away from the border of the picture, where reflections mix into averages.
        inside = cv2.erode(inside.astype(np.uint8), np.ones((5, 5), np.uint8)).astype(bool)
        assert inside.sum() > 500
        assert np.abs(moved[..., 0][inside].astype(int) - moved_label[inside]).max() <= 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"scale": (2.0, 0.5)}, "scale is a pair"),
        ({"scale": (0.0, 1.0)}, "scale is a pair"),
        ({"crop": (0, 4)}, "crop is None or"),
        ({"crop": (4.5, 4)}, "crop is None or"),
        ({"color": 1.5}, "color must be at least 0 and at most 1"),
        ({"lighting": -0.1}, "lighting must be at least 0"),
        ({"rotation": -1.0}, "rotation must be at least 0 and at most 180"),
        ({"rotation": 0.5}, "whole_degrees=False"),
    ],
)
def test_bad_amounts(options, message):
    with pytest.raises(ValueError, match=message):
        Augmentation(**options)
