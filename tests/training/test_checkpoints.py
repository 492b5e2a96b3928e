"""What is kept, what is refused, what comes back."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfjax.training import checkpoints, optimizers, state
from rfjax.training.checkpoints import CheckpointError, Checkpoints


@pytest.fixture
def current():
    params = {"head": {"kernel": jnp.arange(4.0), "covariance": jnp.array([0.5])}}
    optimizer = optimizers.sgd(optimizers.poly_schedule(0.1, steps=9), weight_decay=0.1)
    return state.create({"params": params, "batch_stats": {"bn": {"mean": jnp.ones(2)}}}, optimizer)


def at(current, step):
    return current.replace(step=np.int32(step))


def test_a_state_comes_back_as_it_was(tmp_path, current):
    saved = current.replace(
        step=np.int32(7), params=jax.tree.map(lambda a: a * np.pi, current.params)
    )
    with Checkpoints(tmp_path) as written:
        written.save(saved, meta={"note": [1, None]})
    with Checkpoints(tmp_path) as read:
        restored = read.restore(current)
        assert read.meta(7) == {"note": [1, None]}
    assert jax.tree.structure(restored) == jax.tree.structure(saved)
    assert isinstance(restored.opt_state, tuple)
    chex.assert_trees_all_equal(restored, saved)


def test_a_network_without_statistics(tmp_path):
    plain = state.create({"params": {"head": {"kernel": jnp.ones(2)}}}, optax.sgd(0.1))
    with Checkpoints(tmp_path) as written:
        written.save(at(plain, 1), meta={})
    with Checkpoints(tmp_path) as read:
        assert read.restore(plain).collections == {"batch_stats": {}}
        assert int(read.restore(plain).step) == 1


def test_the_latest_and_the_best_are_kept(tmp_path, current):
    scores = {1: 0.2, 2: 0.7, 3: None, 4: 0.5, 5: None, 6: float("nan")}
    with Checkpoints(tmp_path, keep_latest=2) as written:
        for step, score in scores.items():
            written.save(at(current, step), meta={}, score=score)
        written.wait()
        assert written.steps == [2, 5, 6]
        assert (written.latest_step, written.best_step) == (6, 2)
    assert checkpoints.load(tmp_path)[2] == 2


def test_without_evaluations_the_latest_is_best(tmp_path, current):
    with Checkpoints(tmp_path) as written:
        for step in (1, 2):
            written.save(at(current, step), meta={})
    assert checkpoints.load(tmp_path)[2] == 2


def test_a_state_that_is_not_finite_is_never_saved(tmp_path, current):
    bad = at(current, 2).replace(params={"head": {"kernel": np.array([1.0, np.nan])}})
    with Checkpoints(tmp_path) as written:
        written.save(at(current, 1), meta={})
        with pytest.raises(
            checkpoints.NonFiniteState, match=r"kernel.* is not finite after step 2"
        ):
            written.save(bad, meta={})
        assert written.steps == [1]


def test_saving_a_step_twice_keeps_the_first(tmp_path, current):
    with Checkpoints(tmp_path) as written:
        written.save(at(current, 1), meta={"try": 1})
        written.save(at(current, 1), meta={"try": 2})
        written.wait()
        assert written.meta(1) == {"try": 1}


def test_a_half_written_checkpoint_is_ignored(tmp_path, current):
    with Checkpoints(tmp_path) as written:
        written.save(at(current, 3), meta={})
    leftover = tmp_path / "checkpoints" / "9.orbax-checkpoint-tmp"
    (leftover / "variables").mkdir(parents=True)
    with Checkpoints(tmp_path) as read:
        assert read.latest_step == 3


def test_errors_say_what_is_there(tmp_path, current):
    with pytest.raises(CheckpointError, match="not a directory"):
        checkpoints.load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="holds no checkpoints/"):
        checkpoints.load(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(CheckpointError, match="no complete checkpoint"):
        checkpoints.load(tmp_path)
    with Checkpoints(tmp_path) as written:
        written.save(at(current, 5), meta={})
    with pytest.raises(CheckpointError, match="no checkpoint of step 4; there are 5"):
        checkpoints.load(tmp_path, step=4)
