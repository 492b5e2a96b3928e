"""FlowNets: counts, sizes, gradients, options; and weights of PyTorch give its flows."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import models, nn
from rfjax.models import flownet

NAMES = ("flownet_s", "flownet_thin", "flownet_c")


def _count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _create(name, **options):
    return models.create(name, num_classes=2, backbone_options=options)


@functools.cache
def _shapes(name, context="none"):
    built = getattr(flownet, name)(context=context)
    model = _create(name, context=context)
    return jax.eval_shape(model.init, jax.random.key(0), *built.inputs())["params"]


# With all biases but, in S, those of the enlargement of flows.
@pytest.mark.parametrize(
    ("name", "count"),
    [("flownet_s", 38_676_506), ("flownet_thin", 5_462_666), ("flownet_c", 39_175_298)],
)
def test_networks_have_the_published_number_of_parameters(name, count):
    assert _count(_shapes(name)) == count


def test_contexts_add_their_layers_and_keep_all_paths():
    plain, filtered, dilated = (_shapes("flownet_thin", c) for c in flownet.CONTEXTS)
    assert set(filtered) == set(plain) | {"context"}
    assert filtered["predict_flow3"]["kernel"].shape[2] == (
        plain["predict_flow3"]["kernel"].shape[2] + 24
    )
    regressor = dilated["conv3_1"].pop("rate_regressor")
    assert _count(regressor) == 9 * 96 + 1
    assert jax.tree.map(jnp.shape, dilated) == jax.tree.map(jnp.shape, plain)


@pytest.mark.parametrize("size", [(64, 128), (65, 97), (1, 1)])
def test_flows_have_the_size_of_the_images(size):
    model, images = _create("flownet_thin"), jnp.zeros((2, *size, 3))
    shapes = {"params": _shapes("flownet_thin")}
    found = jax.eval_shape(model.apply, shapes, images, images)
    assert found["flow"].shape == (2, *size, 2) and found["flow"].dtype == jnp.float32
    wanted = [tuple(-(-n // stride) for n in size) for stride in (4, 8, 16, 32, 64)]
    assert [level.shape[1:3] for level in found["levels"]] == wanted


def test_a_selection_reaches_the_encoder():
    conv = nn.select("conv[45]_1", functools.partial(nn.ComposedConv, sigma=0.5))
    model = models.create("flownet_thin", num_classes=2, conv=conv)
    inputs = flownet.flownet_thin().inputs()
    params = jax.eval_shape(model.init, jax.random.key(0), *inputs)["params"]
    assert {name for name in params if "covariance" in params[name]} == {"conv4_1", "conv5_1"}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"num_classes": 3}, "a flow has 2 channels; got num_classes=3"),
        ({"head": "aspp"}, "has its own decoder; got head='aspp'"),
        ({"backbone_options": {"context": "fog"}}, "context is one of none, lsdfn, adadr; got"),
        ({"backbone_options": {"samples": 4}}, "samples must be odd"),
    ],
)
def test_errors_list_the_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.create("flownet_s", **({"num_classes": 2} | arguments))


def test_images_must_be_two_of_one_shape():
    model = _create("flownet_thin")
    with pytest.raises(ValueError, match=r"two images of one shape \[N, H, W, 3\]; got"):
        model.init(jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.zeros((1, 64, 32, 3)))


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("flownet_thin", {"widths": 3 / 8}),
        pytest.param("flownet_s", {}, marks=pytest.mark.slow),
        pytest.param("flownet_c", {"correlated": True}, marks=pytest.mark.slow),
    ],
)
def test_imported_weights_give_the_flows_of_pytorch(name, options):
    torch = pytest.importorskip("torch")
    from tests.models import torch_flownet

    net = torch_flownet.randomised(**options)
    variables = models.import_torch(name, net.state_dict(), num_classes=2)
    rng = np.random.default_rng(0)
    images = [rng.normal(size=(1, 70, 90, 3)).astype(np.float32) for _ in range(2)]
    found = jax.jit(_create(name).apply)(variables, *images)
    with torch.no_grad():
        flows = net(*(torch.from_numpy(image.transpose(0, 3, 1, 2)) for image in images))
        whole = 20 * torch.nn.functional.interpolate(flows[0], scale_factor=4, mode="bilinear")
    wanted = [flow.numpy().transpose(0, 2, 3, 1) for flow in (whole[:, :, :70, :90], *flows)]
    for ours, theirs in zip((found["flow"], *found["levels"]), wanted, strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.max(np.abs(theirs)))
        assert np.std(theirs) > 1e-3


def _state():
    """Arrays of the thin network under the names of ports without biases in the decoder."""
    state = {}
    for layer, leaves in _shapes("flownet_thin").items():
        kernel = np.ones(leaves["kernel"].shape[::-1], np.float32).swapaxes(2, 3)
        raised = layer.startswith(("deconv", "upsampled"))
        name = layer if layer.startswith(("predict", "upsampled")) else f"{layer}.0"
        state[f"{name}.weight"] = kernel.swapaxes(0, 1) if raised else kernel
        if layer.startswith("conv"):
            state[f"{name}.bias"] = np.ones(leaves["bias"].shape, np.float32)
    return state


def test_biases_that_a_port_does_not_have_are_zero():
    options = {"num_classes": 2, "backbone_options": {"context": "lsdfn"}}
    state = _state()
    del state["predict_flow3.weight"]  # of another width beside the filters
    with pytest.raises(ValueError, match=r"missing predict_flow3.bias, predict_flow3.weight"):
        models.import_torch("flownet_thin", state, num_classes=2)
    params = models.import_torch("flownet_thin", _state(), num_classes=2)["params"]
    assert np.all(params["deconv5"]["bias"] == 0) and np.all(params["conv1"]["bias"] == 1)
    with pytest.raises(ValueError, match=r"misshapen .*predict_flow3.weight"):
        models.import_torch("flownet_thin", _state(), **options)


def test_a_bias_without_a_place_must_be_zero():
    bias = "upsampled_flow3_to_2.bias"
    models.import_torch("flownet_thin", _state() | {bias: np.zeros(2)}, num_classes=2)
    with pytest.raises(ValueError, match=f"{bias} is not zero"):
        models.import_torch("flownet_thin", _state() | {bias: np.ones(2)}, num_classes=2)
