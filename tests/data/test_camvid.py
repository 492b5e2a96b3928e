"""CamVid from folders: made-up files here, and the real ones where RFJAX_CAMVID_DIR says."""

import os

import cv2
import numpy as np
import pytest

import rfjax.data
from tests.data import files


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
    half = load(folder, reduction=2)
    assert half.source.shape(0) == half.source[0]["label"].shape == (3, 12)
    assert half.source[0]["label"][0, :6].tolist() == [1, 3, 5, 7, 9, 255]
    assert half.source[0]["image"].tolist() == [[[200, 0, 0]] * 12] * 3
    with pytest.raises(ValueError, match="6x24 pixels has none at 1/7"):
        load(folder, reduction=7).source[0]


def test_what_is_no_data_is_passed_over(folder):
    """Files that systems add, folders that look like files, and names in upper case."""
    for place in ("train", "trainannot"):
        for name in ("._a.png", "Thumbs.db", ".DS_Store", "notes.txt"):
            (folder / place / name).write_bytes(b"not a picture")
        (folder / place / "old.png").mkdir()
    (folder / "train" / "a.png").rename(folder / "train" / "a.TIF")  # the bytes tell the format
    (folder / "trainannot" / "a.png").rename(folder / "trainannot" / "a.PNG")
    label = np.tile(np.arange(12, dtype=np.uint8), (6, 2))
    (folder / "trainannot" / "b.png").unlink()
    (folder / "trainannot" / "b.tiff").write_bytes(files.tiff(label, 8))
    (folder / "trainannot" / "c.png").write_bytes(b"of no image, and so not read")
    dataset = load(folder)
    assert [dataset.source[i]["id"] for i in range(len(dataset))] == ["a", "b"]
    for index in range(2):
        np.testing.assert_array_equal(dataset.source[index]["label"][0, :12], [*range(11), 255])
    assert dataset.shapes == ((6, 24), (6, 24))


@pytest.mark.parametrize("place", ["train", "trainannot"])
def test_two_files_of_one_name_are_refused(folder, place):
    (folder / place / "a.tif").write_bytes(files.tiff(np.zeros((6, 24), int), 8))
    with pytest.raises(ValueError, match=rf"{place}/a\.png and .*{place}/a\.tif have one name"):
        load(folder)


def test_labels_with_a_palette_or_few_bits(folder):
    label = np.tile(np.arange(12), (6, 2))
    palette = np.random.default_rng(0).integers(0, 256, (16, 3))
    for written in (
        files.png(label, 4),
        files.png(label, 16),
        files.png(label, 4, palette=palette),
    ):
        (folder / "trainannot" / "a.png").write_bytes(written)
        np.testing.assert_array_equal(load(folder).source[0]["label"][0, :12], [*range(11), 255])
    (folder / "trainannot" / "a.png").write_bytes(files.png(label % 2, 1))
    assert set(np.unique(load(folder).source[0]["label"])) == {0, 1}


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("asked", range(1, 9))
def test_no_orientation_turns_an_image_against_its_label(tmp_path, kind, asked):
    """Classes are columns and grow with the red of the image, in training and evaluation."""
    label = np.tile(np.arange(8, dtype=np.uint8).repeat(8), (40, 1))
    label[:16] //= 2
    image = np.stack([30 * label] * 3, -1)
    options = {"quality": 100, "subsampling": 0} if kind == "JPEG" else {}
    for split in ("train", "val"):
        (tmp_path / split).mkdir()
        (tmp_path / f"{split}annot").mkdir()
        written = files.turned(image, kind, asked, **options)
        (tmp_path / split / f"a.{kind.lower()}").write_bytes(written)
        own = asked if kind == "PNG" else 1  # the label may ask to be turned as well, or not
        (tmp_path / f"{split}annot" / "a.png").write_bytes(files.turned(label, "PNG", own))
    trained = next(rfjax.data.train_iterator(load(tmp_path), batch_size=1, seed=0, threads=0))
    evaluated = next(rfjax.data.eval_batches(load(tmp_path, "val"), batch_size=1))
    dataset = load(tmp_path)
    for batch in (trained, evaluated):
        red = (batch["image"][0, ..., 0] * dataset.std[0] + dataset.mean[0]) * 255
        np.testing.assert_array_equal(batch["label"][0], label)
        np.testing.assert_allclose(red, 30.0 * label, atol=2)


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
    write(folder / "trainannot" / "a.png", np.zeros((24, 6), np.uint8))
    with pytest.raises(ValueError, match=r"its label 24x6, as stored: an orientation .* neither"):
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
