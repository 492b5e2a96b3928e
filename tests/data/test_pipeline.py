"""Batches: exact resumption, shares of processes, and evaluation of every image once."""

import json
import math

import numpy as np
import pytest

import rfjax.data
from rfjax.data import Augmentation, Dataset, Normalization, eval_batches, train_iterator
from tests.data.conftest import SMALL

AUGMENTATION = Augmentation(
    scale=(0.5, 2.0), rotation=10, crop=(48, 40), color=0.5, lighting=0.1, flip=True
)


class Numbered:
    """Examples that carry their index in every pixel."""

    def __init__(self, count, shape=(4, 6)):
        self._count = count
        self._shape = shape

    def __len__(self):
        return self._count

    def __getitem__(self, index):
        if not 0 <= index < self._count:
            raise IndexError(index)
        image = np.full((*self._shape, 3), index, np.uint8)
        return {"image": image, "label": image[..., 0], "id": f"example {index}"}


def numbered(count, source=None):
    return Dataset(
        name="numbered",
        split="train",
        source=source or Numbered(count),
        num_classes=2,
        class_names=("a", "b"),
        palette=np.zeros((2, 3), np.uint8),
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
    )


def taken(iterator, batches):
    return [next(iterator)["label"][:, 0, 0].tolist() for _ in range(batches)]


def assert_same(first, second):
    assert first.keys() == second.keys()
    for key in first:
        np.testing.assert_array_equal(first[key], second[key])


def test_batch_of_scenes(scenes):
    batch = next(train_iterator(scenes, batch_size=4, seed=0))
    assert batch["image"].shape == (4, 64, 64, 3) and batch["image"].dtype == np.float32
    assert batch["label"].shape == (4, 64, 64) and batch["label"].dtype == np.int32
    known = {scenes.source[i]["label"].tobytes(): i for i in range(len(scenes))}
    for image, label in zip(batch["image"], batch["label"], strict=True):
        example = scenes.source[known[label.astype(np.uint8).tobytes()]]
        expected = Normalization(scenes.mean, scenes.std)(example["image"])
        np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize("threads", [0, 3])
def test_resumes_exactly_in_the_middle_of_an_epoch(scenes, threads):
    def start(seed=1):
        return train_iterator(
            scenes, batch_size=4, seed=seed, augmentation=AUGMENTATION, threads=threads
        )

    running = start()
    for _ in range(7):  # 28 of 21 examples: in the second epoch
        next(running)
    state = json.loads(json.dumps(running.get_state()))
    expected = [next(running) for _ in range(8)]
    resumed = start()
    next(resumed)
    resumed.set_state(state)
    for batch in expected:
        assert_same(next(resumed), batch)
    running.set_state(state)
    assert_same(next(running), expected[0])
    assert (next(start(seed=2))["image"] != next(start())["image"]).any()


def test_threads_do_not_change_the_stream(scenes):
    iterators = [
        train_iterator(scenes, batch_size=3, seed=5, augmentation=AUGMENTATION, threads=t)
        for t in (0, 1, 8)
    ]
    for _ in range(10):
        first, *others = [next(iterator) for iterator in iterators]
        for other in others:
            assert_same(first, other)


def test_every_epoch_is_a_new_shuffle_of_everything():
    stream = np.concatenate(taken(train_iterator(numbered(24), batch_size=6, seed=0), 12))
    epochs = stream.reshape(3, 24)
    np.testing.assert_array_equal(np.sort(epochs), np.tile(np.arange(24), (3, 1)))
    assert len({tuple(epoch) for epoch in epochs.tolist()} | {tuple(range(24))}) == 4


@pytest.mark.parametrize("count", [24, 23])
def test_shares_of_processes_are_disjoint_and_complete(count):
    # 23 does not divide by 3: an epoch then ends in the middle of a global batch.
    whole = np.array(taken(train_iterator(numbered(count), batch_size=6, seed=3), count))
    parts = [
        taken(
            train_iterator(numbered(count), batch_size=2, seed=3, process_index=p, process_count=3),
            count,
        )
        for p in range(3)
    ]
    together = np.stack([np.array(part) for part in parts], axis=-1).reshape(count, 6)
    np.testing.assert_array_equal(together, whole)
    for epoch in whole.reshape(-1, count):
        np.testing.assert_array_equal(np.sort(epoch), np.arange(count))


