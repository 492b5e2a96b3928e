"""Enlargement by fixed taps, dense layers that slide, and dense outputs from shifted inputs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import rfjax

RNG = np.random.default_rng(0)


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


@pytest.mark.parametrize("factor", [1, 2, 3, 16, 32])
@pytest.mark.parametrize("odd", [False, True])
def test_taps_are_those_of_the_definition(factor, odd):
    kernel = rfjax.bilinear_kernel(factor, odd=odd)
    size = 2 * factor - odd
    assert kernel.shape == (size, size)
    np.testing.assert_allclose(kernel.sum(), factor**2, rtol=1e-6)
    # As initialised in Caffe: the factor again from the size, and the center by its parity.
    again = (size + 1) // 2
    center = again - 1 if size % 2 else again - 0.5
    taps = 1 - np.abs(np.arange(size) - center) / again
    np.testing.assert_allclose(kernel, np.outer(taps, taps), rtol=1e-6)


@pytest.mark.parametrize("odd", [False, True])
def test_an_enlarged_map_reads_between_pixels(odd):
    x, factor = normal(2, 5, 6, 3), 4
    y = rfjax.transposed_bilinear(x, factor, odd=odd)
    size = 2 * factor - odd
    assert y.shape == (2, 4 * factor + size, 5 * factor + size, 3)
    axes = (jnp.arange(float(n)) for n in y.shape[1:3])
    places = jnp.stack(jnp.meshgrid(*axes, indexing="ij"), -1)
    places = (places - (size - 1) / 2) / factor
    wanted = jax.vmap(lambda x: rfjax.bilinear_sample(x, places))(x)
    np.testing.assert_allclose(y, wanted, atol=1e-5)


def test_index_aligned_interpolation_is_the_formula_with_fractions():
    """y_ij = sum |1 - a - {i/f}| |1 - b - {j/f}| x_{floor(i/f) + a, floor(j/f) + b}."""
    x, f = np.asarray(normal(4, 5)), 3
    y = rfjax.transposed_bilinear(x[..., None], f, odd=True)[f - 1 :, f - 1 :, 0]
    for i, j in np.ndindex(3 * f, 4 * f):
        wanted = sum(
            abs(1 - a - i / f % 1) * abs(1 - b - j / f % 1) * x[i // f + a, j // f + b]
            for a in (0, 1)
            for b in (0, 1)
        )
        np.testing.assert_allclose(y[i, j], wanted, atol=1e-5)


@pytest.mark.parametrize("odd", [False, True])
def test_constants_stay_inside(odd):
    y = rfjax.transposed_bilinear(jnp.full((5, 5, 1), 3.0), 8, odd=odd)
    np.testing.assert_allclose(y[8:-8, 8:-8], 3.0, rtol=1e-6)


def test_twice_then_again_is_at_once_for_odd_kernels_only():
    x = normal(6, 6, 1)
    for odd, tolerance in ((True, 1e-5), (False, 0.2 * float(jnp.ptp(x)))):
        twice = rfjax.transposed_bilinear(rfjax.transposed_bilinear(x, 2, odd=odd), 16, odd=odd)
        once = rfjax.transposed_bilinear(x, 32, odd=odd)
        margin = (twice.shape[0] - once.shape[0]) // 2
        twice = twice[margin:][: once.shape[0], margin:][:, : once.shape[1]]
        inside = slice(48, -48)
        difference = np.abs(twice - once)[inside, inside].max()
        assert difference <= tolerance
        assert odd or difference > 1e-3


def test_low_precision_sums_in_single():
    x = normal(1, 4, 4, 2).astype(jnp.bfloat16)
    y = rfjax.transposed_bilinear(x, 3)
    wanted = rfjax.transposed_bilinear(x.astype(jnp.float32), 3)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_array_equal(y, wanted.astype(jnp.bfloat16))


@pytest.mark.parametrize("order, axes", [("hwc", (0, 1, 2)), ("chw", (2, 0, 1))])
def test_a_dense_layer_slides_as_a_convolution(order, axes):
    dense, x = normal(2 * 3 * 4, 5), normal(7, 8, 4)
    kernel = rfjax.dense_to_conv(dense, (2, 3), order=order)
    numbers = ("NHWC", "HWIO", "NHWC")
    y = lax.conv_general_dilated(x[None], kernel, (1, 1), "VALID", dimension_numbers=numbers)[0]
    for i, j in np.ndindex(6, 6):
        window = x[i : i + 2, j : j + 3].transpose(axes).reshape(-1)
        np.testing.assert_allclose(y[i, j], window @ dense, atol=1e-4)


def pooled(x, stride, dilation):
    """The largest of 2x2; a pooling of XLA that is dilated has no gradient."""
    height, width = (size - dilation for size in x.shape[1:3])
    y = jnp.maximum(x[:, :height], x[:, dilation:])
    return jnp.maximum(y[:, :, :width], y[:, :, dilation:])[:, ::stride, ::stride]


def network(kernels, strides, dense):
    """Convolutions of 3x3 and poolings of 2x2, without padding; `dense` dilates for strides."""

    def function(x):
        dilation = 1
        for kernel, stride in zip(kernels, strides, strict=True):
            x = jax.nn.relu(
                lax.conv_general_dilated(
                    x, kernel, (1, 1), "VALID", rhs_dilation=(dilation, dilation),
                    dimension_numbers=("NHWC", "HWIO", "NHWC"),
                )
            )  # fmt: skip
            x = pooled(x, 1 if dense else stride, dilation)
            dilation *= stride if dense else 1
        return x

    return function


@pytest.mark.parametrize("strides", [(2,), (3,), (4,), (2, 3), (2, 2)])
def test_shifting_and_stitching_is_dilation(strides):
    kernels = [normal(3, 3, *pair) for pair in ((2, 3), (3, 4))[: len(strides)]]
    total = int(np.prod(strides))
    wanted = network(kernels, strides, dense=True)
    sparse = network(kernels, strides, dense=False)

    def stitched(x):
        return rfjax.shift_and_stitch(sparse, x, total)

    for size in ((23, 26), (24, 21)):
        x = normal(2, *size, 2)
        np.testing.assert_allclose(stitched(x), wanted(x), atol=1e-4)
    weights = normal(*wanted(x).shape)
    ours = jax.jit(jax.grad(lambda x: (weights * stitched(x)).sum()))(x)
    theirs = jax.grad(lambda x: (weights * wanted(x)).sum())(x)
    np.testing.assert_allclose(ours, theirs, atol=1e-4)
    each = jax.vmap(lambda x: stitched(x[None])[0])(x)
    np.testing.assert_allclose(each, wanted(x), atol=1e-4)


@pytest.mark.parametrize("call, message", [
    (lambda: rfjax.bilinear_kernel(0), "factor must be a positive integer; got 0"),
    (lambda: rfjax.bilinear_kernel(2, odd=1), "odd must be True or False; got 1"),
    (lambda: rfjax.transposed_bilinear(jnp.ones((3, 3)), 2), r"x must have shape \[\*batch, H"),
    (lambda: rfjax.dense_to_conv(jnp.ones((12, 2)), 5), r"kernel must have shape \[5 5 C, O\]"),
    (lambda: rfjax.dense_to_conv(jnp.ones((12, 2)), 2, order="cwh"), "order is one of hwc, chw"),
    (lambda: rfjax.shift_and_stitch(jnp.tanh, jnp.ones((3, 3, 1)), 0), "stride must be a positive"),
])  # fmt: skip
def test_bad_input_is_told_in_a_line(call, message):
    with pytest.raises((ValueError, TypeError), match=message):
        call()
