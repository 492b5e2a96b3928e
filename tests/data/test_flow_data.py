"""Pairs of images with flow: files, FlyingChairs' layout, and digits that move by known amounts."""

import cv2
import numpy as np
import pytest

from rfjax import data, tasks
from rfjax.data.flow_files import flow_size, read_flow, write_flow


def _flow(height=3, width=4):
    return np.random.default_rng(0).normal(size=(height, width, 2)).astype(np.float32)


def test_a_flow_is_read_as_it_was_written(tmp_path):
    flow = _flow()
    flow[1, 2] = np.nan
    write_flow(tmp_path / "a.flo", flow)
    np.testing.assert_array_equal(read_flow(tmp_path / "a.flo"), flow)
    assert flow_size(tmp_path / "a.flo") == (3, 4)
    content = (tmp_path / "a.flo").read_bytes()
    assert np.frombuffer(content[:4], "<f4")[0] == np.float32(202021.25)  # the format's check
    assert np.frombuffer(content[4:12], "<i4").tolist() == [4, 3]
    assert np.frombuffer(content[12:20], "<f4").tolist() == flow[0, 0].tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"P6 3 4", "not a file of flow: it begins with b'P6 3'"),
        (b"PIEH\4\0\0\0\3\0\0\0", "a flow of 3x4 takes 108 bytes; got 12"),
        (b"PIEH\0\0\0\0\3\0\0\0", "a flow has pixels; got 3x0"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, content, message):
    (tmp_path / "a.flo").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_flow(tmp_path / "a.flo")
    with pytest.raises(ValueError, match=r"a flow has shape \[H, W, 2\]; got \(3, 4\)"):
        write_flow(tmp_path / "b.flo", np.zeros((3, 4)))


def _chairs(folder, count, ends=("-img0.ppm", "-img1.ppm", "-gt.flo")):
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    for index in range(count):
        for end in ends[:2]:
            image = rng.integers(0, 256, (3, 4, 3), np.uint8)
            cv2.imwrite(str(folder / f"{index:05d}{end}"), image[..., ::-1])
        write_flow(folder / f"{index:05d}{ends[2]}", _flow() + index)


@pytest.mark.parametrize(
    "ends", [("-img0.ppm", "-img1.ppm", "-gt.flo"), ("_img1.ppm", "_img2.ppm", "_flow.flo")]
)
def test_flying_chairs_are_found_by_their_names(tmp_path, ends):
    _chairs(tmp_path, 3, ends)
    pairs = data.load("flying_chairs", "train", data_dir=str(tmp_path))
    assert len(pairs) == 3 and pairs.shapes == ((3, 4),) * 3
    example = pairs.source[2]
    np.testing.assert_array_equal(example["flow"], _flow() + 2)
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (3, 4, 3), np.uint8) for _ in range(6)]
    np.testing.assert_array_equal(example["first"], images[4])
    np.testing.assert_array_equal(example["second"], images[5])
    assert len(data.load("flying_chairs", "val", data_dir=str(tmp_path))) == 3  # too few to split


def test_chairs_are_made_smaller_and_their_flow_shorter(tmp_path):
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 256, (2, 5, 8, 3), np.uint8)
    for end, image in (("-img0.ppm", first), ("-img1.ppm", second)):
        cv2.imwrite(str(tmp_path / f"a{end}"), image[..., ::-1])
    write_flow(tmp_path / "a-gt.flo", _flow(5, 8))
    pairs = data.load("flying_chairs", "train", data_dir=str(tmp_path), reduction=2)
    assert pairs.shapes == ((2, 4),)
    example = pairs.source[0]
    for row, column in np.ndindex(2, 4):
        cell = np.s_[2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
        mean = first[cell].mean((0, 1))
        np.testing.assert_allclose(example["first"][row, column], mean, atol=0.5)
        np.testing.assert_allclose(
            example["flow"][row, column], _flow(5, 8)[cell].mean((0, 1)) / 2, rtol=1e-5
        )


def test_every_tenth_of_many_pairs_is_held_out(tmp_path):
    _chairs(tmp_path, 100)
    train, val = (data.load("flying_chairs", s, data_dir=str(tmp_path)) for s in ("train", "val"))
    assert len(train) == 90 and [val.source[i]["id"] for i in (0, 9)] == ["00009", "00099"]


def test_folders_of_splits_are_taken_as_they_are(tmp_path):
    _chairs(tmp_path / "train", 2)
    _chairs(tmp_path / "val", 1)
    assert len(data.load("flying_chairs", "val", data_dir=str(tmp_path))) == 1


def test_missing_files_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"holds no pairs: want NAME-img0.ppm"):
        data.load("flying_chairs", "train", data_dir=str(tmp_path))
    _chairs(tmp_path, 1)
    (tmp_path / "00000-img1.ppm").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 files are missing: .*00000-img1.ppm"):
        data.load("flying_chairs", "train", data_dir=str(tmp_path))


def _warped(second, flow):
    """The second picture seen along the flow."""
    height, width = flow.shape[:2]
    x, y = np.meshgrid(np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32))
    return cv2.remap(second, x + flow[..., 0], y + flow[..., 1], cv2.INTER_LINEAR)


def test_digits_and_ground_move_as_their_flow_says():
    pairs = data.load("digit_flow", "val", size=64, motion=4.0, val_pairs=6)
    still, moved = [], []
    for index in range(6):
        pair = pairs.source[index]
        inside = np.s_[10:-10, 10:-10]
        first, second = (pair[name].astype(np.float32)[inside] for name in ("first", "second"))
        along = _warped(pair["second"], pair["flow"]).astype(np.float32)[inside]
        still.append(np.mean(np.abs(first - second)))
        moved.append(np.mean(np.abs(first - along)))
    # The noise of pixels and what is covered or uncovered stay.
    assert np.mean(moved) < 0.6 * np.mean(still)


def test_pairs_depend_on_split_index_and_seed_alone():
    options = {"size": 32, "train_pairs": 2, "val_pairs": 2}
    load = lambda split, **more: data.load("digit_flow", split, **options | more).source
    same = load("train")[0], load("train")[0]
    np.testing.assert_array_equal(same[0]["first"], same[1]["first"])
    others = load("train")[1], load("val")[0], load("train", seed=1)[0]
    assert all(np.any(other["flow"] != same[0]["flow"]) for other in others)
    assert load("train").shape(0) == (32, 32)
    with pytest.raises(IndexError, match="2 of 2 pairs"):
        load("train")[2]


def test_without_digits_everything_moves_alike():
    pair = data.load("digit_flow", "train", size=32, digits=0).source[0]
    assert len(np.unique(pair["flow"].reshape(-1, 2), axis=0)) == 1
    assert 0 < np.linalg.norm(pair["flow"][0, 0]) <= 6


@pytest.mark.parametrize(
    ("option", "value"), [("size", 8), ("motion", -1.0), ("digits", -1), ("train_pairs", 0)]
)
def test_wrong_options_are_refused(option, value):
    with pytest.raises(ValueError, match=option):
        data.load("digit_flow", "train", **{option: value})


def test_batches_hold_pairs_and_fill_up_with_nothing():
    pairs = data.load("digit_flow", "val", size=16, val_pairs=3)
    task = tasks.create("flow", pairs.facts)
    (first, second) = data.eval_batches(pairs, batch_size=2, row=task.row, blank=task.blank)
    assert first["flow"].shape == (2, 16, 16, 2) and list(second["id"]) == ["val_00002", ""]
    assert second["valid"][0].all() and not second["valid"][1].any()
