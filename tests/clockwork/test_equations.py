"""One pair of equations is a recurrent network, a clockwork recurrent one, and a clocked stage."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax.clockwork import equations


@pytest.fixture(scope="module")
def matrices():
    w_in, w_hidden = jax.random.normal(jax.random.key(0), (2, 4, 4))
    return w_in, w_hidden


@pytest.fixture(scope="module")
def sequence():
    return jax.random.normal(jax.random.key(1), (6, 4))


def run(cell, sequence, clocks):
    hidden, found = jnp.zeros(4), []
    for x, clock in zip(sequence, clocks, strict=True):
        hidden, output = equations.advance(cell, hidden, x, jnp.asarray(clock, jnp.float32))
        found.append((hidden, output))
    return [jnp.stack(each) for each in zip(*found, strict=True)]


def test_the_simple_recurrent_network(matrices, sequence):
    w_in, w_hidden = (np.asarray(w, np.float64) for w in matrices)
    hidden = np.zeros(4)
    states, outputs = run(equations.recurrent(*matrices), sequence, np.ones((6, 4)))
    for x, state, output in zip(np.asarray(sequence), states, outputs, strict=True):
        hidden = np.tanh(hidden @ w_hidden + x @ w_in)
        np.testing.assert_allclose(state, hidden, atol=1e-5)
        np.testing.assert_allclose(output, np.tanh(hidden @ w_hidden), atol=1e-5)


@pytest.mark.parametrize("persistent", [True, False])
def test_clocks_that_always_run_change_nothing(persistent, matrices, sequence):
    always = np.ones((6, 4))
    clocked = equations.clocked(*matrices, persistent=persistent)
    for one, other in zip(
        run(clocked, sequence, always),
        run(equations.recurrent(*matrices), sequence, always),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)


def test_what_does_not_run_keeps_its_state_or_forgets_it(matrices, sequence):
    clocks = [[t % 2 == 0] * 2 + [t % 4 == 0] * 2 for t in range(6)]
    kept, _ = run(equations.clocked(*matrices), sequence, clocks)
    forgotten, _ = run(equations.clocked(*matrices, persistent=False), sequence, clocks)
    np.testing.assert_array_equal(kept[1], kept[0])
    np.testing.assert_array_equal(kept[2, 2:], kept[0, 2:])
    assert not np.array_equal(kept[2, :2], kept[0, :2])
    np.testing.assert_array_equal(forgotten[1], 0)


def test_a_clocked_stage_hands_on_what_it_computed(sequence):
    cell = equations.convolutional(jnp.sin)
    states, outputs = run(cell, sequence, [[t % 3 == 0] * 4 for t in range(6)])
    wanted = jnp.sin(sequence[jnp.array([0, 0, 0, 3, 3, 3])])
    np.testing.assert_allclose(states, wanted, atol=1e-6)
    np.testing.assert_array_equal(outputs, states)


def test_modules_read_themselves_and_slower_ones():
    mask = equations.slower((1, 2, 4), 2)
    assert mask.shape == (6, 6)
    assert mask[4, 0] and mask[2, 0] and mask[0, 1]  # to the fastest: from all
    assert not mask[0, 2] and not mask[0, 4] and not mask[2, 5]
