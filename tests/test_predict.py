"""Predictions from the command line, with a network that was saved as training saves it."""

import functools
import json
import tracemalloc

import jax
import numpy as np
import pytest
from PIL import Image

from rfjax import models, predict, visualize
from rfjax.tasks import inference
from rfjax.training import config as configs
from rfjax.training import optimizers, state, windows
from rfjax.training.checkpoints import CheckpointError, Checkpoints
from tests.data import files

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
            checkpoints.save(made.replace(step=np.int32(step)), meta=meta, score=score)
    return workdir


def make_model():
    return models.create(
        "resnet_tiny", num_classes=3, head="gauss_deform", backbone_options={"width": 4}
    )


@functools.cache
def make_variables():
    images = np.zeros((1, 32, 32, 3), np.float32)
    return state.initial_variables(make_model(), jax.random.key(0), images)


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
    agreement = np.mean(np.asarray(classes) == np.argmax(np.asarray(logits[0]), -1))
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


# -- names -----------------------------------------------------------------------------------------


def contents(folder):
    """Every file below a folder, with what it holds."""
    return {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def run(workdir, arguments, output):
    return predict.main([*map(str, arguments), f"--workdir={workdir}", f"--output={output}"])


def make_pictures(folder, names):
    """Pictures of one color each, no two alike; their paths."""
    paths = [folder / name for name in names]
    for number, path in enumerate(paths):
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 9, 3), 20 * number, np.uint8)).save(path)
    return paths


def overlays(folder):
    return {path.name for path in folder.iterdir() if path.name.endswith("_overlay.png")}


def test_pictures_of_one_name_are_numbered():
    assert inference.distinct(["x", "x", "y"]) == ["x_1", "x_2", "y"]
    assert inference.distinct(["a", "a", "a_1"]) == ["a_2", "a_3", "a_1"]
    assert inference.distinct(["a", "A"]) == ["a_1", "A_2"]  # one file where case does not count
    assert inference.file_names(["head/x", "head_x"]) == {
        "head/x": "head_x_1",
        "head_x": "head_x_2",
    }
    names = ["a", "a_2", "a", "a_1", "A_2", "a"]
    assert len({name.casefold() for name in inference.distinct(names)}) == len(names)


def test_no_picture_takes_the_place_of_another(workdir, tmp_path, capsys):
    pictures = make_pictures(tmp_path, ["a.png", "x/a.png", "a_1.png", "b.png", "b.jpg", "B.bmp"])
    before = contents(tmp_path)
    output = tmp_path / "out"
    assert run(workdir, [*pictures, pictures[0]], output) == 0  # the first is named twice
    told = capsys.readouterr().out.splitlines()[1:]
    written = {file for line in told for file in line.split(": ")[1].split(", ")}
    assert [line.split(": ")[0] for line in told] == [str(path) for path in pictures]
    assert len(overlays(output)) == len(pictures)
    assert written == {str(path) for path in output.iterdir()} - {str(output / "legend.png")}
    for line, number in zip(told, range(len(pictures)), strict=True):
        (overlay,) = (file for file in line.split(": ")[1].split(", ") if "overlay" in file)
        seen = np.asarray(Image.open(overlay), int) - visualize.overlay(
            np.full((8, 9, 3), 20 * number, np.uint8),
            np.asarray(Image.open(overlay.replace("overlay", "classes"))),
            PALETTE,
        )
        assert np.abs(seen).max() <= 3  # JPEG's error
    assert before.items() <= contents(tmp_path).items()


def test_nothing_that_exists_is_overwritten(workdir, tmp_path):
    """Neither inputs, among them older outputs, nor folders, nor the results of another run."""
    pictures = make_pictures(tmp_path, ["a.png", "a_classes.png", "legend.png"])
    (tmp_path / "legend_classes.png").mkdir()
    before = contents(tmp_path)
    for arguments in ([tmp_path], pictures[:1]):
        assert run(workdir, arguments, tmp_path) == 0
        after = contents(tmp_path)
        assert before.items() <= after.items()
        before = after
    names = {name.removesuffix("_overlay.png") for name in overlays(tmp_path)}
    assert names == {"a_2", "a_3", "a_classes", "legend_2"}
    assert (tmp_path / "legend_2.png").exists() and not (tmp_path / "legend_3.png").exists()


# -- what people type ------------------------------------------------------------------------------


