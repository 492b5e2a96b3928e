"""Receptive fields that are published, and the algebra that gives them."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

import rfjax
from rfjax import models, nn
from rfjax import receptive_field as rf
from rfjax.receptive_field import networks, published

ROOT = Path(__file__).parents[2]


def upto(layers, last):
    names = list(layers)
    return rf.theoretical([layers[name] for name in names[: names.index(last) + 1]])


@pytest.mark.parametrize(
    ("last", "size", "stride", "offset"),
    [
        # Long, Shelhamer & Darrell, CVPR 2015, table 1, and the coordinates of the reference's
        # networks, in which 100 pixels of padding move everything.
        ("pool1", 6, 2, -98.5),
        ("pool2", 16, 4, -97.5),
        ("pool3", 44, 8, -95.5),
        ("pool4", 100, 16, -91.5),
        ("pool5", 212, 32, -83.5),
        ("fc7", 404, 32, 12.5),
    ],
)
def test_fcn_vgg16(last, size, stride, offset):
    field = upto(published.fcn_vgg16(), last)
    assert (field.size, field.stride, field.offset) == ((size,) * 2, (stride,) * 2, (offset,) * 2)


def test_fcn_alexnet_and_googlenet():
    """FCN, table 1: 355 and 907, the latter with GoogLeNet's last pooling, 715 + 6 * 32."""
    alexnet = rf.theoretical(list(published.fcn_alexnet().values()))
    assert (alexnet.size, alexnet.stride) == ((355, 355), (32, 32))
    assert rf.theoretical(list(published.googlenet().values())).size == (907, 907)
    without = rf.theoretical(list(published.googlenet(average_pool=False).values()))
    assert without.size == (715, 715)


def test_resnet_and_drn_by_their_layers():
    """r <- r + (k - 1) d j by hand for ResNet-18, its first convolutions strided, and DRN-A-18."""
    block = lambda stride=1, d=1: rf.Parallel(
        [rf.Conv(3, stride=stride, dilation=d), rf.Conv(3, dilation=d)], [rf.Conv(1, stride=stride)]
    )
    stem = [rf.Conv(7, stride=2), rf.Pool(3, stride=2), block(), block()]
    resnet = [*stem, *(block(s) for s in (2, 1, 2, 1, 2, 1))]
    assert rf.theoretical(resnet).size == networks.of_backbone("resnet_18").size == (435, 435)
    drn = [*stem, block(2), block(), block(), block(d=2), block(), block(d=4)]
    assert rf.theoretical(drn).size == networks.of_backbone("drn_a_18").size == (355, 355)


def test_composition_rule():
    """f o g: kernel k' + (k - 1) s', stride s s'."""
    inner = rf.theoretical([rf.Conv(5, stride=3, padding=1)])
    outer = rf.theoretical([rf.Conv((3, 7), stride=2, padding=(0, 2))])
    both = rf.theoretical(
        [rf.Conv(5, stride=3, padding=1), rf.Conv((3, 7), stride=2, padding=(0, 2))]
    )
    assert rf.compose(inner, outer) == both
    assert both.size == (5 + 2 * 3, 5 + 6 * 3) and both.stride == (6, 6)


def test_dilation():
    """Doubling rates grow the field exponentially: 2^(n + 2) - 1 after n + 1 layers."""
    layers = [rf.Conv(3, dilation=2**n) for n in range(6)]
    assert [rf.theoretical(layers[: n + 1]).size[0] for n in range(6)] == [3, 7, 15, 31, 63, 127]


