"""Runs on colors and depth: alone, in one network, and in two whose scores are averaged."""

import json

import cv2
import jax
import numpy as np
import pytest

from rfjax import evaluate, predict
from rfjax.training import composed, loop, optimizers, runs, state, weights
from rfjax.training import config as configs
from rfjax.training.checkpoints import Checkpoints
from tests.training.runs import tiny_config

LATE = {"data__options__modality": "rgbd", "model__late_fusion": (3, 1), "model__head": "score"}


def drawn(config, channels, key):
    model = composed.build_model(config, 11)
    images = np.zeros((1, 32, 32, channels), np.float32)
    return state.initial_variables(model, jax.random.key(key), images)


def saved(workdir, config, variables):
    """A run that has these variables."""
    with Checkpoints(workdir) as checkpoints:
        meta = {"config": config.to_dict(), "dataset": {"num_classes": 11}}
        checkpoints.save(state.create(variables, optimizers.sgd(lambda t: 0.1)), meta=meta)
    return variables


def assert_equal(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, data_dir):
    """Runs of colors and of depth."""
    folder = tmp_path_factory.mktemp("alone")
    config = tiny_config(data_dir, model__head="score")
    return folder, {
        name: saved(folder / name, config, drawn(config, channels, key))
        for name, channels, key in (("rgb", 3, 1), ("depth", 1, 2))
    }


def test_late_fusion_starts_from_both_networks(trained, data_dir, tmp_path):
    folder, given = trained
    config = tiny_config(data_dir, **LATE, model__weights=f"{folder / 'rgb'}, {folder / 'depth'}")
    fresh = drawn(config, 4, 3)
    known = {"num_classes": 11, "channels": 4}
    placed = weights.load(config, fresh, **known)
    for collection in ("params", "batch_stats"):
        for top, tree in placed[collection].items():
            assert_equal(tree["stream_0"], given["rgb"][collection][top])
            assert_equal(tree["stream_1"], given["depth"][collection][top])
    saved(tmp_path / "late", config, placed)  # and goes on from a run with the same
    config.model.weights = str(tmp_path / "late")
    assert_equal(weights.load(config, fresh, **known), placed)
    config.model.weights = "a,b,c"
    with pytest.raises(
        configs.ConfigError, match="got 3 paths; want one, or one for each of the 2"
    ):
        weights.load(config, fresh, **known)


def test_other_channels_start_as_the_mean_of_the_colors(trained, data_dir):
    folder, given = trained
    before = given["rgb"]["params"]["backbone"]["conv1"]["kernel"]
    mean = np.mean(before, 2, keepdims=True)
    config = tiny_config(data_dir, model__head="score", model__weights=str(folder / "rgb"))
    for channels, expected in ((4, np.concatenate([before, mean], 2)), (1, mean)):
        fresh = drawn(config, channels, 3)
        placed = weights.load(config, fresh, num_classes=11, channels=channels)
        kernel = placed["params"]["backbone"]["conv1"]["kernel"]
        np.testing.assert_allclose(kernel, expected, atol=1e-7)
    config = tiny_config(data_dir, **LATE, model__weights=str(folder / "rgb"))  # one for both
    placed = weights.load(config, drawn(config, 4, 3), num_classes=11, channels=4)
    kernel = placed["params"]["backbone"]["stream_1"]["conv1"]["kernel"]
    np.testing.assert_allclose(kernel, mean, atol=1e-7)


@pytest.fixture(scope="module")
def late_run(tmp_path_factory, data_dir):
    """Late fusion with two sets of labels."""
    workdir = tmp_path_factory.mktemp("late")
    both = {"data__options__labels": "both", "task__name": "segmentations"}
    config = tiny_config(data_dir, **LATE, **both, steps=2, eval_every=2)
    return workdir, config, loop.train(config, workdir)


def test_training_and_evaluation_of_late_fusion(late_run):
    workdir, config, result = late_run
    assert {"mean_iu", "geometric_mean_iu"} <= set(result)
    assert (workdir / "figures/examples.png").exists()
    labels = workdir / "labels"
    assert evaluate.main([f"--workdir={workdir}", f"--labels={labels}"]) == 0
    scores = json.loads((workdir / "evaluation/val/scores.json").read_text())
    assert scores["mean_iu"] == pytest.approx(result["mean_iu"])
    assert scores["geometric_mean_iu"] == pytest.approx(result["geometric_mean_iu"])
    assert len(list(labels.glob("val_*.png"))) == config.data.options.val_scenes


def test_prediction_from_a_picture_and_its_depth(late_run, tmp_path):
    workdir, _, _ = late_run
    image = np.random.default_rng(0).integers(0, 256, (37, 45, 4)).astype(np.uint8)
    (tmp_path / "depth").mkdir()
    cv2.imwrite(str(tmp_path / "a.png"), image[..., 2::-1])
    cv2.imwrite(str(tmp_path / "depth/a.png"), image[..., 3])
    command = [str(tmp_path / "a.png"), f"--workdir={workdir}", f"--output={tmp_path / 'out'}"]
    assert predict.main([*command, f"--depth={tmp_path / 'depth'}"]) == 0
    classes = predict.Image.open(tmp_path / "out/a_classes.png")
    expected, _ = runs.load(workdir)(image)
    assert classes.mode == "P"
    np.testing.assert_array_equal(np.asarray(classes), expected)
    assert predict.main(command) == 1  # without depth
