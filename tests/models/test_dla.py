"""Deep layer aggregation: parameters, merges, shapes, weights from PyTorch."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from rfjax import models, nn
from rfjax.models.raising import BilinearRaise, raise_by_kernel

# Learnable parameters, as counted in the reference implementations.
TIMM_BASE = 15_229_104  # without its classifier
REFERENCE_BASE = 15_783_832  # with the classifier
REFERENCE_TOTAL = {2: 18_095_163, 4: 18_012_203}  # segmentation networks for 19 classes
DECODER = 2_310_400  # at a down ratio of 2
CLASSIFIER = 513_000  # 1000 classes, unused in segmentation
UNREAD = 8_448 + 33_280  # projections around levels 3 and 4, whose outputs nothing reads
UPSAMPLING = {2: 19 * 4**2, 4: 19 * 8**2}  # frozen, and no parameters here
MERGES = {2: 10, 4: 6}


def _images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _create(name="dla_34", *, num_classes=19, ratio=2, **options):
    backbone = {"down_ratio": ratio} | options.pop("backbone_options", {})
    return models.create(name, num_classes=num_classes, backbone_options=backbone, **options)


@functools.cache
def _shapes(ratio, composed=False):
    conv = nn.select("backbone/*/node_*", nn.ComposedConv) if composed else None
    model = _create(ratio=ratio, conv=conv)
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))


def _count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _covariances(params):
    return ["/".join(p) for p in traverse_util.flatten_dict(params) if p[-1] == "covariance"]


@pytest.mark.parametrize("ratio", [2, 4])
def test_dla_34_has_the_published_number_of_parameters(ratio):
    params = _shapes(ratio)["params"]
    base = dict(params["backbone"])
    decoder = base.pop("dla_up")
    assert _count(base) == TIMM_BASE == REFERENCE_BASE - CLASSIFIER - UNREAD
    not_here = CLASSIFIER + UNREAD + UPSAMPLING[ratio]
    assert _count(params) == REFERENCE_TOTAL[ratio] - not_here
    if ratio == 2:
        assert _count(decoder) == DECODER and _count(params["head"]) == 627


@pytest.mark.parametrize("ratio", [2, 4])
def test_every_merge_is_composed_once(ratio):
    """The ten (six) covariances of the composed DLA-34, and nothing else that is new."""
    params = _shapes(ratio, composed=True)["params"]
    found = _covariances(params)
    assert len(found) == MERGES[ratio] == _count(params) - _count(_shapes(ratio)["params"])
    # 1 + 2 + ... merges, one aggregation after another.
    nodes = [f"ida_{i}/node_{j + 1}_0" for i in range({2: 4, 4: 3}[ratio]) for j in range(i + 1)]
    assert sorted(found) == [f"backbone/dla_up/{node}/covariance" for node in nodes]


@pytest.mark.parametrize("ratio", [2, 4])
def test_levels_and_features_have_the_published_sizes(ratio):
    model = _create(ratio=ratio)
    read = functools.partial(model.apply, method="features")
    size, width = {2: (112, 32), 4: (56, 64)}[ratio]
    features = jax.eval_shape(read, _shapes(ratio), jnp.zeros((1, 224, 224, 3)))
    assert features.shape == (1, size, size, width)
    assert (model.stride, model.backbone.architecture.features) == (ratio, width)
    logits = jax.eval_shape(model.apply, _shapes(ratio), jnp.zeros((2, 77, 110, 3)))
    assert logits.shape == (2, 77, 110, 19) and logits.dtype == jnp.float32


def test_roots_read_what_the_reference_concatenates():
    backbone = _shapes(2)["params"]["backbone"]

    def reads(*path):
        leaf = backbone
        for part in (*path, "root", "conv", "kernel"):
            leaf = leaf[part]
        return leaf.shape[2]

    widths = {("level2",): 128, ("level3", "tree1"): 256, ("level3", "tree2"): 448,
              ("level4", "tree1"): 512, ("level4", "tree2"): 896, ("level5",): 1280}  # fmt: skip
    assert {path: reads(*path) for path in widths} == widths


# -- raising ---------------------------------------------------------------------------------------


def test_raising_is_the_transposed_convolution_by_loops():
    x, kernel = np.asarray(_images(2, 3, 4, 5)), np.asarray(_images(4, 4, 1, 5, seed=1))
    wanted = np.zeros((2, 8, 10, 5))
    for i, j in np.ndindex(3, 4):  # each pixel adds its kernel, and a border of one is cut off
        wanted[:, 2 * i : 2 * i + 4, 2 * j : 2 * j + 4] += (
            x[:, i, j][:, None, None] * kernel[:, :, 0]
        )
    found = raise_by_kernel(jnp.asarray(x), jnp.asarray(kernel))
    np.testing.assert_allclose(found, wanted[:, 1:-1, 1:-1], atol=1e-5)


def test_raising_starts_bilinear_and_is_trained():
    x = jnp.broadcast_to(jnp.arange(6.0)[None, :, None, None], (1, 6, 6, 2))
    layer = BilinearRaise()
    variables = layer.init(jax.random.key(0), x)
    inside = np.asarray(layer.apply(variables, x))[0, 1:-1, 3, 0]
    np.testing.assert_allclose(inside, (np.arange(1, 11) + 0.5) / 2 - 0.5, atol=1e-6)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(layer.apply(v, x) ** 2)))(variables)
    assert jnp.all(gradient["params"]["kernel"] != 0)


# -- the tiny one ----------------------------------------------------------------------------------

TINY = {"width": 4, "depth": 3}


def _tiny(**options):
    return _create("dla_tiny", num_classes=5, backbone_options=dict(TINY), **options)


def _init(model, images):
    return jax.jit(model.init)(jax.random.key(0, impl="unsafe_rbg"), images)


@pytest.mark.parametrize("depth, ratio", [(3, 2), (4, 4), (5, 2)])
def test_the_tiny_decoder_merges_every_pair_of_levels(depth, ratio):
    conv = nn.select("*/node_*", nn.ComposedConv)
    model = _create("dla_tiny", ratio=ratio, backbone_options={"depth": depth}, conv=conv)
    shapes = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)))
    levels = depth - (1 if ratio == 2 else 2)
    assert len(_covariances(shapes["params"])) == levels * (levels + 1) // 2
    assert shapes["params"]["backbone"]["level1_0"]["kernel"].shape == (3, 3, 8, 16)


def _train(model, variables, images):
    return model.apply(variables, images, train=True, mutable=["batch_stats"])


def _gradient(model, variables, images):
    """A function of the parameters."""

    def loss(params):
        return jnp.mean(_train(model, variables | {"params": params}, images)[0] ** 2)

    return jax.grad(loss)


def test_training_reaches_all_parameters():
    images = _images(2, 21, 26, 3)
    plain, remat = _tiny(), _tiny(remat=True)
    variables = _init(plain, images)
    params = variables["params"]
    assert "remat" in str(jax.make_jaxpr(_gradient(remat, variables, images))(params))
    found = jax.jit(_gradient(plain, variables, images))(params)
    for path, leaf in traverse_util.flatten_dict(found).items():
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0), path


@pytest.mark.slow
def test_remat_changes_nothing():
    images = _images(2, 21, 26, 3)
    variables = _init(_tiny(), images)
    wanted, found = (
        jax.jit(_gradient(_tiny(remat=remat), variables, images))(variables["params"])
        for remat in (False, True)
    )
    for path, leaf in traverse_util.flatten_dict(wanted).items():
        other = traverse_util.flatten_dict(found)[path]
        np.testing.assert_allclose(other, leaf, atol=1e-4 * (1 + np.max(np.abs(leaf))))


def test_bfloat16_is_for_computing_only():
    images = _images(1, 16, 16, 3)
    model = _tiny(dtype=jnp.bfloat16)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    logits, updated = jax.eval_shape(functools.partial(_train, model), variables, images)
    floats = {leaf.dtype for leaf in jax.tree.leaves((variables, updated, logits))}
    assert floats == {jnp.dtype(jnp.float32)}
    read = functools.partial(model.apply, method="features")
    assert jax.eval_shape(read, variables, images).dtype == jnp.bfloat16


def test_batch_statistics_are_shared_over_the_named_axis():
    images = _images(1, 8, 8, 3)
    model = _tiny(axis_name="batch")
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    with pytest.raises(NameError, match="batch"):
        jax.eval_shape(functools.partial(_train, model), variables, images)


@pytest.mark.parametrize("name, options, message", [
    ("dla_34", {"down_ratio": 8}, "down_ratio is one of 2, 4; got 8"),
    ("dla_34", {"width": 8}, "backbone 'dla_34' takes down_ratio; got width"),
    ("dla_tiny", {"depth": 2}, "depth must be an integer of at least 3; got 2"),
    ("dla_tiny", {"width": 0}, "width must be a positive integer; got 0"),
])  # fmt: skip
def test_errors_list_the_choices(name, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, num_classes=3, backbone_options=options)


# -- weights from PyTorch --------------------------------------------------------------------------


def _torch():
    torch = pytest.importorskip("torch")
    from tests.models import torch_dla

    return torch, torch_dla


@pytest.mark.parametrize("ratio", [2, 4])
def test_the_segmentation_network_of_the_reference_gives_equal_scores(ratio):
    torch, torch_dla = _torch()
    net = torch_dla.randomise(torch_dla.Segmentation(4, ratio))
    state = {f"module.{key}": value for key, value in net.state_dict().items()}
    names = (
        "base.level3.project.0.weight",
        "base.level3.tree2.root.conv.weight",
        "dla_up.ida_1.proj_2.0.weight",
        "fc.0.weight",
    )
    assert {f"module.{name}" for name in names} <= set(state)
    # The coarsest level is 2 x 3 pixels.
    images = np.array(_images(1, 64, 96, 3))
    with torch.no_grad():
        wanted = net(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy().transpose(0, 2, 3, 1)
    arguments = {"num_classes": 4, "backbone_options": {"down_ratio": ratio}}
    variables = models.import_torch("dla_34", state, **arguments)
    model = models.create("dla_34", **arguments)
    read = jax.jit(functools.partial(model.apply, method="features"))
    features = read(variables, jnp.asarray(images))
    scores = model.head.layer.apply({"params": variables["params"]["head"]}, features)
    np.testing.assert_allclose(scores, wanted, atol=1e-4 * np.max(np.abs(wanted)))
    assert np.std(wanted) > 0.05  # not a network that died
    if ratio == 4:  # the composed network has the weights at the same paths
        conv = nn.select("*/node_*", nn.ComposedConv)
        composed = models.import_torch("dla_34", state, conv=conv, **arguments)
        composed = traverse_util.flatten_dict(composed)
        for path, leaf in traverse_util.flatten_dict(variables).items():
            np.testing.assert_array_equal(composed.pop(path), leaf)
        assert {path[-1] for path in composed} == {"covariance"} and len(composed) == MERGES[4]


def test_weights_of_the_base_alone_leave_the_decoder_new():
    """As trained for classification: timm's names, without the projections that nothing reads."""
    _, torch_dla = _torch()
    base = torch_dla.randomise(torch_dla.Base(dead=False))
    state = base.state_dict()
    assert "level3.project.0.weight" not in state and "fc.weight" in state
    imported = models.import_torch("dla_34", state, num_classes=4)["params"]["backbone"]
    kernel = state["level3.tree2.root.conv.weight"].numpy().transpose(2, 3, 1, 0)
    np.testing.assert_array_equal(imported["level3"]["tree2"]["root"]["conv"]["kernel"], kernel)
    taps = np.outer([0.25, 0.75, 0.75, 0.25], [0.25, 0.75, 0.75, 0.25])
    raised = imported["dla_up"]["ida_0"]["up_1"]["kernel"]
    np.testing.assert_allclose(raised[:, :, 0, 17], taps)
    whole = torch_dla.Base(dead=True).state_dict()
    assert len(whole) == len(state) + 2 * 6  # two convolutions, two normalisations of five arrays


