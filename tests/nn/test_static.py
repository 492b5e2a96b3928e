"""The static spatial transformer and static offsets: against loops, PyTorch and plain layers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import nn

LAYERS = (nn.AffineConv, nn.StaticDeformableConv)


def _map(height=7, width=10, channels=3, batch=2, seed=0):
    rng = np.random.default_rng(seed)
    return jnp.asarray(rng.normal(size=(batch, height, width, channels)), jnp.float32)


def _init(layer, x, seed=1):
    return jax.jit(layer.init)(jax.random.key(seed, impl="unsafe_rbg"), x)


def _apply(layer, variables, x):
    return jax.jit(layer.apply)(variables, x)


def _with(variables, **leaves):
    return {"params": variables["params"] | {k: jnp.asarray(v) for k, v in leaves.items()}}


def _read(image, y, x):
    """The bilinear value of an image [H, W, C] with zeros outside."""
    total = np.zeros(image.shape[-1])
    for i in (int(np.floor(y)), int(np.floor(y)) + 1):
        for j in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= i < image.shape[0] and 0 <= j < image.shape[1]:
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * image[i, j]
    return total


@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("size, stride, dilation", [(1, 1, 1), (1, 2, 1), (3, 1, 2), (5, 3, 1)])
def test_a_new_layer_is_the_plain_convolution(layer, size, stride, dilation):
    x = _map()
    options = {"kernel_size": size, "stride": stride, "dilation": dilation, "use_bias": True}
    built = layer(4, **options)
    variables = _with(_init(built, x), bias=jnp.arange(4.0))
    plain = {key: variables["params"][key] for key in ("kernel", "bias")}
    wanted = _apply(nn.Conv(4, **options), {"params": plain}, x)
    np.testing.assert_allclose(_apply(built, variables, x), wanted, atol=1e-5)


@pytest.mark.parametrize("layer, leaf", [(LAYERS[0], "offset_affine"), (LAYERS[1], "offset")])
def test_structure_starts_at_zero_under_a_name_of_structure(layer, leaf):
    params = _init(layer(4), _map())["params"]
    assert params[leaf].shape == {"offset_affine": (2, 3), "offset": (9, 2)}[leaf]
    assert set(params) == {"kernel", leaf} and not jnp.any(params[leaf])


@pytest.mark.parametrize("layer", LAYERS)
def test_batch_axes_are_free(layer):
    x = _map()
    built = layer(4)
    variables = _init(built, x)
    batched = _apply(built, variables, x)
    np.testing.assert_allclose(_apply(built, variables, x[0]), batched[0], atol=1e-5)
    assert jax.eval_shape(built.apply, variables, x[None]).shape == (1, *batched.shape)


@pytest.mark.parametrize("layer", LAYERS)
def test_everything_has_a_gradient_from_the_start(layer):
    x = _map()
    built = layer(4, use_bias=True)
    loss = jax.jit(jax.grad(lambda v: jnp.sum((built.apply(v, x) - 1.0) ** 2)))
    for name, leaf in loss(_init(built, x))["params"].items():
        assert np.all(np.isfinite(leaf)) and np.all(np.asarray(leaf) != 0), name


@pytest.mark.parametrize("layer", LAYERS)
def test_bfloat16_computes_near_float32(layer):
    x = _map()
    variables = _init(layer(4), x)
    y = _apply(layer(4, dtype=jnp.bfloat16), variables, x)
    wanted = _apply(layer(4), variables, x)
    assert y.dtype == jnp.bfloat16
    y = y.astype(jnp.float32)
    assert float(jnp.max(jnp.abs(y - wanted))) < 0.03 * float(jnp.max(jnp.abs(wanted)))


# -- the affinity ----------------------------------------------------------------------------------

AFFINE = np.array([[0.2, -0.15, 0.7], [0.1, -0.25, -1.3]], np.float32)


@pytest.mark.parametrize("size, stride", [(1, 1), (1, 2), (3, 2)])
def test_the_map_is_read_at_the_affine_image_of_every_pixel(size, stride):
    x = _map(batch=1)
    layer = nn.AffineConv(4, extent=1.0, kernel_size=size, stride=stride)
    variables = _with(_init(layer, x), offset_affine=AFFINE)
    image = np.asarray(x[0], np.float64)
    centre = (np.array(image.shape[:2]) - 1) / 2
    moved = np.zeros_like(image)
    for i, j in np.ndindex(*image.shape[:2]):
        place = centre + (np.eye(2) + AFFINE[:, :2]) @ ((i, j) - centre) + AFFINE[:, 2]
        moved[i, j] = _read(image, *place)
    plain = {"params": {"kernel": variables["params"]["kernel"]}}
    seen = jnp.asarray(moved[None], jnp.float32)
    wanted = _apply(nn.Conv(4, kernel_size=size, stride=stride), plain, seen)
    np.testing.assert_allclose(_apply(layer, variables, x), wanted, atol=1e-4)


def test_it_is_the_spatial_transformer_of_pytorch():
    torch = pytest.importorskip("torch")
    x = _map()
    layer = nn.AffineConv(4, extent=1.0, kernel_size=1)
    variables = _with(_init(layer, x), offset_affine=AFFINE)
    # PyTorch's coordinates are (x, y), and run from -1 to 1 over the centres of the outer pixels.
    half = (np.array(x.shape[1:3]) - 1) / 2
    linear = (np.eye(2) + AFFINE[:, :2]) * half[None] / half[:, None]
    theta = np.concatenate([linear[::-1, ::-1], (AFFINE[:, 2] / half)[::-1, None]], 1)
    theta = torch.from_numpy(np.tile(theta, (2, 1, 1)).astype(np.float32))
    maps = torch.from_numpy(np.asarray(x).transpose(0, 3, 1, 2).copy())
    grid = torch.nn.functional.affine_grid(theta, list(maps.shape), align_corners=True)
    moved = torch.nn.functional.grid_sample(maps, grid, align_corners=True)
    kernel = np.asarray(variables["params"]["kernel"])[0, 0]
    wanted = np.einsum("nchw,co->nhwo", moved.numpy(), kernel)
    np.testing.assert_allclose(_apply(layer, variables, x), wanted, atol=1e-4)


def test_a_translation_is_one_of_pixels_on_any_map():
    layer = nn.AffineConv(1, extent=1.0, kernel_size=1)
    kernel, down = jnp.ones((1, 1, 1, 1)), jnp.zeros((2, 3)).at[0, 2].set(1.0)
    variables = {"params": {"kernel": kernel, "offset_affine": down}}
    for shape in ((5, 4), (8, 9)):
        x = _map(*shape, channels=1)
        y = layer.apply(variables, x)
        np.testing.assert_allclose(y[:, :-1], x[:, 1:], atol=1e-6)
        np.testing.assert_allclose(y[:, -1], 0.0)
        edge = nn.AffineConv(1, extent=1.0, kernel_size=1, padding="edge").apply(variables, x)
        np.testing.assert_allclose(edge[:, -1], x[:, -1], atol=1e-6)


def test_the_centre_of_a_rotation_is_that_of_the_map():
    layer = nn.AffineConv(1, extent=1.0, kernel_size=1)
    quarter = jnp.asarray([[-1.0, 1.0, 0.0], [-1.0, -1.0, 0.0]])
    variables = {"params": {"kernel": jnp.ones((1, 1, 1, 1)), "offset_affine": quarter}}
    x = _map(6, 6, channels=1)
    # (dy, dx) reads (dx, -dy): pixel (i, j) is x[j, 5 - i].
    wanted = jnp.flip(jnp.swapaxes(x, 1, 2), 1)
    np.testing.assert_allclose(layer.apply(variables, x), wanted, atol=1e-5)


# -- static offsets --------------------------------------------------------------------------------


@pytest.mark.parametrize("stride, dilation", [(1, 1), (2, 2)])
def test_taps_are_displaced_by_the_same_offsets_everywhere(stride, dilation):
    x = _map(batch=1)
    layer = nn.StaticDeformableConv(4, stride=stride, dilation=dilation)
    offset = np.random.default_rng(3).uniform(-2, 2, size=(9, 2)).astype(np.float32)
    variables = _with(_init(layer, x), offset=offset)
    kernel = np.asarray(variables["params"]["kernel"], np.float64)
    image = np.asarray(x[0], np.float64)
    found = _apply(layer, variables, x)[0]
    for i, j in np.ndindex(found.shape[:2]):
        wanted = np.zeros(4)
        for k, (a, b) in enumerate(np.ndindex(3, 3)):
            y, u = np.array([i, j]) * stride + dilation * np.array([a - 1, b - 1]) + offset[k]
            wanted += _read(image, y, u) @ kernel[a, b]
        np.testing.assert_allclose(found[i, j], wanted, atol=1e-4)


def test_it_is_the_dynamic_layer_with_a_constant_regressor():
    x = _map()
    static, dynamic = nn.StaticDeformableConv(4), nn.DeformableConv(4)
    offset = jnp.asarray(np.random.default_rng(3).normal(size=(9, 2)), jnp.float32)
    variables = _init(dynamic, x)
    regressor = variables["params"]["offset_regressor"] | {"bias": offset.reshape(-1)}
    constant = {"params": variables["params"] | {"offset_regressor": regressor}}
    wanted = _apply(dynamic, constant, x)
    kernel = variables["params"]["kernel"]
    found = _apply(static, {"params": {"kernel": kernel, "offset": offset}}, x)
    np.testing.assert_allclose(found, wanted, atol=1e-5)


# -- errors ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("layer, options, message", [
    (nn.AffineConv, {"padding": "none"}, "padding is one of zero, edge, reflect, wrap; got 'none'"),
    (nn.AffineConv, {"extent": 0.0}, "extent must be a positive number"),
    (nn.AffineConv, {"kernel_size": 2}, "kernel_size must be odd"),
    (nn.StaticDeformableConv, {"kernel_size": 4}, "kernel_size must be odd"),
    (nn.StaticDeformableConv, {"dilation": 0}, "dilation must be"),
])  # fmt: skip
def test_errors(layer, options, message):
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(layer(4, **options).init, jax.random.key(0), _map())
