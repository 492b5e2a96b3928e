"""Folders of pictures and masks: arrangements, classes, what is kept, and what is refused."""

import json

import numpy as np
import pytest
from PIL import Image

import rfjax.data
from rfjax.data import class_lists
from rfjax.data.__main__ import main
from tests.data import files

MASK = np.tile(np.arange(3, dtype=np.uint8).repeat(4), (6, 1))  # three columns
IMAGE = np.stack([80 * MASK] * 3, -1)
COLORS = np.array([(0, 0, 0), (200, 0, 0), (0, 90, 255)], np.uint8)


def put(root, image="train/images/a.png", mask="train/masks/a.png", *, values=MASK, pixels=IMAGE):
    for name, written in ((image, files.png(pixels, 8)), (mask, None)):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(written or files.png(np.asarray(values), 8))


@pytest.fixture
def folder(tmp_path):
    for split, names in (("train", "abc"), ("val", "d")):
        for name in names:
            put(tmp_path, f"{split}/images/{name}.png", f"{split}/masks/{name}.png")
    return tmp_path


def load(folder, split="train", **options):
    return rfjax.data.load("folder", split, data_dir=str(folder), **options)


def ids(dataset):
    return [dataset.source[index]["id"] for index in range(len(dataset))]


def test_folders_of_splits(folder):
    train, val = load(folder), load(folder, "val")
    assert (ids(train), ids(val)) == (["a", "b", "c"], ["d"])
    assert train.class_names == ("0", "1", "2") and train.shapes == ((6, 12),) * 3
    np.testing.assert_array_equal(train.source[0]["label"], MASK)
    np.testing.assert_allclose(train.mean, 80 / 255, atol=1e-6)
    np.testing.assert_allclose(train.std, 80 * (2 / 3) ** 0.5 / 255, atol=1e-6)
    twice = load(folder, enlargement=2).source[0]["label"]
    np.testing.assert_array_equal(twice, np.kron(MASK, np.ones((2, 2))))
    with pytest.raises(
        FileNotFoundError, match=r"no images of the test split .*test.*/masks|split"
    ):
        load(folder, "test")


@pytest.mark.parametrize(
    ("image", "mask", "options"),
    [
        ("images/train/{}.png", "masks/train/{}.png", {}),
        ("images/{}.png", "masks/{}.tif", {}),
        ("train/{}.png", "trainannot/{}.png", {"images": "{split}", "masks": "{split}annot"}),
        (
            "left/train/town/{}_left.png",
            "fine/train/town/{}_ids.png",
            {"images": "left/{split}/*/*_left.png", "masks": "fine/{split}/*/*_ids.png"},
        ),
    ],
)
def test_arrangements(tmp_path, image, mask, options):
    """Twenty images without a split of their own: four are held out, always the same."""
    for number in range(20):
        put(tmp_path, image.format(number), mask.format(number))
    train, val = (ids(load(tmp_path, split, **options)) for split in ("train", "val"))
    assert (len(train), len(val)) == (16, 4) and not set(train) & set(val)
    assert ids(load(tmp_path, "val", seed=1, **options)) != val
    assert len(load(tmp_path, "val", holdout=0.5, **options)) == 10
    np.testing.assert_array_equal(load(tmp_path, **options).source[0]["label"], MASK)


def test_other_words_for_validation(folder):
    (folder / "val").rename(folder / "valid")
    assert ids(load(folder, "val")) == ["d"]


def test_values_with_gaps_and_void(folder):
    values = np.array([0, 7, 255, 20], np.uint8)[np.minimum(MASK + 1, 3)]
    put(folder, values=values)
    put(folder, "train/images/b.png", "train/masks/b.png", values=0 * MASK)
    for name in ("train/masks/c.png", "val/masks/d.png"):
        (folder / name).write_bytes(files.png(values, 8))
    dataset = load(folder)
    assert dataset.class_names == ("0", "7", "20")
    np.testing.assert_array_equal(dataset.source[0]["label"][0, ::4], [1, 255, 2])
    ignored = load(folder, ignore="7")
    assert ignored.class_names == ("0", "20", "255")
    np.testing.assert_array_equal(ignored.source[0]["label"][0, ::4], [255, 2, 1])


def test_masks_of_black_and_white_have_two_classes(folder):
    for path in folder.rglob("masks/*.png"):
        path.write_bytes(files.png(255 * (MASK > 0), 8))
    dataset = load(folder)
    assert dataset.class_names == ("background", "foreground")
    np.testing.assert_array_equal(dataset.source[0]["label"], MASK > 0)


def test_palette_tells_the_colors(folder):
    palette = np.random.default_rng(0).integers(0, 256, (16, 3))
    for path in folder.rglob("masks/*.png"):
        path.write_bytes(files.png(MASK, 4, palette=palette))
    np.testing.assert_array_equal(load(folder).palette, palette[:3])


def test_masks_of_colors(folder):
    for path in folder.rglob("masks/*.png"):
        path.write_bytes(files.png(COLORS[MASK], 8))
    dataset = load(folder)
    assert dataset.class_names == ("#000000", "#005aff", "#c80000")
    np.testing.assert_array_equal(dataset.palette[dataset.source[0]["label"]], COLORS[MASK])
    void = load(folder, ignore="#000000")
    assert void.num_classes == 2
    np.testing.assert_array_equal(void.source[0]["label"] == 255, MASK == 0)
    (folder / "classes.txt").write_text("road, 200 0 0\nthe sky, #005AFF\n\nrest,#000000\n")
    listed = load(folder)
    assert listed.class_names == ("road", "the sky", "rest")
    np.testing.assert_array_equal(listed.palette[listed.source[0]["label"]], COLORS[MASK])


