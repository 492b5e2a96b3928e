"""Kernels in C++: what they compute beside the forms of XLA, and where they are called."""

import functools
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from scipy import ndimage

import rfjax
from rfjax import native as command
from rfjax._engine import fused, mixed, native
from rfjax._engine.products import tap_weights
from tests import placements
from tests.primitive_cases import CASES

RNG = np.random.default_rng(0)
SHAPES = ((2, 33, 29, 5), (1, 64, 48, 64), (3, 7, 5, 1), (1, 40, 260, 3), (1, 9, 140, 70))
SHARES = {"shared": (1, 1, 2), "per channel": (1, "C", 2), "per example": ("N", 1, 2)}


def has_compiler():
    try:
        command._found()
    except command.BuildError:
        return False
    return True


@pytest.fixture(scope="module")
def kernels(tmp_path_factory):
    """Builds the kernels of this module in a folder of its own, and forgets them afterwards."""
    if not has_compiler():
        pytest.skip("no compiler of C++ is installed")

    def forget():
        native.is_loaded.cache_clear()
        jax.clear_caches()

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.delenv("RFJAX_NATIVE", raising=False)
        forget()
        command.build()
        assert native.is_loaded()
        yield
    forget()


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def sigmas(shape, share, low=0.3, high=3.0):
    """Random log sigmas [..., 2] of a map of `shape`."""
    sizes = {"N": shape[0], "C": shape[-1]}
    numbers = RNG.uniform(low, high, [sizes.get(size, size) for size in SHARES[share]])
    return jnp.log(jnp.asarray(numbers, jnp.float32))


def close(got, wanted, tolerance=2e-6):
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        scale = max(1.0, float(jnp.abs(b).max()))
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * scale)


def by(algorithm, padding="zero"):
    return functools.partial(rfjax.gaussian_blur, algorithm=algorithm, padding=padding)


def calls(function, *operands):
    """How often the program calls a kernel."""
    return jax.jit(function).lower(*operands).as_text().count("@rfjax_")


def random_taps(shape, share, size):
    """Half taps [N | 1, C | 1, bound + 1] whose last ones are zero: the half size is less."""
    sizes = {"N": shape[0], "C": shape[-1]}
    lead = [sizes.get(n, n) for n in SHARES[share][:2]]
    return jnp.pad(normal(*lead, size + 1) / (size + 1), ((0, 0), (0, 0), (0, 2)))


def correlated(x, down, across, padding):
    """The filter in float64 by SciPy, an example and a channel after the other."""
    modes = dict(zero="constant", edge="nearest", reflect="mirror", wrap="wrap")
    y = np.asarray(x, np.float64)
    n, _, _, c = y.shape
    taps = [np.broadcast_to(np.asarray(t, np.float64), (n, c, t.shape[-1])) for t in (down, across)]
    whole = [np.concatenate([t[..., :0:-1], t], -1) for t in taps]
    for example, channel in np.ndindex(n, c):
        for axis in (0, 1):
            weights = whole[axis][example, channel]
            mode = modes[padding]
            one = ndimage.correlate1d(y[example, ..., channel], weights, axis, mode=mode)
            y[example, ..., channel] = one
    return y