def test_layers_and_functions_agree():
    layers = [rf.Conv(5, stride=2, padding=1), rf.Pool((2, 3), stride=(2, 1), padding=0)]
    dimensions = ("NHWC", "HWIO", "NHWC")

    def function(x):
        x = lax.conv_general_dilated(
            x, jnp.ones((5, 5, 1, 1)), (2, 2), [(1, 1)] * 2, dimension_numbers=dimensions
        )
        window = (1, 2, 3, 1), (1, 2, 1, 1)
        return lax.reduce_window(x, -jnp.inf, lax.max, *window, "VALID")

    by_layers, by_tracing = rf.theoretical(layers), rf.theoretical(function, (1, None, None, 1))
    for name in ("size", "stride", "offset"):
        assert getattr(by_layers, name) == getattr(by_tracing, name)
    box = by_tracing.box
    unit = (16, 31)  # of 32 x 62 outputs of 129 x 129 pixels
    assert [(low + high) / 2 for low, high in box] == list(by_layers.center(unit))


@pytest.mark.parametrize("sigma", [0.2, 3.3])
def test_gaussian_layers_count_with_their_sigma(sigma):
    reach = max(1, int(np.ceil(2 * np.float32(sigma))))
    params = jnp.log(jnp.array([sigma]))
    blur = lambda x: rfjax.gaussian_blur(x, params)
    for field in (
        rf.theoretical([rf.Gaussian(sigma)]),
        rf.theoretical([rf.Gaussian(params=params)]),
        rf.theoretical(blur, (1, None, None, 1)),
    ):
        assert field.size == (2 * reach + 1, 2 * reach + 1)
    assert rf.theoretical([rf.Gaussian((sigma, 5.0), truncate=3.0)]).size[1] == 31


def test_taps_agree_with_sampled_convolutions():
    positions = np.array([[-1.5, 0.25], [2.0, 2.5]])
    layer = lambda x: rfjax.sampled_conv(x, jnp.ones((1, 2, 1, 1)), jnp.array(positions))
    by_layers = rf.theoretical([rf.Taps(positions)])
    assert by_layers.size == rf.theoretical(layer, (1, 33, 33, 1)).size == (5, 4)


def test_networks_by_layer():
    net = models.create("resnet_tiny", num_classes=2, head="conv3", backbone_options={"width": 2})
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    fields = networks.by_layer(net, variables)
    sizes = {name: field.size[0] for name, field in networks.changes(fields).items()}
    assert sizes == {
        "backbone/conv1": 3, "backbone/layer1_0/conv1": 7, "backbone/layer1_0/conv2": 15,
        "backbone/layer1_0/downsample_0": 3, "backbone/layer1_0": 15,
        "backbone/layer1_1/conv1": 23, "backbone/layer1_1/conv2": 31, "head": 39, "output": 43,
    }  # fmt: skip
    assert fields["head"].input.stride == (4, 4)
    assert fields["output"].output.stride == (1, 1)


def test_one_and_three_axes():
    lines = lambda x: x[:, 2:] + x[:, :-2]
    field = rf.theoretical(lines, (1, None, 4), axes=(1,))
    assert (field.size, field.stride, field.offset) == ((3,), (1,), (1,))
    volume = lambda x: nn.Conv(1).apply({"params": {"kernel": jnp.ones((3, 3, 1, 1))}}, x.sum(1))[
        :, None
    ]
    assert rf.theoretical(volume, (1, 5, 16, 16, 1), axes=(2, 3)).size == (3, 3)


def windows(x, size=3, stride=1, rate=1, apart=1, padding="SAME"):
    """A convolution by ones."""
    return lax.conv_general_dilated(
        x, jnp.ones((size, size, 1, 1)), (stride,) * 2, padding, lhs_dilation=(apart,) * 2,
        rhs_dilation=(rate,) * 2, dimension_numbers=("NHWC", "HWIO", "NHWC"),
    )  # fmt: skip


def padded(x, pixels):
    return jnp.pad(x, ((0, 0), (pixels, pixels), (pixels, pixels), (0, 0)))


