"""Episodes: what they hold, and that they follow from their numbers."""

import numpy as np
import pytest

from rfjax import data
from rfjax.data import episodes
from rfjax.data.dataset import VOID
from rfjax.data.episodes import Episodes, Rules

SIDE = 16


class Squares:
    """Images of two classes each: class 1 + i % 4 on the left, and the next one on the right."""

    def __len__(self):
        return 12

    def __getitem__(self, index):
        label = np.zeros((SIDE, SIDE), np.uint8)
        label[2:10, 1:7], label[2:10, 9:15] = 1 + index % 4, 1 + (index + 1) % 4
        label[0] = VOID
        return {"image": np.full((SIDE, SIDE, 3), index, np.uint8), "label": label, "id": "a"}


def made(count=8, classes=(1, 2, 3, 4), **rules):
    return Episodes(Squares(), Rules(**rules), classes, count)


def test_a_support_has_the_objects_of_the_query_and_the_query_is_none_of_it():
    for example in (made(shots=2, points=0)[i] for i in range(8)):
        query = example["image"][0, 0, 0]
        shown = example["support"][:, 0, 0, 0]
        assert query not in shown and len(set(shown.tolist())) == 2
        for label in (example["label"], *example["label/support"]):
            assert (label == 1).sum() == 48 and (label == VOID).sum() == SIDE
        one = Squares()[query]["label"][example["label"] == 1]
        for image, marks in zip(shown, example["label/support"], strict=True):
            assert set(Squares()[image]["label"][marks == 1]) == set(one)


@pytest.mark.parametrize("points", [1, 5, 48, 100])
def test_points_are_as_many_as_were_asked_or_all(points):
    example = made(points=points)[0]
    marks, truth = example["label/support"][0], Squares()[example["support"][0, 0, 0, 0]]["label"]
    assert (marks == 1).sum() == min(points, 48)
    assert (marks == 0).sum() == points
    assert set(truth[marks == 1]) & set(truth[marks == 0]) == set()


def test_numbers_of_points_are_drawn_from_one_to_a_hundred():
    counts = [(example["label/support"] == 0).sum() for example in (made(64)[i] for i in range(64))]
    assert min(counts) >= 1 and max(counts) <= 100 and len(set(counts)) > 20


def test_ways_are_objects_and_what_is_none():
    example = made(ways=4, shots=2, points=0)[3]
    assert example["support"].shape[0] == 6  # two of each of three objects
    there = [set(np.unique(marks)) - {VOID} for marks in example["label/support"]]
    assert all(0 in classes for classes in there)
    assert [sum(k in classes for classes in there) >= 2 for k in (1, 2, 3)] == [True] * 3
    several = [
        len(classes) > 2 for i in range(8) for classes in map(set, _classes(made(ways=4)[i]))
    ]
    assert any(several) and not all(several)  # shots are mixed


def _classes(example):
    return [np.unique(marks[marks != VOID]).tolist() for marks in example["label/support"]]


def test_missing_marks_are_unknown_or_negative():
    marks = made(points=3, missing="negative")[0]["label/support"]
    assert (marks == 1).sum() == 3 and (marks == 0).sum() == marks.size - 3


def test_instances_are_marked_in_the_query():
    example = made(kind="interactive", points=4)[0]
    assert "support" not in example and example["label/support"].shape == (1, SIDE, SIDE)
    assert (example["label"] == 1).sum() == 48 and (example["label/support"] == 1).sum() == 4


class Clips(Squares):
    """The same, of three clips of four frames, whose classes a clip shows but once or twice."""

    def __getitem__(self, index):
        example = super().__getitem__(index)
        example["label"][:, :8][example["label"][:, :8] > 0] = 1 + index // 4
        return {**example, "map/a": np.full((2, 2, 1), index, np.float16)}

    def clip(self, index):
        return index // 4


