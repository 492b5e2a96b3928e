"""Data sets of TensorFlow Datasets by their names, written and read without TensorFlow."""

import io
import sys

import cv2
import numpy as np
import pytest
import tensorflow_datasets as tfds

import rfjax.data
from rfjax.data.__main__ import main
from rfjax.data.preparing import quiet
from rfjax.training import config as configs

SIZES = {"train": 10, "test": 3}
IMAGE = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
MASK = tfds.features.Image(shape=(None, None, 1), encoding_format="png")


def png(pixels):
    return io.BytesIO(cv2.imencode(".png", pixels)[1].tobytes())


def example(index, features):
    """An image of one level, its mask of the values 1 and 2, with void above, and its class."""
    mask = np.full((8 + index, 9), 1 + index % 2, np.uint8)
    mask[0] = 255
    written = {
        "image": png(np.full((8 + index, 9, 3), 20 * index, np.uint8)),
        "segmentation_mask": png(mask),
        "label": index % 3,
        "file_name": f"picture {index}",
    }
    return {name: written[name] for name in features}


def write(folder, name, features, sizes=SIZES, file_format="array_record"):
    """A set of these features, as its own builder would leave it."""
    splits = {
        split: [(index, example(index, features)) for index in range(count)]
        for split, count in sizes.items()
    }

    def info(self):
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    methods = {
        "VERSION": tfds.core.Version("1.0.0"),
        "_info": info,
        "_split_generators": lambda self, manager: {s: iter(rows) for s, rows in splits.items()},
        "_generate_examples": None,
        "name": name,
    }
    with quiet():
        bases = (tfds.core.GeneratorBasedBuilder,)
        builder = type(name, bases, methods, skip_registration=True)(data_dir=folder)
        builder.download_and_prepare(file_format=file_format)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("tfds")
    label = tfds.features.ClassLabel(names=["cat", "dog", "owl"])
    both = {"image": IMAGE, "segmentation_mask": MASK, "label": label}
    write(folder, "pets", both | {"file_name": tfds.features.Text()})
    write(folder, "kinds", {"image": IMAGE, "label": label}, {"train": 10})
    write(folder, "texts", {"file_name": tfds.features.Text(), "image": IMAGE})
    return folder


def load(folder, name, split="train", **options):
    return rfjax.data.load(f"tfds:{name}", split, data_dir=str(folder), **options)


def test_masks(folder):
    train, val = load(folder, "pets"), load(folder, "pets", "val")
    assert (len(train), len(val)) == (10, 3)  # its test part, where it has no validation
    assert train.name == "tfds:pets" and train.class_names == ("1", "2")
    found = {example["id"]: example for example in map(train.source.__getitem__, range(10))}
    assert set(found) == {f"picture {index}" for index in range(10)}
    third = found["picture 3"]
    assert third["image"].shape == (11, 9, 3) and (third["image"] == 60).all()
    assert (third["label"][0] == 255).all() and (third["label"][1:] == 1).all()
    assert set(train.shapes) == {(8 + index, 9) for index in range(10)}
    assert "tensorflow" not in sys.modules
    assert (folder / "pets" / "1.0.0" / "rfjax.json").exists()


def test_classes(folder):
    of_pets = load(folder, "pets", label="label")
    assert of_pets.class_names == ("cat", "dog", "owl")
    train, val = load(folder, "kinds"), load(folder, "kinds", "val")
    assert (len(train), len(val)) == (8, 2)  # there is one part
    assert {train.source[index]["label"] for index in range(8)} == {0, 1, 2}
    part = load(folder, "kinds", train="train[:50%]", val="train[50%:]")
    assert len(part) == 5


@pytest.mark.parametrize(
    ("name", "options", "kind", "said"),
    [
        ("none", {}, FileNotFoundError, "holds no none; want it prepared there: tfds.builder"),
        ("cifar10", {}, FileNotFoundError, "holds no cifar10; want it prepared there"),
        ("texts", {}, ValueError, r"file_name \(Text\), image \(Image\); want a mask|class"),
        ("pets", {"image": "photo"}, ValueError, "image='photo' is no image there"),
        ("pets", {"label": "file_name"}, ValueError, "label='file_name' is no label there"),
        ("pets", {"train": "trainval"}, ValueError, "has the parts train, test; got train="),
        ("pets", {"ignore": "black"}, ValueError, "ignore is a value of masks; got 'black'"),
        ("pets", {"masks": "a"}, ValueError, "option of tfds"),
    ],
)
def test_one_line_says_what_is_missing(folder, name, options, kind, said):
    with pytest.raises(kind, match=said) as raised:
        load(folder, name, **options)
    assert "\n" not in str(raised.value)


def test_config_and_program(folder, tmp_path, capsys):
    config = configs.base()
    config.data.name, config.data.dir = "tfds:pets", str(folder)
    config.data.options.train = "train[:5]"
    configs.validate(config)
    config.data.options.size = 4
    with pytest.raises(ValueError, match="data: tfds:pets takes enlargement, of, image"):
        configs.validate(config)
    assert main(["--name=tfds:pets", str(folder), f"--output={tmp_path / 'a.png'}"]) == 0
    assert "train: 10 images" in capsys.readouterr().out
    assert main(["--name=tfds", str(folder)]) == 1
    assert "want the name of a set: data.name=tfds:NAME" in capsys.readouterr().err
