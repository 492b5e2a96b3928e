"""Annotations of COCO, read back as their format says, and by COCO's own program."""

import json

import numpy as np
import pytest

from rfjax.tasks import coco


def decoded(segmentation):
    """The mask of run lengths, by the description of the format."""
    runs = segmentation["counts"]
    line = np.repeat(np.arange(len(runs)) % 2, runs)
    return line.reshape(segmentation["size"], order="F").astype(bool)


@pytest.fixture
def classes():
    return np.random.default_rng(0).integers(0, 4, (13, 7)).astype(np.uint8)


def test_regions_are_read_back(classes):
    classes[0, 0] = 3
    document = coco.Document(["a", "b", "c"])  # 3 is no class
    document.add("one.png", classes)
    document.add("all b.png", np.ones((2, 5), np.uint8))
    content = json.loads(json.dumps(document.content))
    assert content["images"][1] == {
        "id": 2, "file_name": "all b.png", "height": 2, "width": 5
    }  # fmt: skip
    assert [row["category_id"] for row in content["annotations"]] == [1, 2, 3, 2]
    assert [row["id"] for row in content["annotations"]] == [1, 2, 3, 4]
    for row in content["annotations"][:3]:
        mask = decoded(row["segmentation"])
        np.testing.assert_array_equal(mask, classes == row["category_id"] - 1)
        left, top, width, height = row["bbox"]
        inside = np.zeros_like(mask)
        inside[top : top + height, left : left + width] = True
        assert not (mask & ~inside).any() and row["area"] == mask.sum()
        assert mask[top].any() and mask[:, left].any()
        assert mask[top + height - 1].any() and mask[:, left + width - 1].any()
    assert content["annotations"][3]["segmentation"] == {"size": [2, 5], "counts": [0, 10]}


def test_cocos_own_program_reads_them(classes, tmp_path):
    read = pytest.importorskip("pycocotools.coco", reason="pycocotools is not installed")
    document = coco.Document(["a", "b", "c", "d"])
    document.add("one.png", classes)
    (tmp_path / "coco.json").write_text(json.dumps(document.content))
    loaded = read.COCO(tmp_path / "coco.json")
    assert [row["name"] for row in loaded.loadCats(loaded.getCatIds())] == ["a", "b", "c", "d"]
    for row in loaded.loadAnns(loaded.getAnnIds(imgIds=[1])):
        np.testing.assert_array_equal(loaded.annToMask(row), classes == row["category_id"] - 1)
