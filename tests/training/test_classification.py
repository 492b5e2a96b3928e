"""Classification through the whole program: digits one by one, and folders of images."""

import json

import chex
import jax
import numpy as np
import pytest
from PIL import Image

from rfjax import data, evaluate, predict, tasks, training
from rfjax.training import composed, runs, weights
from rfjax.training import config as configs
from tests.training.runs import set_key

SETTINGS = {
    "steps": 4,
    "batch_size": 8,
    "eval_batch_size": 8,
    "eval_every": 4,
    "log_every": 2,
    "task.name": "classification",
    "model.head": "classify",
    "model.backbone_options.width": 4,
    "data.name": "digit_images",
}
SMALL = {"size": 32, "min_scale": 8.0, "max_scale": 14.0, "train_images": 24, "val_images": 5}


def configured(**options):
    config = configs.base()
    for key, value in (SETTINGS | options).items():
        set_key(config, key, value)
    return config


def test_digits_are_learned_scored_and_predicted(tmp_path, capsys):
    config = configured(**{f"data.options.{name}": value for name, value in SMALL.items()})
    result = training.train(config, tmp_path / "run")
    assert 0 <= result["accuracy"] <= 1 and len(result["class_accuracy"]) == 10
    assert (tmp_path / "run/figures/examples.png").exists()
    assert evaluate.main([f"--workdir={tmp_path / 'run'}"]) == 0
    stored = json.loads((tmp_path / "run/evaluation/val/scores.json").read_text())
    assert stored["accuracy"] == result["accuracy"]
    picture = tmp_path / "digit.png"
    Image.fromarray(data.load("digit_images", "val", **SMALL).source[0]["image"]).save(picture)
    capsys.readouterr()
    arguments = [str(picture), f"--workdir={tmp_path / 'run'}", f"--output={tmp_path / 'out'}"]
    assert predict.main(arguments) == 0
    told = capsys.readouterr().out.splitlines()[-1]
    assert told.startswith(f"{picture}: ") and told.count("%") == 3


def test_a_segmentation_starts_from_a_classifier(tmp_path):
    """The backbone is the classifier's; the head is drawn anew."""
    config = configured(**{f"data.options.{name}": value for name, value in SMALL.items()})
    training.train(config, tmp_path / "digits")
    learned = runs.load(tmp_path / "digits").variables
    segmentation = configs.base()
    segmentation.model.backbone_options.width = 4
    segmentation.model.weights = str(tmp_path / "digits")
    model = composed.build_model(segmentation, 11)
    fresh = model.init(jax.random.key(0), np.zeros((1, 32, 32, 3), np.float32))
    taken = weights.load(segmentation, fresh, num_classes=11)
    for name in ("params", "batch_stats"):
        chex.assert_trees_all_equal(taken[name]["backbone"], learned[name]["backbone"])
    chex.assert_trees_all_equal(taken["params"]["head"], fresh["params"]["head"])


def test_the_scores_are_those_of_a_loop():
    rng = np.random.default_rng(0)
    labels, scores = rng.integers(0, 3, 40), rng.normal(size=(40, 3)).astype(np.float32)
    labels[:5] = 255
    task = tasks.Classification()
    found = task.summarize(task.measure(scores, {"label": labels}))
    known, given = labels[5:], scores[5:].argmax(-1)
    assert found["accuracy"] == pytest.approx(np.mean(given == known))
    by_class = [np.mean(given[known == k] == k) for k in range(3)]
    np.testing.assert_allclose(found["class_accuracy"], by_class)
    assert found["mean_accuracy"] == pytest.approx(np.mean(by_class))


def test_folders_of_images(tmp_path):
    rng = np.random.default_rng(0)
    for split, count in (("train", 3), ("val", 1)):
        for name in ("cat", "dog"):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (9 + index, 12, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{index}.png")
    found = data.load("image_folder", "train", data_dir=str(tmp_path))
    assert found.class_names == ("cat", "dog") and len(found) == 6
    assert [found.source[index]["label"] for index in range(6)] == [0, 0, 0, 1, 1, 1]
    assert found.shapes[:3] == ((9, 12), (10, 12), (11, 12))
    (tmp_path / "val" / "cow").mkdir()
    with pytest.raises(ValueError, match="cow is no class of"):
        data.load("image_folder", "val", data_dir=str(tmp_path))
    with pytest.raises(FileNotFoundError, match="there is no folder"):
        data.load("image_folder", "test", data_dir=str(tmp_path))


def test_a_head_of_pixels_is_refused(tmp_path):
    options = {f"data.options.{name}": value for name, value in SMALL.items()}
    config = configured(**options, **{"model.head": "score"})
    with pytest.raises(ValueError, match=r"wants scores \[N, K\], as model.head=classify makes"):
        training.train(config, tmp_path)
