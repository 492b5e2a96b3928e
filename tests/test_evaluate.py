"""Scores of a trained run without training, against those of training and of loops."""

import json

import jax
import numpy as np
import pytest
from PIL import Image

from rfjax import evaluate, training
from rfjax.training import evaluation, runs
from tests.training.runs import tiny_config


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("evaluated")
    config = tiny_config(folder / "data", steps=2, eval_every=2)
    return folder / "run", training.train(config, folder / "run")


def test_the_scores_are_those_of_training(run, capsys):
    workdir, result = run
    assert evaluate.main([f"--workdir={workdir}"]) == 0
    stored = json.loads((workdir / "evaluation/val/scores.json").read_text())
    assert stored["step"] == result["step"] and stored["split"] == "val"
    for name in ("mean_iu", "pixel_accuracy"):
        assert stored[name] == result[name]
    assert stored["loss"] == pytest.approx(result["loss"], rel=1e-6)
    told = capsys.readouterr().out
    assert "| background |" in told and f"mean IU {100 * result['mean_iu']:.2f} %" in told
    report = (workdir / "evaluation/val/report.md").read_text()
    assert "| class | IU % | accuracy % | pixels % |" in report
    assert Image.open(workdir / "evaluation/val/confusion.png").size[0] > 200


def test_other_splits_and_label_pictures(run, tmp_path):
    workdir, _ = run
    labels = tmp_path / "labels"
    arguments = [f"--workdir={workdir}", "--split=train", f"--output={tmp_path / 'out'}"]
    assert evaluate.main([*arguments, f"--labels={labels}", "--batch_size=5"]) == 0
    trained = runs.load(workdir)
    dataset = evaluation.load_data(trained, "train")
    assert len(list(labels.iterdir())) == len(dataset)
    example = dataset.source[3]
    written = Image.open(labels / f"{example['id']}.png")
    assert written.mode == "P"
    np.testing.assert_array_equal(np.asarray(written), trained(example["image"])[0])


def test_averages_over_scales_and_mirror_images(run):
    trained = runs.load(run[0])
    image = evaluation.load_data(trained, "val").source[0]["image"]
    images = trained.task.normalization(image)[None]
    model = evaluation.averaged(trained, scales=(1.0, 0.5), flip=True)
    parts = []
    for size in (32, 16):
        seen = images if size == 32 else jax.image.resize(images, (1, size, size, 3), "bilinear")
        for turn in (1, -1):
            scores = trained.model.apply(trained.variables, seen[:, :, ::turn])
            found = jax.nn.softmax(scores)[:, :, ::turn]
            parts.append(jax.image.resize(found, (1, 32, 32, found.shape[-1]), "bilinear"))
    np.testing.assert_allclose(
        np.exp(model.apply(trained.variables, images)), np.mean(parts, 0), atol=1e-5
    )
    assert evaluation.averaged(trained) is trained.model


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--scales=0"], "want numbers from 0.05 to 20 with commas between"),
        (["--split=half"], "invalid choice: 'half'"),
        (["--batch_size=0"], "must be at least 1; got 0"),
        (["--step=7"], "has no checkpoint of step 7; there are 2"),
        (["--split=test"], "data: split of digit_scenes is one of train, val; got 'test'"),
        (["--labels={run}"], "want a new or empty directory"),
    ],
)
def test_mistakes_are_one_line(run, arguments, message, capfd):
    try:
        given = [argument.format(run=run[0]) for argument in arguments]
        status = evaluate.main([f"--workdir={run[0]}", *given])
    except SystemExit as stopped:
        status = stopped.code
    error = capfd.readouterr().err.splitlines()
    assert status in (1, 2) and len(error) == 1 and message in error[0]
