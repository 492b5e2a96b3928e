"""Clips: digits that move, folders in the layouts of DAVIS and Cityscapes, stills that slide."""

import os
from pathlib import Path

import cv2
import numpy as np
import pytest

from rfjax import data
from rfjax.data import digit_clips, scenes, video

SMALL = {"train_clips": 2, "val_clips": 3, "length": 9, "size": 48, "min_scale": 16.0}
SMALL |= {"max_scale": 24.0}


def write(path, picture):
    path.parent.mkdir(parents=True, exist_ok=True)
    assert cv2.imwrite(str(path), picture)


@pytest.fixture(scope="module")
def clips():
    return data.load("digit_clips", "val", **SMALL)


def test_digit_clips(clips):
    assert clips.clips == (range(9), range(9, 18), range(18, 27))
    first, again = clips.source[13], data.load("digit_clips", "val", **SMALL).source[13]
    assert first["id"] == "val_00001/004"
    np.testing.assert_array_equal(first["image"], again["image"])
    for index in (0, 8, 26):
        frame = clips.source[index]
        assert frame["image"].shape == (48, 48, 3) and frame["label"].shape == (48, 48)
        known = frame["label"] != data.VOID
        np.testing.assert_array_equal((frame["label"] > 0)[known], (frame["instances"] > 0)[known])
    with pytest.raises(IndexError):
        clips.source[27]


def test_digits_move_as_fast_as_the_clip_says():
    clip = digit_clips.DrawnClip([3], *scenes.digits("train"), length=40, fastest=4.0)
    assert set(clip.speeds) == {0.0, 1.0, 4.0} and clip.speeds[0] == 0
    labels = [clip.frame(t)["label"] for t in range(40)]
    for t in range(1, 40):
        moved = np.mean(labels[t] != labels[t - 1])
        assert (moved > 0) == (clip.speeds[t] > 0)
    middles = np.array([digit.place(way) for digit in clip._digits for way in range(400)])
    assert middles.min() >= 0  # thrown back by the borders


def test_frames_differ_in_their_noise_alone_while_digits_stand():
    clip = digit_clips.DrawnClip([0], *scenes.digits("train"), length=3, fastest=0.0)
    first, second = (clip.frame(t)["image"].astype(int) for t in (0, 1))
    difference = first - second
    assert difference.any() and abs(difference.mean()) < 1 and difference.std() < 15


def davis(root, labeled=("00000", "00002")):
    for clip in ("b", "a", "c"):
        for number in range(3):
            name = f"{number:05d}"
            write(root / "JPEGImages" / clip / f"{name}.jpg", np.full((4, 6, 3), 40 * number))
            if name in labeled:
                label = np.array([[0, 255, 0, 7, 0, 0]] * 4, np.uint8)
                write(root / "Annotations" / clip / f"{name}.png", label)
    return str(root)


def test_davis_layout(tmp_path):
    folder = davis(tmp_path)
    train = data.load("davis", "train", data_dir=folder)
    val = data.load("davis", "val", data_dir=folder, frames="all")
    assert [train.source[i]["id"] for i in range(4)] == ["a/00000", "a/00002", "b/00000", "b/00002"]
    assert train.clips == (range(2), range(2, 4)) and val.clips == (range(3),)
    assert train.source[0]["label"][0].tolist() == [0, 1, 0, 1, 0, 0]
    assert (val.source[1]["label"] == data.VOID).all() and val.shapes[1] == (4, 6)


def test_davis_layout_with_classes_lists_and_a_folder_between(tmp_path):
    davis(tmp_path / "x")
    for kind in ("JPEGImages", "Annotations"):
        (tmp_path / kind).mkdir()
        (tmp_path / "x" / kind).rename(tmp_path / kind / "480p")
    (tmp_path / "classes.txt").write_text("ground\ncow\ndog\n")
    (tmp_path / "val.txt").write_text("b\n")
    val = data.load("davis", "val", data_dir=str(tmp_path), enlargement=2)
    assert val.class_names == ("ground", "cow", "dog") and val.clips == (range(2),)
    with pytest.raises(ValueError, match=r"b/00000.png has label values \[7\]; want 0 to 2"):
        val.source[0]
    (tmp_path / "val.txt").write_text("z\n")
    with pytest.raises(FileNotFoundError, match="'z'"):
        data.load("davis", "val", data_dir=str(tmp_path))


def test_what_is_missing_is_told(tmp_path):
    with pytest.raises(FileNotFoundError, match="JPEGImages"):
        data.load("davis", "val", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="has a label"):
        data.load("davis", "val", data_dir=davis(tmp_path, labeled=()))
    with pytest.raises(ValueError, match="frames is one of labeled, all"):
        data.load("davis", "val", data_dir=davis(tmp_path), frames="some")
    with pytest.raises(FileNotFoundError, match="leftImg8bit_sequence"):
        data.load("cityscapes_clips", "val", data_dir=str(tmp_path))


