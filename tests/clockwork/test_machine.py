"""Stages run when their clock says, and hand on what they had otherwise."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import clockwork

FRAMES, SIZE = 9, 6


def shallow(variables, maps):
    return {"pool3": jnp.sin(maps["images"] @ variables[0]), "score_pool3": maps["images"] * 2}


def middle(variables, maps):
    pool4 = jnp.sin(maps["pool3"] @ variables[1])
    return {"pool4": pool4, "score_pool4": pool4 * 3}


def deep(variables, maps):
    return {"up": jnp.cos(maps["pool4"] @ variables[2])}


def fuse(variables, maps):
    return maps["score_pool3"] + maps["score_pool4"] + maps["up"]


STAGES = (shallow, middle, deep, fuse)
NAMED = ("oracle", "skip", "alternating", "exponential", "pipeline2", "pipeline3")
CLOCKS = ("adaptive:0.2", "pixels:0.5", "confidence:0.6")


@pytest.fixture(scope="module")
def variables():
    return jax.random.normal(jax.random.key(0), (3, 3, 3))


@pytest.fixture(scope="module")
def clip():
    return jax.random.normal(jax.random.key(1), (FRAMES, SIZE, SIZE, 3))


def play(schedule, variables, clip, **options):
    """Outputs and what fired, on every frame."""
    init, step = clockwork.make(STAGES, schedule, **options)
    state, step = init(variables, clip[0]), jax.jit(step)
    outputs, fired = [], []
    for frame in clip:
        state, output, fires = step(variables, state, frame)
        outputs.append(output)
        fired.append(np.asarray(fires))
    assert int(state["t"]) == len(clip)
    return jnp.stack(outputs), np.stack(fired)


def whole(variables, frame):
    """The plain network."""
    maps = {"images": frame}
    for stage in STAGES[:-1]:
        maps |= stage(variables, maps)
    return maps, fuse(variables, maps)


@pytest.mark.parametrize("schedule", [*NAMED, *CLOCKS, (1, 3, 4)], ids=str)
def test_on_a_still_clip_every_schedule_is_the_network(schedule, variables, clip):
    still = jnp.broadcast_to(clip[0], clip.shape)
    outputs, fired = play(schedule, variables, still)
    oracle, _ = play("oracle", variables, still)
    np.testing.assert_array_equal(outputs, oracle)
    np.testing.assert_allclose(outputs[0], whole(variables, clip[0])[1], atol=1e-5)
    assert fired[0].all()


def test_the_oracle_is_the_network_on_every_frame(variables, clip):
    outputs, fired = play("oracle", variables, clip)
    wanted = jnp.stack([whole(variables, frame)[1] for frame in clip])
    np.testing.assert_allclose(outputs, wanted, atol=1e-5)
    assert fired.all()


@pytest.mark.parametrize("rates", [(1, 1, 2), (1, 2, 4), (2, 2, 2), (3, 1, 5)], ids=str)
def test_a_stage_of_rate_r_runs_on_every_rth_frame(rates, variables, clip):
    _, fired = play(rates, variables, clip)
    assert fired.sum(0)[:3].tolist() == [math.ceil(FRAMES / rate) for rate in rates]
    assert fired[:, 3].tolist() == fired[:, :3].any(1).tolist()


def test_the_rates_of_the_names(variables, clip):
    for name, rates in {"alternating": (1, 1, 2), "exponential": (1, 2, 4)}.items():
        by_name, by_rates = play(name, variables, clip), play(rates, variables, clip)
        for one, other in zip(by_name, by_rates, strict=True):
            np.testing.assert_array_equal(one, other)


def test_alternating_keeps_the_deepest_map_on_odd_frames(variables, clip):
    outputs, _ = play("alternating", variables, clip)
    for t in range(FRAMES):
        maps = whole(variables, clip[t])[0] | {"up": whole(variables, clip[t - t % 2])[0]["up"]}
        np.testing.assert_allclose(outputs[t], fuse(variables, maps), atol=1e-5)


def test_a_skipped_frame_has_the_output_before(variables, clip):
    outputs, fired = play("skip", variables, clip)
    np.testing.assert_array_equal(outputs[1::2], outputs[:-1:2])
    assert not fired[1::2].any()


@pytest.mark.parametrize("schedule, lag", [("pipeline3", (0, 1, 2)), ("pipeline2", (0, 0, 1))])
def test_a_pipeline_fuses_frames_of_several_ages(schedule, lag, variables, clip):
    outputs, fired = play(schedule, variables, clip)
    assert fired.all()
    for t in range(2, FRAMES):
        ages = [whole(variables, clip[t - each])[0] for each in lag]
        names = (("score_pool3",), ("score_pool4",), ("up",))
        maps = {key: age[key] for age, keys in zip(ages, names, strict=True) for key in keys}
        np.testing.assert_allclose(outputs[t], fuse(variables, maps), atol=1e-5)


@pytest.mark.parametrize("schedule", [*NAMED, *CLOCKS], ids=str)
def test_a_clock_for_each_video_under_vmap(schedule, variables, clip):
    clips = jnp.stack([clip, clip[::-1] * 0.3, jnp.broadcast_to(clip[0], clip.shape)])
    init, step = clockwork.make(STAGES, schedule)
    states = jax.vmap(init, (None, 0))(variables, clips[:, 0])
    step = jax.jit(jax.vmap(step, (None, 0, 0)))
    found = []
    for t in range(FRAMES):
        states, outputs, fired = step(variables, states, clips[:, t])
        found.append((outputs, fired))
    for video in range(3):
        outputs, fired = play(schedule, variables, clips[video])
        np.testing.assert_array_equal(np.stack([f[video] for _, f in found]), fired)
        np.testing.assert_allclose(jnp.stack([o[video] for o, _ in found]), outputs, atol=1e-5)


def test_a_clip_is_scanned(variables, clip):
    init, step = clockwork.make(STAGES, "adaptive:0.3")

    def body(state, frame):
        state, output, fired = step(variables, state, frame)
        return state, (output, fired)

    _, (outputs, fired) = jax.lax.scan(body, init(variables, clip[0]), clip)
    wanted, fires = play("adaptive:0.3", variables, clip)
    np.testing.assert_allclose(outputs, wanted, atol=1e-5)
    np.testing.assert_array_equal(fired, fires)


def drift(count=21):
    """A clip whose classes change from left to right, a column of 20 with every frame."""
    edges = np.arange(count)[:, None, None] > np.arange(20)[None, None, :]
    both = np.stack([edges, ~edges, np.zeros_like(edges)], -1)
    return jnp.asarray(np.broadcast_to(both, (count, 4, 20, 3)), jnp.float32)


def scored(clip, schedule):
    """The frames on which the deepest stage of a network runs whose scores are its frames."""
    stages = (
        lambda v, m: {"score": m["images"]},
        lambda v, m: {"deep": m["score"]},
        lambda v, m: m["deep"],
    )
    init, step = clockwork.make(stages, schedule)
    state, fired = init(None, clip[0]), []
    for frame in clip:
        state, _, fires = step(None, state, frame)
        fired.append(bool(fires[1]))
    return np.flatnonzero(fired).tolist()


def test_changes_add_up_since_the_deepest_stage_ran():
    assert scored(drift(), "adaptive:0") == list(range(21))
    assert scored(drift(), "adaptive:1.01") == [0]
    # A twentieth a frame: four of them are a fifth, which is reached, not passed.
    assert scored(drift(), "adaptive:0.2") == [0, 4, 8, 12, 16, 20]
    counts = [len(scored(drift(), f"adaptive:{theta}")) for theta in (0.05, 0.1, 0.3, 0.6, 1.0)]
    assert counts == sorted(counts, reverse=True)


def test_a_share_of_frames_instead_of_a_threshold(variables):
    clip = drift(41)[:40:2]
    stages = (
        lambda v, m: {"score": m["images"]},
        lambda v, m: {"deep": m["score"]},
        lambda v, m: m["deep"],
    )
    tuned = clockwork.tune(stages, "adaptive:50%", None, [clip[:11]])
    assert len(scored(clip[:11], tuned)) in (5, 6)
    init, step = clockwork.make(stages, "adaptive:50%", tuned_on=(None, [clip[:11]]))
    state, count = init(None, clip[0]), 0
    for frame in clip[:11]:
        state, _, fired = step(None, state, frame)
        count += int(fired[1])
    assert count == len(scored(clip[:11], tuned))


def test_a_function_as_a_schedule(variables, clip):
    chosen = lambda state, frame: jnp.array([True, False, state["t"] == 4])
    _, fired = play(chosen, variables, clip)
    assert fired[:, 2].tolist() == [t in (0, 4) for t in range(FRAMES)]
    assert fired[:, 1].tolist() == [t == 0 for t in range(FRAMES)]


def test_a_batch_of_frames_shares_a_clock(variables, clip):
    pairs = jnp.stack([clip, clip[::-1]], 1)
    outputs, fired = play("alternating", variables, pairs)
    assert outputs.shape == pairs.shape
    assert fired.shape == (FRAMES, 4)


def test_what_does_not_fire_is_not_computed(variables, clip):
    ran = []

    def counted(variables, maps):
        jax.debug.callback(lambda: ran.append(1))
        return deep(variables, maps)

    init, step = clockwork.make((shallow, middle, counted, fuse), "alternating")
    state, step = init(variables, clip[0]), jax.jit(step)
    for frame in clip:
        state, _, _ = step(variables, state, frame)
    jax.effects_barrier()
    assert len(ran) == math.ceil(FRAMES / 2)


@pytest.mark.parametrize(
    "schedule, message",
    [
        ("alternate", "schedule"),
        ("adaptive:", "wants a number of at least 0 after the colon"),
        ("adaptive:-1", "wants a number of at least 0 after the colon"),
        ("adaptive:50%", "'N%' wants tuned_on"),
        ("pipeline2:3", "schedule"),
        ((1, 2), "a rate for each of the 3 stages"),
        ((1, 0, 2), "schedule"),
    ],
    ids=str,
)
def test_wrong_schedules(schedule, message):
    with pytest.raises(ValueError, match=message):
        clockwork.make(STAGES, schedule)


def test_schedules_that_do_not_fit_the_stages(variables, clip):
    with pytest.raises(ValueError, match="pipeline3 wants 3 stages and one that fuses"):
        clockwork.make((shallow, deep, fuse), "pipeline3")
    with pytest.raises(ValueError, match="at least two functions"):
        clockwork.make((fuse,), "oracle")
    init, _ = clockwork.make((shallow, middle, deep, fuse), "adaptive:0.1", watch="score")
    with pytest.raises(ValueError, match="watch"):
        init(variables, clip[0])
    init, step = clockwork.make(STAGES, lambda state, frame: jnp.zeros(7, bool))
    with pytest.raises(ValueError, match=r"must return bool \[3\]"):
        step(variables, init(variables, clip[0]), clip[0])


def test_a_clip_that_changes_its_size(variables, clip):
    init, step = clockwork.make(STAGES, "skip")
    with pytest.raises(ValueError, match=r"one size: a frame \(3, 6, 3\) makes pool3"):
        step(variables, init(variables, clip[0]), clip[0, :3])


def test_the_costs_of_the_paper():
    shares = 0.59, 0.18, 0.23
    names = ("oracle", "skip", "alternating", "exponential", "adaptive:0.25")
    found = [clockwork.cost(name, shares) for name in names]
    np.testing.assert_allclose(found, [1.0, 0.5, 0.885, 0.7375, 1.0])
    assert clockwork.cost("adaptive:0.25", shares, firing=0.5) == pytest.approx(0.885)
    assert clockwork.cost((1, 2, 2), shares) == pytest.approx(0.795)


def test_change_is_a_share_and_symmetric():
    one, other = jax.random.normal(jax.random.key(3), (2, 5, 7, 4))
    assert clockwork.change(one, one) == 0
    assert clockwork.change(one, other) == clockwork.change(other, one)
    wanted = np.mean(np.argmax(one, -1) != np.argmax(other, -1))
    np.testing.assert_allclose(clockwork.change(one, other), wanted, rtol=1e-6)
    opposite = jnp.roll(jax.nn.one_hot(jnp.argmax(one, -1), 4), 1, -1)
    assert clockwork.change(one, opposite) == 1
    with pytest.raises(ValueError, match="must have the same shape"):
        clockwork.change(one, one[:2])


def test_names_of_schedules_are_listed():
    assert set(NAMED) < set(clockwork.SCHEDULES)
    assert len({*itertools.chain(clockwork.SCHEDULES)}) == 9
