"""Weights of Caffe's classifiers and of dense networks: equal outputs and gradients, names."""

import functools
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models
from rfjax.models import caffe_names, googlenet

torch = pytest.importorskip("torch")

from tests.models import torch_fcn  # noqa: E402  (it needs torch)

K = 3
WIDTHS = {
    "vgg_16": ((64, 128, 256, 512, 512), (2, 2, 3, 3, 3)),
    "vgg_tiny": ((16, 24, 32, 48, 64), (1,) * 5),
}
BORDERED = {"border": 100, "light": 32}


@functools.cache
def port(name, stride):
    return torch_fcn.alive(torch_fcn.FCN(stride, K, *WIDTHS[name], 32))


def images(height, width):
    return np.random.default_rng(0).normal(size=(1, height, width, 3)).astype(np.float32)


def both(net, name, state, size, **options):
    """Outputs and gradients by the image of a random sum of outputs, ours and PyTorch's."""
    model = models.create(name, num_classes=K, **options)
    variables = models.import_torch(name, state, num_classes=K, **options)
    x = images(*size)
    weights = np.random.default_rng(1).normal(size=(1, *size, K)).astype(np.float32)

    def total(variables, x):
        y = model.apply(variables, x)
        return (y * weights).sum(), y

    gradients = jax.jit(jax.value_and_grad(total, (0, 1), has_aux=True))
    (_, ours), (of_variables, of_image) = gradients(variables, jnp.asarray(x))
    given = torch.from_numpy(x.transpose(0, 3, 1, 2).copy()).requires_grad_()
    theirs = net(given)
    net.zero_grad()
    (theirs * torch.from_numpy(weights.transpose(0, 3, 1, 2).copy())).sum().backward()
    found = [(ours, theirs.detach()), (of_image, given.grad)]
    return [(np.asarray(a), b.numpy().transpose(0, 2, 3, 1)) for a, b in found], of_variables


def assert_close(ours, theirs):
    assert ours.shape == theirs.shape
    assert np.std(theirs) > 0
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(theirs).max()


def kernel(array):
    return array.numpy().transpose(2, 3, 1, 0)


@pytest.mark.parametrize("stride", [32, 16, 8])
@pytest.mark.parametrize("name, size", [
    ("vgg_tiny", (45, 70)), pytest.param("vgg_16", (37, 51), marks=pytest.mark.slow),
])  # fmt: skip
def test_ports_of_dense_networks_give_the_same_outputs_and_gradients(name, size, stride):
    net = port(name, stride)
    options = {"head": f"fcn_{stride}s", "backbone_options": BORDERED}
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is left out or drawn anew
        pairs, gradient = both(net, name, net.state_dict(), size, **options)
    for ours, theirs in pairs:
        assert_close(ours, theirs)
    params = gradient["params"]
    assert_close(params["backbone"]["conv1_1"]["kernel"], kernel(net.conv1_1.weight.grad))
    assert_close(params["backbone"]["fc6"]["kernel"], kernel(net.fc6.weight.grad))
    assert_close(params["head"]["score_32"]["kernel"], kernel(net.score_fr.weight.grad))


def test_caffes_alexnet_gives_the_same_outputs_and_gradients():
    net = torch_fcn.alive(torch_fcn.AlexNet(K, 32))
    options = {"head": "fcn_32s", "backbone_options": {"light": 32}}
    pairs, gradient = both(net, "alexnet", net.state_dict(), (45, 70), **options)
    for ours, theirs in pairs:
        assert_close(ours, theirs)
    ours = gradient["params"]["backbone"]["conv2"]["kernel"]
    assert_close(ours, kernel(net.conv2.weight.grad))


def test_caffes_googlenet_gives_the_same_outputs_and_gradients():
    net = torch_fcn.alive(torch_fcn.GoogLeNet(K, googlenet.INCEPTIONS))
    pairs, gradient = both(net, "googlenet", net.arrays(), (45, 70), head="fcn_32s")
    for ours, theirs in pairs:
        assert_close(ours, theirs)
    ours = gradient["params"]["backbone"]["inception_4e_5x5"]["kernel"]
    assert_close(ours, kernel(net.layers["inception_4e/5x5"].weight.grad))


