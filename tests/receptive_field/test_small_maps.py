"""Maps on which no output is clear of the border: stride and offset are those of the function."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import rfjax
from rfjax import models
from rfjax import receptive_field as rf


def windows(x, size=3, stride=1, rate=1, apart=1, padding=None):
    """A convolution by ones; symmetric padding unless told."""
    kernel = jnp.ones((size, size, 1, 1))
    padding = padding or [(size // 2 * rate,) * 2] * 2
    return lax.conv_general_dilated(
        x, kernel, (stride,) * 2, padding, lhs_dilation=(apart,) * 2, rhs_dilation=(rate,) * 2,
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def blurred(padding):
    return lambda x: rfjax.gaussian_blur(x, jnp.log(jnp.array([2.0])), padding=padding)


FUNCTIONS = {
    "itself": lambda x: x,
    "stride 3": lambda x: windows(x, 5, 3),
    "stride 7": lambda x: windows(x, stride=7),
    "stride 4 in two steps": lambda x: windows(windows(x, stride=2), stride=2),
    "stride 5, enlarged": lambda x: jnp.repeat(jnp.repeat(windows(x, stride=5), 5, 1), 5, 2),
    "transposed": lambda x: windows(windows(x, stride=2), 4, apart=2, padding=[(2, 2)] * 2),
    "dilated beyond the map": lambda x: windows(x, rate=50),
    "pyramid": lambda x: sum(windows(windows(x, stride=2), rate=rate) for rate in (1, 6, 12)),
    "wider than the map": lambda x: windows(x, 301),
    "fields of 1,001 pixels": lambda x: windows(windows(x, 501), 501),
    "padded": lambda x: jnp.pad(x, ((0, 0), (2, 2), (2, 2), (0, 0))),
    "rolled": lambda x: jnp.roll(x, (1, 1), (1, 2)),
}
SIZES = (1, 2, 3, 8, 9, 17)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_as_on_open_sizes(name):
    wanted = rf.theoretical(FUNCTIONS[name], (1, None, None, 1))
    for size in SIZES:
        field = rf.theoretical(FUNCTIONS[name], (1, size, size, 1))
        assert (field.stride, field.offset) == (wanted.stride, wanted.offset), size
        assert max(field.size) <= size


@pytest.mark.parametrize(("padding", "size"), [("zero", 1), ("wrap", 5)])
def test_blurs_have_a_stride_of_one_whatever_the_border(padding, size):
    field = rf.theoretical(blurred(padding), (1, size, size, 1))
    assert (field.stride, field.offset) == ((1.0, 1.0), (0.0, 0.0))


NETWORKS = {
    "resnet_tiny": (4, {"width": 2}, (1, 8, 9, 17)),
    "drn_tiny": (4, {"width": 2}, (8,)),
    "resnet_18": (32, {}, (33,)),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_networks(name):
    stride, options, sizes = NETWORKS[name]
    model = models.create(name, num_classes=2, backbone_options=options)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    features = lambda x, v: model.apply(v, x, method="features")
    for size in sizes:
        field = rf.theoretical(features, (1, size, size, 3), variables)
        assert (field.stride, field.offset) == ((stride, stride), (0.0, 0.0))
        assert field.size == (size, size) and field.clipped == (True, True)


def test_a_segmenters_output_has_a_stride_of_one():
    """Interpolated from a few pixels of the features."""
    model = models.create("resnet_tiny", num_classes=2, backbone_options={"width": 2})
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    field = rf.theoretical(lambda x, v: model.apply(v, x), (1, 9, 8, 3), variables)
    assert (field.stride, field.offset) == ((1.0, 1.0), (-1.5, -1.5))


def test_paddings_that_depend_on_the_size_stay_those_of_the_map():
    """TensorFlow's "SAME" at stride 2 pads even sizes on the far side alone: offset 1, not 0."""
    same = lambda x: windows(x, stride=2, padding="SAME")
    for size in (2, 3, 4, 5, 8, 9):
        wanted = (0.0, 0.0) if size % 2 else (1.0, 1.0)
        assert rf.theoretical(same, (1, size, size, 1)).offset == wanted


def test_outputs_that_are_cropped_before_the_border():
    """All 4 outputs of 6 pixels see pixels 1 to 4, which is no stride of 0."""
    cropped = lambda x: windows(x[:, 1:-1, 1:-1], 7)
    for size in (4, 6, 9):
        field = rf.theoretical(cropped, (1, size, size, 1))
        assert (field.stride, field.offset) == ((1.0, 1.0), (1.0, 1.0))


@pytest.mark.parametrize("size", [1, 2, 3, 8])
def test_a_single_pixel_may_be_all_that_is_seen(size):
    """What is no larger on a larger map is not cut by the border."""
    seen = rf.theoretical(jnp.sin, (1, size, size, 1))
    assert (seen.clipped, seen.stride, seen.size) == ((False, False), (1.0, 1.0), (1, 1))
    flipped = rf.theoretical(lambda x: x[:, ::-1], (1, size, size, 1))
    assert (flipped.stride, flipped.offset) == ((-1.0, 1.0), (size - 1.0, 0.0))


IRREGULAR = {
    "a mean beside": lambda x: x - x.mean((1, 2), keepdims=True),
    "of one size alone": lambda x: windows(x + jnp.arange(9.0)[None, :, None, None], 11),
    "to one size": lambda x: windows(x, 11)[:, :9] if x.shape[1] > 9 else windows(x, 11),
    "another stride on larger maps": lambda x: windows(x, 11, 1 if x.shape[1] == 9 else 2),
    "by half of the size": lambda x: windows(jnp.roll(x, x.shape[1] // 2, 1), 11),
    "random": lambda x: windows(x, 11)[:, np.random.default_rng(0).permutation(x.shape[1])],
}


@pytest.mark.parametrize("name", IRREGULAR)
def test_functions_that_are_not_regular_have_no_stride(name):
    """A larger map tells only of a function that is the same there."""
    field = rf.theoretical(IRREGULAR[name], (1, 9, 9, 1))
    assert np.isnan(field.stride[0]) and field.clipped[0]
    assert field.box[0] == (0, 8)


def test_one_axis_may_be_small():
    field = rf.theoretical(lambda x: windows(x, stride=2), (1, 1, 64, 1))
    assert (field.stride, field.size, field.clipped) == ((2.0, 2.0), (1, 3), (True, False))
    field = rf.theoretical(lambda x: windows(x, stride=2), (1, 3, None, 1))
    assert (field.stride, field.size) == ((2.0, 2.0), (2, 3))


def test_the_unit_that_is_asked_for_is_the_small_maps():
    field = rf.theoretical(lambda x: windows(x, 5, 2), (1, 6, 6, 1), unit=(0, 2))
    assert field.box == ((0, 2), (2, 5)) and field.clipped == (True, True)
    assert (field.stride, field.offset) == ((2.0, 2.0), (0.0, 0.0))
