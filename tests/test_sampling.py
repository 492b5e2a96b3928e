import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax
from jax.test_util import check_grads

from rfjax import grids, sampling
from rfjax._engine import reads

PADDINGS = ("zero", "edge", "reflect", "wrap")


def resolve(index, size, padding):
    """The pixel that stands for `index`, or None for a zero."""
    if 0 <= index < size:
        return index
    if padding == "zero":
        return None
    return int(np.pad(np.arange(size), 60, mode=padding)[index + 60])


def read(image, y, x, padding="zero"):
    """One bilinear read by its definition."""
    total = np.zeros(image.shape[-1])
    top, left = math.floor(y), math.floor(x)
    for i in (top, top + 1):
        for j in (left, left + 1):
            row, column = (
                resolve(k, n, padding) for k, n in zip((i, j), image.shape, strict=False)
            )
            if row is not None and column is not None:
                total += (1 - abs(y - i)) * (1 - abs(x - j)) * image[row, column]
    return total


def convolve(x, kernel, positions, stride=1):
    """sampled_conv by loops over examples, outputs and taps; x [N, H, W, C]."""
    batch, height, width, _ = x.shape
    taps = kernel.reshape(-1, *kernel.shape[2:])
    rows, columns = range(0, height, stride), range(0, width, stride)
    y = np.zeros((batch, len(rows), len(columns), kernel.shape[-1]))
    for n in range(batch):
        for i, top in enumerate(rows):
            for j, left in enumerate(columns):
                at = positions if positions.ndim == 2 else positions[n, i, j]
                for (dy, dx), weights in zip(at, taps, strict=True):
                    y[n, i, j] += read(x[n], top + dy, left + dx) @ weights
    return y