@pytest.mark.parametrize("size", [(1, 1), (2, 5), (17, 3), (40, 40)], ids=str)
@pytest.mark.parametrize("share", SHARES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_kernels_are_correlations(shape, share, size, kernels):
    x, cotangent = normal(*shape), normal(*shape)
    taps, changes = ([random_taps(shape, share, n) for n in size] for _ in range(2))
    sizes = jnp.asarray(size, jnp.int32)
    for padding in native.PADDINGS:
        # SciPy's short filters alone reach once around a map.
        if padding == "zero" or max(size) < min(shape[1:3]):
            got = native.blur_filter(x, *taps, sizes, padding=padding)
            close(got, correlated(x, *taps, padding))
    along_x, along_sigma = native.blur_pull(x, cotangent, taps, changes, sizes)
    close(along_x, correlated(cotangent, *taps, "zero"))
    axes = [n for n, length in enumerate(along_sigma.shape[:2]) if length == 1]
    sums = [
        (x * correlated(cotangent, *pair, "zero")).sum((1, 2))
        for pair in ((changes[0], taps[1]), (taps[0], changes[1]))
    ]
    # Sums over so many numbers are as large as their root, and so is their rounding.
    root = np.sqrt(x.size)
    close(along_sigma / root, np.stack(sums, -1).sum(tuple(axes), keepdims=True) / root)


@pytest.mark.parametrize("padding", native.PADDINGS)
def test_far_beyond_a_small_map(padding, kernels):
    x, size = normal(1, 5, 3, 2), 12
    taps = [random_taps(x.shape, "shared", size) for _ in range(2)]
    sizes = jnp.full(2, size, jnp.int32)
    got = native.blur_filter(x, *taps, sizes, padding=padding)
    mode = {"zero": "constant"}.get(padding, padding)
    wide = np.pad(x, ((0, 0), (size, size), (size, size), (0, 0)), mode=mode)
    wanted = correlated(wide, *taps, "zero")[:, size:-size, size:-size]
    close(got, wanted)


@pytest.mark.parametrize("share", SHARES)
def test_values_and_gradients_are_those_of_matrix_products(share, kernels):
    shape = (2, 20, 26, 5)
    x, params, weights = normal(*shape), sigmas(shape, share), normal(*shape)
    both = placements.values_and_gradients
    assert rfjax.filtering.plan(shape, jnp.zeros(1)).algorithms == ("native", "native")
    # A kernel for the value and one for the gradient.
    assert calls(both(by("native")), x, x, params) == 2
    gradients = [jax.jit(both(by(name))) for name in ("native", "toeplitz")]
    # Up to the largest half size that the kernels serve, and beyond it.
    for factor in (0.8, 4.0):
        got, wanted = (of(weights, x, params + np.log(factor)) for of in gradients)
        close(got[0], wanted[0])
        close(got, wanted, 1e-5)


def test_sums_of_many_tiles_are_the_same_every_time(kernels):
    x, params = normal(2, 150, 300, 8), jnp.log(jnp.array([1.7]))
    gradients = jax.jit(placements.values_and_gradients(by("native")))
    first = gradients(x, x, params)
    for _ in range(5):
        again = gradients(x, x, params)
        assert all(map(np.array_equal, jax.tree.leaves(first), jax.tree.leaves(again)))


@pytest.mark.parametrize(
    "name",
    [
        *("gaussian_blur", "gaussian_blur of each example", "gaussian_blur full"),
        *("deformable_conv", "adaptive_dilated_conv", "inflate", "interpolate"),
    ],
)
@pytest.mark.parametrize("place", ["N", "shard_map", "pmap", "vmap"])
def test_on_several_devices(place, name, kernels, monkeypatch):
    function, of_each, operands = CASES[name]
    with monkeypatch.context() as patch:
        patch.setenv("RFJAX_NATIVE", "0")
        native.is_loaded.cache_clear()
        wanted = placements.on_one_device(function, operands)
        native.is_loaded.cache_clear()
    jax.clear_caches()
    placements.assert_same(place, function, of_each, operands, wanted)


def test_vmap_of_maps_of_sigmas_and_of_both(kernels):
    x, params = normal(4, 2, 17, 19, 3), jnp.log(jnp.array([[0.4], [1.3], [3.0], [30.0]]))
    blur, other = by("native"), by("toeplitz")
    close(jax.jit(jax.vmap(blur, (0, None)))(x, params[1]), other(x, params[1]))
    each = jnp.stack([other(x[0], p) for p in params])
    close(jax.jit(jax.vmap(blur, (None, 0)))(x[0], params), each)
    both = jax.vmap(placements.values_and_gradients(blur))
    wanted = jax.vmap(placements.values_and_gradients(other))
    close(jax.jit(both)(x, x, params), jax.jit(wanted)(x, x, params), 1e-5)


def test_the_batch_of_a_kernel_is_more_examples(kernels):
    """Where the half sizes are those of the whole batch, nothing loops over it."""
    x, params = normal(4, 2, 17, 19, 3), sigmas((4,), "per example", high=1.9)
    how = rfjax.filtering.Filter("zero", rfjax.gaussian.Window())
    taps = jax.vmap(lambda p: fused._taps(how, x.shape[1:], jnp.exp(p)[None]))(params)
    sizes = jnp.array([4, 4], jnp.int32)
    kernel = functools.partial(native.blur_filter, padding="zero")
    got = jax.vmap(kernel, (0, 0, 0, None))(x, *taps, sizes)
    close(got, jnp.stack([by("toeplitz")(x[i], params[i]) for i in range(4)]))


def test_forward_mode(kernels):
    x, params = normal(1, 12, 14, 2), jnp.log(jnp.array([1.1, 0.7]))
    loss = lambda p: jnp.sin(by("native")(x, p)).sum()
    close(jax.jit(jax.jacfwd(loss))(params), jax.jit(jax.grad(loss))(params), 1e-4)


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float16])
def test_narrow_types_are_filtered_in_float32(dtype, kernels):
    x, params = normal(1, 30, 30, 4).astype(dtype), jnp.zeros(1, dtype)
    assert calls(by("native"), x, params) == 1
    close(by("native")(x, params), by("toeplitz")(x, params), 1e-2)


