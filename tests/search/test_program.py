"""Halving, enumeration, files, and going on after a kill."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import search
from rfjax.search.driver import Search
from rfjax.training import CheckpointError, Interrupted
from tests.search.problems import PROBLEM, assert_same, batch, run

EIGHT = search.grid(sigma=[0.4, 0.8, 1.2, 1.6], seed=[0, 1])


class Killed(Exception):
    """What stands for the end of the process."""


def killed_at(last):
    def batches(step):
        if step == last:
            raise Killed
        return batch(step)

    return batches


@pytest.mark.parametrize("mapping, burst", [("loop", 1), ("vmap", 4)])
def test_a_killed_search_goes_on(mapping, burst, tmp_path):
    options = {"mapping": mapping, "steps_per_dispatch": burst, "eval_every": 6}
    options |= {"halving": search.Halving((9,)), "checkpoint_every": 5}
    whole = run(EIGHT, **options)
    for last in (7, 13):
        with pytest.raises(Killed):
            run(EIGHT, batches=killed_at(last), checkpoints=tmp_path, **options)
    resumed = run(EIGHT, checkpoints=tmp_path, **options)
    assert_same(whole, resumed)
    assert_same(whole, run(EIGHT, batches=killed_at(0), checkpoints=tmp_path, **options))


def test_a_stopped_search_goes_on_with_an_iterator(tmp_path):
    batches = lambda: (batch(step) for step in range(20))
    stop = lambda step: 15 if step == 8 else None
    with pytest.raises(Interrupted, match="step 8"):
        run(EIGHT, batches=batches(), checkpoints=tmp_path, stop=stop)
    assert_same(run(EIGHT), run(EIGHT, batches=batches(), checkpoints=tmp_path))


def test_another_search_is_not_resumed(tmp_path):
    run(EIGHT, checkpoints=tmp_path, steps=2)
    with pytest.raises(CheckpointError, match=r"population\.sigma: .*; shapes: "):
        run(EIGHT[:4], checkpoints=tmp_path, steps=2)


def test_halving_trains_the_better_ones_on():
    full, halved = run(EIGHT), run(EIGHT, halving=search.Halving((5, 10)))
    assert np.bincount(halved.gradient_steps, minlength=21)[[5, 10, 20]].tolist() == [4, 2, 2]
    kept = np.flatnonzero(halved.dropped_at < 0)
    np.testing.assert_array_equal(halved.losses[kept], full.losses[kept])
    assert np.all(np.isnan(halved.losses[halved.dropped_at == 5, 5:]))
    first = halved.score_steps.tolist().index(5)
    dropped = halved.scores[halved.dropped_at == 5, first]
    assert dropped.max() <= halved.scores[halved.dropped_at != 5, first].min()
    assert halved.best in kept and np.all(np.isfinite(halved.final_sigmas))


@pytest.mark.parametrize("devices", [1, 4])
def test_what_halving_drops_is_not_computed(devices, monkeypatch):
    rows = []
    train = Search._train
    monkeypatch.setattr(
        Search, "_train", lambda self, *a: (rows.append(self.how.rows), train(self, *a))[1]
    )
    options = {"mapping": "vmap", "devices": jax.devices()[:devices], "steps": 4}
    options |= {"steps_per_dispatch": 2, "halving": search.Halving((2,), keep=0.25)}
    halved = run(EIGHT, **options)
    assert rows == [8, 2] and halved.gradient_steps.sum() == 8 * 2 + 2 * 2
    np.testing.assert_allclose(
        halved.losses[halved.best], run(EIGHT[halved.best :][:1], steps=4).losses[0], rtol=1e-5
    )


def test_compilation_is_booked_once():
    problem = search.Problem(PROBLEM.init, PROBLEM.loss)  # one that was not compiled before
    first, again = (run(EIGHT[:2], problem=problem, steps=2) for _ in range(2))
    assert first.compile_seconds > 0 and again.compile_seconds == 0
    assert np.all(first.seconds > 0) and np.all(again.seconds > 0)


def test_progress_keeps_what_it_was_shown():
    shown = []
    progress = lambda step, known: shown.append((step, known))
    run(EIGHT[:2], eval_every=10, progress=progress)
    assert [step for step, _ in shown] == [10, 20]
    known = shown[0][1]
    assert np.all(np.isfinite(known.losses[:, :10])) and np.all(np.isnan(known.losses[:, 10:]))
    assert np.all(known.params["weight"][:, 0] != shown[1][1].params["weight"][:, 0])


def test_halving_without_scores_goes_by_the_loss():
    halved = run(EIGHT, validation=None, halving=search.Halving((10,), keep=0.25))
    recent = halved.losses[:, 9]
    assert recent[halved.dropped_at < 0].max() <= recent[halved.dropped_at == 10].min()
    assert halved.scores.shape == (8, 0) and halved.best in np.flatnonzero(halved.dropped_at < 0)


@pytest.mark.parametrize("wrong, message", [
    ({"rungs": (3, 2)}, r"increasing rungs from 1; got \(3, 2\)"),
    ({"rungs": (1,), "keep": 1.0}, "keep must be above 0 and below 1; got 1.0"),
])  # fmt: skip
def test_halving_is_checked(wrong, message):
    with pytest.raises(ValueError, match=message):
        search.Halving(**wrong)


def test_enumeration_is_training_with_fixed_structure():
    starts = search.population(sigma=0.3, seed=[0, 1], covariance_multiplier=5.0)
    options = {"steps": 20, "validation": [batch(100)]}
    key = jax.random.key(3)
    table = search.enumerate(key, PROBLEM, starts, batch, values=[0.5, 0.9, 2.5], **options)
    assert table.values.tolist() == [0.5, 0.5, 0.9, 0.9, 2.5, 2.5]
    sigmas = np.broadcast_to(table.values[:, None, None, None], table.sigmas.shape)
    np.testing.assert_allclose(table.sigmas, sigmas, rtol=1e-6)
    assert np.all(table.losses[:, -1] != table.losses[:, 0])  # weights are trained
    fixed = search.population(sigma=0.9, seed=1, covariance_multiplier=0.0)
    np.testing.assert_array_equal(table.losses[3], run(fixed).losses[0])


def test_enumeration_of_what_changes_shapes(tmp_path):
    def problem(taps):
        def loss(params, batch):
            rolled = [jnp.roll(batch["x"], k - taps // 2, 1) for k in range(taps)]
            got = sum(k * row for k, row in zip(params["kernel"], rolled, strict=True))
            return jnp.mean((got - batch["y"]) ** 2)

        return search.Problem(lambda key, c: {"kernel": jnp.zeros(taps)}, loss)

    starts = search.population(seed=[0, 1])
    table = search.enumerate(
        jax.random.key(0),
        problem,
        starts,
        batch,
        values=[1, 3],
        over="taps",
        steps=20,
        checkpoints=tmp_path,
    )
    assert table.over == "taps" and table.values.tolist() == [1, 1, 3, 3]
    assert table.layers == () and table.values[table.best] == 3
    with pytest.raises(ValueError, match="function of the step"):
        search.enumerate(jax.random.key(0), problem, starts, iter([]), values=[1], steps=1)


def test_results_are_kept_in_files(tmp_path):
    starts = search.population(seed=[0, 1], structured={"first": True}, extra={"a": np.arange(2.0)})
    made = run(starts, steps=3)
    made.save(tmp_path / "deep" / "result.npz")
    read = search.load(tmp_path / "deep" / "result.npz")
    assert read.layers == made.layers and read.receptive_fields is None and len(read) == 2
    for name in ("losses", "covariances", "scores", "score_steps", "seconds"):
        np.testing.assert_array_equal(getattr(read, name), getattr(made, name))
    chex.assert_trees_all_equal(read.population, made.population)
