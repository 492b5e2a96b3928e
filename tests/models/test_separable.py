"""Networks of depthwise convolutions, and DeepLab v3+: counts, places, errors, a training step."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from rfjax import models, nn, tasks
from rfjax.models import registry
from rfjax.models.decoders import Classify
from rfjax.models.deeplab import DeepLabV3Plus
from rfjax.models.mobilenet import InvertedResidual
from rfjax.models.xception import SeparableBlock
from rfjax.places import Place
from rfjax.training import steps
from rfjax.training.state import TrainState

HEAD = "deeplab_v3_plus"


def _count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


@functools.cache
def _shapes(name, stride, head=HEAD, padded=False):
    """The shapes of backbone and head for 21 classes."""
    conv = models.pad_layers(name, head=head) if padded else None
    options = {} if stride is None else {"output_stride": stride}
    create = functools.partial(models.create, name, num_classes=21, backbone_options=options)
    model = create(head=head, conv=conv)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 33, 33, 3)))["params"]


# As published with the weights of timm and torchvision.
@pytest.mark.parametrize(
    ("name", "stride", "backbone", "whole"),
    [
        ("mobilenet_v2", 32, 2_223_872, 3_504_872),
        ("mobilenet_v2", 16, 2_223_872 - 320 * 1280 - 2 * 1280, None),
        ("xception_65", 16, 37_867_312, 39_916_312),
    ],
)
def test_classifiers_have_the_published_number_of_parameters(name, stride, backbone, whole):
    assert _count(_shapes(name, stride, "score")["backbone"]) == backbone
    if whole is not None:
        features = registry.architecture(name).features
        last = {"last": jnp.zeros((1, 1, 1, features))}
        classifier = jax.eval_shape(Classify(1000).init, jax.random.key(0), last)
        assert backbone + _count(classifier) == whole


# The pyramid of 256 channels, and the two 3x3 convolutions with the 1x1 one of the finer map.
PYRAMID = {2048: 15_535_104, 512: 4_131_840, 320: 2_706_432}
DECODER = {256: 1_303_648, 24: 1_292_512, 128: 1_297_504}


@pytest.mark.parametrize(("last", "fine"), [(2048, 256), (512, 256), (320, 24), (2048, 128)])
def test_deeplab_has_the_published_number_of_parameters(last, fine):
    head = DeepLabV3Plus(21, at="fine")
    maps = {"fine": jnp.zeros((1, 8, 8, fine)), "last": jnp.zeros((1, 2, 2, last))}
    places = {"fine": Place(4), "last": Place(16)}
    shapes = jax.eval_shape(functools.partial(head.init, places=places), jax.random.key(0), maps)[
        "params"
    ]
    assert _count(shapes) == PYRAMID[last] + DECODER[fine] + 5_397


@pytest.mark.parametrize(
    ("name", "stride", "last", "fine"),
    [
        ("resnet_18", 16, 512, 64),
        ("drn_d_54", None, 512, 256),
        ("mobilenet_v2", 16, 320, 24),
        ("xception_65", 16, 2048, 128),
    ],
)
def test_deeplab_reads_the_last_map_of_stride_4(name, stride, last, fine):
    head = _shapes(name, stride)["head"]
    assert head["aspp"]["point"]["kernel"].shape[2] == last
    assert head["low"]["kernel"].shape[2] == fine


# The channels that each adaptive layer reads, whose prior has D weights for each and D biases.
@pytest.mark.parametrize(
    ("name", "stride", "head", "channels"),
    [
        ("vgg_16", 8, "score", 3 * [512]),
        ("resnet_50", 32, "score", 3 * [128]),
        ("resnet_101", 16, HEAD, 3 * [512]),
        ("drn_c_26", None, "score", 2 * [512]),
        ("drn_d_54", None, HEAD, [2048, 512]),
        ("mobilenet_v2", 32, "score", [144, 192, 192]),
        ("mobilenet_v2", 16, HEAD, [576, 3 * 320, 3 * 320, 3 * 320]),
        ("xception_65", 16, HEAD, 50 * [728] + 2 * [1024] + 2 * [1536]),
    ],
)
def test_adaptive_dilation_is_where_the_paper_has_it(name, stride, head, channels):
    selection, found = models.pad_layers(name, head=head), []
    for path, leaf in jax.tree.leaves_with_path(
        {"backbone": _shapes(name, stride, head)["backbone"]}
    ):
        *layer, last = (part.key for part in path)
        if last == "kernel" and selection.at("/".join(layer)) is not nn.Conv:
            assert leaf.shape[:2] == (3, 3)
            found.append(leaf.shape[3] if leaf.shape[2] == 1 else leaf.shape[2])
    assert sorted(found) == sorted(channels)


@pytest.mark.parametrize(
    ("name", "added"), [("mobilenet_v2", 1_593), ("drn_c_26", 3_078), ("vgg_16", 4_617)]
)
def test_adaptive_dilation_adds_the_published_number_of_parameters(name, added):
    stride = {"mobilenet_v2": 32, "vgg_16": 8}.get(name)
    plain, padded = (_count(_shapes(name, stride, "score", on)["backbone"]) for on in (False, True))
    assert padded - plain == added


@pytest.mark.parametrize("name", ["mobilenet_v2", "xception_65", "resnet_18"])
@pytest.mark.parametrize("stride", [32, 16, 8])
def test_no_map_has_a_larger_stride_than_asked_for(name, stride):
    model = models.create(name, num_classes=3, backbone_options={"output_stride": stride})
    strides = [place.stride[0] for place in model.backbone.places.values()]
    assert max(strides) == strides[-1] == model.stride == stride
    assert all(place.offset == (0.0, 0.0) for place in model.backbone.places.values())


def test_dilations_begin_one_block_after_their_stride_would_have():
    blocks = models.create(
        "xception_65", num_classes=3, backbone_options={"output_stride": 8}
    ).backbone.architecture.resolutions
    assert [step.first for step in blocks] == [1, 1, 1, *[2] * 16, 2, 4]
    groups = models.create(
        "mobilenet_v2", num_classes=3, backbone_options={"output_stride": 16}
    ).backbone.architecture.resolutions
    assert [(step.first, step.dilation) for step in groups[-2:]] == [(1, 2), (2, 2)]


@pytest.mark.parametrize("name", ["mobilenet_v2", "xception_65", "resnet_18"])
@pytest.mark.parametrize("stride", [4, 12, 16.0, True])
def test_an_unknown_output_stride_is_refused(name, stride):
    with pytest.raises(ValueError, match=f"output_stride is one of 32, 16, 8; got {stride}"):
        models.create(name, num_classes=3, backbone_options={"output_stride": stride})


def test_a_network_without_a_map_of_stride_4_has_no_deeplab():
    options = {"depth": 3, "output_stride": 16}
    create = functools.partial(models.create, num_classes=3, head=HEAD)
    assert create("resnet_tiny", backbone_options=options).head.READS == ("layer1", "last")
    with pytest.raises(ValueError, match=r"reads a map of stride 4; .* have strides 8, 16, 32"):
        DeepLabV3Plus(3).reading({"conv1": Place(8), "conv2": Place(16), "last": Place(32)})


@pytest.mark.parametrize(
    "block",
    [
        functools.partial(InvertedResidual, 4),
        functools.partial(InvertedResidual, 6, expansion=1, stride=2),
        functools.partial(InvertedResidual, 4, conv=functools.partial(nn.ComposedConv, sigma=0.3)),
        functools.partial(SeparableBlock, (4, 5, 6), stride=2, dilation=2),
        functools.partial(SeparableBlock, (4, 5, 6), residual=False),
    ],
)
def test_gradients_reach_every_parameter_of_a_block(block):
    built = block()
    x = jnp.asarray(np.random.default_rng(0).normal(size=(2, 7, 8, 4)), jnp.float32)
    variables = jax.jit(built.init)(jax.random.key(0, impl="unsafe_rbg"), x)

    def loss(params):
        y, _ = built.apply(variables | {"params": params}, x)
        return jnp.sum(y**2)

    for path, leaf in jax.tree.leaves_with_path(jax.jit(jax.grad(loss))(variables["params"])):
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0), path


def _step(name, options):
    """The loss of one update at a tiny size, and how many parameters moved."""
    model = models.create(
        name, num_classes=3, head=HEAD, head_options={"width": 8}, backbone_options=options
    )
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.normal(size=(2, 32, 40, 3)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 3, (2, 32, 40)))
    variables = jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"), images)
    optimizer = optax.sgd(0.01)
    collections = {"batch_stats": variables["batch_stats"]}
    state = TrainState(
        jnp.zeros((), jnp.int32),
        variables["params"],
        collections,
        optimizer.init(variables["params"]),
    )
    task = tasks.Segmentation({"num_classes": 3})
    step = steps.make_train_step(model, optimizer, task=task, axis_name=None)
    after, metrics = jax.jit(step)(state, {"image": images, "label": labels})
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), after.params, variables["params"])
    return float(metrics["loss"]), np.mean(jax.tree.leaves(moved))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("mobilenet_v2", {"output_stride": 16}),
        ("xception_65", {"output_stride": 16}),
        ("resnet_101", {"output_stride": 16}),
        ("drn_d_54", {}),
    ],
)
def test_one_step_trains_deeplab(name, options):
    loss, moved = _step(name, options)
    assert np.isfinite(loss) and moved > 0.99


def test_one_step_trains_a_small_deeplab():
    loss, moved = _step("resnet_tiny", {"width": 4, "depth": 1})
    assert np.isfinite(loss) and moved == 1
