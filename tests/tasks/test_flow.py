"""The task of flow: end-point errors, the multi-scale loss, rows, figures; one step of training."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import data, tasks
from rfjax.tasks import losses

FACTS = {"mean": (0.5,) * 3, "std": (0.5,) * 3}
TASK = tasks.create("flow", FACTS)


def _batch(flow, valid=None):
    valid = np.ones(flow.shape[:3]) if valid is None else valid
    return {"flow": jnp.asarray(flow, jnp.float32), "valid": jnp.asarray(valid, jnp.float32)}


def _outputs(batch, offset=(0.0, 0.0)):
    """Flows of a network that is off by a constant number of pixels."""
    offset = np.asarray(offset, np.float32)
    height, width = batch["flow"].shape[1:3]
    levels = []
    for stride in (4, 8, 16, 32, 64):
        cells = [np.arange(0, n, stride) for n in (height, width)]
        add = lambda a: np.add.reduceat(np.add.reduceat(a, cells[0], 1), cells[1], 2)
        known = np.asarray(batch["valid"])[..., None]
        truth = add(np.asarray(batch["flow"]) * known) / np.maximum(add(known), 1)
        levels.append(jnp.asarray((truth + offset) / 20))
    return {"flow": jnp.asarray(np.asarray(batch["flow"]) + offset), "levels": tuple(levels)}


def _random(*size, seed=0):
    return np.random.default_rng(seed).normal(size=(*size, 2)) * 5


def test_the_error_of_a_constant_offset_is_its_length():
    batch = _batch(_random(2, 64, 96))
    totals = jax.jit(TASK.measure)(_outputs(batch, (3.0, 4.0)), batch)
    scores = TASK.summarize(totals)
    assert scores["end_point_error"] == pytest.approx(5.0, abs=1e-5)
    assert scores["end_point_error_fine"] == pytest.approx(5.0, abs=1e-5)
    assert scores["closeness"] == -scores["end_point_error"]
    motion = np.mean(np.linalg.norm(batch["flow"], axis=-1))
    assert scores["motion"] == pytest.approx(motion, rel=1e-5)
    assert TASK.headline(scores) == "end-point error 5.000 px"


@pytest.mark.parametrize("size", [(64, 96), (65, 33)])
def test_the_loss_weighs_the_errors_of_all_levels(size):
    batch = _batch(_random(2, *size))
    total, count = jax.jit(TASK.loss)(_outputs(batch, (3.0, 4.0)), batch)
    pixels = [np.prod([-(-n // stride) for n in size]) for stride in (4, 8, 16, 32, 64)]
    wanted = 2 * 5 / 20 * np.dot((0.005, 0.01, 0.02, 0.08, 0.32), pixels)
    assert count == 2 and float(total) == pytest.approx(wanted, rel=1e-5)
    assert float(TASK.loss(_outputs(batch), batch)[0]) < 1e-4


def test_what_is_not_known_and_what_fills_a_batch_count_for_nothing():
    valid = np.ones((2, 64, 64))
    valid[0, :, 30:], valid[1] = 0, 0
    batch = _batch(_random(2, 64, 64), valid)
    outputs = _outputs(batch, (0.0, 2.0))
    spoiled = {"flow": jnp.where(batch["valid"][..., None] > 0, outputs["flow"], 1e6)}
    measured = TASK.summarize(TASK.measure(outputs | spoiled, batch))
    assert measured["end_point_error"] == pytest.approx(2.0, abs=1e-5)
    assert TASK.loss(outputs, batch)[1] == 1
    assert TASK.measure(outputs, batch)["count"] == 64 * 30


def test_nothing_measured_is_no_number():
    assert all(np.isnan(value) for value in TASK.summarize(None).values())


def test_the_gradient_is_finite_where_the_flow_is_right():
    flow = jnp.asarray(_random(3))
    gradient = jax.grad(lambda f: jnp.sum(losses.end_point_error(f, flow)))
    assert np.all(np.asarray(gradient(flow)) == 0)
    np.testing.assert_allclose(
        gradient(flow + jnp.array([[3.0, 4.0]])), [[0.6, 0.8]] * 3, rtol=1e-5
    )


def test_levels_of_another_size_are_refused():
    batch = _batch(_random(1, 64, 64))
    outputs = _outputs(batch)
    with pytest.raises(ValueError, match="want flows at 5 levels; got 4"):
        TASK.loss(outputs | {"levels": outputs["levels"][:4]}, batch)
    with pytest.raises(ValueError, match="the flow of stride 4 has 16x16 pixels; got 8x8"):
        TASK.loss(outputs | {"levels": (*outputs["levels"][1:], outputs["levels"][4])}, batch)


def _example(height=8, width=10):
    rng = np.random.default_rng(0)
    pair = {n: rng.integers(0, 256, (height, width, 3), np.uint8) for n in ("first", "second")}
    return {"id": "a", "flow": _random(height, width).astype(np.float32), **pair}


def test_a_row_marks_what_is_known():
    example = _example()
    example["flow"][2, 3] = np.nan
    row = TASK.row(example)
    assert row["valid"].sum() == 79 and row["valid"][2, 3] == 0 and np.all(row["flow"][2, 3] == 0)
    np.testing.assert_allclose(row["first"], example["first"] / 127.5 - 1, atol=1e-6)
    assert np.all(TASK.blank(row)["valid"] == 0)


def test_a_pair_is_cut_and_mirrored_alike():
    example = _example()
    augmentation = data.Augmentation(crop=(5, 6), flip=True)
    seen = set()
    for seed in range(8):
        row = TASK.row(example, np.random.default_rng(seed), augmentation)
        whole = TASK.row(example)
        matches = [
            (top, left, mirrored)
            for top in range(4)
            for left in range(5)
            for mirrored in (False, True)
            if np.allclose(row["first"], _cut(whole["first"], top, left, mirrored))
        ]
        ((top, left, mirrored),) = matches
        seen.add(mirrored)
        np.testing.assert_allclose(row["second"], _cut(whole["second"], top, left, mirrored))
        flow = _cut(whole["flow"], top, left, mirrored) * ([-1, 1] if mirrored else [1, 1])
        np.testing.assert_allclose(row["flow"], flow)
    assert seen == {False, True}


def _cut(array, top, left, mirrored):
    part = array[top : top + 5, left : left + 6]
    return part[:, ::-1] if mirrored else part


@pytest.mark.parametrize(
    ("options", "message"),
    [({"color": 0.5}, "in no other way"), ({"crop": (9, 6)}, r"crop 9x6 is larger than .* 8x10")],
)
def test_what_pairs_cannot_be_varied_by_is_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TASK.row(_example(), np.random.default_rng(0), data.Augmentation(**options))
    short = _example() | {"flow": np.zeros((8, 9, 2), np.float32)}
    with pytest.raises(ValueError, match="a: images and flow must have one size"):
        TASK.row(short)


def test_figures_show_the_flows():
    example = _example(32, 40)
    figures = TASK.draw([example] * 2, {"flow": np.stack([example["flow"]] * 2)}, {})
    assert len(figures["examples"]().axes) == 8
