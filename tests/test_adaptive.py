"""Adaptive dilation against loops over taps: mixed whole dilations, and continuous ones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import rfjax
from rfjax._engine import conv, mixed, tuning
from tests import reference

DILATIONS = (1, 2, 4)


def draw(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def shares(*shape, seed=5, dtype=np.float32):
    """Weights of dilations that sum to one."""
    return jax.nn.softmax(draw(*shape, seed=seed, dtype=dtype))


def loop(x, kernel, weights, *, dilations=DILATIONS, stride=(1, 1)):
    """Each dilation's convolution by itself, tap by tap, and then the mixture; of one example."""
    x, kernel, weights = (np.asarray(array, np.float64) for array in (x, kernel, weights))
    (height, width, channels), (*size, own, features) = x.shape, kernel.shape
    part = features // (channels // own)
    y = np.zeros((*weights.shape[:2], features))
    for i, j, n in np.ndindex(*weights.shape):
        for a, b in np.ndindex(*size):
            row = stride[0] * i + dilations[n] * (a - size[0] // 2)
            column = stride[1] * j + dilations[n] * (b - size[1] // 2)
            if 0 <= row < height and 0 <= column < width:
                for o in range(features):
                    first = o // part * own
                    inputs = x[row, column, first : first + own]
                    y[i, j, o] += weights[i, j, n] * inputs @ kernel[a, b, :, o]
    return y


@pytest.fixture(params=["whole", "blocks"])
def form(request, monkeypatch):
    """The map at once, or in blocks of a row or two."""
    if request.param == "blocks":
        monkeypatch.setattr(tuning, "MIXED_BLOCK", 64)
    mixed._operator.cache_clear()
    yield
    mixed._operator.cache_clear()


@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("stride, size", [((1, 1), (3, 3)), ((2, 1), (3, 3)), ((2, 2), (1, 5))])
def test_it_is_the_mixture_of_the_dilated_convolutions(form, stride, size, groups):
    x, kernel = draw(2, 7, 9, 4), draw(*size, 4 // groups, 8, seed=1)
    weights = draw(2, *conv.output_size((7, 9), stride), 3, seed=2)  # linear: any weights
    found = rfjax.adaptive_dilated_conv(x, kernel, weights, stride=stride)
    for example in range(2):
        wanted = loop(x[example], kernel, weights[example], stride=stride)
        np.testing.assert_allclose(found[example], wanted, atol=2e-5)


@pytest.mark.parametrize("stride, groups", [((1, 1), 1), ((1, 2), 2), ((2, 2), 4)])
def test_gradients_are_those_of_finite_differences(form, stride, groups):
    with jax.enable_x64(True):
        operands = (
            draw(1, 5, 6, 4, dtype=np.float64),
            draw(3, 3, 4 // groups, 4, seed=1, dtype=np.float64),
            draw(1, *conv.output_size((5, 6), stride), 2, seed=2, dtype=np.float64),
        )
        function = functools.partial(rfjax.adaptive_dilated_conv, dilations=(1, 3), stride=stride)
        check_grads(function, operands, order=1, modes=["rev", "fwd"], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("dilation", [1, 2, 5])
def test_a_single_dilation_is_the_plain_convolution(dilation):
    """Invariant 1, and 2: a one at a single dilation."""
    x, kernel = draw(2, 8, 9, 3), draw(3, 3, 3, 5, seed=1)
    wanted = conv.convolve(x, kernel, 1, dilation)
    ones = jnp.ones((2, 8, 9, 1))
    found = rfjax.adaptive_dilated_conv(x, kernel, ones, dilations=(dilation,))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    chosen = jnp.zeros((2, 8, 9, 2)).at[..., 1].set(1.0)
    found = rfjax.adaptive_dilated_conv(x, kernel, chosen, dilations=(7, dilation))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_the_order_of_dilations_does_not_matter():
    """Invariant 3."""
    x, kernel, weights = draw(1, 8, 9, 3), draw(3, 3, 3, 5, seed=1), shares(1, 8, 9, 3)
    found = rfjax.adaptive_dilated_conv(x, kernel, weights)
    other = rfjax.adaptive_dilated_conv(x, kernel, weights[..., ::-1], dilations=(4, 2, 1))
    np.testing.assert_allclose(found, other, atol=1e-5)


def test_outputs_lie_between_those_of_the_dilations():
    """Invariant 4; and 5: equal weights give the mean."""
    x, kernel = draw(1, 9, 9, 3), draw(3, 3, 3, 5, seed=1)
    each = jnp.stack([conv.convolve(x, kernel, 1, d) for d in DILATIONS])
    found = rfjax.adaptive_dilated_conv(x, kernel, shares(1, 9, 9, 3))
    assert jnp.all(found >= each.min(0) - 1e-5) and jnp.all(found <= each.max(0) + 1e-5)
    mean = rfjax.adaptive_dilated_conv(x, kernel, jnp.full((1, 9, 9, 3), 1 / 3))
    np.testing.assert_allclose(mean, each.mean(0), atol=1e-5)


def test_the_kernels_gradient_is_the_sum_over_dilations():
    """Invariant 6: one kernel for all."""
    x, kernel, weights = draw(1, 8, 9, 3), draw(3, 3, 3, 5, seed=1), shares(1, 8, 9, 3)
    cotangent = draw(1, 8, 9, 5, seed=3)

    def gradient(function):
        return jax.vjp(function, kernel)[1](cotangent)[0]

    found = gradient(lambda k: rfjax.adaptive_dilated_conv(x, k, weights))
    parts = [
        gradient(lambda k, n=n, d=d: weights[..., n, None] * conv.convolve(x, k, 1, d))
        for n, d in enumerate(DILATIONS)
    ]
    np.testing.assert_allclose(found, sum(parts), atol=1e-4)


def test_halves_of_a_map_have_their_own_dilation():
    """Invariants 8 and 9: also at the border."""
    x, kernel = draw(1, 8, 10, 3), draw(3, 3, 3, 5, seed=1)
    left = jnp.arange(10).reshape(1, 1, 10, 1) < 5
    weights = jnp.concatenate([left, ~left], -1).astype(x.dtype)
    weights = jnp.broadcast_to(weights, (1, 8, 10, 2))
    found = rfjax.adaptive_dilated_conv(x, kernel, weights, dilations=(1, 4))
    wanted = jnp.where(left, conv.convolve(x, kernel, 1, 1), conv.convolve(x, kernel, 1, 4))
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_every_dilation_reads_the_same_center():
    """Invariant 14; and 13: other kernels give the weights a gradient."""
    x, weights = draw(1, 8, 9, 3), shares(1, 8, 9, 3)
    center = jnp.zeros((3, 3, 3, 5)).at[1, 1].set(draw(3, 5, seed=1))
    wanted = conv.convolve(x, center, 1, 1)
    found = rfjax.adaptive_dilated_conv(x, center, weights)
    np.testing.assert_allclose(found, wanted, atol=1e-5)

    def loss(logits, kernel):
        weights = jax.nn.softmax(logits)
        return jnp.sum(rfjax.adaptive_dilated_conv(x, kernel, weights) ** 2)

    logits = draw(1, 8, 9, 3, seed=4)
    np.testing.assert_allclose(jax.grad(loss)(logits, center), 0.0, atol=1e-4)
    assert jnp.abs(jax.grad(loss)(logits, draw(3, 3, 3, 5))).max() > 1.0


def test_no_map_is_kept_between_the_passes():
    x, kernel, weights = draw(1, 64, 64, 32), draw(3, 3, 32, 32, seed=1), shares(1, 64, 64, 3)
    _, pull = jax.vjp(rfjax.adaptive_dilated_conv, x, kernel, weights)
    held = sum(leaf.size for leaf in jax.tree.leaves(pull))
    assert held <= x.size + kernel.size + weights.size


# Continuous


def test_continuous_dilation_is_a_bilinear_read_of_every_tap():
    x, kernel, rates = draw(1, 6, 7, 2), draw(3, 3, 2, 3, seed=1), 2 * draw(1, 3, 4, 1, seed=2)
    lattice = np.asarray(rfjax.lattice_points(3))
    offsets = (np.asarray(rates)[0] - 1)[..., None, None] * lattice
    wanted = reference.deformed(
        np.asarray(x)[0], np.asarray(kernel), offsets, np.ones((3, 4, 1, 9)), stride=(2, 2)
    )
    found = rfjax.continuous_dilated_conv(x, kernel, rates, stride=2)
    np.testing.assert_allclose(found[0], wanted, atol=2e-5)


@pytest.mark.parametrize("rate", [0, 1, 2, 3])
def test_a_whole_rate_is_that_dilation(rate):
    x, kernel = draw(2, 8, 9, 4), draw(3, 3, 2, 6, seed=1)
    found = rfjax.continuous_dilated_conv(x, kernel, jnp.full((2, 8, 9, 1), float(rate)))
    if rate:
        wanted = conv.convolve(x, kernel, 1, rate)
    else:  # all taps in the center
        wanted = conv.convolve(x, kernel.sum((0, 1), keepdims=True), 1, 1)
    np.testing.assert_allclose(found, wanted, atol=2e-5)


def test_continuous_gradients_are_those_of_finite_differences():
    with jax.enable_x64(True):
        x, kernel = draw(1, 5, 6, 2, dtype=np.float64), draw(3, 3, 2, 3, dtype=np.float64)
        rates = 1.4 + 0.05 * draw(1, 5, 6, 1, seed=2, dtype=np.float64)  # away from kinks
        operands = (x, kernel, rates)
        check_grads(rfjax.continuous_dilated_conv, operands, order=1, atol=1e-6, rtol=1e-6)


# Errors

X, KERNEL = jnp.zeros((2, 6, 7, 3)), jnp.zeros((3, 3, 3, 4))
WRONG = {
    "weights of other outputs": (
        lambda: rfjax.adaptive_dilated_conv(X, KERNEL, jnp.zeros((2, 6, 7, 3)), stride=2),
        ValueError,
        r"weights must have shape \(2, 3, 4, 3\).*got \(2, 6, 7, 3\)",
    ),
    "more dilations than weights": (
        lambda: rfjax.adaptive_dilated_conv(
            X, KERNEL, jnp.zeros((2, 6, 7, 2)), dilations=(1, 2, 4)
        ),
        ValueError,
        r"weights must have shape \(2, 6, 7, 3\)",
    ),
    "no dilations": (
        lambda: rfjax.adaptive_dilated_conv(X, KERNEL, jnp.zeros((2, 6, 7, 0)), dilations=()),
        ValueError,
        r"dilations must be one or more positive integers; got \(\)",
    ),
    "half a dilation": (
        lambda: rfjax.adaptive_dilated_conv(X, KERNEL, jnp.zeros((2, 6, 7, 1)), dilations=(1.5,)),
        TypeError,
        r"dilations must be one or more positive integers; got \(1.5,\)",
    ),
    "an even kernel": (
        lambda: rfjax.adaptive_dilated_conv(X, KERNEL[:2], jnp.zeros((2, 6, 7, 3))),
        ValueError,
        "kernel_size must be odd",
    ),
    "rates of each tap": (
        lambda: rfjax.continuous_dilated_conv(X, KERNEL, jnp.zeros((2, 6, 7, 9))),
        ValueError,
        r"rates must have shape \(2, 6, 7, 1\).*got \(2, 6, 7, 9\)",
    ),
    "whole rates": (
        lambda: rfjax.continuous_dilated_conv(X, KERNEL, jnp.ones((2, 6, 7, 1), jnp.int32)),
        TypeError,
        "rates must have a floating-point dtype; got int32",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_say_what_is_wanted(name):
    call, error, message = WRONG[name]
    with pytest.raises(error, match=message):
        call()