def test_where_no_kernel_is_called(kernels):
    x, params = normal(2, 16, 16, 4), jnp.zeros(2)
    assert calls(by("native"), x, params) == 1
    assert calls(by("auto"), x, params) == 1
    assert calls(by("shift_add"), x, params) == 0
    assert calls(by("auto", "renormalized"), x, params) == 0
    assert calls(functools.partial(rfjax.gaussian_blur, spatial_ndim=1), x, params[:1]) == 0
    program, _ = placements.sharded("N", by("auto"), (True, False), (x[:, :4].repeat(2, 0), params))
    assert "rfjax_" not in program.as_text()


@pytest.mark.parametrize("size", [(0, 2), (3, 1), (5, 7)], ids=str)
@pytest.mark.parametrize("share", [1, 2], ids=["shared", "per example"])
def test_taps_of_a_plane_are_correlations(share, size, kernels):
    """In float64 by SciPy, an example and a channel after the other; more taps than are in use."""
    x, cotangent, sizes = normal(2, 33, 21, 7), normal(2, 33, 21, 7), jnp.array(size)
    used = normal(share, 2 * size[0] + 1, 2 * size[1] + 1)
    used = used + used[:, ::-1, ::-1]
    taps = jnp.pad(used, ((0, 0), (2, 2), (1, 1)))
    along_x, along_taps = native.plane_pull(x, cotangent, taps, sizes)
    got = native.plane_filter(x, taps, sizes)
    wanted_taps = np.zeros((2, *used.shape[1:]))
    for n, c in np.ndindex(2, 7):
        weights = np.asarray(used[n % share], np.float64)
        for result, of in ((got, x), (along_x, cotangent)):
            one = ndimage.correlate(np.asarray(of[n, ..., c], np.float64), weights, mode="constant")
            close(result[n, ..., c], one, 1e-5)
        wide = np.pad(np.asarray(x[n, ..., c], np.float64), [(s, s) for s in size])
        for i, j in np.ndindex(*used.shape[1:]):
            wanted_taps[n, i, j] += (cotangent[n, ..., c] * wide[i : i + 33, j : j + 21]).sum()
    if share == 1:
        wanted_taps = wanted_taps.sum(0, keepdims=True)
    close(along_taps[:, 2:-2, 1:-1], wanted_taps, 1e-5)
    assert not along_taps.at[:, 2:-2, 1:-1].set(0).any()


def full(sigma, count=1):
    """Full covariances [count, 1, 3], each a little wider than the one before."""
    each = [rfjax.from_ellipse(1.2 * sigma * (1 + 0.1 * n), 0.7 * sigma, 0.6) for n in range(count)]
    return jnp.stack(each)[:, None]


# One that the kernels serve at all sizes, as zeros alone lie further away; up to some taps; never.
@pytest.mark.parametrize("sigma", [0.4, 2.0, 5.0, 30.0])
@pytest.mark.parametrize("shape", [(1, 9, 7, 3), (2, 40, 33, 9)], ids=str)
def test_full_covariances_are_those_of_xla(shape, sigma, kernels):
    x, params, cotangent = normal(*shape), full(sigma, shape[0]), normal(*shape)
    both = placements.values_and_gradients(rfjax.gaussian_blur)
    assert calls(both, cotangent, x, params) == 2
    got = jax.jit(both)(cotangent, x, params)
    # An exported program calls no kernel.
    wanted = export.export(jax.jit(both))(cotangent, x, params).call(cotangent, x, params)
    close(got[:2], wanted[:2])
    root = np.sqrt(x.size)
    close(got[2] / root, wanted[2] / root, 1e-5)


