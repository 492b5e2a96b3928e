import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from rfjax import composition, filtering, gaussian, grids, sampling
from tests.test_sampling import plain_conv, relative

MODES = ("residual", "absolute")


def operands(shape=(2, 9, 10, 4), features=5, size=(3, 3), dtype=jnp.float32, seed=0):
    rng = np.random.default_rng(seed)
    x = jnp.array(rng.normal(size=shape), dtype)
    return x, jnp.array(rng.normal(size=(*size, shape[-1], features)), dtype)


def log(*sigmas):
    return jnp.log(jnp.array(sigmas))


# compose_kernel


def test_composed_kernel_by_loops():
    _, kernel = operands(size=(3, 1))
    weights = np.random.default_rng(1).normal(size=(5, 3)).astype(np.float32)  # not symmetric
    wanted = np.zeros((7, 3, 4, 5))
    for i in range(3):
        for k in range(5):
            for m in range(3):
                wanted[i + k, m] += weights[k, m] * np.asarray(kernel)[i, 0]
    np.testing.assert_allclose(composition.compose_kernel(kernel, weights), wanted, atol=1e-5)


@pytest.mark.parametrize("params", [(-0.2,), (0.1, 0.5), (0.1, 0.8, -0.3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_blurring_the_map_is_blurring_the_kernel(params, stride):
    # (x * g) * f = x * (g * f), away from the borders, to 1e-10 in float64.
    with jax.enable_x64(True):
        x, kernel = operands((1, 26, 25, 3), dtype=jnp.float64)
        half = 4
        params = jnp.array(params)
        composed = composition.compose_kernel(
            kernel, gaussian.gaussian_kernel(params, max_half_size=half)
        )
        assert composed.shape == (11, 11, 3, 5)
        got = composition.blur_conv(x, kernel, params, stride=stride)
        wanted = plain_conv(x, composed, stride)
        inside = slice(5 // stride + 1, -(5 // stride + 1))
        got, wanted = got[:, inside, inside], wanted[:, inside, inside]
        assert got.size and relative(got, wanted) < 1e-10


# blur_conv


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "dilation"), [((3, 3), 1), ((3, 3), 2), ((1, 5), 3)])
def test_blur_conv_is_a_blur_and_a_convolution(size, dilation, stride):
    x, kernel = operands(size=size)
    params = log(0.8, 1.3)
    options = dict(padding="edge", method="discrete", support="faded", truncate=3.0)
    got = composition.blur_conv(x, kernel, params, stride=stride, dilation=dilation, **options)
    blurred = filtering.gaussian_blur(x, params, **options)
    assert relative(got, plain_conv(blurred, kernel, stride, dilation)) < 1e-6


def test_without_sigma_blurring_does_nothing():
    x, kernel = operands()
    assert relative(composition.blur_conv(x, kernel, log(0.1)), plain_conv(x, kernel)) < 1e-6


# blur_resample_conv


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("params", [(-0.2,), (0.1, 0.5), (0.1, 0.8, -0.3)])
def test_blur_resample_places_the_taps(mode, params):
    x, kernel = operands(size=(3, 5))
    params = jnp.array(params)
    options = dict(padding="reflect", method="integrated")
    got = composition.blur_resample_conv(
        x, kernel, params, mode=mode, rate=1.5, stride=2, dilation=2, **options
    )
    offsets = 1.5 * grids.circular_points((3, 5)) @ _factor(params)
    positions = 2 * grids.lattice_points((3, 5)) + offsets if mode == "residual" else 2 * offsets
    blurred = filtering.gaussian_blur(x, params, **options)
    wanted = sampling.sampled_conv(blurred, kernel, positions, stride=2)
    assert got.shape == (2, 5, 5, 5) and relative(got, wanted) < 1e-5


def _factor(params):
    log_y, log_x = params[0], params[-1]
    shear = params[1] if params.size == 3 else 0.0
    return jnp.array([[jnp.exp(log_y), shear], [0.0, jnp.exp(log_x)]])


@pytest.mark.parametrize("size", [(3, 3), (1, 1), (5, 3)])
def test_without_sigma_residual_is_the_plain_convolution(size):
    x, kernel = operands(size=size)
    got = composition.blur_resample_conv(x, kernel, log(1e-7))
    assert relative(got, plain_conv(x, kernel)) < 1e-5


def test_without_sigma_absolute_is_the_summed_kernel():
    x, kernel = operands()
    got = composition.blur_resample_conv(x, kernel, log(1e-7), mode="absolute")
    assert relative(got, plain_conv(x, kernel.sum((0, 1), keepdims=True))) < 1e-5


@pytest.mark.parametrize("spread", [2, 3])
def test_absolute_taps_on_the_axes_are_dilated_ones(spread):
    # At sigma = d the taps on the axes are those of a convolution dilated by d; those on the
    # diagonals lie at d / sqrt(2).
    x, kernel = operands()
    axes = jnp.array([0, 1, 0, 1, 1, 1, 0, 1, 0], jnp.float32).reshape(3, 3, 1, 1)
    positions = grids.sampling_offsets(log(float(spread)), grids.ring_points())
    np.testing.assert_allclose(positions[0], [-spread / np.sqrt(2)] * 2, rtol=1e-6)
    params = jnp.zeros((2, 9, 10, 1)) + jnp.log(float(spread))
    got = composition.gaussian_deformable_conv(x, kernel * axes, params, mode="absolute")
    assert relative(got, plain_conv(x, kernel * axes, dilation=spread)) < 1e-5


def test_own_points():
    x, kernel = operands(size=(1, 3))
    points = jnp.array([[0.0, 0.0], [0.5, 0.0], [0.0, -1.0]])
    got = composition.blur_resample_conv(x, kernel, log(2.0), mode="absolute", points=points)
    blurred = filtering.gaussian_blur(x, log(2.0))
    assert relative(got, sampling.sampled_conv(blurred, kernel, 2.0 * points)) < 1e-6


# gaussian_deformable_conv and deformable_conv


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("params", [(-0.2,), (0.1, 0.5), (0.1, 0.8, -0.3)])
def test_a_constant_map_is_static(params, stride, mode):
    x, kernel = operands()
    params = jnp.array(params)
    output = sampling.output_size((9, 10), stride)
    everywhere = jnp.broadcast_to(params, (2, *output, params.size))
    got = composition.gaussian_deformable_conv(x, kernel, everywhere, mode=mode, stride=stride)
    positions = grids.sampling_offsets(params, grids.ring_points())
    if mode == "residual":
        positions += grids.lattice_points(3)
    assert relative(got, sampling.sampled_conv(x, kernel, positions, stride=stride)) < 1e-5


def test_every_output_has_its_own_covariance():
    x, kernel = operands()
    params = jnp.array(np.random.default_rng(3).normal(size=(2, 9, 10, 3)), jnp.float32)
    got = composition.gaussian_deformable_conv(x, kernel, params, rate=0.5)
    for n, i, j in ((0, 0, 0), (1, 4, 7), (1, 8, 9)):
        alone = jnp.broadcast_to(params[n, i, j], (2, 9, 10, 3))
        one = composition.gaussian_deformable_conv(x, kernel, alone, rate=0.5)[n, i, j]
        np.testing.assert_allclose(got[n, i, j], one, atol=1e-5)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize(("size", "dilation"), [((3, 3), 1), ((3, 3), 3), ((5, 1), 2)])
def test_without_offsets_deformation_is_the_plain_convolution(size, dilation, stride):
    x, kernel = operands(size=size)
    offsets = jnp.zeros((2, *sampling.output_size((9, 10), stride), size[0] * size[1], 2))
    got = composition.deformable_conv(x, kernel, offsets, stride=stride, dilation=dilation)
    assert relative(got, plain_conv(x, kernel, stride, dilation)) < 1e-6


def test_offsets_are_added_to_the_lattice():
    x, kernel = operands()
    offsets = jnp.array(np.random.default_rng(4).normal(size=(2, 9, 10, 9, 2)), jnp.float32)
    got = composition.deformable_conv(x, kernel, offsets, dilation=2)
    positions = 2 * grids.lattice_points(3)[None, None, None] + offsets
    assert relative(got, sampling.sampled_conv(x, kernel, positions)) < 1e-6
    shared = composition.deformable_conv(x, kernel, offsets[0, 0, 0])
    everywhere = jnp.broadcast_to(offsets[0, 0, 0], offsets.shape)
    assert relative(composition.deformable_conv(x, kernel, everywhere), shared) < 1e-6


# All of them


def calls():
    """name -> (function of x, kernel and structure, structure)."""
    rng = np.random.default_rng(9)
    return {
        "blur": (composition.blur_conv, np.array([-0.21])),
        "resample": (composition.blur_resample_conv, np.array([0.13, -0.21])),
        "gaussian": (composition.gaussian_deformable_conv, rng.normal(size=(1, 5, 6, 3)) / 3),
        "free": (composition.deformable_conv, rng.normal(size=(1, 5, 6, 9, 2))),
    }


@pytest.mark.parametrize("name", calls())
def test_gradients_agree_with_finite_differences(name):
    function, structure = calls()[name]
    with jax.enable_x64(True):
        x, kernel = operands((1, 5, 6, 3), 4, dtype=jnp.float64)
        arguments = x, kernel, jnp.array(structure)
        check_grads(function, arguments, 1, modes=["rev"], rtol=1e-5, eps=1e-6)


@pytest.mark.parametrize("name", calls())
def test_transforms_agree_with_eager(name):
    function, structure = calls()[name]
    examples = [operands((1, 5, 6, 3), 4, seed=seed) for seed in range(2)]
    x, kernel = (jnp.stack(a) for a in zip(*examples, strict=True))
    structures = jnp.stack(
        [jnp.array(structure, jnp.float32), jnp.array(structure, jnp.float32) / 2]
    )

    def gradient(x, kernel, structure):
        return jax.grad(lambda *a: jnp.sum(function(*a) ** 2), (0, 1, 2))(x, kernel, structure)

    each = [gradient(*a) for a in zip(x, kernel, structures, strict=True)]
    wanted = jax.tree.map(lambda *parts: jnp.stack(parts), *each)
    for got in (
        jax.jit(jax.vmap(gradient))(x, kernel, structures),
        jax.pmap(gradient)(x, kernel, structures),
    ):
        assert all(relative(a, b) < 1e-5 for a, b in zip(got, wanted, strict=True))


@pytest.mark.parametrize("name", calls())
def test_batch_axes_and_low_precision(name):
    function, structure = calls()[name]
    x, kernel = operands((1, 5, 6, 3), 4)
    structure = jnp.array(structure, jnp.float32)
    wanted = function(x, kernel, structure)
    alone = structure[0] if structure.ndim > 2 else structure
    assert relative(function(x[0], kernel, alone), wanted[0]) < 1e-6
    more = structure[None] if structure.ndim > 2 else structure
    assert relative(function(x[None], kernel, more), wanted[None]) < 1e-6
    low = function(x.astype(jnp.bfloat16), kernel, structure)
    assert low.dtype == jnp.bfloat16 and relative(low, wanted) < 2e-2
    gradient = jax.grad(lambda x: jnp.sum(function(x, kernel, structure).astype(jnp.float32)))
    assert gradient(x.astype(jnp.bfloat16)).dtype == jnp.bfloat16


X, KERNEL = np.zeros((1, 9, 10, 4), np.float32), np.zeros((3, 3, 4, 5), np.float32)
PARAMS, PARAMS_MAP = np.zeros(1, np.float32), np.zeros((1, 9, 10, 1), np.float32)


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (
            lambda: composition.compose_kernel(KERNEL[0], np.ones((3, 3))),
            ValueError,
            r"kernel must have shape \[kh, kw, C_in, C_out\]",
        ),
        (
            lambda: composition.compose_kernel(KERNEL, np.ones(3)),
            ValueError,
            r"gaussian must have shape \[gh, gw\]",
        ),
        (
            lambda: composition.blur_conv(X, KERNEL[:2], PARAMS),
            ValueError,
            "kernel_size must be odd",
        ),
        (
            lambda: composition.blur_conv(X[..., :3], KERNEL, PARAMS),
            ValueError,
            "must take the 3 channels",
        ),
        (lambda: composition.blur_conv(X[0, 0], KERNEL, PARAMS), ValueError, "x must have shape"),
        (
            lambda: composition.blur_conv(X, KERNEL, np.zeros(4)),
            ValueError,
            "params .*numbers on the last axis",
        ),
        (
            lambda: composition.blur_conv(X, KERNEL, PARAMS, dilation=0),
            ValueError,
            "dilation must be a positive integer",
        ),
        (
            lambda: composition.blur_conv(X, KERNEL, PARAMS, dilation=1.5),
            TypeError,
            "dilation must be a positive integer",
        ),
        (
            lambda: composition.blur_conv(X, KERNEL, PARAMS, stride=0),
            ValueError,
            "stride must be a positive integer",
        ),
        (
            lambda: composition.blur_conv(X, KERNEL, PARAMS, padding="same"),
            ValueError,
            "padding is one of zero, edge",
        ),
        (
            lambda: composition.blur_conv(jnp.zeros(X.shape, jnp.int32), KERNEL, PARAMS),
            TypeError,
            "x must have a floating-point dtype",
        ),
        (
            lambda: composition.blur_resample_conv(X, KERNEL, PARAMS, mode="relative"),
            ValueError,
            "mode is one of residual, absolute; got 'relative'",
        ),
        (
            lambda: composition.blur_resample_conv(X, KERNEL, np.zeros((4, 1))),
            ValueError,
            r"params must have shape \[F\]",
        ),
        (
            lambda: composition.blur_resample_conv(X, KERNEL, PARAMS, points=np.ones((17, 2))),
            ValueError,
            r"points must have shape \[9, 2\].*got 17",
        ),
        (
            lambda: composition.gaussian_deformable_conv(X, KERNEL, PARAMS_MAP, stride=2),
            ValueError,
            r"params_map must have shape .*\(1, 5, 5\)",
        ),
        (
            lambda: composition.gaussian_deformable_conv(X, KERNEL, np.zeros((1, 9, 10, 5))),
            ValueError,
            "params must have 1 .spherical.",
        ),
        (
            lambda: composition.deformable_conv(X, KERNEL, np.zeros((1, 9, 10, 18))),
            ValueError,
            r"offsets must have shape \[..., 9, 2\]",
        ),
        (
            lambda: composition.deformable_conv(X, KERNEL, np.zeros((1, 9, 9, 9, 2))),
            ValueError,
            r"\(1, 9, 10, 9, 2\)",
        ),
        (
            lambda: composition.deformable_conv(X, KERNEL, jnp.zeros((9, 2), jnp.int32)),
            TypeError,
            "offsets must have a floating-point dtype",
        ),
    ],
)
def test_errors(call, error, message):
    with pytest.raises(error, match=message):
        call()
