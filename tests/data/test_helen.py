"""Helen's layout, from a tiny set in its format, and the F1 scores of its groups."""

import cv2
import numpy as np
import pytest

import rfjax.data
from rfjax import tasks
from rfjax.data import helen

SIZE = (6, 10)
# Parts by the number of their file, as the archive's own description names them.
FILES = (
    *("background", "face skin", "left brow", "right brow", "left eye", "right eye", "nose"),
    *("upper lip", "inner mouth", "lower lip", "hair"),
)


def parts(seed):
    """Soft masks whose highest is that of a part drawn for each pixel, and these parts."""
    rng = np.random.default_rng(seed)
    of_pixels = rng.integers(0, len(FILES), SIZE)
    masks = rng.integers(0, 100, (len(FILES), *SIZE)).astype(np.uint8)
    np.put_along_axis(masks, of_pixels[None], 155, 0)
    return masks, of_pixels


@pytest.fixture
def root(tmp_path):
    lists = {"exemplars": ["232194_1", "100_2"], "tuning": ["a_1"], "testing": ["b_1"]}
    for name, found in lists.items():
        lines = [f"{number} , {face}\n" for number, face in enumerate(found, start=1)]
        (tmp_path / f"{name}.txt").write_text("".join(lines) + "\n")
        for face in found:
            write(tmp_path, face, len(face))
    return tmp_path


def write(root, face, seed):
    (root / "labels" / face).mkdir(parents=True)
    (root / "images").mkdir(exist_ok=True)
    assert cv2.imwrite(str(root / f"images/{face}.jpg"), np.full((*SIZE, 3), 90, np.uint8))
    for number, mask in enumerate(parts(seed)[0]):
        assert cv2.imwrite(str(root / f"labels/{face}/{face}_lbl{number:02d}.png"), mask)


def test_the_highest_mask_is_the_part_of_a_pixel(root):
    faces = rfjax.data.load("helen", "train", data_dir=str(root))
    rfjax.data.check(faces)
    assert [faces.source[index]["id"] for index in range(2)] == ["232194_1", "100_2"]
    assert faces.num_classes == 11 and faces.source.shape(1) == SIZE
    found = np.array(faces.class_names)[faces.source[1]["label"]]
    np.testing.assert_array_equal(found, np.array(FILES)[parts(5)[1]])


def test_splits_are_the_lists(root):
    for split, face in (("val", "a_1"), ("test", "b_1")):
        faces = rfjax.data.load("helen", split, data_dir=str(root))
        assert [faces.source[0]["id"], len(faces)] == [face, 1]


def test_missing_files_are_named(root):
    (root / "labels/a_1/a_1_lbl07.png").unlink()
    with pytest.raises(FileNotFoundError, match=r"a_1 has no a_1_lbl07\.png"):
        _ = rfjax.data.load("helen", "val", data_dir=str(root)).source[0]
    (root / "images/b_1.jpg").unlink()
    with pytest.raises(FileNotFoundError, match=r"1 files are missing: .*b_1\.jpg"):
        rfjax.data.load("helen", "test", data_dir=str(root))
    (root / "tuning.txt").write_text("\n")
    with pytest.raises(ValueError, match=r"tuning\.txt names no example"):
        rfjax.data.load("helen", "val", data_dir=str(root))
    (root / "exemplars.txt").unlink()
    with pytest.raises(FileNotFoundError, match=r'exemplars\.txt, .* as "1 , NAME" a line'):
        rfjax.data.load("helen", "train", data_dir=str(root))


def test_parts_of_other_sizes_are_refused(root):
    cv2.imwrite(str(root / "labels/a_1/a_1_lbl03.png"), np.zeros((2, 2), np.uint8))
    with pytest.raises(ValueError, match="a_1: the files of the parts differ in size"):
        _ = rfjax.data.load("helen", "val", data_dir=str(root)).source[0]


def _loop_f1(confusion, group):
    """From its definition, cell by cell of the confusion matrix."""
    true_positive = false = 0
    for (true, predicted), count in np.ndenumerate(confusion):
        both = (true in group) + (predicted in group)
        true_positive += count if both == 2 else 0
        false += count if both == 1 else 0
    return 2 * true_positive / (2 * true_positive + false)


def test_scores_of_faces_are_f1_by_groups(root):
    faces = rfjax.data.load("helen", "val", data_dir=str(root))
    task = tasks.create("segmentation", faces.facts)
    confusion = np.random.default_rng(0).integers(0, 9, (11, 11))
    scores = task.summarize(confusion)
    for name, group in helen.GROUPS.items():
        assert scores[f"f1_{name}"] == pytest.approx(_loop_f1(confusion, group))
    for index in range(11):
        assert scores["class_f1"][index] == pytest.approx(_loop_f1(confusion, (index,)))
    assert np.isnan(task.summarize(None)["f1_overall"])
    assert task.describe(scores).endswith(f"F1 overall {100 * scores['f1_overall']:.2f} %")
    heading, rows = task.table(scores, confusion)
    assert heading[-1] == "F1 %" and [row[0] for row in rows[-4:]] == list(helen.GROUPS)
    assert {len(row) for row in rows} == {len(heading)} and len(rows) == 15
    assert rows[-1][-1] == f"{100 * scores['f1_overall']:.2f}"


def test_other_data_sets_have_no_groups():
    task = tasks.create("segmentation", {"class_names": ["a", "b"], "num_classes": 2})
    scores = task.summarize(np.eye(2))
    assert "class_f1" not in scores and len(task.table(scores, np.eye(2))[0]) == 4