def test_full_covariances_of_a_batch(kernels):
    x, params = normal(3, 2, 20, 17, 4), full(2.0, 3)[:, 0]
    for axes in ((0, 0), (0, None), (None, 0)):
        operands = [a if axis == 0 else a[1] for a, axis in zip((x, params), axes, strict=True)]
        both = jax.vmap(placements.values_and_gradients(rfjax.gaussian_blur), (0, *axes))
        got = jax.jit(both)(x, *operands)
        for n in range(3):
            own = [a[n] if axis == 0 else a for a, axis in zip(operands, axes, strict=True)]
            wanted = placements.values_and_gradients(rfjax.gaussian_blur)(x[n], *own)
            close([leaf[n] for leaf in got], wanted, 1e-5)


def test_where_full_covariances_call_no_kernel(kernels):
    x, params = normal(2, 16, 16, 4), full(1.0)[0, 0]
    blur = rfjax.gaussian_blur
    assert calls(blur, x, params) == 1
    assert calls(functools.partial(blur, padding="edge"), x, params) == 0
    assert calls(functools.partial(blur, padding="renormalized"), x, params) == 0
    assert calls(blur, x, jnp.broadcast_to(params, (4, 3))) == 0  # of each channel
    assert calls(blur, x[:0], params) == 0
    assert "rfjax_" not in export.export(jax.jit(blur))(x, params).mlir_module()
    close(jax.jit(jax.jacfwd(blur, 1))(x, params), jax.jit(jax.jacrev(blur, 1))(x, params), 1e-4)
    planned = functools.partial(rfjax.filtering.plan, (1, 64, 64, 4))
    assert planned(params).algorithms == ("native",)
    assert planned(params, padding="edge").algorithms == ("shift_add",)
    assert planned(full(1.0).repeat(4, 1)[0]).algorithms == ("shift_add",)
    assert planned(full(9.0)[0, 0]).algorithms == ("fourier",)


def read(x, kernel, positions, mask=None, *, algorithm="native", stride=1):
    return rfjax.sampled_conv(x, kernel, positions, mask=mask, stride=stride, algorithm=algorithm)


# Channels in vectors and beside them, outputs that fill blocks and that do not, masks and strides.
READS = {
    "plain": ((2, 13, 17, 40), 24, 1, False),
    "few channels": ((1, 9, 11, 3), 5, 1, True),
    "strided": ((2, 12, 10, 17), 4, 2, True),
}


