"""The composition of digit scenes: what each mask says about the others and about the picture."""

import re

import numpy as np
import pytest
from sklearn.datasets import load_digits

from rfjax.data import scenes


def compose(seed, **options):
    images, values = scenes.digits("train")
    return scenes.compose_scene(np.random.default_rng(seed), images, values, **options)


def test_digits_of_the_splits_are_disjoint_and_complete():
    train, val = (scenes.digits(split)[0].reshape(-1, 64) for split in ("train", "val"))
    assert (len(train), len(val)) == (1397, 400)
    everything = load_digits().data / 16
    np.testing.assert_array_equal(np.concatenate([train, val]), everything.astype(np.float32))
    assert not {row.tobytes() for row in train} & {row.tobytes() for row in val}


def test_a_run_of_the_dictated_text_begins_18_digits_into_the_validation_split():
    # What the module says about writers: the labels repeat one text, so its start shows the runs.
    text = "".join(map(str, load_digits().target))
    starts = [match.start() for match in re.finditer("01234567890123456789", text)]
    assert next(start for start in starts if start >= scenes.TRAIN_DIGITS) - 1397 == 18
    assert text[1415:1545] == text[:130]


def test_same_seed_same_scene():
    first, again, other = compose(3), compose(3), compose(4)
    for key in ("image", "label", "instances", "scales"):
        np.testing.assert_array_equal(first[key], again[key])
    assert (first["image"] != other["image"]).mean() > 0.5


@pytest.mark.parametrize("seed", range(4))
def test_nearer_digits_cover_others_and_depth_changes_nothing_else(seed):
    plain, deep = compose(seed), compose(seed, depth=np.random.default_rng(seed))
    for key in plain:
        np.testing.assert_array_equal(plain[key], deep[key])
    count = int(plain["instances"].max())
    medians = [np.median(deep["depth"][plain["instances"] == n]) for n in range(count + 1)]
    assert medians == sorted(medians, reverse=True) and len(set(medians)) == count + 1


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("scales", [(20.0, 48.0), (10.0, 24.0)])
def test_masks_agree(seed, scales):
    scene = compose(seed, min_scale=scales[0], max_scale=scales[1])
    label, instances = scene["label"], scene["instances"]
    count = int(instances.max())
    assert count >= 1
    found = scene["scales"][scene["scales"] > 0]
    assert len(found) == count and (scene["scales"][:count] > 0).all()
    assert scales[0] <= found.min() and found.max() <= scales[1]
    np.testing.assert_array_equal(label == 0, instances == 0)
    assert (instances > 0).mean() <= 0.55
    for number in range(1, count + 1):
        inside = np.unique(label[(instances == number) & (label != 255)])
        assert len(inside) == 1 and 1 <= inside[0] <= 10
        # An ellipse of .62 bounding boxes is 1.24 times as high as the ink, and the ink of a
        # digit fills nearly all of the eight rows (to a pixel, and interpolation adds one on
        # either side); another ellipse hides at most 5 % of the area.
        rows = np.flatnonzero((instances == number).any(axis=1))
        height, scale = rows[-1] - rows[0] + 1, found[number - 1]
        touches_border = rows[0] == 0 or rows[-1] == len(label) - 1
        assert height <= 1.24 * (scale + 2) + 1
        assert touches_border or height >= 1.24 * 0.75 * scale


def test_a_digit_lies_inside_its_mask():
    # On one digit without its surroundings: the ink that is painted, against the ellipse.
    images, _ = scenes.digits("val")
    for digit in images[:40]:
        ink = scenes.digit_ink(digit, 24.0)
        mask = scenes.ellipse(ink, 5, 9, 64)
        painted = np.zeros((64, 64), np.float32)
        painted[5 : 5 + len(ink), 9 : 9 + len(ink)] = ink
        assert painted[mask].sum() > 0.95 * painted.sum()


def test_void_is_the_outline_and_the_overlap():
    one, two = (np.zeros((16, 16), bool) for _ in range(2))
    one[2:12, 2:12], two[6:15, 6:15] = True, True
    label, instances = scenes.label_maps([one, two], [3, 5], 16)
    inner_one, inner_two = np.zeros((16, 16), bool), np.zeros((16, 16), bool)
    inner_one[3:11, 3:11], inner_two[7:14, 7:14] = True, True
    overlap = one & two
    np.testing.assert_array_equal(label == 3, inner_one & ~overlap)
    np.testing.assert_array_equal(label == 5, inner_two & ~overlap)
    np.testing.assert_array_equal(label == 255, (one | two) & (label != 3) & (label != 5))
    np.testing.assert_array_equal(instances, np.where(two, 2, one.astype(np.uint8)))


def test_scales_are_log_uniform():
    draws = np.array([scenes.log_uniform(rng, 10.0, 40.0) for rng in _generators(2000)])
    assert draws.min() >= 10 and draws.max() <= 40
    # half of the draws lie below the geometric mean, within three standard errors
    assert abs((draws < 20).mean() - 0.5) < 3 * 0.5 / np.sqrt(2000)


def _generators(count):
    rng = np.random.default_rng(0)
    return [rng] * count


@pytest.mark.parametrize(
    "options", [{"max_scale": 52.0}, {"min_scale": 30.0, "max_scale": 20.0}, {"min_scale": 1.0}]
)
def test_scales_that_do_not_fit(options):
    with pytest.raises(ValueError, match="min_scale"):
        compose(0, **options)
