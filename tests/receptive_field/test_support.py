"""Every output's theoretical field is the support of its gradient, exactly."""

import dataclasses
from functools import partial
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen
from jax import lax

import rfjax
from rfjax import models, nn
from rfjax import receptive_field as rf
from rfjax.models import dla, registry
from rfjax.models.backbone import Backbone
from rfjax.models.resizing import bilinear_upsample
from tests.receptive_field.measured import gradient_boxes, positive, traced_boxes

SHAPE = (1, 9, 13, 2)


def kernel(*shape):
    return jnp.asarray(np.random.default_rng(1).uniform(0.5, 1.5, shape))


def conv(x, size=3, stride=1, features=2, **options):
    options = {"padding": [(size // 2,) * 2] * 2} | options
    width = x.shape[-1] // options.get("feature_group_count", 1)
    return lax.conv_general_dilated(
        x, kernel(size, size, width, features), (stride, stride),
        dimension_numbers=("NHWC", "HWIO", "NHWC"), **options,
    )  # fmt: skip


def dilated(x, rate, **options):
    return conv(x, rhs_dilation=(rate, rate), padding=[(rate, rate)] * 2, **options)


def pool(x, size, stride):
    ones = (1, size, size, 1), (1, stride, stride, 1)
    return lax.reduce_window(x, 0.0, lax.add, *ones, "VALID")


def masked_kernel(x):
    mask = jnp.arange(9).reshape(3, 3, 1, 1) <= 4  # pixels before, in reading order
    weights = kernel(3, 3, 2, 2) * mask.astype(x.dtype)
    return lax.conv_general_dilated(
        x, weights, (1, 1), [(1, 1)] * 2, dimension_numbers=("NHWC", "HWIO", "NHWC")
    )


def scanned(x):
    rows = lambda carry, row: (
        (carry + row) * (jnp.arange(13) > 2).astype(x.dtype)[None, :, None],
        carry,
    )
    return jnp.moveaxis(lax.scan(rows, x[:, 0], jnp.moveaxis(x, 1, 0))[1], 0, 1)


def normed(x, params):
    """A log-Cholesky covariance in float64."""
    return jnp.asarray(params, x.dtype)


def blur(x, params, **options):
    return rfjax.gaussian_blur(x, normed(x, params), **options)


def resampled(x, sigma, **options):
    options = {"mode": "residual"} | options
    weights = kernel(3, 3, 2, 2)
    return rfjax.blur_resample_conv(x, weights, jnp.log(normed(x, [sigma])), **options)


def sampled(x, positions, **options):
    return rfjax.sampled_conv(x, kernel(1, len(positions), 2, 2), jnp.array(positions), **options)


def scattered(x):
    return jnp.zeros_like(x).at[:, jnp.arange(5)].add(x[:, 3:8]).at[:, 2].set(x[:, 0])


def space_to_depth(x):
    x = x[:, :8, :12].reshape(1, 4, 2, 6, 2, 2)
    return x.transpose(0, 1, 3, 2, 4, 5).reshape(1, 4, 6, 8)


def attention(x):
    rows = x[0]
    return jnp.einsum("ywc,yvc,yvd->ywd", rows, rows, rows)[None]


FUNCTIONS = {
    "strided": lambda x: conv(conv(x, stride=2), size=5, stride=2),
    "even, padded at one side": lambda x: conv(x, size=2, padding=[(0, 1), (1, 0)]),
    "cropped by negative padding": lambda x: conv(x, size=3, padding=[(-2, 0), (0, -1)]),
    "dilated": lambda x: dilated(conv(x, stride=2), 2),
    "padded beyond the window": lambda x: conv(x, padding=[(4, 4), (0, 6)]),
    "residual": lambda x: x + conv(conv(x)),
    "strided residual": lambda x: x[:, ::2, ::2] + conv(jax.nn.relu(conv(x, stride=2))),
    "branches": lambda x: jnp.concatenate([conv(x), dilated(x, 3), x], -1),
    "grouped": lambda x: conv(
        jnp.stack([x[..., 0], jnp.roll(x[..., 1], 3, 1)], -1), feature_group_count=2
    ),
    "transposed": lambda x: conv(x, size=4, lhs_dilation=(2, 2), padding=[(2, 2)] * 2),
    "interpolated": lambda x: bilinear_upsample(conv(x, stride=4), 4),
    "pooled": lambda x: pool(conv(pool(x, 2, 2)), 3, 1),
    "shifts": lambda x: jnp.square(x[:, 1:-1, 1:-1] - 0.5 * x[:, 2:, :-2]) + x[:, 1:-1, 2:],
    "kernel under a mask": masked_kernel,
    "flipped": lambda x: x[:, ::-1] + conv(x),
    "transposed axes": lambda x: conv(x).transpose(0, 2, 1, 3),
    "rolled": lambda x: jnp.roll(x, (2, -3), (1, 2)),
    "selected": lambda x: jnp.where((jnp.arange(13) % 3 == 0)[None, None, :, None], x, conv(x)),
    "global pooling beside": lambda x: jnp.concatenate(
        [x, jnp.broadcast_to(x.mean((1, 2), keepdims=True), x.shape)], -1
    ),
    "summed up": lambda x: jnp.cumsum(x, 1) + lax.cumsum(x, 2, reverse=True),
    "gathered": lambda x: x[:, jnp.array([3, 1, 8, 0])],
    "gathered beyond the end": lambda x: x.at[:, jnp.array([1, 20])].get(mode="fill", fill_value=0),
    "scattered": scattered,
    "sliced at a number": lambda x: lax.dynamic_slice_in_dim(x, jnp.int32(5), 6, 1),
    "updated": lambda x: lax.dynamic_update_slice(conv(x), x[:, 5:7, 2:9], (0, 1, 1, 0)),
    "space to depth": space_to_depth,
    "folded rows": lambda x: jnp.cumsum(x.reshape(1, 9, 26), 1).reshape(SHAPE),
    "scanned": scanned,
    "attention along rows": attention,
    "banded product": lambda x: jnp.einsum("ij,nwjc->nwic", jnp.tri(13, k=1, dtype=x.dtype), x),
    "branch that is taken": lambda x: lax.switch(jnp.int32(1), [jnp.sort, conv, jnp.negative], x),
    "vmapped": lambda x: jax.vmap(lambda row: row * row.sum(0)[None])(x[0])[None],
    "checkpointed": lambda x: jax.checkpoint(conv)(x),
    "Fourier transform": lambda x: jnp.fft.fft(x, axis=1).real,
    "gaussian": lambda x: blur(x, [np.log(1.2)]),
    "gaussian, diagonal": lambda x: blur(x, np.log([0.4, 2.6])),
    "gaussian, wide": lambda x: blur(x, [np.log(3.0)], algorithm="toeplitz"),
    "gaussian, full": lambda x: blur(x, [0.0, 0.7, 0.1]),
    "gaussian, full by transforms": lambda x: blur(x, np.log([2.2, 1.0, 2.0])),
    "gaussian, reflected": lambda x: blur(x, [np.log(1.8)], padding="reflect"),
    "gaussian, edge": lambda x: blur(x, [np.log(4.0)], padding="edge"),
    "gaussian, wrapped": lambda x: blur(x, [np.log(1.1)], padding="wrap"),
    "gaussian, renormalized": lambda x: blur(x, [np.log(1.8)], padding="renormalized"),
    "gaussian, faded": lambda x: blur(x, [np.log(1.3)], support="faded"),
    "difference of gaussians": lambda x: rfjax.difference_of_gaussians(
        x, normed(x, [np.log(0.7)]), normed(x, [np.log(1.7)])
    ),
    "composed": lambda x: resampled(x, 0.8),
    "composed, strided": lambda x: resampled(x, 1.3, stride=2),
    "composed, absolute": lambda x: resampled(x, 1.3, mode="absolute", dilation=2),
    "sampled at fractions": lambda x: sampled(x, [[-1.5, 0.25], [0.0, 2.5]]),
    "sampled, strided": lambda x: sampled(x, [[-1.25, 0.25], [3.5, -2.5]], stride=3),
}  # fmt: skip


# Their like is among the others.
LONG = {
    "gaussian, diagonal", "gaussian, edge", "gaussian, wrapped", "gaussian, renormalized",
    "gaussian, faded", "difference of gaussians", "composed", "composed, strided",
    "sampled at fractions",
}  # fmt: skip


def slow_ones(names, slow):
    return [pytest.param(name, marks=[pytest.mark.slow] * (name in slow)) for name in names]


@pytest.mark.parametrize("name", slow_ones(FUNCTIONS, LONG))
def test_of_every_output(name):
    with jax.enable_x64(True):
        wanted = gradient_boxes(FUNCTIONS[name], SHAPE)
        np.testing.assert_array_equal(traced_boxes(FUNCTIONS[name], SHAPE), wanted)


def narrow(name):
    """The backbone of this name with two channels, which its receptive field does not see."""
    built = registry.architecture(name)
    if isinstance(built, dla.Aggregation):
        return dataclasses.replace(built, widths=(2,) * len(built.widths)).build(dtype=jnp.float64)
    stages = tuple(dataclasses.replace(stage, width=2) for stage in built.stages)
    stem = dataclasses.replace(built.stem, width=2)
    return Backbone(dataclasses.replace(built, stem=stem, stages=stages), dtype=jnp.float64)


# Sizes by the recursion r <- r + (k - 1) d j over the layers of the references.
BACKBONES = {"resnet_tiny": 31, "resnet_18": 435, "drn_a_18": 355, "drn_c_26": 581, "drn_d_22": 527,
             "drn_tiny": 39, "dla_tiny": 115}  # fmt: skip
DEEP = {
    "resnet_34": 899, "resnet_50": 427, "resnet_101": 971, "drn_a_34": 819, "drn_a_50": 411,
    "drn_c_42": 1045, "drn_c_58": 573, "drn_d_24": 575, "drn_d_38": 991, "drn_d_40": 1039,
    "drn_d_54": 519, "drn_d_56": 567, "drn_d_105": 1063, "drn_d_107": 1111, "dla_34": 751,
}  # fmt: skip


@pytest.mark.parametrize("name", slow_ones(BACKBONES | DEEP, {*DEEP, "drn_a_18", "drn_d_22"}))
def test_of_networks(name, monkeypatch):
    """Along a row. A maximum's gradient is at one pixel of a window; a mean's is at all."""
    with_promotion = jax.numpy_dtype_promotion("standard")(linen.avg_pool)  # Flax counts on it
    monkeypatch.setattr(linen, "max_pool", with_promotion)
    net, shape = narrow(name), (1, 1, 1024 if name in BACKBONES else 1280, 3)
    with jax.enable_x64(True):
        x = jax.ShapeDtypeStruct(shape, jnp.float64)
        variables = positive(jax.eval_shape(net.init, jax.random.key(0), x))
        apply = lambda x, v: net.apply(v, x)
        field = rf.theoretical(apply, shape, variables, dtype=jnp.float64)
        image = jnp.asarray(np.random.default_rng(2).uniform(0.5, 1.5, shape))
        middle = lambda x, v: apply(x, v)[0, 0, field_unit(net, shape)].sum()
        gradient = jax.jit(jax.grad(middle))(image, variables)
    seen = np.flatnonzero(np.asarray(gradient)[0, 0].sum(-1))
    assert field.box[1] == (seen[0], seen[-1])
    assert field.size[1] == (BACKBONES | DEEP)[name] and not field.clipped[1]


def test_the_documentation_has_these_sizes():
    text = (Path(__file__).parents[2] / "docs" / "receptive_fields.md").read_text()
    rows = [line.replace("`", "").split(" | ") for line in text.splitlines()]
    found = {row[0].removeprefix("| "): row[2] for row in rows if len(row) > 3}
    assert found.items() >= {name: str(size) for name, size in (BACKBONES | DEEP).items()}.items()


def field_unit(net, shape):
    return -(-shape[2] // net.architecture.stride) // 2


@pytest.mark.parametrize("head", slow_ones(["conv3", "composition", "dog"], {"conv3", "dog"}))
def test_of_segmenters_in_two_dimensions(head):
    options = {} if head == "conv3" else {"family": "full"}
    model = models.create(
        "resnet_tiny", num_classes=2, head=head, head_options=options, dtype=jnp.float64,
        backbone_options={"width": 2, "depth": 1},
    )  # fmt: skip
    shape = (1, 73, 66, 3)
    with jax.enable_x64(True):
        image = jnp.asarray(np.random.default_rng(2).uniform(0.5, 1.5, shape))
        variables = jax.jit(model.init)(jax.random.key(0), image)
        trained = positive(variables)
        for name, leaf in variables["params"]["head"].items():
            if name.startswith("covariance"):
                trained["params"]["head"][name] = leaf + 0.1 * jnp.arange(3, dtype=leaf.dtype)
        apply = lambda x, v: model.apply(v, x)
        field = rf.theoretical(apply, shape, trained, dtype=jnp.float64)
        middle = lambda x: (y := apply(x, trained))[0, y.shape[1] // 2, y.shape[2] // 2].sum()
        gradient = np.asarray(jax.jit(jax.grad(middle))(image))[0].sum(-1)
    rows, columns = (np.flatnonzero(gradient.any(axis)) for axis in (1, 0))
    assert field.box == ((rows[0], rows[-1]), (columns[0], columns[-1]))


def test_choices_by_the_input_count_all_that_is_compared():
    """Their gradients are at what was chosen."""
    ordered = rf.theoretical(lambda x: jnp.sort(x, 2), (1, 9, 9, 1))
    assert ordered.box == ((4, 4), (0, 8))
    largest = lambda x: lax.reduce_window(x, -jnp.inf, lax.max, (1, 3, 5, 1), (1, 2, 2, 1), "VALID")
    assert rf.theoretical(largest, (1, None, None, 1)).size == (3, 5)
    either = lambda x: lax.cond(x[0, 0, 0, 0] > 0, lambda: conv(x), lambda: x)
    assert rf.theoretical(either, (1, 9, 9, 2), unit=(4, 4)).box == ((0, 5), (0, 5))


def test_loops_without_a_derivative():
    def body(carry):
        count, x = carry
        return count + 1, jnp.pad(x, ((0, 0), (0, 0), (1, 0), (0, 0)))[:, :, :-1] + x

    def looped(times):
        return lambda x: lax.while_loop(lambda carry: carry[0] < times, body, (0, x))[1]

    assert rf.theoretical(looped(3), (1, 9, 9, 1)).box == ((4, 4), (1, 4))
    by_input = lambda x: lax.while_loop(lambda c: c.sum() < 9, lambda c: c * 2, x)
    assert rf.theoretical(by_input, (1, 9, 9, 1)).clipped == (True, True)


def test_weights_that_are_zero_count():
    """A free weight may be zero today; what is read is the architecture's."""
    layer = nn.Conv(4, kernel_size=5, kernel_init=linen.initializers.zeros)
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 9, 9, 2)))
    wanted = rf.theoretical([rf.Conv(5)]).size
    apply = lambda x, v: layer.apply(v, x)
    assert rf.theoretical(apply, (1, None, None, 2), variables).size == wanted
    assert rf.theoretical(lambda x: layer.apply(variables, x), (1, 33, 33, 2)).size == wanted
    gain = jnp.zeros(2)
    residual = lambda x, gain: x + conv(x) * gain[None, None, None]
    assert rf.theoretical(residual, (1, 33, 33, 2), gain).size == (3, 3)


def test_unknown_weights_are_enough_for_structure_that_does_not_turn_on_them():
    unknown = jax.ShapeDtypeStruct((7, 7, 2, 2), jnp.float32)
    apply = lambda x, w: lax.conv_general_dilated(
        x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert rf.theoretical(apply, (1, 64, 64, 2), unknown).size == (7, 7)
    blurred = partial(rfjax.gaussian_blur)
    params = jax.ShapeDtypeStruct((1,), jnp.float32)
    bound = rf.theoretical(blurred, (1, 32, 32, 2), params)
    assert bound.clipped == (True, True)  # any sigma: the whole map


def test_positions_from_the_input_are_reported():
    layer = nn.DeformableConv(2)
    variables = layer.init(jax.random.key(0), jnp.zeros((1, 9, 9, 2)))
    field = rf.theoretical(lambda x, v: layer.apply(v, x), (1, 16, 16, 2), variables)
    assert field.data_dependent
    assert field.box == ((0, 15), (0, 15))  # the bound: anywhere
    assert not rf.theoretical(lambda x: x[:, jnp.array([1, 2])], (1, 8, 8, 1)).data_dependent


def test_operations_without_a_rule_are_bounded_and_named():
    inverse = lambda x: jnp.linalg.inv(x[0, :, :, 0] + 9 * jnp.eye(8))[None, :, :, None]
    field = rf.theoretical(inverse, (1, 8, 8, 1))
    assert field.box == ((0, 7), (0, 7))
    assert any("taken to depend on all" in note for note in field.notes)
