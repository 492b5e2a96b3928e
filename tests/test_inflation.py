"""Inflation and the way back against loops, and the gradients of the factor."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

import rfjax
from rfjax import nn
from rfjax._engine.conv import convolve
from rfjax.receptive_field import rf_exact, rf_paper
from tests import reference

KEY = jax.random.key(0, impl="unsafe_rbg")


def draw(*shape, seed=0, dtype=np.float32):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def inflated(x, factor, max_factor=4.0):
    """The part of the canvas that is in use."""
    canvas, (height, width) = rfjax.inflate(x, factor, max_factor=max_factor)
    assert not jnp.any(canvas[..., height:, :, :]) and not jnp.any(canvas[..., width:, :])
    return canvas[..., :height, :width, :]


@pytest.mark.parametrize("factor", [0.3, 0.75, 1.0, 1.37, 2.0, 3.9])
def test_pixels_are_bilinear_reads(factor):
    x = draw(6, 9, 2)
    found = np.asarray(inflated(x, factor))
    assert found.shape[:2] == (int(factor * 5) + 1, int(factor * 8) + 1)
    for i, j in np.ndindex(found.shape[:2]):
        # On the last pixel a weight of 0 may fall on what lies beyond.
        edge = np.pad(np.asarray(x), ((0, 1), (0, 1), (0, 0)), mode="edge")
        wanted = reference.bilinear(edge, i / factor, j / factor)
        np.testing.assert_allclose(found[i, j], wanted, atol=1e-5)


@pytest.mark.parametrize("factor", [0.4, 1.0, 1.7])
def test_the_way_back_reads_the_used_part_alone(factor):
    x = draw(8, 9, 2)
    found = rfjax.interpolate(x, factor, jnp.array([5, 6]), (7, 6))
    used = np.pad(np.asarray(x)[:5, :6], ((0, 1), (0, 1), (0, 0)), mode="edge")
    for i, j in np.ndindex(7, 6):
        wanted = reference.bilinear(used, min(i * factor, 4.0), min(j * factor, 5.0))
        np.testing.assert_allclose(found[i, j], wanted, atol=1e-5)


def test_factor_one_is_the_identity():
    """Invariant 1."""
    x = draw(2, 6, 7, 3)
    canvas, size = rfjax.inflate(x, 1.0, max_factor=1.0)
    np.testing.assert_array_equal(canvas, x)
    np.testing.assert_array_equal(rfjax.interpolate(x, 1.0, size, (6, 7)), x)


@pytest.mark.parametrize("factor", [2, 3])
def test_a_whole_factor_keeps_all_pixels(factor):
    """Invariants 2 and 5."""
    x = draw(6, 7, 2)
    canvas, size = rfjax.inflate(x, float(factor))
    np.testing.assert_allclose(inflated(x, float(factor))[::factor, ::factor], x, atol=1e-6)
    np.testing.assert_allclose(rfjax.interpolate(canvas, float(factor), size, (6, 7)), x, atol=1e-6)


def test_dilation_and_inflation_by_a_whole_factor_cancel():
    """Invariant 3."""
    x, kernel = draw(1, 9, 9, 2), draw(3, 3, 2, 3, seed=1)
    wide = convolve(inflated(x, 2.0), kernel, 1, 2)[:, ::2, ::2]
    np.testing.assert_allclose(wide, convolve(x, kernel, 1, 1), atol=1e-5)


@pytest.mark.parametrize("factor", [1.25, 2.0])
def test_a_dilation_is_divided_by_the_factor(factor):
    """Invariant 3, the other way: taps d / f pixels apart, at the pixels that stay whole."""
    x = jnp.arange(12.0).reshape(1, 12, 1) + jnp.arange(12.0).reshape(12, 1, 1)  # linear
    kernel = draw(3, 3, 1, 1, seed=1)
    step = 5 if factor == 1.25 else 2
    found = convolve(inflated(x, factor), kernel, 1, 1)[step * 2 : 11 : step, step * 2 : 11 : step]
    rates = jnp.full((12, 12, 1), 1 / factor)
    every = int(step / factor)
    direct = rfjax.continuous_dilated_conv(x, kernel, rates)[every * 2 :: every, every * 2 :: every]
    count = found.shape[0]
    np.testing.assert_allclose(found, direct[:count, :count], rtol=1e-4)


@pytest.mark.parametrize("factor", [0.6, 1.3, 2.5])
def test_constants_and_ramps_stay(factor):
    """Invariants 4 and 5."""
    np.testing.assert_allclose(inflated(jnp.ones((6, 7, 1)), factor), 1.0, atol=1e-6)
    ramp = jnp.broadcast_to(jnp.arange(7.0).reshape(1, 7, 1), (6, 7, 1))
    found = inflated(ramp, factor)
    np.testing.assert_allclose(found[0, :, 0], np.arange(found.shape[1]) / factor, atol=1e-5)
    canvas, size = rfjax.inflate(ramp, factor)
    back = rfjax.interpolate(canvas, factor, size, (6, 7))
    last = (float(size[1]) - 1) / factor
    np.testing.assert_allclose(back[0, :, 0], np.minimum(np.arange(7.0), last), atol=1e-5)


def test_true_gradients_are_those_of_finite_differences():
    """Invariant 6."""
    with jax.enable_x64(True):
        x, size = draw(2, 5, 6, 2, dtype=np.float64), jnp.array([5, 6])
        spread = functools.partial(rfjax.inflate, max_factor=2.0)
        for factor in (0.83, 1.37):
            operands = (x, jnp.asarray(factor))
            check_grads(lambda x, f: spread(x, f)[0], operands, order=1, atol=1e-6, rtol=1e-6)
            back = lambda x, f: rfjax.interpolate(x, f, size, (4, 3))
            check_grads(back, operands, order=1, atol=1e-6, rtol=1e-6)


def test_on_whole_places_the_slope_is_that_on_the_right():
    x = jnp.array([0.0, 1.0, 4.0, 9.0]).reshape(1, 4, 1)
    along = jax.jacfwd(lambda f: rfjax.inflate(x, f, max_factor=1.0)[0])(1.0)
    # dV(y) / df = -(y / f^2) (x[y + 1] - x[y]), and nothing beyond the last pixel
    np.testing.assert_allclose(along[0, :, 0], [0.0, -3.0, -10.0, 0.0], atol=1e-6)


@pytest.mark.parametrize("factor, size", [(0.5, 21), (1.5, 61), (1.25, 51), (0.75, 31), (2.0, 81)])
def test_sizes_are_those_of_the_table(factor, size):
    """Invariant 11."""
    _, found = rfjax.inflate(jnp.zeros((41, 41, 1)), factor)
    np.testing.assert_array_equal(found, [size, size])


def test_weighted_gradients():
    """Invariant 7."""
    x, weights = draw(2, 3, 4, 5), jnp.ones((2, 3, 4)).at[0, 1, 2].set(5.0)
    y, pull = jax.vjp(lambda x: rfjax.weighted_gradient(x, weights), x)
    np.testing.assert_array_equal(y, x)
    cotangent = draw(2, 3, 4, 5, seed=1)
    np.testing.assert_allclose(pull(cotangent)[0], cotangent * weights[..., None])


def test_receptive_fields():
    """Invariant 10, with the table of the paper."""
    factors = (0.5, 0.75, 1.0, 1.25, 1.5, 2.0)
    assert [rf_paper(25, f) for f in factors] == [620, 484, 412, 372, 348, 308]
    assert [rf_paper(17, f) for f in factors] == [492, 396, 348, 324, 300, 276]
    assert rf_exact(25, 1.0) == 404 and rf_exact(7, 1.0) == 260
    measured = [rf_exact(17, f) for f in factors]
    assert measured == sorted(measured, reverse=True) and measured[0] > measured[2] > measured[-1]


# The layer


def layer_and_variables(gradient="paper", factor=1.0, **options):
    layer = nn.Inflated(nn.Conv(3, dilation=2), initial=factor, gradient=gradient, **options)
    return layer, jax.jit(layer.init)(KEY, draw(2, 8, 9, 2))


def test_a_new_layer_is_the_layer_itself_and_its_factor_learns():
    """Invariant 1."""
    layer, variables = layer_and_variables()
    x = draw(2, 8, 9, 2)
    wanted = nn.Conv(3, dilation=2).apply({"params": variables["params"]["layer"]}, x)
    np.testing.assert_allclose(layer.apply(variables, x), wanted, atol=1e-5)
    loss = lambda variables: jnp.sum(layer.apply(variables, x) ** 2)
    assert abs(jax.grad(loss)(variables)["params"]["factor"]) > 1e-3


@pytest.mark.parametrize("factor", [0.8, 1.3, 1.7, 2.6])
def test_a_layer_is_the_same_on_every_canvas(factor):
    layer, variables = layer_and_variables(factor=factor)
    x = draw(2, 8, 9, 2)
    canvas, size = rfjax.inflate(x, factor)
    y = convolve(canvas, variables["params"]["layer"]["kernel"], 1, 2)
    wanted = rfjax.interpolate(y, factor, size, (8, 9))
    np.testing.assert_allclose(layer.apply(variables, x), wanted, atol=1e-5)


def _parts(factor, kernel, x):
    """The true gradients of f by the inflation and by the way back, of sum(y^2)."""
    size = rfjax.inflate(x, factor)[1]

    def loss(there, back):
        y = convolve(rfjax.inflate(x, there)[0], kernel, 1, 2)
        return jnp.sum(rfjax.interpolate(y, back, size, x.shape[1:3]) ** 2)

    return jax.grad(loss, argnums=(0, 1))(factor, factor), int(np.prod(size))


def test_gradients_of_the_factor_by_kind():
    """Invariant 6: equation 3 is the true gradient of each of the two over its target pixels."""
    x, factor = draw(2, 8, 9, 2), 1.3
    found = {}
    for kind in ("true", "paper", "released"):
        layer, variables = layer_and_variables(kind, factor)
        loss = lambda variables, layer=layer: jnp.sum(layer.apply(variables, x) ** 2)
        found[kind] = jax.grad(loss)(variables)["params"]
    (there, back), pixels = _parts(factor, variables["params"]["layer"]["kernel"], x)
    np.testing.assert_allclose(found["true"]["factor"], there + back, rtol=1e-3)
    np.testing.assert_allclose(found["paper"]["factor"], there / pixels + back / 72, rtol=1e-3)
    released = (there * factor**2 + back) / 144  # behind an interpolation whose adjoint is f^2
    np.testing.assert_allclose(found["released"]["factor"], released, rtol=1e-3)
    true, paper = (found[kind]["layer"]["kernel"] for kind in ("true", "paper"))
    np.testing.assert_allclose(true, paper, rtol=1e-5)


def test_a_factor_beyond_its_bounds_is_cut_and_comes_back():
    layer, variables = layer_and_variables("true", bounds=(0.5, 1.5))
    x = draw(2, 8, 9, 2)

    def at(factor):
        params = variables["params"] | {"factor": jnp.asarray(factor)}
        return layer.apply({"params": params}, x)

    np.testing.assert_array_equal(at(7.0), at(1.5))
    np.testing.assert_array_equal(at(0.1), at(0.5))
    assert abs(jax.grad(lambda f: jnp.sum(at(f) ** 2))(7.0)) > 1e-3


def test_identical_branches_part_only_by_weighted_gradients():
    """Invariants 7 to 9."""
    layer, variables = layer_and_variables()
    x, target = draw(1, 8, 9, 2), draw(1, 8, 9, 3, seed=3)
    near = jnp.broadcast_to(jnp.where(jnp.arange(9) < 4, 5.0, 1.0).reshape(1, 1, 9), (1, 8, 9))

    def gradients(weights):
        def loss(first, second):
            scores = [layer.apply(branch, x) for branch in (first, second)]
            fused = rfjax.weighted_gradient(scores[0], weights) + scores[1]
            return jnp.sum((fused - target) ** 2)

        both = jax.grad(loss, argnums=(0, 1))(variables, variables)
        return [branch["params"]["factor"] for branch in both]

    first, second = gradients(jnp.ones((1, 8, 9)))
    np.testing.assert_array_equal(first, second)
    first, second = gradients(near)
    assert abs(first - second) > 1e-3


@pytest.mark.parametrize("kind", ["true", "paper", "released"])
def test_a_toy_that_needs_a_larger_field_drives_the_factor_below_one(kind):
    """Invariant 12: taps two pixels apart must come to read pixels three apart.

    The three gradients differ in size, and in what each of the two interpolations has of it. Where
    the layer does what is wanted all are zero; "released" stays a little short of it.
    """
    x = rfjax.gaussian_blur(draw(1, 1, 64, 1), jnp.log(jnp.array([6.0])))
    kernel = jnp.array([1.0, 0.0, -1.0]).reshape(1, 3, 1, 1)
    wanted = convolve(x, kernel, 1, 3)
    layer = nn.Inflated(nn.Conv(1, kernel_size=(1, 3), dilation=2), gradient=kind)

    def loss(factor):
        y = layer.apply({"params": {"factor": factor, "layer": {"kernel": kernel}}}, x)
        return jnp.mean((y - wanted) ** 2)

    def step(factor, _):
        return factor - 0.02 * jnp.sign(jax.grad(loss)(factor)), factor

    last, _ = jax.lax.scan(step, jnp.float32(1.0), length=40)
    assert abs(last - 2 / 3) < (0.08 if kind == "released" else 0.05)


WRONG = {
    "max_factor": (lambda: rfjax.inflate(jnp.ones((3, 3, 1)), 1.0, max_factor=0.5), "max_factor"),
    "factor": (lambda: rfjax.inflate(jnp.ones((3, 3, 1)), -1.0), "factor must be above 0; got -1"),
    "factors": (lambda: rfjax.inflate(jnp.ones((3, 3, 1)), jnp.ones(2)), "factor must be a scalar"),
    "size": (
        lambda: rfjax.interpolate(jnp.ones((3, 3, 1)), 1.0, jnp.array([3]), (3, 3)),
        "size must be two integers",
    ),
    "bounds": (lambda: layer_and_variables(bounds=(2.0, 1.0)), "bounds must be at least 2"),
    "initial": (lambda: layer_and_variables(factor=9.0), "initial must be at least 0.25 and at"),
    "gradient": (lambda: layer_and_variables("none"), "gradient is one of paper, true, released"),
    "weights": (
        lambda: rfjax.weighted_gradient(jnp.ones((3, 3, 1)), jnp.ones((3, 4))),
        r"weights must have shape \(3, 3\).*got \(3, 4\)",
    ),
    "a strided layer": (
        lambda: nn.Inflated(nn.Conv(3, stride=2)).init(KEY, jnp.ones((1, 8, 8, 2))),
        "the layer must keep the size of its map",
    ),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_calls_say_what_is_wanted(name):
    call, message = WRONG[name]
    with pytest.raises(ValueError, match=message):
        call()


def test_each_image_has_a_factor_of_its_own():
    """At first all have the same; then each is inflated by what the regressor says of its mean."""
    options = {"initial": 1.2, "bounds": (0.5, 2.0)}
    layer = nn.Inflated(nn.Conv(3), per_image=True, gradient="true", **options)
    x = draw(2, 6, 7, 4)
    params = jax.jit(layer.init)(KEY, x)["params"]
    one = nn.Inflated(nn.Conv(3), **options)
    shared = {"factor": params["factor"], "layer": params["layer"]}
    wanted = jax.jit(one.apply)({"params": shared}, x)
    np.testing.assert_allclose(jax.jit(layer.apply)({"params": params}, x), wanted, atol=1e-5)
    kernel = 0.3 * draw(4, 1, seed=1)
    params["factor_regressor"] = {"kernel": kernel}
    factors = 1.2 + jnp.mean(x, (1, 2)) @ kernel
    found = jax.jit(layer.apply)({"params": params}, x)
    for index in range(2):
        own = {"params": shared | {"factor": factors[index, 0]}}
        wanted = jax.jit(one.apply)(own, x[index : index + 1])
        np.testing.assert_allclose(found[index : index + 1], wanted, atol=1e-4)
    gradient = jax.grad(lambda p: jnp.sum(layer.apply({"params": p}, x) ** 2))(params)
    assert np.all(np.asarray(gradient["factor_regressor"]["kernel"]) != 0)
    with pytest.raises(ValueError, match=r"wants x \[N, H, W, C\]; got \(6, 7, 4\)"):
        layer.init(KEY, x[0])
