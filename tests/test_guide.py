"""Pictures that are segmented by what is marked: in Python, and by the program."""

import jax
import numpy as np
import pytest
from PIL import Image

from rfjax import guide
from rfjax.training import runs, train
from rfjax.training.config import base

SIDE = 32


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of two steps."""
    config = base()
    config.task.name = "guided"
    config.steps = config.eval_every = 2
    config.batch_size = config.eval_batch_size = jax.device_count()
    config.data.name = "digit_episodes"
    config.data.options.size = SIDE
    config.data.options.min_scale, config.data.options.max_scale = 12.0, 16.0
    for name, count in (("scenes", 24), ("episodes", 8)):
        for split in ("train", "val"):
            config.data.options[f"{split}_{name}"] = count
    config.model.backbone_options.width = 4
    folder = tmp_path_factory.mktemp("guided")
    train(config, folder)
    return folder


@pytest.fixture(scope="module")
def guided(workdir):
    return guide.load(workdir)


@pytest.fixture
def pictures(tmp_path):
    rng = np.random.default_rng(0)
    for name, height in (("one", SIDE), ("two", SIDE), ("wide", SIDE - 9)):
        picture = rng.integers(0, 256, (height, SIDE, 3), np.uint8)
        Image.fromarray(picture).save(tmp_path / f"{name}.png")
    mask = np.full((SIDE, SIDE), 0, np.uint8)
    mask[4:20, 4:20] = 255
    for name, values in (("mask", mask), ("empty", 0 * mask), ("small", mask[:20])):
        Image.fromarray(values).save(tmp_path / f"{name}.png")
    return tmp_path


def image(seed=0):
    return np.random.default_rng(seed).integers(0, 256, (SIDE, SIDE, 3), np.uint8)


def scored(trained, shots, query):
    """By the network as it trains: all at once."""
    rows = [trained.task.row({"image": x, "label": m}) for x, m in shots]
    batch = {"support": np.stack([row["image"] for row in rows])[None],
             "label/support": np.stack([row["label"] for row in rows])[None],
             "image": trained.task.normalization(query)[None]}  # fmt: skip
    outputs = trained.model.apply(trained.variables, *trained.task.inputs(batch))
    return np.argmax(outputs[0], -1)


def test_marks_that_come_singly_are_the_marks_that_come_at_once(workdir):
    guided, trained = guide.load(workdir), runs.load(workdir)
    marks = {"a": np.full((SIDE, SIDE), 255, np.uint8), "b": np.full((SIDE, SIDE), 255, np.uint8)}
    for key, pixel, label in (
        ("a", (3, 4), 1),
        ("b", (9, 9), 0),
        ("a", (20, 5), 0),
        ("b", (30, 1), 1),
    ):
        guided.click(key, image(ord(key)), pixel, label)
        marks[key][pixel] = label
    shots = [(image(ord(key)), own) for key, own in marks.items()]
    for key, query in (("c", image(5)), ("a", image(ord("a")))):
        np.testing.assert_array_equal(guided.segment(key, query), scored(trained, shots, query))


def test_a_further_mark_encodes_nothing(guided, monkeypatch):
    guided.click("p", image(), (1, 1), 1)
    before = guided.segment("p", image())
    monkeypatch.setitem(guided._compiled, "encode", None)  # calling it would raise
    guided.click("p", image(), (9, 30), 0)
    assert guided.segment("p", image()).shape == before.shape


def test_a_further_class_takes_its_place(workdir):
    guided = guide.load(workdir)
    guided.click("p", image(), (1, 1), 1)
    assert guided.ways == 2
    guided.click("q", image(1), (1, 1), 3)
    assert guided.ways == 4 and guided.segment("p", image()).max() <= 3


def run(*arguments):
    return guide.main([str(argument) for argument in arguments])


def test_the_program_writes_masks_and_overlays(workdir, pictures, capsys):
    support = f"--support={pictures / 'one.png'}:{pictures / 'mask.png'}"
    arguments = [f"--workdir={workdir}", f"--output={pictures / 'out'}", "--click=+3,4",
                 "--click=-20,21"]  # fmt: skip
    assert run(*arguments, support, pictures / "two.png", pictures / "wide.png") == 0
    said = capsys.readouterr().out
    assert "2 clicks in" in said and " ms" in said
    written = sorted(path.name for path in (pictures / "out").iterdir())
    assert written == ["two_mask.png", "two_overlay.png", "wide_mask.png", "wide_overlay.png"]
    assert Image.open(pictures / "out" / "wide_mask.png").size == (SIDE, SIDE - 9)


@pytest.mark.parametrize(
    "arguments, text",
    [
        (("two.png",), "nothing is marked: want --support=IMAGE:MASK or --click=+x,y"),
        (
            ("--click=+40,3", "two.png"),
            "two.png: pixel x=40, y=3 is outside of a picture of 32 by 32",
        ),
        (
            ("--support=one.png:empty.png", "two.png"),
            "empty.png: no object is marked, by 1 or more",
        ),
        (
            ("--support=one.png:small.png", "two.png"),
            "small.png: the mask has 20x32 pixels, its picture 32x32: want one size",
        ),
        (("--support=one.png:none.png", "two.png"), "none.png: there is no such file"),
    ],
)
def test_mistakes_are_told_in_one_line(workdir, pictures, capsys, monkeypatch, arguments, text):
    monkeypatch.chdir(pictures)
    assert run(f"--workdir={workdir}", "--output=out", *arguments) == 1
    said = capsys.readouterr().err
    assert said.startswith("rfjax.guide: error: ") and text in said and said.count("\n") == 1


@pytest.mark.parametrize("argument", ["--click=3,4", "--click=+3.5,4", "--support=one.png"])
def test_what_is_no_mark_is_told(capsys, argument):
    with pytest.raises(SystemExit):
        run("--workdir=run", "--output=out", argument, "two.png")
    assert "want " in capsys.readouterr().err


def test_other_runs_take_no_marks(workdir):
    trained = runs.load(workdir)
    object.__setattr__(trained.task, "fusion", "early")
    with pytest.raises(guide.GuideError, match="late_global or prototypes; its fusion is early"):
        guide.Guided(trained)
