"""Guidance against loops, and what holds of it by its definition."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.test_util import check_grads

from rfjax import guidance
from tests import placements

RNG = np.random.default_rng(5)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def clicks(*shape, share=0.2):
    return jnp.asarray(RNG.random(shape) < share, jnp.float32)


def downsampled_by_loops(mask, size, stride, offset):
    """The sum over all pixels, cell by cell."""
    height, width, classes = mask.shape
    out = np.zeros((*size, classes))
    for i, j in np.ndindex(*size):
        for y, x in np.ndindex(height, width):
            dy, dx = abs(y - stride[0] * i - offset[0]), abs(x - stride[1] * j - offset[1])
            weight = max(0, 1 - dy / stride[0]) * max(0, 1 - dx / stride[1])
            out[i, j] += weight / stride[0] / stride[1] * mask[y, x]
    return out


def pooled_by_loops(features, mask):
    out = np.zeros((mask.shape[-1], features.shape[-1]))
    for k in range(mask.shape[-1]):
        total = mask[..., k].sum()
        for i, j in np.ndindex(*mask.shape[:2]):
            if total > 0:
                out[k] += mask[i, j, k] / total * features[i, j]
    return out


@pytest.mark.parametrize(
    "stride, offset", [((4, 4), (3.5, 3.5)), ((4, 4), (0, 0)), ((2, 4), (0.5, -1)), (3, (1.25, 7))]
)
def test_downsampling_is_the_sum_over_all_pixels(stride, offset):
    mask = np.asarray(clicks(13, 9, 2))
    found = guidance.downsample_mask(mask, (3, 4), stride=stride, offset=offset)
    wanted = downsampled_by_loops(mask, (3, 4), np.broadcast_to(stride, 2), offset)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


@pytest.mark.parametrize("offset, taps", [(31.5, 64), (15.5, 64), (0.0, 63)])
def test_taps_sum_to_one_and_are_as_many_as_the_offset_says(offset, taps):
    """Read off by impulses on a line: the weights of an inner cell."""
    lines = jnp.eye(320)[:, :, None, None]  # a batch of impulses
    cell = guidance.downsample_mask(lines, (5, 1), offset=(offset, 0.0))[:, 3, 0, 0] * 32
    assert (np.asarray(cell) > 0).sum() == taps
    np.testing.assert_allclose(cell.sum(), 1.0, rtol=1e-6)


def test_a_click_belongs_most_to_the_cell_around_it():
    click = jnp.zeros((128, 128, 1)).at[31, 31].set(1.0)
    cells = np.asarray(guidance.downsample_mask(click, (4, 4))[..., 0])
    assert np.unravel_index(cells.argmax(), cells.shape) == (0, 0)
    np.testing.assert_allclose(cells[0, 0], (1 - 0.5 / 32) ** 2 / 32**2, rtol=1e-6)


def test_pooling_is_the_mean_over_the_annotated_cells():
    features, mask = normal(3, 5, 7), clicks(3, 5, 4).at[..., 2].set(0.0)
    found = guidance.pool(features, mask)
    wanted = pooled_by_loops(*map(np.asarray, (features, mask)))
    np.testing.assert_allclose(found, wanted, atol=1e-6)
    np.testing.assert_array_equal(found[2], 0.0)  # nothing is annotated


def test_one_cell_all_cells_scale_and_order():
    features = normal(4, 6, 5)
    one = jnp.zeros((4, 6, 1)).at[2, 3].set(0.125)
    np.testing.assert_array_equal(guidance.pool(features, one)[0], features[2, 3])
    dense = guidance.pool(features, jnp.ones((4, 6, 1)))[0]
    np.testing.assert_allclose(dense, features.mean((0, 1)), atol=1e-6)
    mask = clicks(4, 6, 2)
    z = guidance.pool(features, mask)
    np.testing.assert_allclose(guidance.pool(features, 1e-3 * mask), z, atol=1e-6)
    order = RNG.permutation(24)
    moved = [jnp.reshape(x.reshape(24, -1)[order], x.shape) for x in (features, mask)]
    np.testing.assert_allclose(guidance.pool(*moved), z, atol=1e-6)


def test_a_guide_is_the_mean_over_shots_however_they_come():
    features, masks = normal(5, 3, 4, 6), clicks(5, 3, 4, 3, share=0.4)
    masks = masks.at[1].set(0.0).at[:, ..., 2].set(0.0).at[3, ..., 0].set(0.0)
    at_once = guidance.update(guidance.empty(3, 6), features, masks)
    singly = guidance.empty(3, 6)
    for shot, mask in zip(features, masks, strict=True):
        singly = guidance.update(singly, shot, mask)
    halves = guidance.update(guidance.empty(3, 6), features[3:], masks[3:])
    halves = guidance.update(halves, features[:3], masks[:3])
    present = np.asarray(masks.sum((1, 2)) > 0)
    means = np.stack(
        [pooled_by_loops(*map(np.asarray, pair)) for pair in zip(features, masks, strict=True)]
    )
    wanted = (means * present[..., None]).sum(0) / np.maximum(present.sum(0), 1)[:, None]
    for guide in (at_once, singly, halves):
        np.testing.assert_allclose(guide["mean"], wanted, atol=1e-6)
        np.testing.assert_array_equal(guide["count"], present.sum(0))
    twice = guidance.update(at_once, features, masks)
    np.testing.assert_allclose(twice["mean"], at_once["mean"], atol=1e-6)


def test_classes_without_annotation_stay_bit_for_bit():
    guide = {"mean": normal(3, 6), "count": jnp.array([2.0, 0.0, 5.0])}
    masks = clicks(2, 3, 4, 3).at[..., 2].set(0.0)
    found = guidance.update(guide, normal(2, 3, 4, 6), masks)
    np.testing.assert_array_equal(found["mean"][2], guide["mean"][2])
    assert found["count"][2] == 5.0
    nothing = guidance.update(guide, normal(3, 4, 6), jnp.zeros((3, 4, 3)))
    jax.tree.map(np.testing.assert_array_equal, nothing, guide)


def test_fusing_is_a_convolution_of_both_side_by_side():
    features, z, kernel, bias = normal(2, 3, 4, 5), normal(2, 3, 5), normal(10, 7), normal(7)
    found = guidance.fuse(features, z, kernel, bias)
    tiled = jnp.broadcast_to(z[:, :, None, None], (2, 3, 3, 4, 5))
    beside = jnp.concatenate([jnp.broadcast_to(features[:, None], tiled.shape), tiled], -1)
    wanted = np.asarray(beside) @ np.asarray(kernel) + np.asarray(bias)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    np.testing.assert_allclose(guidance.fuse(features, tiled, kernel, bias), found, atol=1e-5)
    order = jnp.array([2, 0, 1])  # classes are alike
    np.testing.assert_array_equal(
        guidance.fuse(features, z[:, order], kernel, bias), found[:, order]
    )


def whole(features, mask, kernel, bias):
    """All of it, from a mask of four times the size, for each example."""
    cells = guidance.downsample_mask(mask, features.shape[1:3], stride=2, offset=(0.5, 0.5))
    start = guidance.empty(2, 3, dtype=features.dtype)
    z = jax.vmap(lambda f, m: guidance.update(start, f, m)["mean"])(features, cells)
    return guidance.fuse(features, z, kernel, bias)


WHOLE = (normal(4, 8, 8, 3), jnp.abs(normal(4, 16, 16, 2)), normal(6, 2), normal(2))


@pytest.mark.parametrize("place", placements.PLACES)
def test_the_same_on_several_devices(place):
    each = (True, True, False, False)
    wanted = placements.on_one_device(whole, WHOLE)
    placements.assert_same(place, whole, each, WHOLE, wanted)


def test_gradients():
    operands = [np.asarray(x, np.float64) for x in WHOLE]
    with jax.enable_x64(True):
        check_grads(jax.jit(whole), operands, order=2, modes=("rev",))


def test_gradients_of_what_is_not_annotated_are_zero_and_finite():
    def total(features, mask):
        return guidance.pool(features, mask).sum()

    with jax.debug_nans(True):
        both = jax.grad(total, (0, 1))(normal(3, 3, 2), jnp.zeros((3, 3, 1)))
    for gradient in both:
        np.testing.assert_array_equal(gradient, 0.0)


def test_half_precision_and_strict_promotion():
    wanted = jax.jit(whole)(*WHOLE)
    with jax.numpy_dtype_promotion("strict"):
        found = jax.jit(whole)(*(x.astype(jnp.bfloat16) for x in WHOLE))
    assert found.dtype == jnp.bfloat16
    np.testing.assert_allclose(found.astype(jnp.float32), wanted, atol=0.1)


def test_exported_for_any_batch_of_any_size():
    def function(mask):
        cells = guidance.downsample_mask(mask, (3, 4), stride=2, offset=(0.5, 0.5))
        return guidance.pool(cells, cells)

    shape = jax.ShapeDtypeStruct(export.symbolic_shape("b, h, w, 2"), jnp.float32)
    again = export.deserialize(export.export(jax.jit(function))(shape).serialize()).call
    for size in ((2, 7, 9, 2), (1, 6, 5, 2)):
        mask = clicks(*size)
        np.testing.assert_allclose(again(mask), function(mask), atol=1e-6)


MAP, MASK = jnp.ones((3, 4, 5)), jnp.ones((3, 4, 2))
MISTAKES = [
    (lambda: guidance.downsample_mask(MASK, 0), ValueError, "size must be a positive integer"),
    (
        lambda: guidance.downsample_mask(MASK[0], 2),
        ValueError,
        r"mask must have shape \[\*batch, H",
    ),
    (lambda: guidance.downsample_mask(MASK > 0, 2), TypeError, "mask must have a floating-point"),
    (
        lambda: guidance.downsample_mask(MASK, 2, stride=-1),
        ValueError,
        "stride must be a positive number or two of them",
    ),
    (
        lambda: guidance.downsample_mask(MASK, 2, offset=1.0),
        ValueError,
        r"offset must be two numbers \(y, x\); got 1.0",
    ),
    (lambda: guidance.pool(MAP, MASK[1:]), ValueError, r"of one grid, .* got \(3, 4, 5\) and \(2"),
    (lambda: guidance.empty(2, 0), ValueError, "features must be a positive integer; got 0"),
    (lambda: guidance.empty(2, 3, dtype=int), ValueError, "dtype must be a floating-point dtype"),
    (
        lambda: guidance.update(guidance.empty(2, 4), MAP, MASK),
        ValueError,
        r"a guide must have mean \[K, C\].* got \(2, 4\) and \(2,\) with \(3, 4, 2\)",
    ),
    (
        lambda: guidance.fuse(MAP, jnp.ones((2, 4)), jnp.ones((10, 1)), jnp.ones(1)),
        ValueError,
        r"guide must have shape \[\*batch, K, C\] .* got \(2, 4\)",
    ),
    (
        lambda: guidance.fuse(MAP, jnp.ones((2, 5)), jnp.ones((9, 1)), jnp.ones(1)),
        ValueError,
        r"kernel and bias must have shapes \[10, D\] and \[D\].* got \(9, 1\) and \(1,\)",
    ),
]


@pytest.mark.parametrize("call, kind, text", MISTAKES)
def test_mistakes_are_told(call, kind, text):
    with pytest.raises(kind, match=text):
        call()
