"""The running mean of the variables: its numbers, over devices, saved, resumed, and used."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen, traverse_util

from rfjax import training
from rfjax.data import survey
from rfjax.training import (
    composed,
    evaluation,
    interruption,
    optimizers,
    pictures,
    preparation,
    runs,
    state,
    steps,
    weights,
)
from rfjax.training.average import Average
from rfjax.training.checkpoints import Checkpoints
from tests.training.runs import arrays, assert_identical, tiny_config

DECAY = 0.8


def by_loop(mean, values, *, decay, every=1):
    """float64; `values` are those after each step."""
    for step, value in enumerate(values):
        if (step + 1) % every == 0:
            n = step // every
            d = min(decay, (1 + n) / (10 + n))
            mean = d * mean + (1 - d) * value
    return mean


@pytest.mark.parametrize("every", [1, 3])
@pytest.mark.parametrize("decay", [0.15, 0.999])
def test_the_mean_is_that_of_a_loop(decay, every):
    rng = np.random.default_rng(0)
    values, start = rng.normal(size=(40, 5)), rng.normal(size=5)
    follow, mean = Average(decay, every), {"w": jnp.asarray(start, jnp.float32)}
    for step, value in enumerate(values):
        mean = follow(mean, {"w": jnp.asarray(value, jnp.float32)}, step)
    np.testing.assert_allclose(mean["w"], by_loop(start, values, decay=decay, every=every), 1e-5)


def test_what_does_not_move_stays_bit_by_bit_and_counters_are_taken_over():
    frozen = np.random.default_rng(0).normal(size=1000).astype(np.float32)
    mean = {"w": frozen, "n": np.int32(0)}
    for step in range(5):
        mean = Average(0.77)(mean, {"w": jnp.asarray(frozen), "n": jnp.int32(step)}, step)
    assert np.asarray(mean["w"]).tobytes() == frozen.tobytes()
    assert int(mean["n"]) == 4


class Small(linen.Module):
    """Parameters and running statistics."""

    @linen.compact
    def __call__(self, images, train=False):
        x = linen.Conv(4, (3, 3), use_bias=False)(images)
        x = linen.BatchNorm(use_running_average=not train, momentum=0.5, axis_name=steps.AXIS)(x)
        return linen.Conv(3, (1, 1))(linen.relu(x))


def batch(seed):
    rng = np.random.default_rng(seed)
    label = rng.integers(0, 3, (8, 6, 6)).astype(np.int32)
    return {"image": rng.normal(size=(8, 6, 6, 3)).astype(np.float32), "label": label}


@pytest.mark.parametrize("parallel", ["pmap", "shard_map"])
def test_steps_over_devices_follow_all_variables(parallel):
    """Two gradients make one update; between updates the mean stays, though statistics move."""
    optimizer = optimizers.accumulated(optimizers.sgd(lambda t: 0.3), 2, "mean")
    made = state.initial_variables(Small(), jax.random.key(0), batch(0)["image"])
    current = state.create(made, optimizer, averaged=True)
    start = traverse_util.flatten_dict(current.average)
    step = steps.make_train_step(Small(), optimizer, average=Average(DECAY, 2))
    devices = jax.devices()[:4]
    moved = steps.data_parallel(step, donate=True, devices=devices, parallel=parallel)
    current = steps.replicate(current, devices, parallel=parallel)
    raw = []
    for number in range(6):
        current, _ = moved(current, steps.shard(batch(number), 4))
        raw.append(jax.tree.map(np.array, jax.device_get(current.variables)))
    found = traverse_util.flatten_dict(jax.device_get(current.average))
    each = [traverse_util.flatten_dict(tree) for tree in raw]
    assert {path[0] for path in found} == {"params", "batch_stats"}
    for path, mean in found.items():
        wanted = by_loop(start[path], [tree[path] for tree in each], decay=DECAY, every=2)
        np.testing.assert_allclose(mean, wanted, atol=1e-6, err_msg=path)
        assert abs(mean - each[-1][path]).max() > 1e-5, path


@pytest.fixture(scope="module", autouse=True)
def undrawn():
    """Evaluations without figures, which take longer than these runs."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pictures.Pictures, "draw", lambda *_, **__: {})
        yield


@pytest.fixture(scope="module")
def settings(data_dir):
    return {
        "data_dir": data_dir,
        "model__head": "score",
        "optimizer__average": DECAY,
        "optimizer__accumulate": 2,
        "task__class_weights": "median_frequency",
        "task__hard_examples": 0.5,
    }


@pytest.fixture(scope="module")
def whole(tmp_path_factory, settings):
    workdir = tmp_path_factory.mktemp("whole")
    return workdir, training.train(tiny_config(**settings), workdir)


def test_a_stopped_run_goes_on_to_the_same_mean(whole, settings, tmp_path, monkeypatch):
    config = tiny_config(**settings)
    with monkeypatch.context() as patch:
        reached = lambda self, step: 15 if step == 3 else None
        patch.setattr(interruption.Interruption, "reached", reached)
        with pytest.raises(training.Interrupted):
            training.train(config, tmp_path)
    # Class weights are those of the run, and are not measured again.
    monkeypatch.setattr(composed, "survey", lambda dataset: pytest.fail("measured again"))
    training.train(config, tmp_path)
    assert_identical(arrays(tmp_path), arrays(whole[0]))
    names = {name for name in arrays(tmp_path) if name.startswith("['optimizer']['variables']")}
    assert names, "what training goes on with is saved, too"


def test_the_mean_is_what_is_evaluated_and_used(whole, settings):
    workdir, result = whole
    trained, config = runs.load(workdir, step=8), tiny_config(**settings)
    scores, _ = evaluation.evaluate(trained, evaluation.load_data(trained, "val"), batch_size=8)
    np.testing.assert_allclose(scores["loss"], result["loss"], rtol=1e-5)
    np.testing.assert_allclose(scores["class_iu"], result["class_iu"], rtol=1e-6)
    with Checkpoints(workdir, read_only=True) as kept:
        behind = kept._store.arrays(8, "optimizer")["variables"]
    mean = traverse_util.flatten_dict(trained.variables)
    apart = [path for path, raw in traverse_util.flatten_dict(behind).items()
             if not np.array_equal(raw, mean[path])]  # fmt: skip
    assert {path[0] for path in apart} == {"params", "batch_stats"}

    best = runs.load(workdir)
    config.model.weights = str(workdir)
    drawn = jax.tree.map(np.zeros_like, best.variables)
    started = weights.load(config, drawn, num_classes=11)
    jax.tree.map(np.testing.assert_array_equal, started, best.variables)


def test_class_weights_are_measured_once_and_kept_with_the_run(whole, settings):
    train_data, _ = preparation.datasets(tiny_config(**settings))
    wanted = survey.median_frequency(survey.survey(train_data))
    task = runs.load(whole[0]).task
    assert len(set(wanted)) > 2
    assert task.class_weights == wanted
    assert task.hard_examples == 0.5
