"""Predictions from the command line, with a network that was saved as training saves it."""

import functools

import jax
import numpy as np
import pytest
from PIL import Image

from rfjax import models, predict
from rfjax.training import config as configs
from rfjax.training import optimizers, state
from rfjax.training.checkpoints import CheckpointError, Checkpoints

NAMES = ("ground", "left", "right")
PALETTE = [[0, 0, 0], [250, 0, 0], [0, 250, 0]]
SIZE = (37, 50)


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of a dynamic head with two checkpoints, of which the first is better."""
    workdir = tmp_path_factory.mktemp("run")
    config = configs.base()
    config.model.head, config.model.backbone_options.width = "gauss_deform", 4
    meta = {
        "config": config.to_dict(),
        "dataset": {
            "num_classes": 3, "class_names": NAMES, "palette": PALETTE,
            "mean": [0.5, 0.4, 0.3], "std": [0.2, 0.2, 0.3],
        },
    }  # fmt: skip
    with Checkpoints(workdir) as checkpoints:
        for step, score in ((1, 0.9), (2, 0.1)):
            variables = jax.tree.map(lambda a: step * a, make_variables())
            made = state.create(variables, optimizers.sgd(lambda t: 0.1))
            checkpoints.save(made.replace(step=np.int32(step)), meta=meta, mean_iu=score)
    return workdir


def make_model():
    return models.create(
        "resnet_tiny", num_classes=3, head="gauss_deform", backbone_options={"width": 4}
    )


@functools.cache
def make_variables():
    return state.initial_variables(make_model(), jax.random.key(0), (32, 32, 3))


@pytest.fixture(scope="module")
def picture(tmp_path_factory):
    path = tmp_path_factory.mktemp("pictures") / "scene.png"
    rng = np.random.default_rng(0)
    Image.fromarray(rng.integers(0, 256, (*SIZE, 3), dtype=np.uint8)).save(path)
    return path


def test_a_picture_becomes_its_pictures(workdir, picture, tmp_path, capsys):
    assert predict.main([str(picture), f"--workdir={workdir}", f"--output={tmp_path}"]) == 0
    assert "checkpoint of step 1 " in capsys.readouterr().out  # the better one
    assert {path.name for path in tmp_path.iterdir()} == {
        "scene_classes.png", "scene_overlay.png", "scene_scales_head.png", "legend.png"
    }  # fmt: skip

    classes = Image.open(tmp_path / "scene_classes.png")
    assert classes.mode == "P"
    assert classes.getpalette()[:9] == np.ravel(PALETTE).tolist()
    image = np.asarray(Image.open(picture), np.float32) / 255
    normalized = (image - np.array([0.5, 0.4, 0.3])) / np.array([0.2, 0.2, 0.3])
    logits = jax.jit(make_model().apply)(make_variables(), normalized[None].astype(np.float32))
    agreement = np.mean(np.asarray(classes) == np.argmax(logits[0], -1))
    assert agreement > 0.999  # compiled as a whole, rounding may turn a tie

    overlay = np.asarray(Image.open(tmp_path / "scene_overlay.png"))
    assert overlay.shape == (*SIZE, 3)


def test_grey_and_transparent_pictures_are_read(tmp_path):
    Image.fromarray(np.full((5, 6), 7, np.uint8)).save(tmp_path / "grey.png")
    Image.fromarray(np.full((5, 6, 4), 9, np.uint8)).save(tmp_path / "alpha.png")
    assert predict.read_image(tmp_path / "grey.png").tolist() == np.full((5, 6, 3), 7).tolist()
    assert predict.read_image(tmp_path / "alpha.png").shape == (5, 6, 3)


def test_bad_pictures_are_named_and_the_others_done(workdir, picture, tmp_path, capsys):
    broken = tmp_path / "broken.png"
    broken.write_bytes(picture.read_bytes()[:200])
    arguments = [str(broken), str(tmp_path / "none.jpg"), str(picture)]
    status = predict.main([*arguments, f"--workdir={workdir}", f"--output={tmp_path / 'out'}"])
    errors = capsys.readouterr().err
    assert status == 1
    assert f"{broken}: not a picture that can be read" in errors
    assert "none.jpg: there is no such file" in errors
    assert (tmp_path / "out" / "scene_classes.png").exists()


def test_a_place_without_a_run_is_told(picture, tmp_path, capsys):
    assert predict.main([str(picture), f"--workdir={tmp_path}", f"--output={tmp_path}"]) == 1
    assert "holds no checkpoints/; train a run there first" in capsys.readouterr().err


def test_another_step_can_be_asked_for(workdir, tmp_path):
    assert predict.load(workdir, step=2).step == 2
    with pytest.raises(CheckpointError, match="there are 1, 2"):
        predict.load(workdir, step=3)


def test_missing_arguments_are_named(capsys):
    with pytest.raises(SystemExit) as left:
        predict.main(["picture.png"])
    assert left.value.code == 2
    assert "--workdir" in capsys.readouterr().err


def test_pictures_of_one_name_are_numbered(tmp_path):
    paths = [tmp_path / "a" / "x.png", tmp_path / "b" / "x.png", tmp_path / "y.png"]
    assert predict._names(paths) == ["x_1", "x_2", "y"]