def test_frames_of_a_clip_support_its_others():
    drawn = Episodes(Clips(), Rules(kind="video", shots=2, points=0), (1, 2, 3), 24)
    queries = set()
    for example in (drawn[i] for i in range(24)):
        query, shown = example["image"][0, 0, 0], example["support"][:, 0, 0, 0]
        assert set(shown // 4) == {query // 4} and query not in shown
        assert all((marks == 1).any() for marks in example["label/support"])
        queries.add(int(query))
    assert len(queries) > 8
    assert set(drawn._members[1]) == {0, 1, 2, 3}  # alone it is in frame 3 of clip 0, and 7


def test_a_video_has_as_many_objects_as_its_clip_shows():
    drawn = Episodes(Clips(), Rules(kind="video", ways=4, points=0), (1, 2, 3, 4), 12)
    for example in (drawn[i] for i in range(12)):
        assert 1 <= len(example["support"]) <= 3
        assert set(np.unique(example["label"])) <= {0, 1, 2, 3, VOID}


def test_stills_are_no_video():
    with pytest.raises(ValueError, match=r"video episodes of 2 ways want 1 classes with images"):
        made(kind="video")


def test_images_come_with_their_maps():
    drawn = Episodes(Clips(), Rules(shots=3), (1, 2, 3), 4)
    example = drawn[0]
    np.testing.assert_array_equal(example["map/a"][0, 0], example["image"][0, 0, :1])
    support = example["support/map/a"]
    assert support.shape == (3, 2, 2, 1)
    np.testing.assert_array_equal(support[:, 0, 0], example["support"][:, 0, 0, :1])
    other = drawn.over(Squares())[0]
    assert "map/a" not in other and not any(name.startswith("support/") for name in other)
    own = Episodes(Clips(), Rules(kind="interactive"), (1, 2, 3), 4)[0]
    assert "map/a" in own and "support/map/a" not in own


def test_one_fold_holds_nothing_out():
    for split in ("train", "val"):
        made = data.load("digit_episodes", split, folds=1, **OPTIONS)
        assert len(made.source._members) > 5


def test_an_episode_follows_from_its_number():
    first, again, other = made()[5], made()[5], made()[6]
    for name, array in first.items():
        np.testing.assert_array_equal(array, again[name])
    assert not np.array_equal(first["label/support"], other["label/support"])
    with pytest.raises(IndexError, match="8 of 8 episodes"):
        made()[8]


OPTIONS = {"train_scenes": 12, "val_scenes": 48, "train_episodes": 6, "val_episodes": 6,
           "turns": 1}  # fmt: skip


def test_digits_of_a_fold_are_held_out():
    assert episodes.of_fold(range(10), 5, 1) == (2, 3)
    train = data.load("digit_episodes", "train", fold=1, **OPTIONS)
    shown = np.unique([train.source.frames[i]["label"] for i in range(12)])
    assert not {3, 4} & set(shown)  # classes are digits + 1
    val = data.load("digit_episodes", "val", fold=1, **OPTIONS)
    assert set(val.source._members) <= {3, 4}
    assert set(np.unique([val.source.frames[i]["label"] for i in range(48)])) - {3, 4, VOID}
    assert val.num_classes == 2 and val.source[0]["support"].shape == (1, 64, 64, 3)
    every = data.load("digit_episodes", "train", fold=1, held_out=False, **OPTIONS)
    assert {3, 4} & set(np.unique([every.source.frames[i]["label"] for i in range(12)]))
    dense = data.load("digit_episodes", "val", fold=1, kind="dense", **OPTIONS)
    assert dense.num_classes == 9 and dense.source[0]["label"].shape == (64, 64)


@pytest.mark.parametrize(
    "options, text",
    [
        (
            {"kind": "panoptic"},
            "one of semantic, video, interactive, dense; got 'panoptic'",
        ),
        ({"ways": 1}, "ways must be an integer of at least 2; got 1"),
        ({"ways": 11}, "ways must be at most 10; got 11"),
        ({"points": -1}, "points must be an integer of at least 0 or None; got -1"),
        ({"kind": "interactive", "shots": 2}, "interactive episodes have one shot; got shots=2"),
        ({"fold": 5}, "fold must be from 0 to folds - 1, .* got fold=5 of 5"),
        ({"ways": 4}, "semantic episodes of 4 ways want 3 classes with images; of .* there are"),
    ],
)
def test_mistakes_are_told(options, text):
    with pytest.raises(ValueError, match=text):
        data.load("digit_episodes", "val", **OPTIONS | options)