@pytest.mark.parametrize(
    ("function", "size", "stride", "offset"),
    [
        # Size 1 + 2 d: of the least size that is tried, of more than half of it, of more than all.
        (lambda x: windows(x, rate=2), 5, 1, 0),
        (lambda x: windows(x, rate=48), 97, 1, 0),
        (lambda x: windows(x, rate=100), 201, 1, 0),
        (lambda x: windows(x, rate=3000), 6001, 1, 0),
        (lambda x: windows(x) + windows(x, rate=4), 9, 1, 0),
        (lambda x: windows(windows(x), rate=4), 11, 1, 0),
        # 3 + 2 * 12 * 2.
        (lambda x: sum(windows(windows(x, stride=2), rate=d) for d in (1, 6, 12)), 51, 2, 0),
        (lambda x: padded(x, 2), 1, 1, -2),
        (lambda x: windows(padded(x, 100)), 3, 1, -100),
        # Outputs 2 i see input i, outputs 2 i + 1 see i and i + 1.
        (lambda x: windows(x, apart=2, padding=[(1, 1)] * 2), 2, 0.5, 0),
        # Outputs 3 i and 3 i + 1 see input i, outputs 3 i + 2 nothing: i - (3 i + 0.5) / 3.
        (lambda x: windows(x, size=2, apart=3, padding=[(1, 1)] * 2), 1, 1 / 3, -1 / 6),
        # The first and last pixels that are read are no border of the input.
        (lambda x: windows(x[:, 5:-5, 5:-5], size=401), 401, 1, 5),
        (lambda x: x.reshape(1, x.shape[1] // 2, 2, -1, 2, 1).sum((2, 4)), 2, 2, 0.5),
        (lambda x: lax.scan(lambda c, _: (windows(c), None), x, None, length=0)[0], 1, 1, 0),
    ],
)
def test_functions_on_open_sizes(function, size, stride, offset):
    field = rf.theoretical(function, (1, None, None, 1))
    assert field.size == (size,) * 2 and field.clipped == (False, False)
    np.testing.assert_allclose(
        (field.stride, field.offset), [[stride] * 2, [offset] * 2], atol=1e-9
    )


@pytest.mark.parametrize(("head", "size"), [("aspp", 49), ("ccl", 13)])
def test_dilated_heads(head, size):
    """ASPP's largest rate is 24, CCL's context has 6: 1 + 2 d."""
    field = networks.of_head(head)
    assert (field.size, field.stride, field.offset) == ((size,) * 2, (1, 1), (0, 0))
    inner = rf.theoretical([rf.Conv(3, stride=8)])
    assert rf.compose(inner, field).size == (3 + (size - 1) * 8,) * 2


def test_composing_with_a_stride_that_is_not_known_is_a_bound():
    nan = (float("nan"),) * 2
    inner = rf.ReceptiveField((9, 9), nan, nan)
    assert rf.compose(inner, rf.theoretical([rf.Conv(1)])).clipped == (False, False)
    both = rf.compose(inner, rf.theoretical([rf.Conv(3)]))
    assert both.size == (9, 9) and both.clipped == (True, True)


def test_closed_over_masks_are_structure():
    mask = np.ones((3, 3, 1, 1), np.float32)
    mask[1, 2], mask[2] = 0.0, 0.0
    weights = jax.random.normal(jax.random.key(0), mask.shape)
    layer = lambda x, w=weights * mask: lax.conv_general_dilated(
        x, w, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
    )
    assert rf.theoretical(layer, (1, None, None, 1)).size == (2, 3)
    assert rf.theoretical(lambda x: layer(x, weights * mask), (1, 33, 33, 1)).size == (2, 3)
    assert rf.theoretical(layer, (1, 33, 33, 1), jnp.asarray(weights * mask)).size == (3, 3)


def test_tables_are_read_at_one_index():
    table = jnp.arange(20.0).reshape(10, 2)
    looked_up = lambda x: table[jnp.clip(x[..., 0].astype(int), 0, 9)]
    field = rf.theoretical(looked_up, (1, 32, 32, 1))
    assert field.size == (1, 1) and not field.data_dependent


def test_single_layers_and_numpy_numbers():
    assert rf.theoretical([rf.Conv(np.int64(3), padding=np.int32(0))]).offset == (1, 1)
    assert rf.theoretical([rf.Parallel(rf.Conv(3), [])]).size == (3, 3)
    with pytest.raises(TypeError, match="a branch is a sequence of layers, or a layer; got 3"):
        rf.Parallel(3)


def test_the_documentation_is_current():
    text = (ROOT / "docs" / "receptive_fields.md").read_text()
    rows = networks.table(["resnet_tiny", "dla_tiny"]).splitlines()
    assert all(row in text for row in rows[2:])
    assert networks.published_table() in text
    missing = [name for name in networks.backbones() if f"`{name}`" not in text]
    assert not missing, "run python -m rfjax.receptive_field --table > docs/receptive_fields.md"


def test_small_inputs_are_said_to_cut_the_field():
    blur = lambda x: rfjax.gaussian_blur(x, jnp.log(jnp.array([0.5, 4.0])))
    field = rf.theoretical(blur, (1, 9, 9, 1))
    assert field.clipped == (False, True) and field.size == (3, 9)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: rf.theoretical([rf.Conv(0)]), "kernel_size of .* positive integer .*; got 0"),
        (lambda: rf.theoretical([rf.Conv(3, padding="valid")]), "'same' or pixels; got 'valid'"),
        (lambda: rf.theoretical([rf.Conv(3, padding=1.5)]), "must be whole pixels; got 1.5"),
        (lambda: rf.theoretical([rf.Conv((3,))]), r"positive integer or two.*got \(3,\)"),
        (lambda: rf.theoretical([rf.Taps([[0, 1.5]], stride=0)]), "stride of Taps .*; got 0"),
        (lambda: rf.theoretical([rf.Gaussian()]), "either sigma or params"),
        (lambda: rf.theoretical([rf.Gaussian(-1.0)]), "sigma must be a positive .*got -1.0"),
        (lambda: rf.theoretical([rf.Taps(np.zeros(3))]), r"\[K, 2\]; got \(3,\)"),
        (lambda: rf.theoretical([rf.Parallel([rf.Conv(3, stride=2)], [])]), "one stride; got 2, 1"),
        (lambda: rf.theoretical([rf.Conv(3)], (1, 9, 9, 1)), "are those of a function; got layers"),
        (lambda: rf.theoretical(jnp.sin), "wants input_shape"),
        (lambda: rf.theoretical(jnp.sin, (1, 0, 9, 1)), "positive integers"),
        (lambda: rf.theoretical(jnp.sin, (None, 9, 9, 1)), r"None along axes \(1, 2\) alone"),
        (lambda: rf.theoretical(jnp.sin, (4,)), "do not exist"),
        (
            lambda: rf.theoretical(lambda x: x[..., 0], (1, 9, 9, 1)),
            r"rank 4; got shape \(1, 9, 9\)",
        ),
        (lambda: rf.theoretical(jnp.ones_like, (1, 9, 9, 1)), "does not depend on the input"),
        (
            lambda: rf.theoretical(lambda x: x.reshape(1, 7, -1, 1), (1, None, None, 1)),
            "fails on inputs of 129, 128, 513, .* give a size",
        ),
        (lambda: rf.theoretical(jnp.sin, (1, 9, 9, 1), unit=(9, 0)), r"unit \(9, 0\) is none"),
    ],
)
def test_bad_numbers_are_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


def test_other_things_are_neither_layers_nor_functions():
    with pytest.raises(TypeError, match="got 3 at 1"):
        rf.theoretical([rf.Conv(3), 3])
    with pytest.raises(TypeError, match="sequence of layers or a function; got 'drn_c_26'"):
        rf.theoretical("drn_c_26")
    with pytest.raises(TypeError, match="must return one array"):
        rf.theoretical(lambda x: (x, x), (1, 9, 9, 1))
