"""What is refused, and with which words, before anything is compiled."""

import jax
import numpy as np
import optax
import pytest

from rfjax import search
from rfjax.search.batches import Batches, tiled
from tests.search.problems import PROBLEM, batch, init, loss, run

TWO = search.population(sigma=[0.5, 1.0])


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"steps": 2.0}, TypeError, "steps must be a positive integer; got 2.0"),
        ({"eval_every": -1}, ValueError, "eval_every must be an integer of at least 0"),
        ({"checkpoint_every": -1}, ValueError, "checkpoint_every must be an integer of at least 0"),
        ({"steps_per_dispatch": 0}, ValueError, "steps_per_dispatch must be a positive integer"),
        ({"chunk": 1.5}, TypeError, "chunk must be a positive integer or None"),
        ({"devices": 2}, TypeError, "devices must be a sequence"),
        ({"devices": [0]}, TypeError, "devices must hold devices"),
        ({"batches": batch(0)}, TypeError, "a function of the step or an iterable.*got dict"),
        ({"batches": 3}, TypeError, "a function of the step or an iterable.*got int"),
        ({"validation": []}, ValueError, "at least 1 batch"),
        ({"validation": batch(0)}, TypeError, "a list of batches; got dict"),
        ({"validation": iter([])}, TypeError, "a list of batches; got list_iterator"),
        ({"problem": search.Problem(init, loss), "validation": [1]}, ValueError, "problem.score"),
        ({"optimizer": optax.sgd(0.1)}, TypeError, "must be a function of a candidate"),
        ({"optimizer": lambda candidate: 0.1}, TypeError, "return an optax.*got float"),
        ({"halving": 5}, TypeError, "search.Halving or None; got 5"),
        ({"halving": search.Halving((20,))}, ValueError, r"last of 20 steps; got \(20,\)"),
        ({"progress": 1}, TypeError, "progress must be a function"),
    ],
)
def test_arguments_are_checked(options, error, message):
    with pytest.raises(error, match=message):
        run(TWO, **options)


@pytest.mark.parametrize(
    "given, error, message",
    [
        ([0.5, 1.0], TypeError, "population must be a Population"),
        (TWO[0], ValueError, r"a single candidate; take population\[k : k \+ 1\]"),
        (TWO[:0], ValueError, "at least 1 candidate"),
    ],
)
def test_populations_are_checked(given, error, message):
    with pytest.raises(error, match=message):
        run(given)


def test_keys_are_checked():
    with pytest.raises(TypeError, match="must be a single key"):
        search.run(0, PROBLEM, TWO, batch, steps=1)


@pytest.mark.parametrize(
    "fields, error, message",
    [
        ({"seed": [1.7]}, ValueError, "seed must be whole numbers"),
        ({"seed": -1}, ValueError, "seed must be whole numbers"),
        ({"learning_rate": np.nan}, ValueError, "learning_rate must be finite"),
        ({"covariance_multiplier": -1.0}, ValueError, "covariance_multiplier must be finite"),
        ({"learning_rate": np.ones((2, 2))}, ValueError, r"learning_rate must be one.*\(2, 2\)"),
        ({"sigma": np.ones((4, 3))}, ValueError, r"\[K\] or \[K, 2\]; got the shape \(4, 3\)"),
        ({"sigma": [0.5, (1.0, 2.0)]}, ValueError, "all single or all"),
        ({"sigma": True}, ValueError, "sigma must be numbers, all single or all .*; got True"),
        ({"learning_rate": "x"}, ValueError, "learning_rate must be numbers, .*; got 'x'"),
        ({"sigma": []}, ValueError, r"the shape \(0,\)"),
        ({"extra": {"a": 3.0}}, ValueError, "leaves of extra have K rows"),
    ],
)
def test_fields_are_checked(fields, error, message):
    with pytest.raises(error, match=message):
        search.population(**fields)


@pytest.mark.parametrize("name", ["structured", "sgima"])
def test_a_grid_takes_known_fields(name):
    with pytest.raises(TypeError, match=f"grid takes sigma, seed, .*; got {name}"):
        search.grid(sigma=[0.5], **{name: [True]})


@pytest.mark.parametrize("rungs", [5, (1.5,), (True,)])
def test_rungs_are_whole_numbers(rungs):
    with pytest.raises(TypeError, match="rungs must be a tuple of whole numbers"):
        search.Halving(rungs)


def test_too_few_batches():
    few = Batches([batch(0), batch(1)], steps=5, rows=None)
    assert few.take(0, 2)["x"].shape == (2, 4, 16)
    with pytest.raises(ValueError, match="batches ended at step 2 of 5"):
        few.take(2, 1)


def test_batches_of_each_candidate_have_its_row():
    with pytest.raises(ValueError, match=r"has 3 rows.*got the shape \(4, 16\)"):
        Batches(batch, steps=5, rows=3).take(0, 1)


def test_batches_are_copied():
    same = np.zeros(3)

    def filled(step):
        same[:] = step
        return same

    taken = [Batches(filled).take(step, 1) for step in (0, 1)]
    assert taken[0].tolist() == [[0.0] * 3] and taken[1].tolist() == [[1.0] * 3]


def test_tiled_batches_keep_their_position():
    class Resumable:
        place = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.place += 1
            return np.array([self.place, -self.place])

        def get_state(self):
            return self.place

        def set_state(self, place):
            self.place = place

    batches = Batches(tiled(Resumable(), 2))
    assert batches.take(0, 1).tolist() == [[1, -1, 1, -1]] and batches.state() == 1
    batches.go_to(5, 4)
    assert batches.take(5, 1).tolist() == [[5, -5, 5, -5]]
    assert Batches(tiled(lambda step: np.array([step]), 3)).take(7, 1).tolist() == [[7, 7, 7]]
    assert Batches(tiled(iter([np.ones(1)]), 3)).state() is None


def test_enumeration_of_another_quantity_wants_a_function():
    with pytest.raises(ValueError, match="over='dilation' give a function of a value"):
        search.enumerate(jax.random.key(0), PROBLEM, TWO, batch, values=[1], over="dilation")