def test_folders_and_patterns(workdir, tmp_path, capsys):
    make_pictures(tmp_path, ["in/a.png", "in/b.JPG", "in/deep/c.png", "in/deep/d.png"])
    for name in ("._a.png", "Thumbs.db", "notes.txt"):
        (tmp_path / "in" / name).write_bytes(b"not a picture")
    (tmp_path / "in" / "folder.png").mkdir()
    find = lambda argument: [path.name for path in predict.find_pictures(str(tmp_path / argument))]
    assert find("in") == ["a.png", "b.JPG"]
    assert find("in/*") == ["a.png", "b.JPG"]
    assert find("in/**/*.png") == ["a.png", "c.png", "d.png"]
    assert find("in/[a-c].*") == ["a.png", "b.JPG"]
    assert find("in/none.png") == ["none.png"]  # which is told when it is read
    make_pictures(tmp_path, ["in/[x].png"])
    assert find("in/[x].png") == ["[x].png"]  # a file is not a pattern
    arguments = [tmp_path / "in", tmp_path / "in/deep/?.png", tmp_path / "in/a*"]
    assert run(workdir, arguments, tmp_path / "out") == 0
    names = {name.removesuffix("_overlay.png") for name in overlays(tmp_path / "out")}
    assert names == {"[x]", "a", "b", "c", "d"}
    capsys.readouterr()
    (tmp_path / "empty").mkdir()
    arguments = [tmp_path / "empty", tmp_path / "*.gif"]
    assert run(workdir, arguments, tmp_path / "out") == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 2 and all("there are no pictures (.png, .jpg" in line for line in lines)


def test_bombs_and_deep_pictures_are_told_in_a_line(workdir, picture, tmp_path, capsys):
    bomb, deep = tmp_path / "bomb.png", tmp_path / "deep.tif"
    bomb.write_bytes(files.png(np.zeros((8, 8), int), 8, size=(60_000, 60_000)))
    Image.fromarray(np.ones((4, 4), np.float32)).save(deep)
    assert run(workdir, [bomb, deep, picture], tmp_path / "out") == 1
    first, second = capsys.readouterr().err.splitlines()
    assert f"{bomb}: not a picture that can be read (" in first and "pixels" in first
    assert f"{deep}: not a picture that can be read (its channels have more than 16" in second
    assert overlays(tmp_path / "out") == {"scene_overlay.png"}


def test_an_output_in_the_way_is_told_in_a_line(workdir, picture, tmp_path, capsys):
    (tmp_path / "file").write_text("of somebody")
    for output in (tmp_path / "file", tmp_path / "file" / "below"):
        assert run(workdir, [picture], output) == 1
        (line,) = capsys.readouterr().err.splitlines()
        assert f"--output={output}: a file of this name is in the way" in line
    assert (tmp_path / "file").read_text() == "of somebody"


def test_what_cannot_be_written_is_told_and_leaves_nothing(workdir, picture, tmp_path, capsys):
    long = tmp_path / f"{'x' * 243}.png"  # its name is 255 bytes long with _classes, 256 with more
    long.write_bytes(picture.read_bytes())
    assert run(workdir, [long, picture], tmp_path / "out") == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert "cannot be written (File name too long)" in line
    assert {path.name[0] for path in (tmp_path / "out").iterdir()} == {"s", "l"}


@pytest.mark.parametrize("asked", [1, 3, 6])
def test_an_orientation_is_not_followed_but_told(workdir, tmp_path, capsys, asked):
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
    path = tmp_path / "phone.jpg"
    path.write_bytes(files.turned(image, "JPEG", asked))
    assert run(workdir, [path], tmp_path / "out") == 0
    with Image.open(tmp_path / "out" / "phone_classes.png") as classes:
        assert classes.size == (30, 20)
    notes = capsys.readouterr().err
    assert (f"EXIF orientation {asked} would turn it" in notes) == (asked > 1)


def test_training_and_prediction_read_alike(tmp_path):
    """Sixteen bits, scaled by their range; the tests of decoding have all other kinds."""
    ramp = np.linspace(0, 65535, 256).astype(np.uint16)[None].repeat(4, 0)
    for name in ("ramp.png", "ramp.tif"):
        Image.fromarray(ramp).save(tmp_path / name)
        read = predict.read_image(tmp_path / name)
        np.testing.assert_array_equal(read[0], np.arange(256)[:, None].repeat(3, -1))


def test_only_levels_are_predicted(workdir):
    with pytest.raises(TypeError, match="images are uint8"):
        predict.load(workdir)(np.zeros((8, 8, 3)))


# -- Windows ---------------------------------------------------------------------------------------


