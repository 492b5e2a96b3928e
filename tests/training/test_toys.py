"""Tasks, networks and data that register themselves from outside, through the whole program."""

import jax
import numpy as np
import pytest

from rfjax import training
from rfjax.training import config as configs
from rfjax.training import runs
from tests.toys import episodes, flow, recurrent

KNOWN = set()


def known(module):
    """Registers a toy once, as a program that uses it would."""
    if module not in KNOWN:
        module.register()
        KNOWN.add(module)


def configured(task, model, dataset, **options):
    config = configs.base()
    config.steps, config.eval_every, config.checkpoint_every, config.log_every = 4, 2, 2, 2
    config.batch_size = config.eval_batch_size = jax.device_count()
    config.optimizer.poly_power, config.optimizer.weight_decay = 0.0, 0.0
    config.task.name, config.model.name, config.data.name = task, model, dataset
    config.update(options)
    return config


TOYS = {
    "two inputs": (flow, "toy_flow", "toy_flow", "toy_pairs"),
    "episodes": (episodes, "toy_episodes", "toy_guided", "toy_episodes"),
}


@pytest.mark.parametrize("toy", TOYS)
def test_a_toy_trains_resumes_and_predicts(toy, tmp_path):
    module, *names = TOYS[toy]
    known(module)
    config = configured(*names)
    whole = training.train(config, tmp_path / "whole")
    with config.unlocked():
        config.steps = 2
    training.train(config, tmp_path / "parts")
    with config.unlocked():
        config.steps = 4
    assert training.train(config, tmp_path / "parts")["loss"] == whole["loss"]

    trained = runs.load(tmp_path / "whole", step=4)
    examples = [module.load("val", None).source[index] for index in range(3)]
    outputs, _ = trained.predict(examples)
    rows = [trained.task.row(example) for example in examples]
    batch = {name: np.stack([row[name] for row in rows]) for name in rows[0]}
    expected = trained.model.apply(trained.variables, *trained.task.inputs(batch), train=False)
    np.testing.assert_allclose(outputs, expected, rtol=1e-5, atol=1e-6)


def test_a_toy_learns(tmp_path):
    """Twenty steps bring the error of the flow down."""
    known(flow)
    config = configured("toy_flow", "toy_flow", "toy_pairs", steps=20, eval_every=1, log_every=20)
    training.train(config, tmp_path)
    records = training.reporting.read_records(tmp_path)
    errors = [record["error"] for record in records if record["split"] == "val"]
    assert errors[-1] < 0.8 * errors[0]


def test_a_collection_survives_checkpoint_and_resume(tmp_path):
    """A layer of a user keeps a memory: it moves, is saved, and goes on where it stood."""
    known(recurrent)
    config = configured("segmentation", "toy_clip", "digit_scenes")
    config.model.head = "toy_recurrent"
    config.data.dir = str(tmp_path / "data")
    config.data.options.update(
        size=24, min_scale=8.0, max_scale=12.0, train_scenes=16, val_scenes=8
    )
    whole = training.train(config, tmp_path / "whole")
    with config.unlocked():
        config.steps = 2
    training.train(config, tmp_path / "parts")
    early = runs.load(tmp_path / "parts").variables["memory"]
    with config.unlocked():
        config.steps = 4
    assert training.train(config, tmp_path / "parts")["loss"] == whole["loss"]
    (memory,) = jax.tree.leaves(runs.load(tmp_path / "parts", step=4).variables["memory"])
    (again,) = jax.tree.leaves(runs.load(tmp_path / "whole", step=4).variables["memory"])
    np.testing.assert_array_equal(memory, again)
    assert np.all(np.isfinite(memory)) and np.any(memory != jax.tree.leaves(early)[0])
