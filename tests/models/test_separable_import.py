"""Weights from PyTorch for networks of depthwise convolutions: equal outputs, by several names."""

import functools
import re

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models
from rfjax.models import mobilenet
from rfjax.models.deeplab import DeepLabV3Plus
from rfjax.models.mobilenet import InvertedResidual
from rfjax.models.xception import BLOCKS, SeparableBlock
from rfjax.places import Place

torch = pytest.importorskip("torch")

from tests.models import torch_separable  # noqa: E402  (it needs torch)

NORM = {"scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}


def _mobilenet(stride):
    """The blocks by hand: strides and dilations as DeepLab has them."""
    dilation = {32: {}, 16: {5: (1, 2), 6: (2, 2)}}[stride]
    strides = {32: (1, 2, 2, 2, 1, 2, 1), 16: (1, 2, 2, 2, 1, 1, 1)}[stride]
    blocks = []
    for number, (expansion, features, depth, _) in enumerate(mobilenet.GROUPS):
        first, later = dilation.get(number, (1, 1))
        for index in range(depth):
            step = 1 if index else strides[number]
            blocks.append((expansion, features, step, later if index else first))
    return torch_separable.mobilenet(blocks, top=stride == 32)


def _xception():
    """At stride 16."""
    steps = [(2, 1)] * 3 + [(1, 1)] * 16 + [(1, 1), (1, 2)]
    rows = zip(BLOCKS, steps, strict=True)
    return torch_separable.xception([(widths, s, d) for (widths, _), (s, d) in rows])


def _as_timm(name):
    """torchvision's name of an array of MobileNetV2 as timm's."""
    ends = {"features.0.0": "conv_stem", "features.0.1": "bn1"}
    ends |= {"features.18.0": "conv_head", "features.18.1": "bn2"}
    layer, _, leaf = name.rpartition(".")
    if layer in ends:
        return f"{ends[layer]}.{leaf}"
    number, part = re.fullmatch(r"features\.(\d+)\.conv\.(.+)", layer).groups()
    counted = [(g, i) for g, (_, _, n, _) in enumerate(mobilenet.GROUPS) for i in range(n)]
    group, index = counted[int(number) - 1]
    narrow = ["conv_dw", "bn1", "conv_pw", "bn2"]
    wide = ["conv_pw", "bn1", "conv_dw", "bn2", "conv_pwl", "bn3"]
    order = ["0.0", "0.1", "1.0", "1.1", "2", "3"] if group else ["0.0", "0.1", "1", "2"]
    return f"blocks.{group}.{index}.{(wide if group else narrow)[order.index(part)]}.{leaf}"


def _state(net):
    return {name: array.numpy() for name, array in net.state_dict().items()}


def test_torchvisions_and_timms_names_are_of_one_network():
    state = _state(torch_separable.randomised(_mobilenet(32)))
    classifier = {"weight": np.ones((1000, 1280)), "bias": np.ones(1000)}
    torchvisions = state | {f"classifier.1.{leaf}": a for leaf, a in classifier.items()}
    timms = {_as_timm(name): array for name, array in state.items()}
    timms |= {f"classifier.{leaf}": a for leaf, a in classifier.items()}
    load = functools.partial(models.import_torch, "mobilenet_v2", num_classes=1000, head="classify")
    variables = load(torchvisions)
    chex.assert_trees_all_equal(load(timms), variables)
    backbone = variables["params"]["backbone"]
    np.testing.assert_array_equal(
        backbone["blocks_1_0"]["conv_dw"]["kernel"][..., 0, :],
        state["features.2.conv.1.0.weight"][:, 0].transpose(1, 2, 0),
    )
    assert np.all(variables["params"]["head"]["kernel"] == 1)


def test_a_dilated_mobilenet_leaves_the_last_convolution_of_a_classifier_out():
    state = _state(_mobilenet(32)) | {"classifier.1.weight": np.ones((9, 1280))}
    options = {"num_classes": 4, "backbone_options": {"output_stride": 16}}
    variables = models.import_torch("mobilenet_v2", state, **options)
    assert "conv_head" not in variables["params"]["backbone"]


def test_one_error_lists_what_does_not_fit():
    state = _state(_mobilenet(16))
    state["features.18.conv.2.weight"] = state.pop("features.17.conv.2.weight")
    with pytest.raises(ValueError, match="MobileNetV2 has 17 blocks"):
        models.import_torch("mobilenet_v2", state, num_classes=4)


def _block_variables(net, built, x, name):
    """The variables of a block, from a state dict under the names that `name` makes of paths."""
    shapes = jax.eval_shape(built.init, jax.random.key(0), x)
    state = _state(net)

    def place(path, leaf):
        *_, layer, last = (part.key for part in path)
        array = state[name(layer, NORM.get(last, "weight"))]
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array

    return jax.tree.map_with_path(place, shapes)


def _check_block(net, built, name, size=(9, 12)):
    net = torch_separable.randomised(net)
    x = np.random.default_rng(0).normal(size=(1, *size, 8)).astype(np.float32)
    variables = _block_variables(net, built, x, name)
    found, _ = built.apply(variables, jnp.asarray(x))
    with torch.no_grad():
        wanted = net(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.max(np.abs(wanted)))


@pytest.mark.parametrize(
    ("expansion", "features", "stride", "dilation"),
    [(6, 8, 1, 1), (6, 10, 2, 1), (1, 8, 1, 1), (6, 8, 1, 2)],
)
def test_an_inverted_residual_is_that_of_pytorch(expansion, features, stride, dilation):
    options = {"expansion": expansion, "stride": stride, "dilation": dilation}
    built = InvertedResidual(features, norm=_normed(1e-5), **options)
    sequence = {layer: part for part, layer in mobilenet._LAYERS[expansion].items()}
    name = lambda layer, leaf: f"conv.{sequence[layer]}.{leaf}"
    _check_block(torch_separable.Inverted(8, features, **options), built, name)


@pytest.mark.parametrize(
    ("widths", "stride", "dilation", "residual"),
    [((8, 8, 8), 1, 1, True), ((8, 10, 12), 2, 1, True), ((8, 10, 12), 1, 2, False)],
)
def test_a_block_of_xception_is_that_of_pytorch(widths, stride, dilation, residual):
    built = SeparableBlock(
        widths, stride=stride, dilation=dilation, residual=residual, norm=_normed(1e-3)
    )

    def name(layer, leaf):
        kind, part = layer.split("_")
        if kind == "shortcut":
            return f"shortcut.{part}.{leaf}"
        return f"stack.conv{kind[-1]}.{kind[:-1]}_{part}.{leaf}"

    net = torch_separable.Block(8, widths, stride, dilation, residual)
    _check_block(net, built, name)


def _normed(epsilon):
    from rfjax import nn

    return functools.partial(nn.BatchNorm, use_running_average=True, epsilon=epsilon)


def test_the_head_of_deeplab_is_that_of_pytorch():
    head = DeepLabV3Plus(5, rates=(1, 2), width=6, low=4, at="layer1")
    places = {"layer1": Place(4), "last": Place(16)}
    rng = np.random.default_rng(0)
    fine, last = (rng.normal(size=(1, n, n, c)).astype(np.float32) for n, c in ((16, 7), (4, 9)))
    maps = {"layer1": fine, "last": last}
    shapes = jax.eval_shape(functools.partial(head.init, places=places), jax.random.key(0), maps)
    net = torch_separable.randomised(torch_separable.DeepLab(9, 7, 5, width=6, low=4, rates=(1, 2)))
    state = _state(net)
    layers = {"point": "branches.0", "rate_0": "branches.1", "rate_1": "branches.2"}
    layers |= {"fuse_0": "fuse.0", "fuse_1": "fuse.1"}

    def place(path, leaf):
        *_, layer, last = (part.key for part in path)
        own = layer.removesuffix("_norm")
        number = "" if own == "score" else ".1" if layer != own else ".0"
        array = state[f"{layers.get(own, own)}{number}.{NORM.get(last, 'weight')}"]
        return array.transpose(2, 3, 1, 0) if array.ndim == 4 else array

    found = head.apply(jax.tree.map_with_path(place, shapes), maps, places)
    with torch.no_grad():
        wanted = net(*(torch.from_numpy(m.transpose(0, 3, 1, 2)) for m in (fine, last)))
    wanted = wanted.numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.max(np.abs(wanted)))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "make"),
    [("mobilenet_v2", functools.partial(_mobilenet, 16)), ("xception_65", _xception)],
)
def test_imported_weights_give_the_features_of_pytorch(name, make):
    net = torch_separable.randomised(make())
    options = {"num_classes": 4, "backbone_options": {"output_stride": 16}}
    variables = models.import_torch(name, _state(net), **options)
    x = np.random.default_rng(0).normal(size=(1, 45, 58, 3)).astype(np.float32)
    read = functools.partial(models.create(name, **options).apply, method="features")
    found = jax.jit(read)(variables, jnp.asarray(x))
    with torch.no_grad():
        wanted = net(torch.from_numpy(x.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.max(np.abs(wanted)))
    assert np.std(wanted) > 0.05  # not a network that died
