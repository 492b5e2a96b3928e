"""Cityscapes from archives laid out like the official ones, with pictures made here."""

import zipfile

import cv2
import numpy as np
import pytest

import rfjax.data
from rfjax.data import cityscapes

# The published table of label ids, from the benchmark's description (id -> train id).
TRAIN_IDS = {
    7: 0, 8: 1, 11: 2, 12: 3, 13: 4, 17: 5, 19: 6, 20: 7, 21: 8, 22: 9, 23: 10, 24: 11, 25: 12,
    26: 13, 27: 14, 28: 15, 31: 16, 32: 17, 33: 18,
}  # fmt: skip
IMAGES = {
    "train": ["aachen_000000_000019", "bochum_000000_000313", "aachen_000001_000019"],
    "val": ["frankfurt_000000_000294"],
    "test": ["berlin_000000_000019"],
}


def png(picture):
    return cv2.imencode(".png", picture)[1].tobytes()


def label_ids(number):
    label = np.zeros((1024, 2048), np.uint8)
    label[:34] = np.arange(34)[:, None]
    label[40] = 255  # license plate, -1 in eight bits
    label[100:] = 7 + number
    return label


def write_archives(folder, leave_out=None):
    """The two archives; image k of a split is k + 1 in red everywhere."""
    folder.mkdir(exist_ok=True)
    image_zip, label_zip = (folder / name for name in cityscapes.ARCHIVES)
    with zipfile.ZipFile(image_zip, "w") as images, zipfile.ZipFile(label_zip, "w") as labels:
        images.writestr("README", "")
        other = "leftImg8bit/train/aachen/._aachen_000000_000019_leftImg8bit.png"
        images.writestr(f"__MACOSX/{other}", "what a Mac adds to each file")
        for split, names in IMAGES.items():
            for number, name in enumerate(names):
                image = np.zeros((1024, 2048, 3), np.uint8)
                image[..., 2] = number + 1
                city = name.split("_")[0]
                images.writestr(f"leftImg8bit/{split}/{city}/{name}_leftImg8bit.png", png(image))
                stem = f"gtFine/{split}/{city}/{name}_gtFine_"
                if name != leave_out:
                    labels.writestr(f"{stem}labelIds.png", png(label_ids(number)))
                labels.writestr(f"{stem}color.png", b"not read")
                labels.writestr(f"{stem}polygons.json", "{}")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("cityscapes")
    write_archives(folder)
    return folder


def load(folder, split="train", **options):
    return rfjax.data.load("cityscapes", split, data_dir=str(folder), **options)


def test_archives_become_examples(folder):
    train = load(folder)
    # in the order of the archive's names, which is that of the cities
    assert [train.source[i]["id"] for i in range(3)] == sorted(IMAGES["train"])
    for index, red in enumerate([1, 3, 2]):
        example = train.source[index]
        assert example["image"].shape == (1024, 2048, 3)
        assert (example["image"] == [red, 0, 0]).all()
        assert example["label"][200, 0] == TRAIN_IDS.get(6 + red, 255)
    assert [len(load(folder, split)) for split in ("val", "test")] == [1, 1]
    assert train.shapes == ((1024, 2048),) * 3
    assert load(folder, "val", enlargement=2).shapes == ((2048, 4096),)


def test_label_map_of_all_35_ids(folder):
    label = load(folder, "val").source[0]["label"]
    mapped = {label_id: int(label[label_id, 5]) for label_id in range(34)} | {-1: label[40, 5]}
    expected = {label_id: TRAIN_IDS.get(label_id, 255) for label_id in range(-1, 34)}
    assert len(expected) == 35 and mapped == expected


def test_description(folder):
    dataset = load(folder, "val")
    assert dataset.num_classes == len(dataset.class_names) == len(dataset.palette) == 19
    assert dataset.class_names[13] == "car" and dataset.palette[13].tolist() == [0, 0, 142]


def test_archives_are_needed_once(folder, tmp_path):
    load(folder)
    hidden = [folder / name for name in cityscapes.ARCHIVES]
    for path in hidden:
        path.rename(tmp_path / path.name)
    assert load(folder).source[1]["id"] == "aachen_000001_000019"
    for path in hidden:
        (tmp_path / path.name).rename(path)


def test_large_splits_take_several_shards(tmp_path, monkeypatch):
    write_archives(tmp_path)
    monkeypatch.setattr(cityscapes, "_IMAGES_PER_SHARD", 2)
    train = load(tmp_path)
    assert len(list(tmp_path.rglob("cityscapes-train.array_record-*-of-00002"))) == 2
    assert [train.source[i]["id"] for i in range(3)] == sorted(IMAGES["train"])


def test_missing_archives_say_what_to_put_where(tmp_path):
    with pytest.raises(FileNotFoundError) as error:
        load(tmp_path)
    for part in (*cityscapes.ARCHIVES, str(tmp_path), "cityscapes-dataset.com", "data.dir"):
        assert part in str(error.value)


def test_missing_label_is_named_and_nothing_is_left(tmp_path):
    write_archives(tmp_path, leave_out="bochum_000000_000313")
    with pytest.raises(ValueError, match="lacks gtFine/train/bochum/bochum_000000_000313_gtFine"):
        load(tmp_path)
    assert not list(tmp_path.rglob("*.array_record*"))
    write_archives(tmp_path)
    assert len(load(tmp_path)) == 3


def test_label_id_outside_the_table_is_named(tmp_path, monkeypatch):
    write_archives(tmp_path)
    original = label_ids(0)
    original[500, 500] = 34
    with (
        zipfile.ZipFile(tmp_path / cityscapes.ARCHIVES[1], "a") as labels,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        name = "frankfurt_000000_000294"
        labels.writestr(f"gtFine/val/frankfurt/{name}_gtFine_labelIds.png", png(original))
    with pytest.raises(ValueError, match=r"cityscapes frankfurt_000000_000294 has .* \[34\]"):
        load(tmp_path, "val").source[0]
