"""Gaussian blur of feature maps against loop-written references, at every scale and boundary."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

import rfjax
from tests import reference as ref

SIGMAS = (0.1, 0.3, 0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
PARAMS = {
    "spherical": lambda s: [math.log(s)],
    "diagonal": lambda s: [math.log(s), math.log(0.7 * s)],
    "full": lambda s: [math.log(s), 0.4 * s, math.log(0.8 * s)],
}
STATIC = ("truncate", "padding", "method", "support", "spatial_ndim")
blur = jax.jit(rfjax.gaussian_blur, static_argnames=STATIC)
every_family = pytest.mark.parametrize("family", PARAMS)
every_method = pytest.mark.parametrize("method", ref.METHODS)
every_support = pytest.mark.parametrize("support", ref.SUPPORTS)
every_padding = pytest.mark.parametrize("padding", ref.PADDINGS)


def maps(*shape, seed=0):
    return np.random.default_rng(seed).uniform(-1, 1, size=shape)


def f32(values):
    return jnp.asarray(values, jnp.float32)


# Every option at every scale


@every_family
@every_method
@every_support
@every_padding
def test_blur_against_the_reference(family, method, support, padding):
    x = maps(1, 17, 19, 1)
    options = dict(method=method, support=support, padding=padding)
    for sigma in SIGMAS:
        params = PARAMS[family](sigma)
        got = blur(f32(x), f32(params), **options)
        assert got.shape == x.shape and got.dtype == jnp.float32
        wanted = ref.blur(x, params, **options)
        np.testing.assert_allclose(got, wanted, atol=1e-6, rtol=0, err_msg=f"sigma {sigma}")


@every_family
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


@pytest.mark.parametrize(
    "padding, mode", [("zero", "constant"), ("edge", "nearest"), ("reflect", "mirror"), ("wrap", "wrap")]
)
def test_blur_is_scipys_gaussian_filter(padding, mode):
    x = maps(1, 17, 19, 1)
    for sigma in SIGMAS:
        got = blur(f32(x), f32([math.log(sigma)]), padding=padding)
        radius = max(1, math.ceil(2 * sigma))
        wanted = ndimage.gaussian_filter(x[0, :, :, 0], sigma, mode=mode, radius=radius)
        np.testing.assert_allclose(got[0, :, :, 0], wanted, atol=1e-6)


@pytest.mark.parametrize("side", [5, 8, 16, 33, 80])
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


@every_padding
def test_axes_of_one_pixel(padding):
    for shape in ((1, 1, 6, 1), (1, 6, 1, 1), (1, 1, 1, 1)):
        x = maps(*shape)
        for params in ([0.0], [0.3, 0.7], [0.1, 0.5, 0.1])[: 2 if padding in ("edge", "reflect", "wrap") else 3]:
            got = blur(f32(x), f32(params), padding=padding)
            np.testing.assert_allclose(got, ref.blur(x, params, padding=padding), atol=1e-6)


@every_support
@pytest.mark.parametrize("truncate", [1.0, 4.0])
def test_truncation(support, truncate):
    x = maps(1, 17, 19, 1)
    for family, sigma in (("spherical", 1.3), ("full", 1.3), ("diagonal", 9.1)):
        params = PARAMS[family](sigma)
        got = blur(f32(x), f32(params), truncate=truncate, support=support)
        wanted = ref.blur(x, params, truncate=truncate, support=support)
        np.testing.assert_allclose(got, wanted, atol=1e-6)


# Structure on more axes


@every_family
def test_parameters_per_channel_and_per_example_are_loops(family):
    x = maps(2, 9, 10, 3, seed=3)
    grid = np.array([[PARAMS[family](s) for s in row] for row in ((0.3, 1.1, 6), (12, 0.6, 2.2))])
    wanted = np.zeros_like(x)
    for structure in (grid[0], grid[:, :1], grid):  # [C, F], [N, 1, F], [N, C, F]
        pairs = np.broadcast_to(structure, grid.shape)
        for n in range(2):
            for c in range(3):
                one = x[n : n + 1, :, :, c : c + 1]
                wanted[n, :, :, c] = ref.blur(one, pairs[n, c])[0, :, :, 0]
        np.testing.assert_allclose(blur(f32(x), f32(structure)), wanted, atol=1e-6)


@every_family
def test_any_number_of_batch_axes(family):
    x, params = maps(2, 3, 6, 7, 2, seed=4), PARAMS[family](0.8)
    wanted = ref.blur(x, params)
    np.testing.assert_allclose(blur(f32(x), f32(params)), wanted, atol=1e-6)
    np.testing.assert_allclose(blur(f32(x[0, 0]), f32(params)), wanted[0, 0], atol=1e-6)


@every_padding
def test_one_and_three_dimensional_maps(padding):
    for sigma in (0.4, 1.3, 9.0):
        x = maps(2, 11, 3, seed=5)
        got = blur(f32(x), f32([math.log(sigma)]), padding=padding, spatial_ndim=1)
        wanted = ref.blur_axis(x, sigma, 1, padding=padding)
        np.testing.assert_allclose(got, wanted, atol=1e-6)
    x = maps(1, 5, 6, 7, 2, seed=6)
    for sigmas in ([1.3], [0.4, 1.1, 3.2]):
        got = blur(f32(x), jnp.log(f32(sigmas)), padding=padding, spatial_ndim=3)
        wanted = x
        for axis in (1, 2, 3):
            wanted = ref.blur_axis(wanted, sigmas[min(axis, len(sigmas)) - 1], axis, padding=padding)
        np.testing.assert_allclose(got, wanted, atol=1e-6)


@every_family
@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_half_precision_rounds_once(family, dtype):
    x = jnp.asarray(maps(2, 12, 13, 2, seed=7) * 0.5 + 0.5, dtype)
    for sigma in (0.3, 1.3, 5.0):
        for kind in (jnp.float32, dtype):
            params = jnp.asarray(PARAMS[family](sigma), kind)
            got = blur(x, params, padding="renormalized")
            assert got.dtype == dtype
            wanted = blur(x.astype(jnp.float32), params.astype(jnp.float32), padding="renormalized")
            np.testing.assert_allclose(got.astype(jnp.float32), wanted, rtol=4e-3, atol=1e-6)


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
    x = maps(1, 7, 9, 2)
    params = f32(PARAMS[family](math.exp(9)))
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
    params = f32(PARAMS[family](1.2))  # half size 3
    got, wanted = blur(f32(x)[:, 1:], params), blur(f32(x), params)[:, 1:]
    np.testing.assert_allclose(got[:, 3:], wanted[:, 3:], atol=1e-6)


@every_family
@every_padding
def test_symmetries(family, padding):
    """Half a turn and, with the parameters of the transposed covariance, the transpose."""
    x = f32(maps(1, 17, 19, 1))
    params = PARAMS[family](1.4)
    out = blur(x, f32(params), padding=padding)
    turned = blur(x[:, ::-1, ::-1], f32(params), padding=padding)[:, ::-1, ::-1]
    np.testing.assert_allclose(turned, out, atol=1e-6)
    matrix = ref.covariance(params)[::-1, ::-1]
    swapped = {
        "spherical": params,
        "diagonal": params[::-1],
        "full": ref.log_cholesky(matrix),
    }[family]
    square = x[:, :, :17]
    got = blur(square.swapaxes(1, 2), f32(swapped), padding=padding).swapaxes(1, 2)
    np.testing.assert_allclose(got, blur(square, f32(params), padding=padding), atol=1e-6)


@every_family
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
    x = f32(maps(1, 17, 19, 1))
    options = dict(padding="wrap", method="discrete", truncate=8.0)
    for a, b in (([-0.7], [0.4]), ([-0.7, 0.1], [0.4, 0.2])):
        twice = blur(blur(x, f32(a), **options), f32(b), **options)
        once = blur(x, rfjax.cascade(f32(a), f32(b)), **options)
        np.testing.assert_allclose(twice, once, atol=2e-6)


@every_family
@every_method
def test_support_through_gradients(family, method):
    def centre(x, params):
        return rfjax.gaussian_blur(x, params, method=method)[0, 16, 17, 0]

    seen = jax.jit(jax.grad(centre))
    for sigma in (0.7, 1.2, 3.3):
        params = PARAMS[family](sigma)
        got = np.abs(np.asarray(seen(jnp.zeros((1, 33, 35, 1)), f32(params))))[0, :, :, 0]
        half_y, half_x = (ref.half_size(s) for s in np.sqrt(np.diag(ref.covariance(params))))
        inside = got[16 - half_y : 17 + half_y, 17 - half_x : 18 + half_x]
        assert inside.min() > 1e-6
        assert got.sum() - inside.sum() < 1e-6 and got.sum() == pytest.approx(1, abs=1e-5)
