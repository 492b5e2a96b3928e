"""The command line: tables, the picture, errors."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from rfjax import visualize
from rfjax.receptive_field import ReceptiveField, networks
from rfjax.receptive_field import __main__ as command
from rfjax.receptive_field.command import listing
from rfjax.training import loop, runs
from tests.training.runs import tiny_config


def test_a_published_network_is_listed(capsys):
    assert command.main(["--model=fcn_vgg16"]) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows[0] == ["layer", "size", "stride", "offset"]
    assert ["pool5", "212", "32", "-83.5"] in rows
    assert rows[-1] == ["score", "404", "32", "12.5"]


def test_a_network_is_listed_and_drawn(tmp_path, capsys):
    output = tmp_path / "field.png"
    small = ["--backbone_option", "width=2", "--backbone_option", "depth=1"]
    options = ["--model=resnet_tiny", "--head=conv3", *small, "--size=33", "--draws=1"]
    assert command.main([*options, f"--output={output}"]) == 0
    out = capsys.readouterr().out
    rows = [line.split()[:3] for line in out.splitlines()]
    assert ["head", "23", "4"] in rows
    assert "95 % of its mass within" in out
    with Image.open(output) as picture:
        assert min(picture.size) > 300


def test_a_classifier_is_drawn_by_its_features(tmp_path, capsys):
    small = ["--backbone_option", "width=2", "--size=33", "--draws=1"]
    options = ["--model=resnet_tiny", "--head=classify", *small]
    assert command.main([*options, f"--output={tmp_path / 'field.png'}"]) == 0
    rows = [line.split()[:2] for line in capsys.readouterr().out.splitlines()]
    assert ["backbone/layer1_1/conv2", "31"] in rows
    assert (tmp_path / "field.png").exists()


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A run of two steps that ends with remat, which receptive fields are read without."""
    folder = tmp_path_factory.mktemp("run")
    options = {"steps": 2, "model__remat": True, "model__backbone_options__depth": 1}
    loop.train(tiny_config(folder / "data", **options), folder / "run")
    return folder / "run"


def test_a_trained_run_is_drawn_on_a_picture(workdir, tmp_path, capsys):
    """And the command and the function measure the same."""
    image = np.random.default_rng(0).integers(0, 256, (34, 30, 3), dtype=np.uint8)
    picture, output = tmp_path / "scene.png", tmp_path / "field.png"
    Image.fromarray(image).save(picture)
    options = [f"--workdir={workdir}", f"--image={picture}", "--draws=1", f"--output={output}"]
    capsys.readouterr()
    assert command.main(options) == 0
    out = capsys.readouterr().out
    rows = [line.split()[:3] for line in out.splitlines()]
    assert ["backbone", "15", "4"] in rows
    assert "on 1 draws of 30 x 34 pixels" in out and "ends at the border" in out
    field = networks.effective_of_run(workdir, image[None])
    y, x = np.sqrt(np.diag(field.covariance))
    assert field.map.shape == field.output_size == (34, 30)
    assert f"standard deviation {y:.1f} (y), {x:.1f} (x) pixels" in out
    with Image.open(output) as shown:
        assert min(shown.size) > 300


def test_a_run_comes_with_what_it_was_trained_with(workdir):
    run = networks.load_run(workdir)
    assert run.step == 2 and not run.model.backbone.remat
    assert run.normalization == runs.load(workdir).task.normalization
    assert "covariance" in run.variables["params"]["head"]


def test_a_field_without_a_bound_has_no_numbers():
    nan = (float("nan"),) * 2
    field = ReceptiveField((129, 129), nan, nan, clipped=(True, True), data_dependent=True)
    row = listing({"head": field}).splitlines()[1]
    assert row.split()[:4] == ["head", "any", "-", "-"] and row.endswith("depend on the input")


def test_what_bounds_a_layer_is_told_below_the_table():
    """At the first layer that has it, as those after it inherit it."""
    nan, clipped = (float("nan"),) * 2, (True, True)
    notes = ("`svd` has no rule here",)
    bound = ReceptiveField((9, 9), nan, nan, clipped=clipped, missing=("svd",), notes=notes)
    more = dataclasses.replace(bound, notes=(*notes, "`sort` depends on the whole axis"))
    rows = listing({"whitening": bound, "head": more}).splitlines()
    assert rows[1].split()[:4] == ["whitening", "any", "-", "-"]
    assert rows[1].endswith("no rule for svd: a bound")
    assert rows[3:] == [f"whitening: {notes[0]}", "head: `sort` depends on the whole axis"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model=vgg"], "model is one of resnet_18"),
        (["--model=resnet_tiny", "--head_option", "sigma"], "want NAME=VALUE, as sigma=2"),
        (["--workdir=nowhere"], "nowhere is not a directory"),
        (["--model=resnet_tiny", "--head=no"], "head is one of score"),
    ],
)
def test_errors_say_what_is_wrong(options, message, capsys):
    assert command.main(options) == 1
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--model=fcn_alexnet", "--image=a.png", "--head=score"], "does not take --head, --image"),
        (["--workdir=w", "--backbone_option", "width=2"], "does not take --backbone_option"),
        (["--model=resnet_tiny", "--step=3"], "does not take --step"),
        (["--table", "--draws=2"], "--table does not take --draws"),
        (["--model=resnet_tiny", "--size=0"], "must be at least 1; got 0"),
    ],
)
def test_options_that_would_do_nothing_are_refused(options, message, capsys):
    with pytest.raises(SystemExit):
        command.main(options)
    assert message in capsys.readouterr().err


def test_something_has_to_be_asked_for(capsys):
    with pytest.raises(SystemExit):
        command.main([])
    assert "--model" in capsys.readouterr().err


def test_a_surround_is_drawn_as_it_is_computed_with(monkeypatch):
    """Of 2 pixels of the features, which have a stride of 4, whatever bounds it."""
    drawn = {}

    def figure(image, field, *, learned, **options):
        drawn.update(learned)

    monkeypatch.setattr(visualize, "receptive_field", figure)
    monkeypatch.setattr(visualize, "save", lambda figure, path: None)
    small = ["--backbone_option", "width=2", "--backbone_option", "depth=1"]
    options = ["--head=dog", "--head_option", "max_surround=2.2", "--size=9", "--draws=1"]
    assert command.main(["--model=resnet_tiny", *small, *options]) == 0
    sigmas = {path: np.sqrt(np.diag(matrix)).tolist() for path, matrix in drawn.items()}
    assert list(sigmas) == ["head/center", "head/surround"]
    np.testing.assert_allclose(sigmas["head/center"], [2.0, 2.0], rtol=1e-5)
    np.testing.assert_allclose(sigmas["head/surround"], [8.0, 8.0], rtol=1e-5)
