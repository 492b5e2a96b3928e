"""A Gaussian for every filter, and mixtures: against the compositions that they are made of."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rfjax import (
    channel_conv,
    composed_conv,
    composition,
    compound,
    dog_conv,
    gaussian,
    mixture_conv,
    surround_covariance,
)
from tests import reference
from tests.test_composition import log, operands
from tests.test_sampling import plain_conv, relative

FAMILIES = {
    "spherical": [(-0.4,), (0.1,), (0.5,)],
    "diagonal": [(-0.4, 0.2), (0.1, 0.5), (0.3, -0.6)],
    "full": [(-0.4, 0.3, 0.2), (0.1, -0.7, 0.4), (0.0, 0.5, -0.2)],
}


@pytest.mark.parametrize(("family", "stride"), [("spherical", 2), ("diagonal", 1), ("full", 1)])
def test_every_filter_is_composed_with_its_gaussian(family, stride):
    # y_o = (g_o * f_o) * x, away from the borders, to 1e-10 in float64.
    with jax.enable_x64(True):
        x, kernel = operands((1, 24, 23, 2), features=3, dtype=jnp.float64)
        params = jnp.array(FAMILIES[family])
        got = channel_conv(x, kernel, params, resample=False, stride=stride)
        wanted = []
        for o in range(3):
            taps = gaussian.gaussian_kernel(params[o], max_half_size=4)
            composed = composition.compose_kernel(kernel[..., o : o + 1], taps)
            wanted.append(plain_conv(x, composed, stride))
        wanted = jnp.concatenate(wanted, -1)
        assert got.shape == wanted.shape
        inside = slice(5 // stride + 1, -(5 // stride + 1))
        assert relative(got[:, inside, inside], wanted[:, inside, inside]) < 1e-10


@pytest.mark.parametrize(
    ("mode", "stride", "dilation"), [("residual", 2, 1), ("residual", 1, 2), ("absolute", 1, 1)]
)
def test_every_filter_is_resampled_by_its_gaussian(mode, stride, dilation):
    x, kernel = operands((2, 22, 24, 2), features=3)
    params = jnp.array(FAMILIES["full"])
    options = {"mode": mode, "rate": 1.1, "stride": stride, "dilation": dilation}
    got = channel_conv(x, kernel, params, **options)
    each = [
        composition.blur_resample_conv(x, kernel[..., o : o + 1], params[o], **options)
        for o in range(3)
    ]
    wanted = jnp.concatenate(each, -1)
    assert got.shape == wanted.shape
    inside = slice(9 // stride, -(9 // stride))  # beyond the reach of taps and filter
    assert relative(got[:, inside, inside], wanted[:, inside, inside]) < 1e-5


@pytest.mark.parametrize("resample", [True, False])
def test_one_function_is_all_structures(resample):
    x, kernel = operands()
    one, several, weights = log(0.8), log(0.3, 0.8, 2.0)[:, None], jnp.array([0.5, -0.2, 0.7])
    each = jnp.linspace(-1.0, 0.5, 5)[:, None]
    options = {"stride": (2, 1), "dilation": (1, 2), "padding": "edge"}
    single = composition.blur_resample_conv if resample else composition.blur_conv
    wanted = {
        "minimal": (single(x, kernel, one, **options), (one,)),
        "channel": (channel_conv(x, kernel, each, resample=resample, **options), (each,)),
        "multiple": (
            mixture_conv(x, kernel, several, weights, resample=resample, **options),
            (several, weights),
        ),
    }
    for name, (value, arguments) in wanted.items():
        got = composed_conv(x, kernel, *arguments, resample=resample, **options)
        np.testing.assert_array_equal(got, value, err_msg=name)


def test_points_of_channel_structure_and_mixtures():
    x, kernel = operands()
    points = jnp.asarray(np.random.default_rng(0).normal(size=(9, 2)), jnp.float32)
    wanted = composition.blur_resample_conv(x, kernel, log(0.2), points=points)
    alike = jnp.broadcast_to(log(0.2), (5, 1))
    for arguments in ((alike[:2], jnp.array([0.5, 0.5])), (alike,)):
        got = composed_conv(x, kernel, *arguments, points=points)
        inside = slice(3, -3)  # channel structure pads the responses, not the map
        assert relative(got[:, inside, inside], wanted[:, inside, inside]) < 1e-5


@pytest.mark.parametrize("resample", [True, False])
def test_center_surround_is_a_difference_of_compositions(resample):
    x, kernel = operands()
    other = kernel[::-1]
    center, surround = log(0.5), log(1.5, 2.5)
    options = {"resample": resample, "stride": 2, "support": "faded"}
    for second in (None, other):
        got = dog_conv(x, kernel, center, surround, surround_kernel=second, **options)
        wanted = composed_conv(x, kernel, center, **options) - composed_conv(
            x, kernel if second is None else second, surround, **options
        )
        np.testing.assert_array_equal(got, wanted)


def test_a_surround_is_the_sum_of_two_covariances_one_of_them_bounded():
    center, delta = np.array([0.1, 0.3, -0.4]), np.array([1.5, -3.0, 0.2])
    upper = reference.factor(delta)
    bounded = upper / (1 + (upper / 2.5) ** 4) ** 0.25
    wanted = reference.covariance(center) + bounded.T @ bounded
    got = surround_covariance(center, delta, max_surround=2.5)
    np.testing.assert_allclose(reference.covariance(got), wanted, rtol=1e-5)


def test_the_taps_alone_are_exact_up_to_the_borders():
    # Far less than a pixel of blur, and offsets of several pixels, integer ones included.
    x, kernel = operands((1, 7, 9, 2), features=3)
    params = log(1e-3, 2e-3, 4e-3)[:, None]
    got = channel_conv(x, kernel, params, rate=1000.0)
    each = [
        composition.blur_resample_conv(x, kernel[..., o : o + 1], params[o], rate=1000.0)
        for o in range(3)
    ]
    assert relative(got, jnp.concatenate(each, -1)) < 1e-5


@pytest.mark.parametrize("resample", [True, False])
def test_channel_structure_of_no_extent_is_the_plain_convolution(resample):
    x, kernel = operands()
    params = jnp.full((5, 1), np.log(1e-7))
    got = channel_conv(x, kernel, params, resample=resample)
    assert relative(got, plain_conv(x, kernel)) < 1e-5


@pytest.mark.parametrize("resample", [True, False])
@pytest.mark.parametrize(("stride", "dilation"), [(1, 1), (2, 2)])
def test_a_mixture_is_the_weighted_sum_of_compositions(resample, stride, dilation):
    x, kernel = operands()
    params, weights = log(0.3, 0.8, 2.0)[:, None], jnp.array([0.5, -0.2, 0.7])
    options = {"stride": stride, "dilation": dilation, "padding": "edge"}
    compose = composition.blur_resample_conv if resample else composition.blur_conv
    wanted = sum(w * compose(x, kernel, p, **options) for w, p in zip(weights, params, strict=True))
    got = mixture_conv(x, kernel, params, weights, resample=resample, **options)
    assert relative(got, wanted) < 1e-5


@pytest.mark.parametrize("function", [channel_conv, mixture_conv])
def test_gradients_are_those_of_differences(function):
    # Away from kinks: no offset is an integer, no 2 sigma either.
    with jax.enable_x64(True):
        x, kernel = operands((1, 4, 5, 1), features=2, size=(1, 3), dtype=jnp.float64)
        params, weights = jnp.array([[0.13], [-0.21]]), jnp.array([0.6, 0.4])
        if function is channel_conv:
            call, arguments = jax.jit(lambda k, p: channel_conv(x, k, p)), (kernel, params)
        else:
            call = jax.jit(lambda p, w: mixture_conv(x, kernel, p, w, resample=False))
            arguments = (params, weights)
        check_grads(call, arguments, order=1, modes=("rev",), rtol=1e-4)


def test_a_whole_offset_has_the_slope_on_the_right():
    # As `sampled_conv` has: x is |j - 3|, and the only tap lies at its minimum.
    x = jnp.abs(jnp.arange(7.0) - 3.0).reshape(1, 7, 1)
    kernel = jnp.ones((1, 1, 1, 1))

    def value(offset):
        position = jnp.stack([jnp.zeros(()), offset]).reshape(1, 1, 2)
        return compound._moved_taps(x, kernel, position)[0, 3, 0]

    assert jax.grad(value)(0.0) == 1.0


def test_halves_are_summed_in_float32():
    x, kernel = operands(dtype=jnp.bfloat16)
    params, weights = log(0.5, 1.0)[:, None], jnp.array([0.5, 0.5])
    for y in (
        channel_conv(x, kernel, jnp.zeros((5, 1))),
        channel_conv(x, kernel, jnp.zeros((5, 1)), resample=False),
        mixture_conv(x, kernel, params, weights),
    ):
        assert y.dtype == jnp.bfloat16 and bool(jnp.all(jnp.isfinite(y)))


X, KERNEL = np.ones((1, 5, 5, 2), np.float32), np.ones((3, 3, 2, 4), np.float32)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: channel_conv(X, KERNEL, np.zeros(1)), r"\[C_out, F\] with 4 rows.*got \(1,\)"),
        (lambda: channel_conv(X, KERNEL, np.zeros((3, 1))), r"4 rows, one covariance for each fil"),
        (lambda: channel_conv(X, KERNEL, np.zeros((4, 4))), "4"),
        (lambda: channel_conv(X, KERNEL, np.zeros((4, 1)), stride=0), "stride must be a positive"),
        (lambda: channel_conv(X, KERNEL, np.zeros((4, 1)), mode="relative"), "mode is one of"),
        (
            lambda: mixture_conv(X, KERNEL, np.zeros((3, 1)), np.ones(2)),
            r"\[M, F\] with 2 rows, one covariance for each weight; got \(3, 1\)",
        ),
        (
            lambda: mixture_conv(X, KERNEL, np.zeros((1, 1)), np.float32(1.0)),
            r"weights must have shape \[M\], M at least 1; got \(\)",
        ),
    ],
)
def test_errors_say_what_is_wanted(call, message):
    with pytest.raises(ValueError, match=message):
        call()