def case(shape=(2, 5, 6, 3), features=4, size=(3, 3), stride=1, spread=1.5, free=False, seed=0):
    """Random float64 operands (x, kernel, positions)."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=shape)
    kernel = rng.normal(size=(*size, shape[-1], features))
    lattice = np.asarray(grids.lattice_points(size), np.float64)
    output = [(side - 1) // stride + 1 for side in shape[-3:-1]]
    leading = (*shape[:-3], *output) if free else ()
    return x, kernel, lattice + spread * rng.normal(size=(*leading, *lattice.shape))


def plain_conv(x, kernel, stride=1, dilation=1):
    pads = [(dilation * (size // 2),) * 2 for size in kernel.shape[:2]]
    return lax.conv_general_dilated(
        x,
        kernel,
        (stride, stride),
        pads,
        rhs_dilation=(dilation, dilation),
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
        precision=lax.Precision.HIGHEST,
    )


def relative(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.abs(a - b).max() / np.abs(b).max()


# bilinear_sample


@pytest.mark.parametrize("padding", PADDINGS)
def test_reads_are_bilinear(padding):
    rng = np.random.default_rng(0)
    image = rng.normal(size=(4, 7, 2))
    places = rng.uniform(-15, 20, size=(60, 2))
    places[:9] = [
        (0, 0),
        (3, 6),
        (-1, 2),
        (4, 6),
        (3, 7),
        (-0.25, 6.5),
        (3.5, -0.5),
        (8, 8),
        (2, 3),
    ]
    wanted = [read(image, *place, padding) for place in places]
    with jax.enable_x64(True):
        got = sampling.bilinear_sample(jnp.array(image), jnp.array(places), padding=padding)
    np.testing.assert_allclose(got, wanted, atol=1e-12)


@pytest.mark.parametrize("padding", PADDINGS)
def test_reads_of_single_pixel_axes(padding):
    image = np.random.default_rng(0).normal(size=(1, 3, 1))
    places = np.array([(0.0, 0.5), (0.7, 1.0), (-2.3, 2.0)])
    wanted = [read(image, *place, padding) for place in places]
    got = sampling.bilinear_sample(image.astype(np.float32), places, padding=padding)
    np.testing.assert_allclose(got, wanted, atol=1e-6)


@pytest.mark.parametrize(
    ("padding", "mode"), [("zero", "zeros"), ("edge", "border"), ("reflect", "reflection")]
)
def test_reads_agree_with_torch(padding, mode):
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(1)
    image, places = rng.normal(size=(2, 5, 6, 3)), rng.uniform(-6, 11, size=(2, 4, 8, 2))
    x = torch.tensor(image).permute(0, 3, 1, 2).requires_grad_()
    p = torch.tensor(places).requires_grad_()
    grid = torch.stack([2 * p[..., 1] / 5 - 1, 2 * p[..., 0] / 4 - 1], -1)
    y = torch.nn.functional.grid_sample(x, grid, padding_mode=mode, align_corners=True)
    weights = rng.normal(size=(2, 4, 8, 3))
    (y.permute(0, 2, 3, 1) * torch.tensor(weights)).sum().backward()
    with jax.enable_x64(True):
        sample = functools.partial(sampling.bilinear_sample, padding=padding)
        got, pull = jax.vjp(sample, jnp.array(image), jnp.array(places))
        dx, dp = pull(jnp.array(weights))
    np.testing.assert_allclose(got, y.detach().permute(0, 2, 3, 1), atol=1e-10)
    np.testing.assert_allclose(dx, x.grad.permute(0, 2, 3, 1), atol=1e-10)
    np.testing.assert_allclose(dp, p.grad, atol=1e-9)


def test_reads_take_any_batch_and_point_axes():
    rng = np.random.default_rng(2)
    x = jnp.array(rng.normal(size=(2, 3, 4, 5, 6)), jnp.float32)
    places = jnp.array(rng.uniform(-1, 6, size=(2, 3, 7, 8, 2)), jnp.float32)
    y = sampling.bilinear_sample(x, places)
    assert y.shape == (2, 3, 7, 8, 6)
    np.testing.assert_allclose(y[1, 2], sampling.bilinear_sample(x[1, 2], places[1, 2]), atol=1e-6)
    assert sampling.bilinear_sample(x[0, 0], jnp.zeros(2)).shape == (6,)


@pytest.mark.parametrize("padding", PADDINGS)
def test_slopes_of_reads_are_right_sided_on_integers(padding):
    image = np.array([1.0, 4.0, 9.0, 25.0])[None, :, None].astype(np.float32)

    def value(x):
        return sampling.bilinear_sample(image, jnp.stack([0.0 * x, x]), padding=padding)[0]

    after = {"zero": -25.0, "edge": 0.0, "reflect": -16.0, "wrap": -24.0}[padding]
    slopes = [float(jax.grad(value)(x)) for x in (0.0, 1.0, 3.0)]
    assert slopes == [3.0, 5.0, after]


def test_reads_in_low_precision():
    x = jnp.array(np.random.default_rng(3).normal(size=(5, 6, 3)), jnp.bfloat16)
    places = jnp.array([[1.3, 2.7], [0.1, 4.9]])
    got = sampling.bilinear_sample(x, places)
    assert got.dtype == jnp.bfloat16
    wanted = sampling.bilinear_sample(x.astype(jnp.float32), places)
    np.testing.assert_array_equal(got, wanted.astype(jnp.bfloat16))


# sampled_conv: values


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(
    ("features", "size", "stride", "spread"),
    [(4, (3, 3), 1, 1.5), (1, (1, 5), 2, 1.0), (7, (3, 1), 3, 8.0), (4, (1, 1), 1, 0.4)],
)
def test_convolution_agrees_with_loops(features, size, stride, spread, free):
    operands = case((2, 7, 6, 9), features, size, stride, spread, free)
    wanted = convolve(*operands, stride)
    with jax.enable_x64(True):
        got = sampling.sampled_conv(*map(jnp.array, operands), stride=stride)
    assert got.dtype == jnp.float64
    np.testing.assert_allclose(got, wanted, atol=1e-12)
    single = sampling.sampled_conv(*(jnp.array(a, jnp.float32) for a in operands), stride=stride)
    assert single.dtype == jnp.float32 and relative(single, wanted) < 2e-6


def test_many_blocks_agree_with_loops():
    # More outputs than one block takes, and not a multiple of it.
    operands = case((1, 67, 71, 128), 2, (3, 3), free=True)
    wanted = operands[0].astype(np.float32)
    got = sampling.sampled_conv(*(jnp.array(a, jnp.float32) for a in operands))
    _, kernel, positions = operands
    rows = [0, 31, 66]
    for i in rows:
        some = positions[:, i : i + 1, :5] + np.array([i, 0.0])
        line = np.stack(
            [
                sum(
                    read(wanted[0], dy, j + dx) @ weights
                    for (dy, dx), weights in zip(
                        some[0, 0, j], kernel.reshape(9, 128, 2), strict=True
                    )
                )
                for j in range(5)
            ]
        )
        np.testing.assert_allclose(got[0, i, :5], line, atol=2e-4)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("features", [2, 5])
def test_integer_positions_are_a_plain_convolution(stride, free, features):
    x, kernel, _ = (jnp.array(a, jnp.float32) for a in case((2, 8, 7, 20), features))
    positions = grids.lattice_points(3)
    if free:
        output = sampling.output_size((8, 7), stride)
        positions = jnp.broadcast_to(positions, (2, *output, 9, 2))
    for dilation in (1, 3):
        got = sampling.sampled_conv(x, kernel, dilation * positions, stride=stride)
        assert relative(got, plain_conv(x, kernel, stride, dilation)) < 1e-6


def test_equal_maps_of_positions_are_static():
    x, kernel, positions = (jnp.array(a, jnp.float32) for a in case())
    everywhere = jnp.broadcast_to(positions, (2, 5, 6, 9, 2))
    static = sampling.sampled_conv(x, kernel, positions)
    assert relative(sampling.sampled_conv(x, kernel, everywhere), static) < 1e-6


@pytest.mark.parametrize("free", [False, True])
def test_positions_far_outside_read_zeros(free):
    x, kernel, positions = (jnp.array(a, jnp.float32) for a in case(free=free))

    def loss(*operands):
        y = sampling.sampled_conv(*operands)
        return jnp.sum(y**2 + y)

    for far in (1e3, -1e9, 1e30, jnp.inf, -jnp.inf):
        for axis in (0, 1):
            moved = positions.at[..., axis].set(far)
            value, gradients = jax.value_and_grad(loss, (0, 1, 2))(x, kernel, moved)
            assert value == 0
            assert all(np.all(np.asarray(g) == 0) for g in gradients)


@pytest.mark.parametrize("free", [False, True])
def test_nan_positions_give_nan(free):
    x, kernel, positions = (jnp.array(a, jnp.float32) for a in case(free=free))
    assert np.all(np.isnan(sampling.sampled_conv(x, kernel, positions.at[..., 3, :].set(jnp.nan))))


def test_accuracy_does_not_fall_with_the_size_of_the_map():
    # A shift of 0.3 pixel, 4000 pixels from the origin: the fraction keeps all of its digits.
    line = np.random.default_rng(0).normal(size=(1, 4096, 1))
    wanted = 0.7 * line[:, :-1] + 0.3 * line[:, 1:]
    positions = jnp.array([[0.0, 0.3]])
    kernel = jnp.ones((1, 1, 1, 1))
    got = sampling.sampled_conv(jnp.array(line, jnp.float32), kernel, positions)
    assert np.abs(got[:, :-1] - wanted).max() < 5e-7


@pytest.mark.parametrize("free", [False, True])
def test_any_batch_axes(free):
    x, kernel, positions = (jnp.array(a, jnp.float32) for a in case((2, 3, 5, 6, 3), free=free))
    y = sampling.sampled_conv(x, kernel, positions)
    assert y.shape == (2, 3, 5, 6, 4)
    one = positions[1, 2] if free else positions
    alone = sampling.sampled_conv(x[1, 2], kernel, one)
    assert alone.shape == (5, 6, 4)
    assert relative(y[1, 2], alone) < 1e-6


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("features", [1, 12])
def test_low_precision_sums_in_float32(free, features):
    operands = case((1, 9, 8, 64), features, free=free)
    x, kernel = (jnp.array(a, jnp.bfloat16) for a in operands[:2])
    positions = jnp.array(operands[2], jnp.float32)

    def loss(x, kernel, positions):
        y = sampling.sampled_conv(x, kernel, positions)
        return jnp.sum(y.astype(jnp.float32) ** 2), y

    gradient = jax.grad(loss, (0, 1, 2), has_aux=True)
    low, y = gradient(x, kernel, positions)
    high, wanted = gradient(x.astype(jnp.float32), kernel.astype(jnp.float32), positions)
    assert y.dtype == jnp.bfloat16 and relative(y, wanted) < 1e-2
    assert [g.dtype for g in low] == [jnp.bfloat16, jnp.bfloat16, jnp.float32]
    assert all(relative(a, b) < 2e-2 for a, b in zip(low, high, strict=True))


# sampled_conv: derivatives


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize(("features", "stride"), [(1, 1), (6, 2)])
def test_gradients_agree_with_finite_differences(free, features, stride):
    # Nine taps of 1 feature are fewer numbers than 10 channels, of 6 features more.
    operands = case((2, 4, 5, 10), features, stride=stride, free=free)
    with jax.enable_x64(True):
        call = functools.partial(sampling.sampled_conv, stride=stride)
        check_grads(call, tuple(map(jnp.array, operands)), 2, modes=["rev"], rtol=1e-5, eps=1e-6)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("features", [2, 5])
def test_gradients_agree_with_torch(free, features):
    torch = pytest.importorskip("torch")
    x, kernel, positions = case((2, 6, 5, 20), features, free=free, spread=2.0)
    tx, tk, tp = (torch.tensor(a).requires_grad_() for a in (x, kernel, positions))
    centre = np.stack(np.meshgrid(np.arange(6), np.arange(5), indexing="ij"), -1)
    places = torch.tensor(centre)[None, :, :, None] + (tp if free else tp[None, None, None])
    places = places.expand(2, 6, 5, 9, 2).permute(0, 3, 1, 2, 4).reshape(2, 54, 5, 2)
    grid = torch.stack([2 * places[..., 1] / 4 - 1, 2 * places[..., 0] / 5 - 1], -1)
    samples = torch.nn.functional.grid_sample(
        tx.permute(0, 3, 1, 2), grid, padding_mode="zeros", align_corners=True
    ).reshape(2, 20, 9, 6, 5)
    y = torch.einsum("ncksx,kco->nsxo", samples, tk.reshape(9, 20, features))
    weights = np.random.default_rng(5).normal(size=y.shape)
    wanted = torch.autograd.grad((y * torch.tensor(weights)).sum(), (tx, tk, tp))
    with jax.enable_x64(True):
        got, pull = jax.vjp(sampling.sampled_conv, *map(jnp.array, (x, kernel, positions)))
        gradients = pull(jnp.array(weights))
    np.testing.assert_allclose(got, y.detach(), atol=1e-10)
    for ours, theirs in zip(gradients, wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-9)


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("channels", [1, 4])
def test_slopes_are_right_sided_on_integers(free, channels):
    # Two outputs would add up; one example of one pixel per output row keeps them apart.
    line = np.array([1.0, 4.0, 9.0, 25.0], np.float32)
    x = jnp.broadcast_to(line[None, :, None], (1, 4, channels))
    kernel = jnp.ones((1, 1, channels, 1)) / channels

    def value(shift, output):
        positions = jnp.stack([0.0 * shift, shift])[None]
        if free:
            positions = jnp.broadcast_to(positions, (1, 4, 1, 2))
        return sampling.sampled_conv(x, kernel, positions)[0, output, 0]

    slopes = [float(jax.grad(value)(0.0, output)) for output in range(4)]
    np.testing.assert_allclose(slopes, [3.0, 5.0, 16.0, -25.0], rtol=1e-6)
    assert float(jax.grad(value)(-1.0, 0)) == 1.0  # at the left border: from zero to the pixel
    assert float(jax.grad(value)(1.0, 3)) == 0.0  # outside


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("features", [1, 6])
def test_transforms_agree_with_eager(free, features):
    rng = np.random.default_rng(7)
    operands = [case((2, 4, 5, 10), features, free=free, seed=seed) for seed in range(8)]
    x, kernel, positions = (
        jnp.array(np.stack(a), jnp.float32) for a in zip(*operands, strict=True)
    )
    weights = jnp.array(rng.normal(size=(2, 4, 5, features)), jnp.float32)

    def loss(x, kernel, positions):
        return jnp.sum(weights * sampling.sampled_conv(x, kernel, positions))

    gradient = jax.grad(loss, (0, 1, 2))
    each = [gradient(*a) for a in zip(x, kernel, positions, strict=True)]
    wanted = jax.tree.map(lambda *parts: jnp.stack(parts), *each)

    def check(got):
        assert all(relative(a, b) < 2e-6 for a, b in zip(got, wanted, strict=True))

    check(jax.vmap(gradient)(x, kernel, positions))
    check(jax.jit(jax.vmap(jax.checkpoint(gradient)))(x, kernel, positions))
    check(jax.pmap(gradient)(x, kernel, positions))
    check(lax.map(lambda a: gradient(*a), (x, kernel, positions)))
    along = jax.vmap(gradient, in_axes=(None, None, 0))(x[0], kernel[0], positions)
    assert relative(along[2][0], wanted[2][0]) < 2e-6


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("features", [1, 6])
def test_export_to_every_platform(free, features):
    operands = [jnp.array(a, jnp.float32) for a in case((1, 4, 5, 10), features, free=free)]

    def step(x, kernel, positions):
        y, pull = jax.vjp(sampling.sampled_conv, x, kernel, positions)
        return y, pull(y)

    exported = jax.export.export(jax.jit(step), platforms=("cpu", "cuda", "tpu"))(*operands)
    got, wanted = exported.call(*operands), step(*operands)
    assert jax.tree.all(jax.tree.map(lambda a, b: relative(a, b) < 1e-6, got, wanted))


def test_positions_do_not_recompile():
    traces = []

    @jax.jit
    def call(x, kernel, positions):
        traces.append(None)
        return sampling.sampled_conv(x, kernel, positions)

    x, kernel, positions = (jnp.array(a, jnp.float32) for a in case())
    for scale in (0.1, 1.0, 50.0):
        call(x, kernel, scale * positions)
    assert len(traces) == 1


def test_samples_are_never_stored_as_a_whole():
    x = jnp.zeros((1, 48, 48, 512))
    kernel = jnp.zeros((3, 3, 512, 256))
    positions = jnp.zeros((1, 48, 48, 9, 2))

    def step(x, kernel, positions):
        y, pull = jax.vjp(sampling.sampled_conv, x, kernel, positions)
        return pull(y)

    memory = jax.jit(step).lower(x, kernel, positions).compile().memory_analysis()
    # A bordered map, its gradient, y and blocks; the samples of all taps alone would be 9 times x.
    assert memory.temp_size_in_bytes < 6 * x.nbytes


@pytest.fixture
def accelerator_plan(monkeypatch):
    """What other platforms run, on this one."""
    operators = reads._shared_operator, reads._free_operator
    monkeypatch.setattr(reads, "_CPU", reads._ACCELERATOR)
    for operator in operators:
        operator.cache_clear()
    yield
    for operator in operators:
        operator.cache_clear()


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("features", [1, 6])
def test_the_plan_of_other_platforms(free, features, accelerator_plan):
    operands = case((2, 5, 4, 10), features, free=free)
    weights = np.random.default_rng(3).normal(size=(2, 5, 4, features))
    with jax.enable_x64(True):
        arguments = tuple(map(jnp.array, operands))
        y, pull = jax.vjp(sampling.sampled_conv, *arguments)
        np.testing.assert_allclose(y, convolve(*operands), atol=1e-12)

        def plain(x, kernel, positions):
            positions = jnp.broadcast_to(positions, (2, 5, 4, 9, 2))
            return reads._plain((1, 1), x, kernel.reshape(9, 10, features), positions)

        wanted = jax.vjp(plain, *arguments)[1](jnp.array(weights))
        for ours, theirs in zip(pull(jnp.array(weights)), wanted, strict=True):
            np.testing.assert_allclose(ours, theirs, atol=1e-11)
        text = jax.jit(lambda *a: jax.vjp(sampling.sampled_conv, *a)[1](y)).lower(*arguments)
        assert ("scatter" in text.as_text()) == free  # it is the other plan


# Errors


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(x=jnp.zeros((5, 6))), ValueError, r"x must have shape \[..., H, W, C\]"),
        (dict(x=jnp.zeros((0, 6, 3))), ValueError, "x must have pixels"),
        (dict(x=jnp.zeros((5, 6, 3), jnp.int32)), TypeError, "x must have a floating-point dtype"),
        (dict(kernel=jnp.zeros((9, 3, 4))), ValueError, r"kernel must have shape \[kh, kw,"),
        (dict(kernel=jnp.zeros((3, 3, 2, 4))), ValueError, "must take the 3 channels"),
        (dict(positions=jnp.zeros((4, 2))), ValueError, r"positions must have shape \(9, 2\)"),
        (dict(positions=jnp.zeros((9, 3))), ValueError, "positions must have shape"),
        (dict(positions=jnp.zeros((5, 5, 9, 2))), ValueError, r"or \(5, 6, 9, 2\)"),
        (dict(positions=jnp.zeros((9, 2), jnp.int32)), TypeError, "positions must have a floating"),
        (dict(stride=0), ValueError, "stride must be a positive integer or two of them; got 0"),
        (dict(stride=1.0), TypeError, "stride must be a positive integer or two of them; got 1.0"),
    ],
)
def test_convolution_errors(change, error, message):
    arguments = dict(
        x=jnp.zeros((5, 6, 3)), kernel=jnp.zeros((3, 3, 3, 4)), positions=jnp.zeros((9, 2))
    )
    with pytest.raises(error, match=message):
        sampling.sampled_conv(**(arguments | change))


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (dict(padding="mirror"), ValueError, "padding is one of zero, edge, reflect, wrap"),
        (dict(x=jnp.zeros((6, 3))), ValueError, r"x must have shape"),
        (dict(coordinates=jnp.zeros((2, 4, 3))), ValueError, r"\[\*batch, \*points, 2\]"),
        (dict(coordinates=jnp.zeros((3, 4, 2))), ValueError, r"batch axes \(2,\)"),
        (
            dict(coordinates=jnp.zeros((2, 4, 2), int)),
            TypeError,
            "coordinates must have a floating",
        ),
    ],
)
def test_read_errors(change, error, message):
    arguments = dict(x=jnp.zeros((2, 5, 6, 3)), coordinates=jnp.zeros((2, 4, 2)))
    with pytest.raises(error, match=message):
        sampling.bilinear_sample(**(arguments | change))


@pytest.mark.parametrize("size", [(1, 1), (3, 3)])
def test_affine_conv_reads_the_map_elsewhere_then_convolves(size):
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(size=(2, 7, 8, 3)), jnp.float32)
    kernel = jnp.asarray(rng.normal(size=(*size, 3, 4)), jnp.float32)
    affine = jnp.asarray(0.1 * rng.normal(size=(2, 3)), jnp.float32)
    places = jnp.broadcast_to(grids.affine_coordinates(affine, (7, 8)), (2, 7, 8, 2))
    seen = sampling.bilinear_sample(x, places, padding="reflect")
    got = sampling.affine_conv(x, kernel, affine, stride=2, padding="reflect")
    assert relative(got, plain_conv(seen, kernel, 2)) < 1e-5
