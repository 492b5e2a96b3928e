"""Gaussian blur of feature maps against loop-written references, at every scale and boundary."""

import inspect
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import rfjax
from tests import reference as ref

SIGMAS = (0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
SCIPY_MODE = {"zero": "constant", "edge": "nearest", "reflect": "mirror", "wrap": "wrap"}
PARAMS = {
    "spherical": lambda s: [math.log(s)],
    "diagonal": lambda s: [math.log(s), math.log(0.7 * s)],
    "full": lambda s: [math.log(s), 0.4 * s, math.log(0.8 * s)],
}
DEFAULTS = dict(truncate=2.0, padding="zero", method="sampled", support="hard", spatial_ndim=2)
compiled = jax.jit(rfjax.gaussian_blur, static_argnames=DEFAULTS)
every_family = pytest.mark.parametrize("family", PARAMS)
every_method = pytest.mark.parametrize("method", ref.METHODS)
every_support = pytest.mark.parametrize("support", ref.SUPPORTS)
every_padding = pytest.mark.parametrize("padding", ref.PADDINGS)


def blur(x, params, **options):
    """Every option spelled out, so that all tests share one compilation of each combination."""
    return compiled(x, params, **(DEFAULTS | options))


def maps(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=shape)


def f32(values):
    return jnp.asarray(values, jnp.float32)


def test_defaults():
    signature = inspect.signature(rfjax.gaussian_blur).parameters
    assert {name: signature[name].default for name in DEFAULTS} == DEFAULTS
    assert all(signature[name].kind is inspect.Parameter.KEYWORD_ONLY for name in DEFAULTS)


# Every option at every scale


def every_combination():
    """All 90; the default run has a good third, among which is every pair of options."""
    table = list(enumerate(itertools.product(PARAMS, ref.METHODS, ref.SUPPORTS, ref.PADDINGS)))
    for index, (family, method, support, padding) in table:
        plain = support == "hard" and (method == "sampled" or padding == "zero")
        marks = () if plain or index % 4 == 0 else (pytest.mark.slow,)
        yield pytest.param(family, method, support, padding, marks=marks)


@pytest.mark.parametrize("family, method, support, padding", list(every_combination()))
def test_blur_against_the_reference(family, method, support, padding):
    x = maps(1, 17, 19, 1)
    options = dict(method=method, support=support, padding=padding)
    for sigma in SIGMAS:
        params = PARAMS[family](sigma)
        got = blur(f32(x), f32(params), **options)
        assert got.shape == x.shape and got.dtype == jnp.float32
        wanted = ref.blur(x, params, **options)
        np.testing.assert_allclose(got, wanted, atol=1e-6, rtol=0, err_msg=f"sigma {sigma}")


@pytest.mark.parametrize("family", ["diagonal", "full"])
@every_padding
def test_blur_in_float64(family, padding):
    x = maps(1, 17, 19, 1)
    for sigma in SIGMAS:
        params = PARAMS[family](sigma)
        with jax.enable_x64(True):
            got = blur(x, np.array(params), padding=padding)
        assert got.dtype == np.float64
        wanted = ref.blur(x, params, padding=padding)
        np.testing.assert_allclose(got, wanted, atol=1e-12, rtol=0, err_msg=f"sigma {sigma}")


@pytest.mark.parametrize("padding, mode", sorted(SCIPY_MODE.items()))
def test_blur_is_scipys_gaussian_filter(padding, mode):
    x = maps(1, 17, 19, 1)
    for sigma in SIGMAS:
        got = blur(f32(x), f32([math.log(sigma)]), padding=padding)
        radius = max(1, math.ceil(2 * sigma))
        wanted = ndimage.gaussian_filter(x[0, :, :, 0], sigma, mode=mode, radius=radius)
        np.testing.assert_allclose(got[0, :, :, 0], wanted, atol=1e-6)


@pytest.mark.parametrize("side", [5, 16, 33, 80])
@pytest.mark.parametrize(
    "family, padding",
    [("spherical", "zero"), ("diagonal", "reflect"), ("full", "zero"), ("full", "edge")],
)
def test_blur_at_every_size_of_map(side, family, padding):
    x = maps(2, side, side + 3, 2, seed=1)
    for sigma in (0.4, 1.3, 2.6, 7.0, 19.0):
        if family == "full" and padding == "edge" and ref.half_size(sigma) > 2 * side:
            continue
        params = PARAMS[family](sigma)
        got = blur(f32(x), f32(params), padding=padding)
        wanted = ref.blur(x, params, padding=padding)
        np.testing.assert_allclose(got, wanted, atol=1e-6, err_msg=f"sigma {sigma}")


@every_family
def test_blur_at_a_realistic_size(family):
    x = maps(1, 64, 64, 16, seed=2)
    for sigma in (1.0, 3.3):
        got = blur(f32(x), f32(PARAMS[family](sigma)))
        np.testing.assert_allclose(got, ref.blur(x, PARAMS[family](sigma)), atol=1e-6)


@every_padding
@pytest.mark.parametrize("params", [[math.log(1000)], [math.log(30), math.log(1000)]])
def test_support_far_larger_than_the_map(padding, params):
    x = maps(1, 7, 9, 1)
    got = blur(f32(x), f32(params), padding=padding)
    np.testing.assert_allclose(got, ref.blur(x, params, padding=padding), atol=1e-6)


@pytest.mark.parametrize("padding", ["zero", "renormalized"])
def test_full_support_far_larger_than_the_map(padding):
    x = maps(1, 7, 9, 1)
    got = blur(f32(x), f32([math.log(40), 12.0, math.log(25)]), padding=padding)
    wanted = ref.blur(x, [math.log(40), 12.0, math.log(25)], padding=padding)
    np.testing.assert_allclose(got, wanted, atol=1e-6)
    got = blur(f32(x), f32([math.log(1000), 0.0, math.log(300)]), padding=padding)
    wanted = ref.blur(x, [math.log(1000), math.log(300)], padding=padding)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize(
    "shape, params, padding",
    [
        ((1, 1, 6, 1), [0.3, 0.7], "edge"),
        ((1, 6, 1, 1), [0.3, 0.7], "reflect"),
        ((1, 1, 1, 1), [0.7], "reflect"),
        ((1, 1, 6, 1), [0.1, 0.5, 0.1], "zero"),
        ((1, 6, 1, 1), [0.1, 0.5, 0.1], "renormalized"),
    ],
)
def test_axes_of_one_pixel(shape, params, padding):
    x = maps(*shape)
    got = blur(f32(x), f32(params), padding=padding)
    np.testing.assert_allclose(got, ref.blur(x, params, padding=padding), atol=1e-6)


@pytest.mark.parametrize(
    "family, sigma, truncate, support",
    [("diagonal", 9.1, 1.0, "hard"), ("spherical", 1.3, 4.0, "faded"), ("full", 1.3, 4.0, "hard")],
)
def test_truncation(family, sigma, truncate, support):
    x, params = maps(1, 17, 19, 1), PARAMS[family](sigma)
    options = dict(truncate=truncate, support=support)
    np.testing.assert_allclose(
        blur(f32(x), f32(params), **options), ref.blur(x, params, **options), atol=1e-6
    )


# Structure on more axes


@pytest.mark.parametrize(
    "family, axes",
    [
        ("spherical", "[C, F]"),
        ("spherical", "[N, 1, F]"),
        ("diagonal", "[N, C, F]"),
        ("full", "[C, F]"),
        ("full", "[N, C, F]"),
    ],
)
def test_parameters_per_channel_and_per_example_are_loops(family, axes):
    x = maps(2, 9, 10, 3, seed=3)
    grid = np.array([[PARAMS[family](s) for s in row] for row in ((0.3, 1.1, 6), (12, 0.6, 2.2))])
    structure = {"[C, F]": grid[0], "[N, 1, F]": grid[:, :1], "[N, C, F]": grid}[axes]
    pairs = np.broadcast_to(structure, grid.shape)
    wanted = np.zeros_like(x)
    for n in range(2):
        for c in range(3):
            one = x[n : n + 1, :, :, c : c + 1]
            wanted[n, :, :, c] = ref.blur(one, pairs[n, c])[0, :, :, 0]
    np.testing.assert_allclose(blur(f32(x), f32(structure)), wanted, atol=1e-6)


@pytest.mark.parametrize("family", ["spherical", "full"])
def test_any_number_of_batch_axes(family):
    x, params = maps(2, 3, 6, 7, 2, seed=4), PARAMS[family](0.8)
    wanted = ref.blur(x, params)
    np.testing.assert_allclose(blur(f32(x), f32(params)), wanted, atol=1e-6)
    np.testing.assert_allclose(blur(f32(x[0, 0]), f32(params)), wanted[0, 0], atol=1e-6)


@every_padding
def test_one_dimensional_maps(padding):
    x = maps(2, 11, 3, seed=5)
    for sigma in (0.4, 1.3, 9.0):
        got = blur(f32(x), f32([math.log(sigma)]), padding=padding, spatial_ndim=1)
        wanted = ref.blur_axis(x, sigma, 1, padding=padding)
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("padding", ["zero", "reflect", "renormalized"])
@pytest.mark.parametrize("sigmas", [[1.3], [0.4, 1.1, 3.2]])
def test_three_dimensional_maps(sigmas, padding):
    x = wanted = maps(1, 5, 6, 7, 2, seed=6)
    for axis in (1, 2, 3):
        sigma = sigmas[min(axis, len(sigmas)) - 1]
        wanted = ref.blur_axis(wanted, sigma, axis, padding=padding)
    got = blur(f32(x), jnp.log(f32(sigmas)), padding=padding, spatial_ndim=3)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize("family", ["spherical", "full"])
@pytest.mark.parametrize(
    "dtype, kind", [("bfloat16", "float32"), ("bfloat16", "bfloat16"), ("float16", "float32")]
)
def test_half_precision_rounds_once(family, dtype, kind):
    x = jnp.asarray(maps(2, 12, 13, 2, seed=7) * 0.5 + 0.5, dtype)
    for sigma in (0.3, 1.3, 5.2):
        params = jnp.asarray(PARAMS[family](sigma), kind)
        got = blur(x, params, padding="renormalized")
        assert got.dtype == dtype
        same = np.asarray(x, np.float64), np.asarray(params, np.float64)
        wanted = ref.blur(*same, padding="renormalized")
        np.testing.assert_allclose(np.asarray(got, np.float64), wanted, rtol=4e-3, atol=1e-6)


# Properties


@every_family
@every_method
def test_small_sigma_is_the_identity(family, method):
    x = f32(maps(1, 17, 19, 1))
    for log_sigma in (-40.0, -20.0, -9.0):
        params = PARAMS[family](math.exp(log_sigma))
        np.testing.assert_allclose(blur(x, f32(params), method=method), x, atol=1e-6)
    if method == "sampled":
        np.testing.assert_allclose(blur(x, f32(PARAMS[family](0.1))), x, atol=1e-6)


@every_family
@every_method
def test_large_sigma_is_global_average_pooling(family, method):
    x = maps(1, 17, 19, 1)
    params = f32(PARAMS[family](math.exp(9)))
    if method == "sampled" or family == "full":
        got = blur(f32(x), params, padding="renormalized", method=method)
        wanted = np.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    assert np.abs(blur(f32(x), params, padding="zero", method=method)).max() < 1e-5


@every_family
@pytest.mark.parametrize("padding", ["edge", "reflect", "wrap", "renormalized"])
def test_constants_are_kept(family, padding):
    ones = jnp.ones((1, 17, 19, 1))
    for sigma in (0.3, 1.0, 4.0, 15.0):
        got = blur(ones, f32(PARAMS[family](sigma)), padding=padding)
        np.testing.assert_allclose(got, 1, atol=1e-6)


@every_family
def test_zero_padding_keeps_constants_in_the_interior_only(family):
    got = np.asarray(blur(jnp.ones((1, 17, 19, 1)), f32(PARAMS[family](1.2))))[0, :, :, 0]
    np.testing.assert_allclose(got[3:-3, 3:-3], 1, atol=1e-6)
    assert got[0].max() < 0.9 and got[:, -1].max() < 0.9


@every_family
def test_translation_equivariance(family):
    x = maps(1, 17, 19, 1)
    for sigma in (0.5, 1.2, 5.0):
        params = f32(PARAMS[family](sigma))
        moved = np.roll(x, (3, -5), (1, 2))
        got = blur(f32(moved), params, padding="wrap")
        wanted = np.roll(blur(f32(x), params, padding="wrap"), (3, -5), (1, 2))
        np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_translation_in_the_interior():
    x, params = f32(maps(1, 17, 19, 1)), f32(PARAMS["full"](1.2))  # half size 3
    got, wanted = blur(x[:, 1:], params), blur(x, params)[:, 1:]
    np.testing.assert_allclose(got[:, 3:], wanted[:, 3:], atol=1e-6)


@every_family
@every_padding
def test_half_a_turn(family, padding):
    x, params = f32(maps(1, 17, 19, 1)), f32(PARAMS[family](1.4))
    turned = blur(x[:, ::-1, ::-1], params, padding=padding)[:, ::-1, ::-1]
    np.testing.assert_allclose(turned, blur(x, params, padding=padding), atol=1e-6)


@pytest.mark.parametrize("family, padding", [("diagonal", "edge"), ("full", "zero")])
def test_the_transpose_swaps_the_axes_of_the_covariance(family, padding):
    x, params = f32(maps(1, 17, 19, 1)), PARAMS[family](1.4)
    matrix = ref.covariance(params)[::-1, ::-1]
    swapped = params[::-1] if family == "diagonal" else ref.log_cholesky(matrix)
    got = blur(x.swapaxes(1, 2), f32(swapped), padding=padding).swapaxes(1, 2)
    np.testing.assert_allclose(got, blur(x, f32(params), padding=padding), atol=1e-6)


@pytest.mark.parametrize("family", ["spherical", "full"])
def test_linear_self_adjoint_and_independent_across_channels(family):
    x, y = f32(maps(2, 12, 13, 2, seed=8)), f32(maps(2, 12, 13, 2, seed=9))
    for sigma in (1.2, 5.0):
        params = f32(PARAMS[family](sigma))
        out_x, out_y = blur(x, params), blur(y, params)
        np.testing.assert_allclose(blur(2 * x - 3 * y, params), 2 * out_x - 3 * out_y, atol=3e-6)
        np.testing.assert_allclose((out_x * y).sum(), (x * out_y).sum(), atol=2e-5)
        mixed = jnp.stack([x[..., 0], y[..., 1]], -1)
        np.testing.assert_allclose(blur(mixed, params)[..., 0], out_x[..., 0], atol=1e-6)


def test_cascade_of_blurs():
    """With the discrete method on a torus, blurs compose exactly at any scale."""
    x, a, b = f32(maps(1, 17, 19, 1)), f32([-0.7]), f32([0.4])
    options = dict(padding="wrap", method="discrete", truncate=8.0)
    twice = blur(blur(x, a, **options), b, **options)
    once = blur(x, rfjax.cascade(a, b), **options)
    np.testing.assert_allclose(twice, once, atol=2e-6)


@every_support
def test_full_covariances_far_beyond_the_map_keep_their_digits(support):
    """Relative to what is left of the map, which a filter wider than it makes small."""
    x = maps(1, 20, 23, 1)
    params = rfjax.from_ellipse(50.0, 35.0, 1.1)
    with jax.enable_x64(True):
        got = np.asarray(blur(x, jnp.asarray(params, jnp.float64), support=support))
    wanted = ref.blur(x, np.asarray(params, np.float64), support=support)
    np.testing.assert_allclose(got, wanted, rtol=0, atol=1e-6 * np.abs(wanted).max())
