"""Masks, offset groups, channel groups, pairs and even kernels: against loops over all taps."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from tests import reference

# channels, channels of the kernel, outputs, offset groups, kernel size, stride, dilation
CASES = {
    "plain": (3, 3, 2, 1, (3, 3), (1, 1), (1, 1)),
    "pairs": (2, 2, 2, 1, (3, 1), (2, 3), (2, 1)),
    "channel groups": (4, 2, 6, 1, (1, 3), (2, 1), (1, 1)),
    "depthwise": (4, 1, 4, 1, (3, 1), (1, 1), (1, 1)),
    "offset groups": (4, 4, 3, 2, (1, 3), (1, 2), (1, 2)),
    "both kinds": (6, 2, 3, 2, (1, 3), (1, 1), (1, 1)),
    "as many of both": (4, 2, 2, 2, (2, 1), (1, 1), (1, 1)),
    "even": (2, 2, 1, 1, (2, 4), (1, 1), (1, 1)),
    "even, dilated": (2, 2, 1, 1, (2, 2), (2, 1), (2, 3)),
    "narrow": (12, 12, 1, 1, (1, 3), (1, 1), (1, 1)),
    "narrow parts": (12, 12, 1, 2, (1, 3), (1, 1), (1, 1)),
}
SIZE = (5, 6)


def operands(name, seed=0):
    """x, kernel, offsets [H', W', D, K, 2] and mask [H', W', D, K] in float64."""
    channels, own, features, parts, size, stride, _ = CASES[name]
    rng = np.random.default_rng(seed)
    output = [(n - 1) // s + 1 for n, s in zip(SIZE, stride, strict=True)]
    taps = size[0] * size[1]
    return (
        rng.normal(size=(*SIZE, channels)),
        rng.normal(size=(*size, own, features)),
        1.5 * rng.normal(size=(*output, parts, taps, 2)),
        rng.normal(size=(*output, parts, taps)),
    )


def deform(name):
    """The convolution as a function of its operands; a single group has no axis."""
    *_, stride, dilation = CASES[name]

    def function(x, kernel, offsets, mask=None):
        if offsets.shape[-3] == 1:
            offsets, mask = offsets[..., 0, :, :], None if mask is None else mask[..., 0, :]
        options = {"stride": stride, "dilation": dilation}
        return rfjax.deformable_conv(x, kernel, offsets, mask=mask, **options)

    return function


def singles(*arrays):
    return [jnp.asarray(array, jnp.float32) for array in arrays]


@pytest.mark.parametrize("name", CASES)
def test_values_are_those_of_loops(name):
    *_, stride, dilation = CASES[name]
    arrays = operands(name)
    wanted = reference.deformed(*arrays, stride=stride, dilation=dilation)
    got = jax.jit(deform(name))(*singles(*arrays))
    np.testing.assert_allclose(got, wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("name", ["plain", "depthwise", "both kinds", "narrow"])
def test_gradients_are_those_of_differences(name):
    """Of the sum of products with random numbers, along a random direction in all operands."""
    *_, stride, dilation = CASES[name]
    arrays = operands(name, seed=1)
    rng = np.random.default_rng(2)
    weights = rng.normal(size=jax.eval_shape(deform(name), *arrays).shape)
    ways = [rng.normal(size=array.shape) for array in arrays]

    def total(step):
        moved = [array + step * way for array, way in zip(arrays, ways, strict=True)]
        return (weights * reference.deformed(*moved, stride=stride, dilation=dilation)).sum()

    step = 1e-6  # so short that none of the positions, all random, crosses a kink
    wanted = (total(step) - total(-step)) / (2 * step)
    loss = lambda *operands: (jnp.asarray(weights, jnp.float32) * deform(name)(*operands)).sum()
    gradients = jax.jit(jax.grad(loss, (0, 1, 2, 3)))(*singles(*arrays))
    got = sum((np.asarray(g) * way).sum() for g, way in zip(gradients, ways, strict=True))
    scale = sum(np.abs(np.asarray(g) * way).sum() for g, way in zip(gradients, ways, strict=True))
    np.testing.assert_allclose(got, wanted, atol=1e-5 * scale)


@pytest.mark.parametrize("name", CASES)
def test_torchvisions_layout_and_padding(name):
    """The same outputs; of kernels of even reach torchvision leaves out the last row or column."""
    *_, size, stride, dilation = CASES[name]
    x, kernel, offsets, mask = operands(name)
    padding = [d * (k - 1) // 2 for k, d in zip(size, dilation, strict=True)]
    theirs = offsets.reshape(*offsets.shape[:2], -1).transpose(2, 0, 1)
    wanted = reference.torchvision_deform(
        x.transpose(2, 0, 1),
        theirs,
        kernel.transpose(3, 2, 0, 1),
        mask.reshape(*mask.shape[:2], -1).transpose(2, 0, 1),
        stride=stride,
        padding=padding,
        dilation=dilation,
    ).transpose(1, 2, 0)
    got = deform(name)(*singles(x, kernel, offsets, mask))
    left_out = [n - m for n, m in zip(got.shape, wanted.shape, strict=True)]
    assert max(left_out) <= 1 and (left_out == [0, 0, 0] or "even" in name or "many" in name)
    got = got[: wanted.shape[0], : wanted.shape[1]]
    np.testing.assert_allclose(got, wanted, atol=2e-5 * np.abs(wanted).max(), rtol=0)


@pytest.mark.parametrize("name", ["plain", "depthwise", "offset groups"])
def test_offsets_of_all_outputs(name):
    x, kernel, offsets, _ = singles(*operands(name))
    everywhere = jnp.broadcast_to(offsets[:1, :1], offsets.shape)
    got = deform(name)(x, kernel, offsets[0, 0])
    np.testing.assert_allclose(got, deform(name)(x, kernel, everywhere), atol=2e-5)


def test_a_mask_of_all_groups_and_offsets_of_all_groups():
    x, kernel, offsets, mask = singles(*operands("offset groups"))
    wanted = deform("offset groups")(x, kernel, offsets, jnp.repeat(mask[..., :1, :], 2, -2))
    got = rfjax.deformable_conv(
        x, kernel, offsets, mask=mask[..., 0, :], stride=(1, 2), dilation=(1, 2)
    )
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    wanted = deform("offset groups")(x, kernel, jnp.repeat(offsets[..., :1, :, :], 2, -3), mask)
    got = rfjax.deformable_conv(
        x, kernel, offsets[..., 0, :, :], mask=mask, stride=(1, 2), dilation=(1, 2)
    )
    np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_channel_groups_are_convolutions_of_parts():
    """Of every primitive: the same as each group by itself."""
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 8, 4)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(3, 3, 2, 6)), jnp.float32)
    sigma, several = jnp.log(jnp.array([0.7])), jnp.log(jnp.array([[0.5], [0.9]]))
    pairs = {"stride": (2, 1), "dilation": (1, 2)}
    params_map = jnp.zeros((2, 4, 8, 1))
    affine = 0.05 * jnp.asarray(rng.normal(size=(2, 3)), jnp.float32)
    calls = {
        "blur": lambda x, k: rfjax.composed_conv(x, k, sigma, resample=False, **pairs),
        "resample": lambda x, k: rfjax.composed_conv(x, k, sigma, **pairs),
        "channel": lambda x, k: rfjax.composed_conv(
            x, k, jnp.broadcast_to(sigma, (k.shape[-1], 1)), **pairs
        ),
        "mixture": lambda x, k: rfjax.composed_conv(x, k, several, jnp.ones(2), **pairs),
        "center-surround": lambda x, k: rfjax.dog_conv(x, k, sigma, sigma + 0.5, **pairs),
        "dynamic": lambda x, k: rfjax.gaussian_deformable_conv(x, k, params_map, **pairs),
        "affine": lambda x, k: rfjax.affine_conv(x, k, affine, **pairs),
        "dilated": lambda x, k: rfjax.blurred_dilated_conv(x, k, **pairs),
    }
    for name, call in calls.items():
        parts = [call(x[..., :2], kernel[..., :3]), call(x[..., 2:], kernel[..., 3:])]
        wanted = jnp.concatenate(parts, -1)
        np.testing.assert_allclose(call(x, kernel), wanted, atol=2e-5, err_msg=name)


def test_halves_are_summed_in_float32():
    for name in ("depthwise", "offset groups"):
        arrays = operands(name)
        exact = deform(name)(*singles(*arrays))
        halves = [jnp.asarray(array, jnp.bfloat16) for array in arrays[:2]]
        got = deform(name)(*halves, *singles(*arrays[2:]))
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(jnp.float32), exact, atol=0.1, rtol=0.05)


X, KERNEL = jnp.zeros((2, *SIZE, 4)), jnp.zeros((3, 3, 4, 2))
OFFSETS, MASK = jnp.zeros((2, *SIZE, 9, 2)), jnp.ones((2, *SIZE, 9))


@pytest.mark.parametrize(
    "change, message",
    [
        ({"kernel": jnp.zeros((3, 3, 3, 2))}, "must take the 4 channels"),
        ({"kernel": jnp.zeros((3, 3, 2, 3))}, "an equal part of them for an equal part of its out"),
        ({"mask": MASK[..., :4]}, r"mask must have shape \(2, 5, 6, 9\).*got \(2, 5, 6, 4\)"),
        ({"mask": MASK[0]}, "mask must have shape"),
        ({"mask": MASK.astype(jnp.int32)}, "mask must have a floating-point dtype"),
        ({"offsets": jnp.zeros((2, *SIZE, 3, 9, 2))}, "equal parts of the 4 channels.*got 3"),
        (
            {"offsets": jnp.zeros((2, *SIZE, 2, 9, 2)), "mask": jnp.ones((2, *SIZE, 4, 9))},
            "as many in positions as in mask; got 2 and 4",
        ),
        ({"offsets": jnp.zeros((0, 9, 2))}, "equal parts of the 4 channels"),
        ({"stride": (1, 2, 3)}, "stride must be a positive integer or two of them"),
        ({"dilation": (1, 0)}, r"dilation must be a positive integer or two of them; got \(1, 0\)"),
    ],
)
def test_errors_say_what_is_wanted(change, message):
    call = {"x": X, "kernel": KERNEL, "offsets": OFFSETS, "mask": MASK} | change
    with pytest.raises((TypeError, ValueError), match=message):
        rfjax.deformable_conv(call.pop("x"), call.pop("kernel"), call.pop("offsets"), **call)


def test_taps_at_infinity_read_nothing():
    x, kernel, offsets, mask = singles(*operands("offset groups"))
    far = jnp.where(offsets > 0, jnp.inf, -jnp.inf)
    value, pull = jax.vjp(deform("offset groups"), x, kernel, far, mask)
    np.testing.assert_array_equal(value, 0.0)
    for gradient in pull(jnp.ones_like(value)):
        np.testing.assert_array_equal(gradient, 0.0)