def test_lists_of_classes(folder):
    (folder / "classes.txt").write_text("one, 1\nnought, 0, #ff0000\ntwo, 2\n")
    dataset = load(folder)
    assert dataset.class_names == ("one", "nought", "two")
    np.testing.assert_array_equal(dataset.source[0]["label"][0, ::4], [1, 0, 2])
    assert dataset.palette[1].tolist() == [255, 0, 0]
    rows = ["a", {"name": "b", "color": [1, 2, 3]}, {"name": "c", "index": 2}]
    (folder / "classes.json").write_text(json.dumps(rows))
    assert load(folder).class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("classes.txt", "a\nb\na\n", "two classes share the name 'a'"),
        ("classes.txt", "a, 1\nb\n", "two classes share the index 1"),
        ("classes.txt", "a, red\n", "want NAME, #RRGGBB or R G B, VALUE; got 'red'"),
        ("classes.txt", "a, 300 0 0\n", "levels of a color are 0 to 255"),
        ("classes.txt", "", "want 1 to 254 classes; got 0"),
        ("classes.json", "{", "Expecting"),
        ("classes.json", '{"a": 1}', "want a list of classes; got dict"),
        ("classes.json", "[1]", "want a name"),
        ("classes.json", '[{"name": "a", "colour": 1}]', "name, color and index; got colour"),
    ],
)
def test_lists_that_make_no_sense(folder, name, text, message):
    (folder / name).write_text(text)
    with pytest.raises(ValueError, match=f"{name}: .*{message}"):
        load(folder)


def test_masks_that_do_not_fit_the_list(folder):
    (folder / "classes.txt").write_text("a\nb\n")
    with pytest.raises(
        ValueError, match=r"masks/a\.png has 2, which are no classes; known are 0, 1"
    ):
        load(folder).source[0]
    put(folder, values=MASK % 2)
    (folder / "train" / "masks" / "b.png").write_bytes(files.png(COLORS[MASK], 8))
    with pytest.raises(ValueError, match=r"masks/b\.png is a mask of colors, .* by values"):
        load(folder).source[1]


def test_what_was_found_is_kept(folder, monkeypatch):
    first = load(folder)
    with monkeypatch.context() as patch:
        patch.setattr(class_lists, "found", None)
        again = load(folder)
    assert (again.class_names, again.mean, again.std) == (first.class_names, first.mean, first.std)
    np.testing.assert_array_equal(again.palette, first.palette)
    put(folder, values=MASK + 1)
    assert load(folder).num_classes == 4
    (folder / "rfjax.json").write_text("{")
    assert load(folder).num_classes == 4


def test_what_cannot_be_written_is_told(folder, capsys):
    (folder / "rfjax.json").mkdir()
    assert load(folder).num_classes == 3
    assert "rfjax.json was not written" in capsys.readouterr().err


def test_all_faulty_files_are_named(folder):
    for name in ("a", "c"):
        path = folder / "train" / "masks" / f"{name}.png"
        path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ValueError, match=r"masks/a\.png is not .*; .*masks/c\.png is not [^;]*$"):
        load(folder)


def test_refusals(folder, tmp_path):
    with pytest.raises(ValueError, match="told both or not at all"):
        load(folder, images="images")
    with pytest.raises(ValueError, match=r"has 1 of them, masks='m/\*/\*' 2"):
        load(folder, images="images", masks="m/*/*")
    with pytest.raises(ValueError, match="ignore is a value of these masks; got '#ff00ff'"):
        load(folder, ignore="#ff00ff")
    (folder / "train" / "masks" / "b.png").rename(folder / "train" / "masks" / "b.jpg")
    with pytest.raises(FileNotFoundError, match=r"1 of 3 images .* no mask .*images/b\.png"):
        load(folder)
    with pytest.raises(FileNotFoundError, match=r"no images of the train split in .*nowhere"):
        load(folder / "nowhere")
    put(folder, "train/images/a.jpg")
    with pytest.raises(ValueError, match=r"a\.jpg and .*a\.png have one name"):
        load(folder)


def test_program_describes(folder, tmp_path, capsys):
    picture = tmp_path / "shown.png"
    assert main([str(folder), f"--output={picture}"]) == 0
    printed = capsys.readouterr()
    assert (
        "train: 3 images of 6x12 (3)" in printed.out
        and "| 0 | 33.33 | 3 | 33.33 | 1 |" in printed.out
    )
    assert Image.open(picture).size[0] > 100
    path = folder / "train" / "images" / "b.png"
    (folder / "classes.txt").write_text("a\nb\nc\nd\n")
    path.write_bytes(files.png(IMAGE[:4], 8))
    assert main([str(folder), f"--output={picture}"]) == 1
    told = capsys.readouterr().err
    assert "b.png: the image has 4x12 pixels, its label 6x12" in told
    assert "train has no pixel of d" in told
    assert main([str(tmp_path / "nowhere")]) == 1
    assert "no images of the train split" in capsys.readouterr().err
