"""Layers of rfjax.nn: one constructor, the parameters promised, one primitive each."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

import rfjax.covariance
from rfjax import composition, filtering, grids, nn

LAYERS = (nn.Conv, nn.ComposedConv, nn.DoGConv, nn.GaussianDeformableConv, nn.DeformableConv)
SIGMA_FREE = (nn.Conv, nn.DeformableConv)
FAMILIES = {"spherical": 1, "diagonal": 2, "full": 3}


def _map(height=9, width=12, channels=3, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(2, height, width, channels)), jnp.float32)


def _init(layer, x, seed=1):
    # Under jit the output, which nobody reads, is not computed.
    # The default generator would take most of the time to compile.
    return jax.jit(layer.init)(jax.random.key(seed, impl="unsafe_rbg"), x)


def _apply(layer, variables, x):
    return jax.jit(layer.apply)(variables, x)


def _params(layer, x):
    return _init(layer, x)["params"]


def _with(variables, **leaves):
    return {"params": variables["params"] | leaves}


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("stride, dilation, size", [(1, 1, 3), (2, 1, 3), (1, 2, 3), (3, 2, 5)])
def test_all_layers_take_the_constructor_of_conv(layer, stride, dilation, size):
    built = layer(
        4,
        kernel_size=size,
        stride=stride,
        dilation=dilation,
        use_bias=True,
        dtype=jnp.float32,
        kernel_init=jax.nn.initializers.ones,
        name="some",
    )
    x = _map()
    y, variables = jax.eval_shape(built.init_with_output, jax.random.key(0), x)
    assert y.shape == (2, 8 // stride + 1, 11 // stride + 1, 4)
    assert variables["params"]["kernel"].shape == (size, size, 3, 4)
    assert variables["params"]["bias"].shape == (4,)


@pytest.mark.parametrize("layer", LAYERS)
def test_the_kernel_and_no_bias_is_drawn_as_asked(layer):
    params = _params(layer(4, kernel_init=jax.nn.initializers.ones), _map())
    assert jnp.all(params["kernel"] == 1) and "bias" not in params


@pytest.mark.parametrize("layer", [nn.Conv, nn.ComposedConv, nn.DeformableConv])
def test_a_bias_is_added_to_the_output(layer):
    x, bias = _map(), jnp.arange(4.0)
    variables = _init(layer(4, use_bias=True), x)
    without = _apply(layer(4, use_bias=True), variables, x)
    moved = _apply(layer(4, use_bias=True), _with(variables, bias=bias), x)
    np.testing.assert_allclose(moved - without, np.broadcast_to(bias, moved.shape), atol=1e-5)


@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 1), (2, 3)])
def test_conv_is_the_sum_over_its_taps(stride, dilation):
    x = _map()
    layer = nn.Conv(4, stride=stride, dilation=dilation)
    variables = _init(layer, x)
    kernel = np.asarray(variables["params"]["kernel"])
    padded = np.pad(np.asarray(x), [(0, 0), (dilation,) * 2, (dilation,) * 2, (0, 0)])
    y = np.asarray(_apply(layer, variables, x))
    for i, j in np.ndindex(y.shape[1:3]):
        rows, columns = i * stride + dilation * np.arange(3), j * stride + dilation * np.arange(3)
        window = padded[:, rows][:, :, columns]
        wanted = np.einsum("nyxc,yxco->no", window, kernel)
        np.testing.assert_allclose(y[:, i, j], wanted, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.Conv, nn.ComposedConv, nn.GaussianDeformableConv])
def test_batch_axes_are_free(layer):
    x = _map()
    built = layer(4)
    variables = _init(built, x)
    batched = _apply(built, variables, x)
    np.testing.assert_allclose(_apply(built, variables, x[0]), batched[0], atol=1e-5)
    more = jax.eval_shape(built.apply, variables, x[None])
    assert more.shape == (1, *batched.shape)


# -- parameters ------------------------------------------------------------------------------------


@pytest.mark.parametrize("family, size", FAMILIES.items())
def test_regressors_have_the_published_number_of_parameters(family, size):
    channels = 7
    params = _params(nn.GaussianDeformableConv(4, family=family), _map(channels=channels))
    count = sum(leaf.size for leaf in jax.tree.leaves(params["covariance_regressor"]))
    assert count == size * (9 * channels + 1)  # 9 C + 1 for one number a pixel


def test_free_form_offsets_have_the_published_number_of_parameters():
    channels = 7
    params = _params(nn.DeformableConv(4), _map(channels=channels))
    count = sum(leaf.size for leaf in jax.tree.leaves(params["offset_regressor"]))
    assert count == 162 * channels + 18


@pytest.mark.parametrize("family, size", FAMILIES.items())
def test_initial_sigmas_are_the_ones_asked_for(family, size):
    sigma = 0.7 if size == 1 else (0.7, 1.3)
    wanted = np.broadcast_to(sigma, 2)
    x = _map()
    options = {"sigma": sigma, "family": family}
    for layer in (nn.GaussianBlur(**options), nn.ComposedConv(4, **options)):
        leaf = _params(layer, x)["covariance"]
        assert leaf.shape == (size,)
        np.testing.assert_allclose(rfjax.covariance.standard_deviations(leaf), wanted, rtol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bound", [None, 8.0, 2.5])
def test_a_new_surround_has_its_sigma(family, bound):
    layer = nn.DoGConv(4, family=family, sigma_center=0.5, sigma_surround=2.0, max_surround=bound)
    params = _params(layer, _map())
    surround = nn.surround_covariance(
        params["covariance_center"], params["covariance_delta"], max_surround=bound
    )
    found = rfjax.covariance.standard_deviations(surround)
    np.testing.assert_allclose(found, [2.0, 2.0], rtol=1e-5)
    assert not jnp.any(params["kernel_surround"])


@pytest.mark.parametrize("family, size", FAMILIES.items())
def test_a_surround_is_wider_than_its_center_and_bounded(family, size):
    rng = np.random.default_rng(0)
    for _ in range(20):
        center, delta = (jnp.asarray(rng.normal(size=size), jnp.float32) for _ in range(2))
        surround = nn.surround_covariance(center, 9.0 * delta, max_surround=3.0)
        matrix = rfjax.covariance.covariance_matrix
        more = matrix(surround) - matrix(center)
        assert np.linalg.eigvalsh(more).min() > -1e-4
        # U of the difference has entries below 3, so that no variance exceeds 3^2 + 3^2.
        assert np.all(np.isfinite(more)) and float(jnp.max(jnp.diagonal(more))) <= 18.01


def test_small_surrounds_are_hardly_bounded():
    delta = jnp.log(jnp.array([2.0]))
    bounded = nn.surround_covariance(delta, delta, max_surround=8.0)
    np.testing.assert_allclose(jnp.exp(bounded), [8**0.5], rtol=1e-3)


# -- each layer is its primitive -------------------------------------------------------------------


@pytest.mark.parametrize("per_channel", [False, True])
def test_gaussian_blur_is_the_primitive(per_channel):
    x = _map()
    layer = nn.GaussianBlur(sigma=1.2, family="full", per_channel=per_channel, padding="edge")
    variables = _init(layer, x)
    covariance = variables["params"]["covariance"]
    assert covariance.shape == ((3, 3) if per_channel else (3,))
    wanted = filtering.gaussian_blur(x, covariance, padding="edge")
    np.testing.assert_allclose(_apply(layer, variables, x), wanted, atol=1e-6)


@pytest.mark.parametrize("resample", [False, True])
def test_composed_conv_is_the_primitive_of_its_options(resample):
    x = _map()
    blur = {"truncate": 3.0, "padding": "edge", "method": "integrated", "support": "faded"}
    layer = nn.ComposedConv(
        4, sigma=0.8, resample=resample, mode="absolute", rate=1.5, stride=2, **blur
    )
    variables = _init(layer, x)
    kernel, params = variables["params"]["kernel"], variables["params"]["covariance"]
    if resample:
        wanted = composition.blur_resample_conv(
            x, kernel, params, mode="absolute", rate=1.5, stride=2, **blur
        )
    else:
        wanted = composition.blur_conv(x, kernel, params, stride=2, **blur)
    np.testing.assert_allclose(_apply(layer, variables, x), wanted, atol=1e-5)


@pytest.mark.parametrize("layer", [nn.ComposedConv, nn.DoGConv, nn.GaussianDeformableConv])
@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 2)])
def test_a_vanishing_gaussian_leaves_the_plain_convolution(layer, stride, dilation):
    x = _map()
    options = {"sigma_center": 1e-6} if layer is nn.DoGConv else {"sigma": 1e-6}
    built = layer(4, stride=stride, dilation=dilation, **options)
    variables = _init(built, x)
    plain = nn.Conv(4, stride=stride, dilation=dilation)
    wanted = _apply(plain, {"params": {"kernel": variables["params"]["kernel"]}}, x)
    np.testing.assert_allclose(_apply(built, variables, x), wanted, atol=1e-4)


@pytest.mark.parametrize("variant, resample", [("contrast", True), ("shared", False)])
def test_center_surround_is_the_difference_of_two_compositions(variant, resample):
    x = _map()
    layer = nn.DoGConv(4, variant=variant, resample=resample)
    variables = _init(layer, x)
    params = variables["params"]
    surround_kernel = params["kernel"]
    if variant == "contrast":
        surround_kernel = params["kernel"][::-1] * 0.5
        variables = _with(variables, kernel_surround=surround_kernel)
    else:
        assert "kernel_surround" not in params
    surround = nn.surround_covariance(params["covariance_center"], params["covariance_delta"])
    branch = nn.ComposedConv(4, resample=resample)
    leaves = {"kernel": params["kernel"], "covariance": params["covariance_center"]}
    center = _apply(branch, {"params": leaves}, x)
    around = _apply(branch, {"params": {"kernel": surround_kernel, "covariance": surround}}, x)
    assert float(jnp.max(jnp.abs(around))) > 0.1
    np.testing.assert_allclose(_apply(layer, variables, x), center - around, atol=1e-5)


def test_a_shared_kernel_does_not_see_constants():
    x = jnp.ones((1, 25, 25, 2))
    layer = nn.DoGConv(4, variant="shared", sigma_surround=1.5)
    y = _apply(layer, _init(layer, x), x)
    np.testing.assert_allclose(y[:, 8:-8, 8:-8], 0.0, atol=1e-5)


@pytest.mark.parametrize("mode", ["residual", "absolute"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_dynamic_layer_is_the_static_one(mode, family):
    x = _map()
    layer = nn.GaussianDeformableConv(4, sigma=0.8, family=family, mode=mode, stride=2)
    variables = _init(layer, x)
    static = _params(nn.ComposedConv(4, sigma=0.8, family=family), x)["covariance"]
    constant = jnp.broadcast_to(static, (2, 5, 6, static.size))
    wanted = composition.gaussian_deformable_conv(
        x, variables["params"]["kernel"], constant, mode=mode, stride=2
    )
    np.testing.assert_allclose(_apply(layer, variables, x), wanted, atol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_new_dynamic_composition_is_the_static_one(family):
    x = _map()
    layer = nn.DynamicComposedConv(4, sigma=0.8, family=family, stride=2)
    variables = _init(layer, x)
    leaves = {name: variables["params"][name] for name in ("kernel", "covariance")}
    static = nn.ComposedConv(4, sigma=0.8, family=family, stride=2)
    wanted = _apply(static, {"params": leaves}, x)
    np.testing.assert_allclose(_apply(layer, variables, x), wanted, atol=1e-5)


def test_a_regressed_mean_moves_all_taps():
    x = _map()
    layer = nn.GaussianDeformableConv(4, sigma=0.8, mean=True)
    variables = _init(layer, x)
    regressor = variables["params"]["offset_regressor"] | {"bias": 3.0 * jnp.array([1.0, -0.5])}
    moved = _apply(layer, _with(variables, offset_regressor=regressor), x)
    ring = 0.8 * grids.ring_points() + jnp.array([[1.0, -0.5]])
    wanted = composition.deformable_conv(x, variables["params"]["kernel"], ring)
    np.testing.assert_allclose(moved, wanted, atol=1e-5)


def test_a_new_free_form_layer_is_the_plain_convolution():
    x = _map()
    layer = nn.DeformableConv(4, dilation=2)
    variables = _init(layer, x)
    plain = nn.Conv(4, dilation=2)
    wanted = _apply(plain, {"params": {"kernel": variables["params"]["kernel"]}}, x)
    np.testing.assert_allclose(_apply(layer, variables, x), wanted, atol=1e-5)


def test_offset_channels_are_y_then_x_of_each_tap():
    x = _map()
    layer = nn.DeformableConv(4)
    variables = _init(layer, x)
    bias = jnp.zeros(18).at[2 * 4].set(1.0)  # the centre tap, one pixel down
    regressor = variables["params"]["offset_regressor"] | {"bias": bias}
    moved = _apply(layer, _with(variables, offset_regressor=regressor), x)
    offsets = jnp.zeros((9, 2)).at[4, 0].set(1.0)
    wanted = composition.deformable_conv(x, variables["params"]["kernel"], offsets)
    np.testing.assert_allclose(moved, wanted, atol=1e-5)


# -- regressed covariances -------------------------------------------------------------------------


def _scale_map(layer, variables, x):
    apply = jax.jit(layer.apply, static_argnames="mutable")
    _, sown = apply(variables, x, mutable=("intermediates",))
    (scale,) = sown["intermediates"]["scale_map"]
    return scale


def _with_bias(variables, bias):
    regressor = variables["params"]["covariance_regressor"] | {"bias": jnp.asarray(bias)}
    return _with(variables, covariance_regressor=regressor)


@pytest.mark.parametrize("raw", [-50.0, -1.0, 0.5, 50.0])
@pytest.mark.parametrize("bound", [0.7, None])
def test_log_sigma_is_bounded_smoothly(raw, bound):
    x = _map()
    layer = nn.GaussianDeformableConv(4, sigma=0.5, bound=bound)
    scale = _scale_map(layer, _with_bias(_init(layer, x), [raw]), x)
    moved = raw if bound is None else bound * np.tanh(raw / bound)
    assert scale.shape == (2, 9, 12) and scale.dtype == jnp.float32
    np.testing.assert_allclose(scale, 0.5 * np.exp(moved), rtol=1e-4)


@pytest.mark.parametrize("raw", [-30.0, -1.0, 0.5, 50.0])
@pytest.mark.parametrize("bound", [0.7, None])
def test_linear_sigma_grows_as_free_offsets_do(raw, bound):
    x = _map()
    layer = nn.GaussianDeformableConv(4, sigma=0.5, bound=bound, link="linear")
    scale = _scale_map(layer, _with_bias(_init(layer, x), [raw]), x)
    step = raw / np.sqrt(8.0)  # eight taps on the unit circle
    grown = np.log1p(step / 0.5) if raw > 0 else step / 0.5
    grown = grown if bound is None else bound * np.tanh(grown / bound)
    np.testing.assert_allclose(scale, 0.5 * np.exp(grown), rtol=1e-4)


def test_linear_full_regressors_shear():
    x = _map()
    layer = nn.GaussianDeformableConv(4, sigma=0.5, family="full", bound=None, link="linear")
    variables = _with_bias(_init(layer, x), [2.0, -1.5, 1.0])
    u_yy, u_yx, u_xx = np.array([0.5, 0.0, 0.5]) + np.array([2.0, -1.5, 1.0]) / np.sqrt(8.0)
    params = jnp.asarray([np.log(u_yy), u_yx, np.log(u_xx)], jnp.float32)
    constant = jnp.broadcast_to(params, (2, 9, 12, 3))
    wanted = composition.gaussian_deformable_conv(x, variables["params"]["kernel"], constant)
    np.testing.assert_allclose(_apply(layer, variables, x), wanted, atol=1e-5)


def test_an_update_of_sigma_moves_taps_as_far_as_free_offsets():
    """The radial part of what a gradient step does to free offsets is what it does to sigma."""
    x = _map()
    layer = nn.GaussianDeformableConv(4, sigma=1.3, link="linear", bound=None)
    variables = _init(layer, x)
    kernel, points = variables["params"]["kernel"], grids.ring_points()

    def by_offsets(offsets):
        return jnp.sum(composition.deformable_conv(x, kernel, offsets) ** 2)

    def by_bias(bias):
        return jnp.sum(layer.apply(_with_bias(variables, bias), x) ** 2)

    free = jax.jit(jax.grad(by_offsets))(1.3 * points)
    radial = jnp.sum(free * points) / jnp.sum(points**2)
    step = jax.jit(jax.grad(by_bias))(jnp.zeros(1)) / np.sqrt(8.0)
    np.testing.assert_allclose(step, radial, rtol=1e-3)


def test_full_regressors_shear():
    x = _map()
    layer = nn.GaussianDeformableConv(4, sigma=0.5, family="full", bound=1.0)
    variables = _with_bias(_init(layer, x), [0.3, -0.6, 0.1])
    raw = np.tanh([0.3, -0.6, 0.1])
    log_y, log_x = np.log(0.5) + raw[0], np.log(0.5) + raw[2]
    params = jnp.asarray([log_y, np.exp(log_y) * raw[1], log_x], jnp.float32)
    constant = jnp.broadcast_to(params, (2, 9, 12, 3))
    wanted = composition.gaussian_deformable_conv(x, variables["params"]["kernel"], constant)
    np.testing.assert_allclose(_apply(layer, variables, x), wanted, atol=1e-5)
    np.testing.assert_allclose(
        _scale_map(layer, variables, x), np.exp(0.5 * (log_y + log_x)), rtol=1e-5
    )


def test_the_scale_of_free_form_taps_is_their_root_mean_square_radius():
    x = _map()
    layer = nn.DeformableConv(4, dilation=2)
    scale = _scale_map(layer, _init(layer, x), x)
    # 4 corners at 8, 4 sides at 4, the centre at 0, over 9 taps.
    np.testing.assert_allclose(scale, np.full((2, 9, 12), (48 / 9) ** 0.5), rtol=1e-5)


@pytest.mark.parametrize("layer", LAYERS[1:])
def test_structure_has_gradients_from_the_start(layer):
    x = _map()
    built = layer(4)
    variables = _init(built, x)
    if layer is nn.DoGConv:
        variables = _with(variables, kernel_surround=variables["params"]["kernel"][::-1])
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(built.apply(v, x) ** 2)))(variables)["params"]
    for path, leaf in traverse_util.flatten_dict(gradient).items():
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0), path


@pytest.mark.parametrize("layer", LAYERS)
def test_bfloat16_computes_near_float32_with_float32_parameters(layer):
    x = _map()
    variables = _init(layer(4), x)
    y = _apply(layer(4, dtype=jnp.bfloat16), variables, x)
    wanted = _apply(layer(4), variables, x)
    assert y.dtype == jnp.bfloat16 and wanted.dtype == jnp.float32
    init = _init(layer(4, dtype=jnp.bfloat16), x)
    assert {leaf.dtype for leaf in jax.tree.leaves(init)} == {jnp.dtype(jnp.float32)}
    # bfloat16 has 8 bits: 27 rounded products and factors.
    scale = float(jnp.max(jnp.abs(wanted)))
    np.testing.assert_allclose(y.astype(jnp.float32), wanted, atol=0.02 * scale)


# -- errors ----------------------------------------------------------------------------------------

BAD = [
    (nn.Conv(4, kernel_size=2), "kernel_size must be odd; got 2"),
    (nn.Conv(4, kernel_size=(3, 3, 3)), "kernel_size must be a positive integer or two"),
    (nn.Conv(4, stride=0), "stride must be a positive integer"),
    (nn.Conv(4, dilation=1.5), "dilation must be a positive integer"),
    (nn.Conv(4, stride=(2, 1, 1)), "stride must be a positive integer or two of them; got (2"),
    (nn.Conv(0), "features must be a positive integer"),
    (nn.ComposedConv(4, sigma=-1.0), "sigma must be a positive number"),
    (nn.ComposedConv(4, sigma=(1.0, 2.0)), "a spherical covariance has one sigma"),
    (nn.ComposedConv(4, family="round"), "family is one of spherical, diagonal, full; got 'round'"),
    (nn.ComposedConv(4, mode="free"), "mode is one of residual, absolute; got 'free'"),
    (nn.ComposedConv(4, padding="none"), "padding is one of"),
    (nn.DoGConv(4, variant="own"), "variant is one of contrast, shared; got 'own'"),
    (nn.DoGConv(4, sigma_surround=0.4), "sigma_surround must exceed sigma_center; got 0.4 and 0.5"),
    (nn.DoGConv(4, max_surround=1.5), "max_surround = 1.5 does not admit a surround of 2.0"),
    (nn.DoGConv(4, max_surround=-1.0), "max_surround must be a positive number or None"),
    (nn.GaussianDeformableConv(4, bound=0.0), "bound must be a positive number or None"),
    (nn.GaussianDeformableConv(4, link="log"), "link is one of exponential, linear; got 'log'"),
    (nn.DynamicComposedConv(4, kernel_size=1), "the linear link wants a kernel of several taps"),
    (nn.GaussianDeformableConv(4, mode="free"), "mode is one of residual, absolute"),
    (nn.GaussianBlur(sigma=0.0), "sigma must be a positive number"),
]


@pytest.mark.parametrize("layer, message", BAD)
def test_errors_say_what_is_wanted(layer, message):
    with pytest.raises(ValueError, match=message.replace("(", r"\(")):
        layer.init(jax.random.key(0), _map())


@pytest.mark.parametrize("layer", (*LAYERS, lambda features: nn.GaussianBlur()))
def test_integers_are_refused(layer):
    with pytest.raises(TypeError, match="x must have a floating-point dtype"):
        layer(4).init(jax.random.key(0), jnp.ones((1, 5, 5, 3), jnp.int32))