def test_cityscapes_layout(tmp_path):
    for name in ("a_000000_000018", "a_000000_000019", "a_000000_000040", "a_000001_000041"):
        path = tmp_path / "leftImg8bit_sequence" / "val" / "a" / f"{name}_leftImg8bit.png"
        write(path, np.zeros((2, 3, 3), np.uint8))
    label = np.array([[7, 0, 26]] * 2, np.uint8)
    write(tmp_path / "gtFine" / "val" / "a" / "a_000000_000019_gtFine_labelIds.png", label)
    every = data.load("cityscapes_clips", "val", data_dir=str(tmp_path), frames="all")
    assert every.clips == (range(2), range(2, 3), range(3, 4))
    labeled = data.load("cityscapes_clips", "val", data_dir=str(tmp_path))
    assert len(labeled) == 1 and labeled.source[0]["label"][0].tolist() == [0, data.VOID, 13]


@pytest.mark.parametrize("shape", [(20, 100), (100, 20)])
@pytest.mark.parametrize("shift", [0.03, 0.06])
def test_translated_stills(shape, shift):
    """The window, the number of frames, the whole shift; labels move with the image."""
    rng = np.random.default_rng(0)
    label = rng.integers(0, 200, shape).astype(np.uint8)
    image = np.repeat(label[..., None], 3, -1)
    clip = video.translated({"image": image, "label": label, "id": "a"}, shift)
    step, axis = round(100 * shift), int(shape[1] > shape[0])
    assert len(clip) == 6
    for t, frame in enumerate(clip):
        expected = np.take(label, range(t * step, t * step + 100 - 5 * step), axis)
        np.testing.assert_array_equal(frame["label"], expected)
        np.testing.assert_array_equal(frame["image"][..., 2], expected)


def test_translated_data_sets(clips):
    slid = video.translations(clips, 0.03, every=9)
    assert slid.clips == (range(6), range(6, 12), range(12, 18)) and len(slid) == 18
    assert slid.source[7]["id"] == "val_00001/000/1" and slid.shapes[0] == (48, 43)
    with pytest.raises(ValueError, match="6 frames that move by 10 pixels want more than the 48"):
        video.translated(clips.source[0], 0.2)


def test_folders_of_frames(tmp_path):
    for number in range(3):
        write(tmp_path / f"{number}.png", np.full((2, 4, 3), number, np.uint8))
    (tmp_path / "1.png").write_bytes(b"no picture")
    clip = video.open_clip(tmp_path)
    first, second, third = clip.frames
    assert clip.count == 3 and clip.rate is None
    assert first.name == "0" and first.pixels.shape == (2, 4, 3) and third.pixels[0, 0, 0] == 2
    assert second.pixels is None and "1.png is not a readable image" in second.fault


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    path = tmp_path_factory.mktemp("film") / "film.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, (16, 8))
    for level in (0, 100, 200):
        writer.write(np.full((8, 16, 3), (0, 0, level), np.uint8))  # blue, green, red
    writer.release()
    return path


def test_video_files(film):
    clip = video.open_clip(film)
    frames = list(clip.frames)
    assert (clip.count, clip.rate, len(frames)) == (3, 12.0, 3)
    np.testing.assert_allclose([f.pixels[..., 0].mean() for f in frames], (0, 100, 200), atol=6)


def test_clips_that_are_none(tmp_path, film):
    with pytest.raises(ValueError, match="there are no frames"):
        video.open_clip(tmp_path)
    with pytest.raises(ValueError, match="no such folder or file"):
        video.open_clip(tmp_path / "nothing")
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text\.mp4: not a video that OpenCV reads"):
        video.open_clip(tmp_path / "text.mp4")


@pytest.mark.skipif(not os.environ.get("RFJAX_DATA_DIR"), reason="needs RFJAX_DATA_DIR/davis")
def test_real_davis():
    folder = Path(os.environ["RFJAX_DATA_DIR"]) / "davis"
    train, val = (data.load("davis", split, data_dir=str(folder)) for split in ("train", "val"))
    assert (len(train.clips), len(val.clips)) == (10, 5)
    assert set(train.shapes) == {(240, 426)}
    assert set(np.unique(val.source[0]["label"])) == {0, 1}


@pytest.mark.skipif(
    not os.environ.get("RFJAX_CAMVID_DIR"), reason="needs CamVid in RFJAX_CAMVID_DIR"
)
def test_the_clip_of_camvid():
    val = data.load("camvid", "val", data_dir=os.environ["RFJAX_CAMVID_DIR"])
    assert val.clips == (range(101),)