def test_learned_enlargement_is_loaded_and_else_must_be_bilinear():
    state = {name: array.clone() for name, array in port("vgg_tiny", 8).state_dict().items()}
    state["upscore2.weight"][1, 1, 0, 2] += 0.5
    load = functools.partial(
        models.import_torch, "vgg_tiny", num_classes=K, head="fcn_8s", backbone_options=BORDERED
    )
    with pytest.raises(ValueError, match=r"head\.raise_16\.weight is not bilinear"):
        load(state)
    each = load(state, head_options={"learn_upsampling": "class"})
    raised = each["params"]["head"]["raise_16"]["kernel"]
    assert raised.shape == (4, 4, 1, K)
    np.testing.assert_allclose(raised[:, :, 0, 1], state["upscore2.weight"][1, 1])
    state["upscore2.weight"][0, 2, 1, 1] = 0.25  # from class 0 to class 2
    with pytest.raises(ValueError, match="mixes classes"):
        load(state, head_options={"learn_upsampling": "class"})
    full = load(state, head_options={"learn_upsampling": "full"})
    np.testing.assert_allclose(full["params"]["head"]["raise_16"]["kernel"][1, 1, 0, 2], 0.25)


def numbered():
    """torchvision's names, of the tiny network with a classifier of 32 channels."""
    net, arrays = port("vgg_tiny", 32), {}
    for n in range(5):
        layer = getattr(net, f"conv{n + 1}_1")
        arrays |= {f"features.{3 * n}.{leaf}": a for leaf, a in layer.state_dict().items()}
    dense = {"classifier.0": net.fc6, "classifier.3": net.fc7}
    for name, layer in dense.items():
        arrays[f"{name}.weight"] = layer.weight.detach().flatten(1)
        arrays[f"{name}.bias"] = layer.bias.detach()
    return arrays | {"classifier.6.weight": torch.ones(9, 32), "classifier.6.bias": torch.ones(9)}


def test_numbered_layers_and_dense_ones_are_understood():
    load = functools.partial(models.import_torch, "vgg_tiny", num_classes=K)
    options = {"head": "fcn_32s", "backbone_options": BORDERED}
    wanted = load(port("vgg_tiny", 32).state_dict(), **options)["params"]["backbone"]
    with pytest.warns(UserWarning, match="vgg_tiny: drawn anew: head.score_32"):
        found = load(numbered(), **options)["params"]
    jax.tree.map(np.testing.assert_array_equal, found["backbone"], wanted)
    np.testing.assert_array_equal(found["head"]["score_32"]["kernel"], 0.0)
    trunk = {name: a for name, a in numbered().items() if name.startswith("features")}
    with pytest.warns(UserWarning, match="drawn anew: fc6, fc7, head.score_32"):
        found = load(trunk, **options)["params"]["backbone"]
    np.testing.assert_array_equal(found["conv5_1"]["kernel"], wanted["conv5_1"]["kernel"])
    assert np.std(found["fc6"]["kernel"]) > 0
    other = {"head": "fcn_32s", "backbone_options": {"light": 8}}
    with pytest.warns(UserWarning, match="left out: fc6.weight.*drawn anew: fc6, fc7"):
        assert load(numbered(), **other)["params"]["backbone"]["fc6"]["kernel"].shape[-1] == 8


def test_weights_that_read_blue_first_are_turned():
    load = functools.partial(
        models.import_torch, "vgg_tiny", port("vgg_tiny", 32).state_dict(), num_classes=K,
        head="fcn_32s", backbone_options=BORDERED,
    )  # fmt: skip
    rgb, bgr = load(), load(colors="bgr")
    model = models.create("vgg_tiny", num_classes=K, head="fcn_32s", backbone_options=BORDERED)
    x = jnp.asarray(images(40, 33))
    np.testing.assert_allclose(model.apply(bgr, x[..., ::-1]), model.apply(rgb, x), atol=1e-4)
    assert np.abs(model.apply(bgr, x) - model.apply(rgb, x)).max() > 1e-3
    with pytest.raises(ValueError, match="colors is one of rgb, bgr; got 'grb'"):
        load(colors="grb")


@pytest.mark.parametrize("name, array, message", [
    ("alexnet", "features.0.weight", "torchvision's AlexNet is another network .*no groups"),
    ("googlenet", "conv1.conv.weight", "torchvision's GoogLeNet is another network .batch norm"),
    ("vgg_16", "features.0.weight", "has 1 layers with weights before its classifier"),
])  # fmt: skip
def test_other_networks_are_refused(name, array, message):
    with pytest.raises(ValueError, match=message):
        models.import_torch(name, {array: np.zeros((64, 3, 11, 11))}, num_classes=2)


def test_timms_names_are_understood():
    arrays = {"pre_logits.fc1.weight": np.zeros((8, 4, 7, 7)), "head.fc.bias": np.zeros(9)}
    assert list(caffe_names.vgg(arrays, ["conv1_1"])) == ["fc6.weight", "fc8.bias"]
