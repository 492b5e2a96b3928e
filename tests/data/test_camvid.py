"""CamVid from folders: made-up files here, and the real ones where RFJAX_CAMVID_DIR says."""

import os

import cv2
import numpy as np
import pytest

import rfjax.data


def write(path, picture):
    path.parent.mkdir(exist_ok=True)
    assert cv2.imwrite(str(path), picture)


@pytest.fixture
def folder(tmp_path):
    """Two training pictures, a PNG and a JPEG, whose labels hold all of 0..11."""
    label = np.tile(np.arange(12, dtype=np.uint8), (6, 2))
    image = np.zeros((6, 24, 3), np.uint8)
    image[..., 2] = 200  # OpenCV's order: red
    write(tmp_path / "train" / "a.png", image)
    write(tmp_path / "train" / "b.jpg", image)
    for name in "ab":
        write(tmp_path / "trainannot" / f"{name}.png", label)
    return tmp_path


def load(folder, split="train", **options):
    return rfjax.data.load("camvid", split, data_dir=str(folder), **options)


def test_files_are_read(folder):
    dataset = load(folder)
    assert [dataset.source[i]["id"] for i in range(len(dataset))] == ["a", "b"]
    assert dataset.num_classes == len(dataset.class_names) == len(dataset.palette) == 11
    for index in range(2):
        example = dataset.source[index]
        np.testing.assert_array_equal(example["label"][0, :12], [*range(11), 255])
        assert np.abs(example["image"].astype(int) - [200, 0, 0]).max() <= 3  # JPEG's error
    twice = load(folder, enlargement=2).source[0]
    np.testing.assert_array_equal(
        twice["label"], np.kron(dataset.source[0]["label"], np.ones((2, 2), np.uint8))
    )


def test_missing_data_says_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path / "nowhere", "val")
    for part in ("nowhere/val", "nowhere/valannot", "SegNet", "data.dir"):
        assert part in str(error.value)


def test_image_without_label(folder):
    (folder / "trainannot" / "b.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 of 2 images .* no label .*b\.jpg"):
        load(folder)


def test_corrupt_image_is_named(folder):
    path = folder / "train" / "a.png"
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"train/a\.png is not a readable image"):
        load(folder).source[0]
    (folder / "train" / "b.jpg").write_bytes(b"")
    with pytest.raises(ValueError, match=r"train/b\.jpg is not a readable image"):
        load(folder).source[1]


def test_label_outside_the_classes_is_named(folder):
    write(folder / "trainannot" / "b.png", np.full((6, 24), 12, np.uint8))
    with pytest.raises(ValueError, match=r"trainannot/b\.png has label values \[12\] outside"):
        load(folder).source[1]


def test_label_of_another_size_or_kind(folder):
    write(folder / "trainannot" / "a.png", np.zeros((5, 24), np.uint8))
    with pytest.raises(ValueError, match=r"a\.png: the image has 6x24 pixels, its label 5x24"):
        load(folder).source[0]
    write(folder / "trainannot" / "a.png", np.zeros((6, 24, 3), np.uint8))
    with pytest.raises(ValueError, match="single-channel"):
        load(folder).source[0]


def test_error_in_a_thread_reaches_the_caller(folder):
    (folder / "train" / "b.jpg").write_bytes(b"no image")
    iterator = rfjax.data.train_iterator(load(folder), batch_size=2, seed=0)
    with pytest.raises(ValueError, match=r"b\.jpg is not a readable image"):
        next(iterator)
    with pytest.raises(ValueError, match=r"b\.jpg is not a readable image"):
        list(rfjax.data.eval_batches(load(folder), batch_size=1))


@pytest.mark.skipif(
    not os.environ.get("RFJAX_CAMVID_DIR"), reason="needs CamVid in RFJAX_CAMVID_DIR"
)
def test_real_camvid():
    train = load(os.environ["RFJAX_CAMVID_DIR"])
    val = load(os.environ["RFJAX_CAMVID_DIR"], "val")
    assert (len(train), len(val)) == (367, 101)  # the SegNet tutorial's split
    pixels, labels = [], np.zeros(256, int)
    for index in range(0, 367, 12):
        example = train.source[index]
        assert example["image"].shape == (360, 480, 3)
        pixels.append(example["image"][::4, ::4].reshape(-1, 3) / 255)
        labels += np.bincount(example["label"].ravel(), minlength=256)
    # road, building and sky are the largest classes in street scenes
    assert set(np.argsort(labels[:11])[-3:]) == {0, 1, 3}
    assert 0 < labels[255] < 0.1 * labels.sum() and not labels[11:255].any()
    pixels = np.concatenate(pixels)
    np.testing.assert_allclose(pixels.mean(0), train.mean, atol=0.03)
    np.testing.assert_allclose(pixels.std(0), train.std, atol=0.03)