def test_processes_augment_differently(scenes):
    # The same example in two rows of one global batch must not be changed alike: one source
    # example only, so that all rows show it.
    one = numbered(1, source=Numbered(1, shape=(40, 40)))
    object.__setattr__(one, "source", _Constant(scenes.source[0]))
    images = [
        next(
            train_iterator(
                one,
                batch_size=2,
                seed=0,
                augmentation=AUGMENTATION,
                process_index=p,
                process_count=2,
            )
        )["image"]
        for p in range(2)
    ]
    rows = np.concatenate(images)
    assert all((rows[i] != rows[j]).any() for i in range(4) for j in range(i))


class _Constant:
    def __init__(self, example):
        self._example = example

    def __len__(self):
        return 1

    def __getitem__(self, index):
        return self._example


@pytest.mark.parametrize(("count", "processes", "batch_size"), [(7, 2, 3), (8, 2, 2), (5, 4, 2)])
def test_eval_covers_every_image_once(count, processes, batch_size):
    lengths, ids = set(), []
    for process in range(processes):
        batches = list(
            eval_batches(
                numbered(count),
                batch_size=batch_size,
                process_index=process,
                process_count=processes,
            )
        )
        lengths.add(len(batches))
        for batch in batches:
            assert batch["image"].shape == (batch_size, 4, 6, 3)
            assert batch["image"].dtype == np.float32 and batch["label"].dtype == np.int32
            for row, name in enumerate(batch["id"]):
                if name:
                    assert (batch["label"][row] == int(name.split()[1])).all()
                else:
                    assert (batch["label"][row] == 255).all()
                    assert (batch["image"][row] == 0).all()
            ids += [name for name in batch["id"] if name]
    share = math.ceil(count / processes)
    assert lengths == {math.ceil(share / batch_size)}
    assert sorted(ids) == [f"example {i}" for i in range(count)]


def test_eval_images_are_full_and_normalised(val_scenes):
    batch = next(eval_batches(val_scenes, batch_size=3))
    assert batch["id"] == ["val_00000", "val_00001", "val_00002"]
    example = val_scenes.source[1]
    np.testing.assert_array_equal(batch["label"][1], example["label"])
    expected = (example["image"] / 255.0 - val_scenes.mean) / val_scenes.std
    np.testing.assert_allclose(batch["image"][1], expected, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "split", "options", "message"),
    [
        ("digits", "train", {}, "data set is one of digit_scenes, camvid, cityscapes, "),
        ("digit_scenes", "test", {}, "split of digit_scenes is one of train, val; got 'test'"),
        ("camvid", "validation", {}, "split of camvid is one of train, val, test"),
        (
            "camvid",
            "val",
            {"size": 64},
            "option of camvid is one of enlargement, reduction; got 'size'",
        ),
    ],
)
def test_bad_names_list_the_choices(name, split, options, message):
    with pytest.raises(ValueError, match=message):
        rfjax.data.load(name, split, **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be a positive integer"),
        ({"process_index": 2, "process_count": 2}, "got 2 of 2"),
        ({"augmentation": Augmentation(scale=(0.5, 2.0))}, "set crop as well"),
    ],
)
def test_bad_iterators(options, message):
    with pytest.raises(ValueError, match=message):
        train_iterator(numbered(4), **{"batch_size": 2, "seed": 0, **options})


SIZES = ((4, 6), (6, 4), (4, 6), (5, 6), (4, 6), (6, 4), (4, 6))


class OfSizes:
    """Examples that carry their number, from 1, in every pixel, of different sizes."""

    def __init__(self, sizes):
        self._sizes = sizes

    def __len__(self):
        return len(self._sizes)

    def __getitem__(self, index):
        image = np.full((*self._sizes[index], 3), index + 1, np.uint8)
        return {"image": image, "label": image[..., 0], "id": f"example {index}"}