def direct(of, image, window, overlap):
    """The weighted mean over all windows, a pixel at a time."""
    height, width = image.shape[:2]
    found = [windows._axis(size, window, overlap) for size in (height, width)]
    total, weight = 0.0, np.zeros((height, width, 1))
    for top in found[0].starts:
        for left in found[1].starts:
            rows, columns = (
                slice(s, s + len(a.weights)) for s, a in zip((top, left), found, strict=True)
            )
            w = (found[0].weights[:, None] * found[1].weights)[..., None]
            part = np.zeros((height, width, 2))
            part[rows, columns] = w * of(image[rows, columns])
            weight[rows, columns] += w
            total = total + part
    return total / weight


@pytest.mark.parametrize(
    ("size", "window", "overlap"),
    [
        ((23, 31), 8, 0.25),
        ((23, 31), 8, 0.75),
        ((9, 40), 16, 0.0),
        ((5, 6), 64, 0.5),
        ((7, 1), 1, 0.9),
    ],
)
def test_windows_are_averaged(size, window, overlap):
    """Of a function of the window's own content and of the place within it."""
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)

    def of(part):
        assert part.shape[:2] == (min(window, size[0]), min(window, size[1]))
        own = part[..., :2] / 255 + np.arange(part.shape[1])[:, None]
        return own.astype(np.float32)

    found = np.concatenate(list(windows.bands(of, image, window=window, overlap=overlap)))
    np.testing.assert_allclose(found, direct(of, image, window, overlap), rtol=1e-5)


def test_windows_and_probabilities_from_the_command_line(workdir, picture, tmp_path, capsys):
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    arguments = [f"--workdir={workdir}", str(picture), "--probabilities"]
    assert predict.main([*arguments, f"--output={whole}"]) == 0
    found = np.load(whole / "scene_probabilities.npy")
    assert found.shape == (*SIZE, 3) and found.dtype == np.float16
    np.testing.assert_allclose(found.astype(np.float32).sum(-1), 1, atol=2e-3)
    classes = np.array(Image.open(whole / "scene_classes.png"))
    reference, _ = predict.load(workdir)(predict.read_image(picture))
    np.testing.assert_array_equal(classes, reference)
    assert predict.main([*arguments, f"--output={cut}", "--window=32", "--overlap=0.5"]) == 0
    assert predict.main([*arguments, f"--output={cut}", "--window=32"]) == 0
    assert np.load(cut / "scene_2_probabilities.npy").shape == (*SIZE, 3)
    assert {path.name for path in cut.glob("scene_2*")} == {
        "scene_2_classes.png", "scene_2_overlay.png", "scene_2_probabilities.npy",
    }  # fmt: skip
    capsys.readouterr()
    for wrong in (["--overlap=0.5"], ["--window=8", "--overlap=1"]):
        assert predict.main([*arguments, f"--output={cut}", *wrong]) == 1
        assert "--overlap is of --window" in capsys.readouterr().err


def test_annotations_of_coco(workdir, picture, tmp_path, capsys):
    arguments = [f"--workdir={workdir}", str(picture), f"--output={tmp_path}", "--coco"]
    assert predict.main(arguments) == 0
    assert predict.main([*arguments, "--window=32"]) == 0
    assert f"annotations of COCO: {tmp_path / 'coco_2.json'}" in capsys.readouterr().out
    content = json.loads((tmp_path / "coco.json").read_text())
    assert [row["name"] for row in content["categories"]] == list(NAMES)
    assert content["images"][0]["file_name"] == str(picture)
    classes = np.asarray(Image.open(tmp_path / "scene_classes.png"))
    areas = {row["category_id"] - 1: row["area"] for row in content["annotations"]}
    assert areas == dict(zip(*np.unique(classes, return_counts=True), strict=True))


def test_a_large_picture_is_never_whole_as_scores(workdir, tmp_path, monkeypatch):
    """Memory is that of a band of windows, and of the picture in bytes."""
    height, width, classes = 1500, 200, 24
    Image.fromarray(np.zeros((height, width, 3), np.uint8)).save(tmp_path / "tall.png")
    one = lambda image: np.ones((*image.shape[:2], classes), np.float32)
    monkeypatch.setattr(windows, "probabilities", lambda trained: one)
    image, trained = predict.read_image(tmp_path / "tall.png"), predict.load(workdir)
    tracemalloc.start()
    try:
        predict.write_probabilities(tmp_path, "tall", image, trained, window=64)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < height * width * classes * np.float32(0).itemsize / 3
    assert np.load(tmp_path / "tall_probabilities.npy", mmap_mode="r").shape[-1] == classes
