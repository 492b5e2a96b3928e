"""A clip from the command line, with a network that was saved as training saves it."""

import json

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from rfjax import models, video
from rfjax.training import config as configs
from rfjax.training import optimizers, state
from rfjax.training.checkpoints import Checkpoints

SIZE = (32, 40)
COUNT = 5


def run(workdir, head):
    """A run of a tiny network that has learned nothing but to tell apart."""
    config = configs.base()
    config.model.name, config.model.head = "vgg_tiny", head
    dataset = {
        "num_classes": 3,
        "class_names": ["ground", "left", "right"],
        "palette": [[0, 0, 0], [250, 0, 0], [0, 250, 0]],
        "mean": [0.5, 0.5, 0.5],
        "std": [0.2, 0.2, 0.2],
    }
    model = models.create("vgg_tiny", num_classes=3, head=head)
    images = np.zeros((1, *SIZE, 3), np.float32)
    variables = state.initial_variables(model, jax.random.key(0), images)
    key = jax.random.key(1)  # scores start at zero, where all classes are alike
    variables = jax.tree.map(lambda a: a + 0.1 * jax.random.normal(key, a.shape), variables)
    with Checkpoints(workdir) as checkpoints:
        made = state.create(variables, optimizers.sgd(lambda t: 0.1))
        meta = {"config": config.to_dict(), "dataset": dataset}
        checkpoints.save(made.replace(step=np.int32(1)), meta=meta, score=0.5)
    return workdir


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return run(tmp_path_factory.mktemp("run"), "fcn_8s")


def frames(folder, sizes=(SIZE,) * COUNT):
    folder.mkdir()
    rng = np.random.default_rng(0)
    for number, size in enumerate(sizes):
        picture = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(picture).save(folder / f"{number}.png")
    return folder


def main(clip, workdir, output, *more):
    return video.main([str(clip), f"--workdir={workdir}", f"--output={output}", *more])


def test_a_clip_becomes_frames_an_animation_and_numbers(workdir, tmp_path, capsys):
    clip = frames(tmp_path / "street")
    assert main(clip, workdir, tmp_path / "out", "--schedule=alternating", "--frames=4") == 0
    said = capsys.readouterr().out
    assert "alternating: 4 frames" in said and "ran on 100 %, 100 %, 50 %, 100 %" in said
    found = {path.name for path in (tmp_path / "out").iterdir()}
    assert found == {"street", "street.gif", "street.json", "legend.png"}
    numbers = json.loads((tmp_path / "out" / "street.json").read_text())
    assert [row[2] for row in numbers["fired"]] == [True, False, True, False]
    assert numbers["names"] == ["0", "1", "2", "3"] and numbers["frames_per_second"] > 0
    classes = Image.open(tmp_path / "out" / "street" / "classes" / "3.png")
    assert classes.mode == "P" and classes.size == SIZE[::-1]
    with Image.open(tmp_path / "out" / "street.gif") as animation:
        shown = Image.open(tmp_path / "out" / "street" / "frames" / "3.png")
        assert animation.n_frames == 4 and animation.size == shown.size


def test_nothing_is_overwritten_and_bad_frames_are_passed_over(workdir, tmp_path, capsys):
    clip = frames(tmp_path / "street")
    (clip / "2.png").write_bytes(b"no picture")
    (tmp_path / "street.json").write_text("mine")
    assert main(clip, workdir, tmp_path, "--schedule=1,1,2") == 1
    streams = capsys.readouterr()
    assert "2 is passed over: " in streams.err and len(streams.err.strip().splitlines()) == 2
    assert json.loads((tmp_path / "street_2.json").read_text())["names"] == ["0", "1", "3", "4"]
    assert (tmp_path / "street.json").read_text() == "mine"


def test_a_clip_that_changes_its_size_keeps_what_was_done(workdir, tmp_path, capsys):
    clip = frames(tmp_path / "street", [SIZE, SIZE, (32, 48)])
    assert main(clip, workdir, tmp_path / "out", "--schedule=adaptive:50%") == 1
    told = capsys.readouterr().err.strip().splitlines()[-1]
    assert told == (
        "rfjax.video: error: 2 has 32x48 pixels, the frames before it 32x40: frames of a clip have "
        "one size"
    )
    numbers = json.loads((tmp_path / "out" / "street.json").read_text())
    assert numbers["frames"] == 2 and numbers["schedule"] == "adaptive:1"


def test_films(workdir, tmp_path):
    film = tmp_path / "film.avi"
    writer = cv2.VideoWriter(str(film), cv2.VideoWriter.fourcc(*"MJPG"), 12.0, SIZE[::-1])
    for level in (0, 200):
        writer.write(np.full((*SIZE, 3), level, np.uint8))
    writer.release()
    assert main(film, workdir, tmp_path / "out", "--schedule=skip", "--animation=mp4") == 0
    animation = cv2.VideoCapture(str(tmp_path / "out" / "film.mp4"))
    assert animation.get(cv2.CAP_PROP_FRAME_COUNT) == 2
    assert animation.get(cv2.CAP_PROP_FPS) == 12


MISTAKES = {
    "nothing": ((), "nothing: there is no such folder or file"),
    "empty": ((), "there are no frames"),
    "text.mp4": ((), "text.mp4: not a video that OpenCV reads"),
    "street": (("--schedule=sometimes",), "schedule is one of oracle"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_mistakes_are_one_line(name, workdir, tmp_path, capsys):
    frames(tmp_path / "street")
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mp4").write_text("no film")
    more, wanted = MISTAKES[name]
    assert main(tmp_path / name, workdir, tmp_path / "out", *more) == 1
    said = capsys.readouterr().err.strip()
    assert wanted in said and len(said.splitlines()) == 1


def test_networks_that_cannot_be_cut(workdir, tmp_path, capsys):
    clip = frames(tmp_path / "street")
    assert main(clip, workdir, tmp_path / "out", "--cuts=pool9") == 1
    said = capsys.readouterr().err.strip()
    assert "pool9" in said and len(said.splitlines()) == 1