def test_images_of_different_sizes_train_with_a_crop():
    """Small images are padded: reflected, and void."""
    dataset = numbered(7, source=OfSizes(SIZES))
    with pytest.raises(ValueError, match=r"example \d has .* pixels where the others .* a crop"):
        next(train_iterator(dataset, batch_size=7, seed=0, threads=0))
    cropped = train_iterator(
        dataset, batch_size=7, seed=0, augmentation=Augmentation(crop=(5, 9)), threads=0
    )
    batch = next(cropped)
    assert batch["label"].shape == (7, 5, 9)
    seen = set()
    for image, label in zip(batch["image"], batch["label"], strict=True):
        (number,) = set(np.unique(label)) - {255}
        height, width = SIZES[number - 1]
        assert (label == number).sum() == min(height, 5) * width
        assert (image == np.float32(number / 255)).all()
        seen.add(number)
    assert seen == set(range(1, 8))


@pytest.mark.parametrize(("processes", "batch_size"), [(1, 2), (2, 1), (3, 2), (1, 8)])
@pytest.mark.parametrize("devices", [None, 1])
def test_eval_batches_are_of_one_size_each(processes, batch_size, devices):
    dataset = numbered(7, source=OfSizes(SIZES))
    processed = [
        list(
            eval_batches(
                dataset,
                batch_size=batch_size,
                process_index=process,
                process_count=processes,
                devices=devices,
            )
        )
        for process in range(processes)
    ]
    # all processes in step, and each size in one shape of batch
    shapes = [[batch["image"].shape for batch in batches] for batches in processed]
    assert all(one == shapes[0] for one in shapes)
    assert len(set(shapes[0])) == len(set(SIZES))
    assert [shape[1:3] for shape in dict.fromkeys(shapes[0])] == [(4, 6), (6, 4), (5, 6)]
    rows = {shape[0] for shape in shapes[0]}
    assert rows == {batch_size} if devices is None else max(rows) <= batch_size
    ids = []
    for batch in (batch for batches in processed for batch in batches):
        for name, label in zip(batch["id"], batch["label"], strict=True):
            index = int(name.split()[1]) if name else 254
            assert (label == index + 1).all()
            if name:
                assert label.shape == SIZES[index]
                ids.append(index)
    assert sorted(ids) == list(range(7))


def test_few_images_of_a_size_make_small_batches():
    dataset = numbered(7, source=OfSizes(SIZES))
    batches = list(eval_batches(dataset, batch_size=4, devices=2))
    assert [batch["image"].shape[:3] for batch in batches] == [(4, 4, 6), (2, 6, 4), (2, 5, 6)]
    assert [len(batch["id"]) for batch in batches] == [4, 2, 2]
    with pytest.raises(ValueError, match="batch_size is a multiple of devices=3; got 4"):
        eval_batches(dataset, batch_size=4, devices=3)


def test_sizes_are_asked_for_once_and_held_against_the_images():
    class Lying(OfSizes):
        asked = 0

        def shape(self, index):
            self.asked += 1
            return 4, 6

    source = Lying(SIZES[:2])
    dataset = numbered(2, source=source)
    for _ in range(2):
        with pytest.raises(ValueError, match="example 1 has 6x4 pixels where it was said to have"):
            list(eval_batches(dataset, batch_size=2, threads=1))
    assert source.asked == 2


def test_empty_split():
    with pytest.raises(ValueError, match="train split of numbered is empty"):
        train_iterator(numbered(0), batch_size=1, seed=0)
    assert list(eval_batches(numbered(0), batch_size=1)) == []


def test_loading_reuses_what_is_prepared(scenes, data_dir, monkeypatch):
    from rfjax.data import digit_scenes

    def drawn_again(*args, **kwargs):
        raise AssertionError("drawn again")

    monkeypatch.setattr(digit_scenes, "compose_scene", drawn_again)
    assert len(rfjax.data.load("digit_scenes", "val", data_dir=data_dir, **SMALL)) == 7