@pytest.mark.parametrize("name", READS)
def test_reads_are_those_of_gathers(name, kernels, monkeypatch):
    shape, features, stride, masked = READS[name]
    monkeypatch.setattr("rfjax._engine.tuning.READ_BLOCK_CPU", 2**14)
    monkeypatch.setattr("rfjax._engine.tuning.LEAST_OUTPUTS", 16)
    output = shape[0], *(-(-side // stride) for side in shape[1:3])
    # Half of the taps on whole pixels, some far outside of the map.
    positions = 3 * normal(*output, 9, 2)
    positions = jnp.where(positions > 0, positions, jnp.round(positions)).at[0, 0, 0, 0].set(1e6)
    operands = [normal(*shape), normal(3, 3, shape[-1], features), positions]
    operands += [normal(*output, 9)] if masked else []
    weights = normal(*output, features)
    both = [
        placements.values_and_gradients(functools.partial(read, algorithm=name, stride=stride))
        for name in ("native", "gather")
    ]
    # A kernel for the value and one for the gradients.
    assert calls(both[0], weights, *operands) == 2
    assert calls(both[1], weights, *operands) == 0
    close(*(jax.jit(of)(weights, *operands) for of in both), 1e-5)


MIXES = {
    "plain": ((2, 13, 17, 40), 24, (1, 1), (1, 2, 4)),
    "few channels": ((1, 9, 11, 3), 5, (1, 1), (2,)),
    "strided": ((2, 12, 10, 17), 4, (2, 3), (1, 3)),
}


@pytest.mark.parametrize("name", MIXES)
def test_mixes_are_those_of_xla(name, kernels, monkeypatch):
    shape, features, strides, dilations = MIXES[name]
    monkeypatch.setattr("rfjax._engine.tuning.READ_BLOCK_CPU", 2**14)
    monkeypatch.setattr("rfjax._engine.tuning.LEAST_OUTPUTS", 16)
    output = [-(-side // stride) for side, stride in zip(shape[1:3], strides, strict=True)]
    operands = normal(*shape), normal(3, 3, shape[-1], features)
    operands += (normal(shape[0], *output, len(dilations)),)
    cotangent = normal(shape[0], *output, features)

    def plain(x, kernel, weights):
        taps = mixed.Taps((3, 3), dilations, strides, 1)
        return mixed._whole_forward(taps, x, tap_weights(kernel, 1), weights)

    function = functools.partial(rfjax.adaptive_dilated_conv, dilations=dilations, stride=strides)
    both = [placements.values_and_gradients(f) for f in (function, plain)]
    assert calls(both[0], cotangent, *operands) == 2
    close(*(jax.jit(of)(cotangent, *operands) for of in both), 1e-5)
    assert calls(function, operands[0].astype(jnp.bfloat16), *operands[1:]) == 0


def inflated(x, factor):
    return rfjax.inflate(x, factor, max_factor=2.0)[0]


def brought_back(size):
    """`interpolate` from a map of which `size` is in use; beyond the map there are zeros."""
    return lambda x, factor: rfjax.interpolate(x, factor, jnp.array(size), (16, 15))


LINES = {
    "inflate": inflated,
    "interpolate": brought_back([5, 4]),
    "interpolate, beyond the map": brought_back([50, 40]),
}


# Channels in vectors, in several parts and beside them; maps of one row; one example.
@pytest.mark.parametrize("shape", [(1, 9, 7, 3), (2, 8, 11, 40), (3, 1, 5, 8), (7, 6, 33)], ids=str)
@pytest.mark.parametrize("name", LINES)
def test_lines_are_those_of_products(name, shape, kernels):
    x, function = normal(*shape), LINES[name]
    both = placements.values_and_gradients(function)
    by_matrices = placements.values_and_gradients(lambda *operands: function(*operands))
    for factor in jnp.array([0.3, 0.75, 1.0, 1.37, 2.5, jnp.nan]):
        cotangent = normal(*jax.eval_shape(function, x, factor).shape)
        assert calls(both, cotangent, x, factor) == 2
        got = jax.jit(both)(cotangent, x, factor)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(native, "is_loaded", lambda: False)
            assert calls(by_matrices, cotangent, x, factor) == 0
            wanted = jax.jit(by_matrices)(cotangent, x, factor)
        close(got[:2], wanted[:2], 1e-6)
        # A sum over all numbers, some of which cancel.
        root = np.sqrt(cotangent.size)
        close(got[2] / root, wanted[2] / root, 1e-5)


@pytest.mark.parametrize("axes", [(0, 0), (0, None), (None, 0)], ids=str)
def test_lines_of_a_batch(axes, kernels):
    x, factors = normal(4, 9, 7, 5), jnp.array([0.5, 1.0, 1.5, 2.0])
    operands = [a if axis == 0 else a[1] for a, axis in zip((x, factors), axes, strict=True)]
    both = placements.values_and_gradients(inflated)
    cotangent = normal(4, 17, 13, 5)
    got = jax.jit(jax.vmap(both, (0, *axes)))(cotangent, *operands)
    for i in range(4):
        own = [a[i] if axis == 0 else a for a, axis in zip(operands, axes, strict=True)]
        close([leaf[i] for leaf in got], both(cotangent[i], *own), 1e-5)


def test_where_lines_call_no_kernel(kernels):
    x, factor = normal(2, 8, 8, 4), jnp.float32(1.5)
    assert calls(inflated, x, factor) == 1
    assert calls(inflated, x.astype(jnp.bfloat16), factor) == 0
    assert calls(inflated, x[:0], factor) == 0
    assert "rfjax_" not in export.export(jax.jit(inflated))(x, factor).mlir_module()
    close(jax.jit(jax.jacfwd(inflated, 1))(x, factor), jax.jit(jax.jacrev(inflated, 1))(x, factor))


def test_where_reads_call_no_kernel(kernels):
    x, kernel, positions = normal(1, 8, 8, 4), normal(3, 3, 4, 4), normal(1, 8, 8, 9, 2)
    assert calls(read, x, kernel, positions) == 1
    assert calls(read, x, kernel, positions[0, 0, 0]) == 1
    assert calls(functools.partial(read, algorithm="auto"), x, kernel, positions) == 1
    assert calls(functools.partial(read, algorithm="auto"), x, kernel, positions[0, 0, 0]) == 0
    assert calls(functools.partial(read, algorithm="gather"), x, kernel, positions) == 0
    assert calls(read, x, kernel[:, :, :2], positions) == 0  # groups of channels
    assert calls(read, x, kernel, normal(1, 8, 8, 2, 9, 2)) == 0  # offset groups
    assert calls(read, x.astype(jnp.bfloat16), kernel, positions) == 0
    assert calls(read, normal(1, 8, 8, 40), normal(3, 3, 40, 2), positions) == 0  # narrow
    saved = export.export(jax.jit(read))(x, kernel, positions)
    assert "rfjax_" not in saved.mlir_module()


def test_exported_programs_run_on_other_machines(kernels):
    x, params = normal(1, 16, 16, 4), jnp.zeros(2)
    saved = export.export(jax.jit(by("native")))(x, params)
    assert "rfjax_" not in saved.mlir_module()
    got = export.deserialize(saved.serialize()).call(x, params)
    close(got, by("native")(x, params))
    assert calls(by("native"), x, params) == 1


def test_a_channel_without_a_sigma_leaves_the_others_alone(kernels):
    x = normal(1, 12, 12, 6)
    y = by("native")(x, jnp.zeros((6, 1)).at[2].set(jnp.nan))
    others = jnp.array([0, 1, 3, 4, 5])
    close(y[..., others], by("toeplitz")(x, jnp.zeros(1))[..., others])


def test_a_size_beyond_the_taps_is_cut(kernels):
    x, taps = normal(1, 9, 9, 2), random_taps((1, 9, 9, 2), "shared", 2)
    for sizes in ([99, -7], [4, 0]):
        got = native.blur_filter(x, taps, taps, jnp.array(sizes, jnp.int32), padding="zero")
        close(got, correlated(x, taps, taps[..., :1], "zero"))


def test_no_examples(kernels):
    assert by("native")(jnp.zeros((0, 8, 8, 2)), jnp.zeros(1)).shape == (0, 8, 8, 2)


def test_the_environment_turns_them_off(kernels, monkeypatch):
    monkeypatch.setenv("RFJAX_NATIVE", "0")
    native.is_loaded.cache_clear()
    jax.clear_caches()
    try:
        assert calls(by("auto"), normal(1, 16, 16, 4), jnp.zeros(2)) == 0
        with pytest.raises(ValueError, match="'native' wants kernels that are not built"):
            by("native")(normal(1, 16, 16, 4), jnp.zeros(2))
    finally:
        native.is_loaded.cache_clear()
        jax.clear_caches()


@pytest.mark.parametrize(
    "compiler, said",
    [
        ("none-such", "none-such: No such file or directory; --compiler names another"),
        ("false", "false: it failed"),
        (f"{sys.executable} -c 1/0 --", "ZeroDivisionError"),
    ],
)
def test_a_compiler_that_fails_is_one_line(compiler, said, tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(command.BuildError, match=said) as caught:
        command.build(compiler)
    assert "\n" not in str(caught.value)
    assert not command.is_built()
    assert list(tmp_path.rglob("*.so")) == []


def test_a_library_that_is_damaged_is_done_without(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("RFJAX_NATIVE", raising=False)
    native.place().parent.mkdir(parents=True)
    native.place().write_bytes(b"no library")
    native.is_loaded.cache_clear()
    jax.clear_caches()
    try:
        with pytest.warns(UserWarning, match="cannot be loaded, computing without them"):
            assert not native.is_loaded()
        assert calls(by("auto"), normal(1, 8, 8, 2), jnp.zeros(1)) == 0
    finally:
        native.is_loaded.cache_clear()
        jax.clear_caches()


def test_the_command_ends_in_one_line(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    # What is built is tested above, and takes seconds.
    program = [sys.executable, "-m", "rfjax.native", "--compiler=false"]
    done = subprocess.run(program, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, "rfjax.native: error: false: it failed\n")
