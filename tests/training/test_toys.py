"""Tasks, networks and data that register themselves from outside, through the whole program."""

import jax
import numpy as np
import pytest

from rfjax import training
from rfjax.training import config as configs
from rfjax.training import runs
from tests.toys import episodes, flow, recurrent, registered


def configured(task, model, dataset, *, steps=4):
    config = configs.base()
    config.steps, config.eval_every, config.checkpoint_every, config.log_every = steps, 2, 2, 2
    config.batch_size = config.eval_batch_size = jax.device_count()
    config.optimizer.poly_power, config.optimizer.weight_decay = 0.0, 0.0
    config.task.name, config.model.name, config.data.name = task, model, dataset
    return config


def whole_and_in_parts(config, folder):
    """The losses at the end of a run, and of one that was stopped after two steps and went on."""
    whole = training.train(config, folder / "whole")["loss"]
    config.steps = 2
    training.train(config, folder / "parts")
    config.steps = 4
    return whole, training.train(config, folder / "parts")["loss"]


TOYS = {
    "two inputs": (flow, ("toy_flow", "toy_flow", "toy_pairs")),
    "episodes": (episodes, ("toy_episodes", "toy_guided", "toy_episodes")),
}


@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_trains_resumes_and_predicts(toy, tmp_path):
    module, names = TOYS[toy]
    with registered(module):
        whole, parts = whole_and_in_parts(configured(*names), tmp_path)
        assert whole == parts
        trained = runs.load(tmp_path / "whole", step=4)
    examples = [module.load("val", None).source[index] for index in range(3)]
    outputs, _ = trained.predict(examples)
    rows = [trained.task.row(example) for example in examples]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    expected = trained.model.apply(trained.variables, *trained.task.inputs(batch), train=False)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_a_toy_learns(tmp_path):
    """Twenty steps bring the error of the flow down."""
    with registered(flow):
        training.train(configured(*TOYS["two inputs"][1], steps=20), tmp_path)
    records = training.reporting.read_records(tmp_path)
    errors = [record["error"] for record in records if record["split"] == "val"]
    assert errors[-1] < 0.8 * errors[0]


def test_a_collection_survives_checkpoint_and_resume(tmp_path):
    """A layer of a user keeps a memory: it moves, is saved, and goes on where it stood."""
    config = configured("segmentation", "toy_clip", "digit_scenes")
    config.model.head = "toy_recurrent"
    config.data.dir = str(tmp_path / "data")
    scenes = dict(size=24, min_scale=8.0, max_scale=12.0, train_scenes=16, val_scenes=8)
    config.data.options.update(scenes)
    with registered(recurrent):
        whole, parts = whole_and_in_parts(config, tmp_path)
        assert whole == parts
        kept = [
            jax.tree.leaves(runs.load(tmp_path / name, step=step).variables["memory"])
            for name, step in (("parts", 2), ("parts", 4), ("whole", 4))
        ]
    early, late, alone = kept
    np.testing.assert_array_equal(late, alone)
    assert np.all(np.isfinite(late)) and np.any(np.not_equal(early, late))
