"""Whole runs in this process: files, resuming, stopping, failing."""

import json

import numpy as np
import pytest

from rfjax import training
from rfjax.training import interruption, loop, reporting, scoring
from tests.training.runs import arrays, assert_identical, set_key, tiny_config


@pytest.fixture(scope="module")
def finished(tmp_path_factory, data_dir):
    """A complete run and its result."""
    workdir = tmp_path_factory.mktemp("finished")
    return workdir, training.train(tiny_config(data_dir), workdir)


def test_a_run_leaves_its_files(finished):
    workdir, result = finished
    stored = json.loads((workdir / "result.json").read_text())
    assert stored["step"] == result["step"] == 8
    assert set(stored) >= {
        "mean_iu", "pixel_accuracy", "mean_accuracy", "frequency_weighted_iu", "class_iu", "sigmas",
        "images_per_second",
    }  # fmt: skip
    assert len(stored["class_iu"]) == 11
    assert 0 < stored["mean_iu"] < 1
    (sigma,) = stored["sigmas"].values()
    assert len(sigma) == 2 and min(sigma) > 0
    assert json.loads((workdir / "config.json").read_text())["steps"] == 8
    assert list(workdir.glob("events.out.tfevents.*"))
    names = {path.name for path in (workdir / "figures").iterdir()}
    assert names == {"curves.png", "sigmas.png", "covariances.png", "examples.png"}


def test_records_come_in_order_without_gaps(finished):
    records = reporting.read_records(finished[0])
    assert [(r["step"], r["split"]) for r in records] == [
        (2, "train"), (4, "train"), (4, "val"), (6, "train"), (8, "train"), (8, "val")
    ]  # fmt: skip


def test_evaluation_counts_every_image_once(finished, data_dir):
    """Five images on eight devices: three rows are filler, and must not count."""
    config = tiny_config(data_dir)
    options = {k: v for k, v in config.data.options.to_dict().items() if v is not None}
    source = loop.data.load("digit_scenes", "val", data_dir=str(data_dir), **options).source
    seen = []

    def eval_step(variables, batch):
        confusion = np.zeros((11, 11), np.int32)
        confusion[0, 0] = (batch["label"] != 255).sum()
        seen.append(batch["image"].shape)
        return {"measures": confusion, "loss": np.float32(0), "count": np.float32(1)}

    dataset = loop.data.load("digit_scenes", "val", data_dir=str(data_dir), **options)
    batches = loop.data.eval_batches(dataset, batch_size=scoring.eval_rows(3))
    scores = scoring.evaluate(eval_step, {}, batches)
    assert seen == [(8, 1, 32, 32, 3)]
    assert scores["pixel_accuracy"] == 1.0
    assert len(source) == 5


def test_a_complete_run_is_not_repeated(finished, data_dir):
    workdir, result = finished
    before = (workdir / "metrics.jsonl").read_text()
    again = training.train(tiny_config(data_dir, log_every=1), workdir)
    assert again["mean_iu"] == result["mean_iu"]
    assert (workdir / "metrics.jsonl").read_text() == before


def stop_after(monkeypatch, stop):
    """Makes the next run believe in a SIGTERM after step `stop`."""
    monkeypatch.setattr(
        interruption.Interruption, "reached", lambda self, step: 15 if step == stop else None
    )


def test_a_stopped_run_goes_on_to_the_same_end(finished, data_dir, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        stop_after(patch, 3)
        with pytest.raises(training.Interrupted, match="SIGTERM at step 3") as stopped:
            training.train(tiny_config(data_dir), tmp_path)
    assert stopped.value.signum == 15
    assert int(arrays(tmp_path)["['optimizer']['step']"]) == 3
    result = training.train(tiny_config(data_dir), tmp_path)
    assert_identical(arrays(tmp_path), arrays(finished[0]))
    assert result["mean_iu"] == finished[1]["mean_iu"]
    records = [(r["step"], r["split"]) for r in reporting.read_records(tmp_path)]
    assert len(records) == len(set(records))


def test_another_config_is_refused_key_by_key(finished, data_dir):
    changed = tiny_config(data_dir, seed=3, optimizer__learning_rate=0.2, log_every=7)
    with pytest.raises(training.ConfigError) as refused:
        training.train(changed, finished[0])
    message = str(refused.value)
    assert "optimizer.learning_rate: 0.1 -> 0.2" in message
    assert "seed: 0 -> 3" in message
    assert "log_every: " not in message
    assert "--workdir" in message


def test_a_loss_that_is_not_finite_ends_the_run(data_dir, tmp_path, monkeypatch):
    config = tiny_config(data_dir, checkpoint_every=2, eval_every=100)
    original = loop.steps.shard

    def poisoned(batch, devices):
        poisoned.calls += 1
        if poisoned.calls == 5:
            batch = batch | {"image": batch["image"] * np.nan}
        return original(batch, devices)

    poisoned.calls = 0
    monkeypatch.setattr(loop.steps, "shard", poisoned)
    with pytest.raises(training.TrainingFailed) as failed:
        training.train(config, tmp_path)
    assert "the loss is nan at step 5" in str(failed.value)
    assert "The checkpoint of step 4 is kept" in str(failed.value)
    with loop.Checkpoints(tmp_path, read_only=True) as kept:
        assert kept.steps == [2, 4]
    assert all(np.isfinite(array).all() for array in arrays(tmp_path).values())


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 12, "batch_size: got 12; want a multiple of the 8 devices"),
        ("model.head_options.bound", 1.0, "model: head 'composition' takes .*; got bound"),
        ("data.options.min_scale", 50.0, "data: .*50"),
        ("data.augmentation.scale", (0.5, 2.0), "data: .*crop"),
    ],
)
def test_wrong_configs_end_before_the_first_step(data_dir, tmp_path, key, value, message):
    config = tiny_config(data_dir)
    set_key(config, key, value)
    with pytest.raises(training.ConfigError, match=message):
        training.train(config, tmp_path)


def test_structure_without_covariances_is_refused(data_dir, tmp_path):
    config = tiny_config(data_dir, trainable="structure", model__head="score")
    with pytest.raises(training.ConfigError, match="selects no parameter"):
        training.train(config, tmp_path)