def test_a_decoder_that_lacks_a_part_is_an_error():
    _, torch_dla = _torch()
    state = torch_dla.Segmentation(4, 2).state_dict()
    del state["dla_up.ida_2.up_1.weight"]
    with pytest.raises(ValueError, match=r"missing dla_up\.ida_2\.up_1\.weight"):
        models.import_torch("dla_34", state, num_classes=4)


def test_levels_are_those_of_timm():
    """All six maps of the encoder, of which the decoder reads five."""
    torch, torch_dla = _torch()
    timm = pytest.importorskip("timm")
    net = torch_dla.randomise(timm.create_model("dla34", pretrained=False, num_classes=1000))
    assert sum(p.numel() for p in net.parameters()) == TIMM_BASE + CLASSIFIER
    variables = models.import_torch("dla_34", net.state_dict(), num_classes=4)
    model = models.create("dla_34", num_classes=4)
    images = np.array(_images(1, 64, 64, 3))
    keep = {"capture_intermediates": True, "mutable": ["intermediates"]}
    _, sown = jax.jit(functools.partial(model.apply, **keep))(variables, jnp.asarray(images))
    with torch.no_grad():
        wanted = net.forward_features(torch.from_numpy(images.transpose(0, 3, 1, 2))).numpy()
    found = np.asarray(sown["intermediates"]["backbone"]["level5"]["__call__"][0])
    wanted = wanted.transpose(0, 2, 3, 1)
    np.testing.assert_allclose(found, wanted, atol=1e-4 * np.max(np.abs(wanted)))
