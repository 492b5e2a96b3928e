"""Digit scenes on disk: kept apart by options, whole after a crash, the same for everybody."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest

import rfjax.data
from rfjax.data import digit_scenes
from rfjax.data import scenes as composition
from tests.data.conftest import SMALL

KEYS = ("image", "label", "instances", "scales", "id")
ROOT = Path(__file__).parents[2]
PREPARE = (
    "import sys; from rfjax.data import load;"
    "dataset = load('digit_scenes', 'train', data_dir=sys.argv[1], train_scenes={0}, val_scenes=1);"
    "print(sum(int(dataset.source[i]['image'].sum()) for i in range(5)))"
)


def assert_same(first, second):
    for key in KEYS:
        np.testing.assert_array_equal(first[key], second[key])


def start_preparing(folder, count):
    return subprocess.Popen(
        [sys.executable, "-c", PREPARE.format(count), str(folder)],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "JAX_PLATFORMS": "cpu"},
    )


def test_what_is_read_is_what_was_composed(scenes, val_scenes):
    assert (len(scenes), len(val_scenes)) == (21, 7)
    for dataset, split_index in ((scenes, 0), (val_scenes, 1)):
        images, values = composition.digits(dataset.split)
        for index in (0, len(dataset) - 1):
            rng = np.random.default_rng([0, split_index, index])
            expected = composition.compose_scene(rng, images, values)
            expected["id"] = f"{dataset.split}_{index:05d}"
            assert_same(dataset.source[index], expected)


def test_description(scenes):
    assert scenes.num_classes == len(scenes.class_names) == len(scenes.palette) == 11
    assert scenes.class_names[0] == "background" and scenes.class_names[1] == "0"
    assert len({tuple(color) for color in scenes.palette.tolist()}) == 11
    pixels = np.stack([scenes.source[i]["image"] for i in range(21)]).reshape(-1, 3) / 255
    # The stated statistics are those of 4,096 scenes; a scene's mean varies by about .1.
    np.testing.assert_allclose(pixels.mean(0), scenes.mean, atol=3 * 0.1 / np.sqrt(21))
    np.testing.assert_allclose(pixels.std(0), scenes.std, atol=0.03)


def test_options_do_not_collide(scenes, data_dir):
    others = [
        {**SMALL, "seed": 1},
        {**SMALL, "min_scale": 10.0, "max_scale": 24.0},
    ]
    for options in others:
        other = rfjax.data.load("digit_scenes", "train", data_dir=data_dir, **options)
        assert (other.source[0]["scales"] != scenes.source[0]["scales"]).any()
    rfjax.data.load("digit_scenes", "train", data_dir=data_dir, max_scale=48 - 1e-9, **SMALL)
    assert len(list(Path(data_dir).glob("digit_scenes/*20.0-4*_seed0"))) == 2
    large = rfjax.data.load("digit_scenes", "train", data_dir=data_dir, size=96, **SMALL)
    assert large.source[0]["label"].shape == (96, 96)
    again = rfjax.data.load("digit_scenes", "train", data_dir=data_dir, **SMALL)
    assert_same(again.source[3], scenes.source[3])


def test_more_scenes_continue_the_same_sequence(scenes, data_dir):
    options = {"train_scenes": 23, "val_scenes": 1}
    more = rfjax.data.load("digit_scenes", "train", data_dir=data_dir, **options)
    assert len(more) == 23
    for index in (0, 20):
        assert_same(more.source[index], scenes.source[index])


def test_enlarged_scenes_are_the_same_scenes(scenes, data_dir):
    twice = rfjax.data.load("digit_scenes", "train", data_dir=data_dir, enlargement=2, **SMALL)
    small, large = scenes.source[2], twice.source[2]
    for key in ("label", "instances"):
        np.testing.assert_array_equal(large[key], np.kron(small[key], np.ones((2, 2), np.uint8)))
    np.testing.assert_array_equal(large["scales"], 2 * small["scales"])
    # Bilinear at the centres of pixels of half the size: weights of 1/4 and 3/4, rounded.
    row = small["image"][:, :, 0].astype(float)
    between = 0.75 * row[:, :-1] + 0.25 * row[:, 1:]
    expected = 0.75 * between[:-1] + 0.25 * between[1:]
    np.testing.assert_allclose(large["image"][1:-1:2, 1:-1:2, 0], expected, atol=1)


@pytest.fixture(scope="module")
def deep(data_dir):
    """21 training scenes with depth, and two sets of labels."""
    options = {"modality": "rgbd", "labels": "both"}
    return rfjax.data.load("digit_scenes", "train", data_dir=data_dir, **SMALL, **options)


def test_depth_is_a_fourth_channel_of_the_same_scenes(scenes, deep, data_dir):
    alone = rfjax.data.load("digit_scenes", "train", data_dir=data_dir, modality="depth", **SMALL)
    for index in (0, 20):
        plain, four, one = (each.source[index] for each in (scenes, deep, alone))
        np.testing.assert_array_equal(four["image"][..., :3], plain["image"])
        np.testing.assert_array_equal(four["image"][..., 3:], one["image"])
        for key in ("label", "instances", "scales", "id"):
            np.testing.assert_array_equal(four[key], plain[key])
    assert [len(each.mean) for each in (scenes, alone, deep)] == [3, 1, 4]
    pixels = np.stack([alone.source[i]["image"] for i in range(21)]) / 255
    assert abs(pixels.mean() - alone.mean[0]) < 0.05 and abs(pixels.std() - alone.std[0]) < 0.05


def test_a_second_set_of_labels_is_the_size_of_digits(deep, data_dir):
    example = deep.source[3]
    label, sizes, large = example["label"], example["label/geometric"], (20 * 48) ** 0.5
    np.testing.assert_array_equal(sizes == 255, label == 255)
    np.testing.assert_array_equal(sizes == 0, label == 0)
    for number, scale in enumerate(example["scales"][example["scales"] > 0], 1):
        seen = sizes[(example["instances"] == number) & (sizes != 255)]
        assert (seen == (2 if scale >= large else 1)).all()
    assert deep.facts["label_sets"] == {"semantic": 11, "geometric": 3}
    own = rfjax.data.load("digit_scenes", "train", data_dir=data_dir, labels="geometric", **SMALL)
    assert own.num_classes == len(own.class_names) == len(own.palette) == 3
    np.testing.assert_array_equal(own.source[3]["label"], sizes)


def test_enlarged_depth_and_labels(deep, data_dir):
    options = {"modality": "rgbd", "labels": "both", "enlargement": 2}
    twice = rfjax.data.load("digit_scenes", "train", data_dir=data_dir, **SMALL, **options)
    small, large = deep.source[2], twice.source[2]
    assert large["image"].shape == (128, 128, 4)
    ones = np.ones((2, 2), np.uint8)
    np.testing.assert_array_equal(large["label/geometric"], np.kron(small["label/geometric"], ones))
    expected = cv2.resize(small["image"][..., 3], (128, 128), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_array_equal(large["image"][..., 3], expected)


def test_tensorflow_is_not_needed(scenes):
    assert scenes.source[0]["id"] == "train_00000"
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"sice": 64}, "option of digit_scenes is one of size, min_scale"),
        ({"size": 64.0}, "size must be a positive integer"),
        ({"train_scenes": 0}, "train_scenes must be a positive integer"),
        ({"max_scale": 60.0}, "max_scale"),
        ({"enlargement": 0}, "enlargement must be a positive integer"),
        ({"enlargement": 1.5}, "enlargement must be a positive integer"),
        ({"modality": "hha"}, "modality is one of rgb, depth, rgbd; got 'hha'"),
        ({"labels": "depth"}, "labels is one of semantic, geometric, both; got 'depth'"),
    ],
)
def test_bad_options(options, message, data_dir):
    with pytest.raises(ValueError, match=message):
        rfjax.data.load("digit_scenes", "train", data_dir=data_dir, **{**SMALL, **options})


def test_another_preparation_finishes_first(tmp_path, monkeypatch):
    # The slower one finds the finished folder when it wants to rename its own.
    options = {"data_dir": str(tmp_path), "train_scenes": 3, "val_scenes": 1}
    compose, faster = digit_scenes.compose_scene, []

    def overtaken(*args, **kwargs):
        monkeypatch.setattr(digit_scenes, "compose_scene", compose)
        faster.append(rfjax.data.load("digit_scenes", "train", **options))
        return compose(*args, **kwargs)

    monkeypatch.setattr(digit_scenes, "compose_scene", overtaken)
    slower = rfjax.data.load("digit_scenes", "train", **options)
    assert_same(slower.source[2], faster[0].source[2])
    assert not list(tmp_path.rglob("*incomplete*"))


def test_two_processes_at_the_same_time(tmp_path):
    processes = [start_preparing(tmp_path, 120) for _ in range(2)]
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs
    assert outputs[0][0] == outputs[1][0] != ""
    assert "preparing" in outputs[0][1] + outputs[1][1]


def test_killed_in_the_middle(tmp_path):
    process = start_preparing(tmp_path, 20_000)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("*incomplete*/*train*")):  # the records are being written
        assert process.poll() is None and time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert list(tmp_path.rglob("*incomplete*"))
    # The killed run's folder is named for 20,000 scenes: give the next run the same name.
    for folder in (tmp_path / "digit_scenes").glob("*20000*"):
        folder.rename(folder.with_name(folder.name.replace("20000+1", "9+1")))
    options = {"train_scenes": 9, "val_scenes": 1}
    dataset = rfjax.data.load("digit_scenes", "train", data_dir=str(tmp_path), **options)
    assert len(dataset) == 9 and dataset.source[8]["id"] == "train_00008"


def test_masks_hide_objects_or_what_is_around_them():
    from rfjax.data.dataset import Dataset
    from rfjax.data.masking import masked

    image = np.full((2, 2, 3), 200, np.uint8)
    label = np.array([[0, 3], [0, 255]], np.uint8)
    source = [{"image": image, "label": label, "id": "a"}]
    scenes = Dataset("scenes", "val", source, mean=(0.5, 0.5, 0.5))
    assert masked(scenes, None) is scenes
    shown = {
        name: masked(scenes, name).source[0]["image"][0, :, 0].tolist()
        for name in ("foreground", "background", "both")
    }
    assert shown == {"foreground": [200, 128], "background": [128, 200], "both": [0, 255]}
    with pytest.raises(ValueError, match="mask is one of foreground, background, both"):
        masked(scenes, "objects")
