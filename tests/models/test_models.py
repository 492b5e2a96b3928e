"""Networks by name: parameters, shapes, options, and how they behave under JAX's transforms."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from rfjax import models, nn
from rfjax.models import heads, registry
from rfjax.models.backbone import Backbone
from rfjax.models.blocks import BasicBlock
from rfjax.models.resizing import bilinear_upsample

# Learnable parameters with a 1x1 score for 19 classes, as published or counted in the reference
# implementations. DRN-A shares the weights of the ResNets.
PARAMETERS = {
    "resnet_18": 11_186_259,
    "resnet_34": 21_294_419,
    "resnet_50": 23_546_963,
    "resnet_101": 42_539_091,
    "drn_a_18": 11_186_259,
    "drn_a_34": 21_294_419,
    "drn_a_50": 23_546_963,
    "drn_c_26": 20_623_331,
    "drn_c_42": 30_731_491,
    "drn_c_58": 41_088_355,
    "drn_d_22": 15_890_499,
    "drn_d_24": 20_611_139,
    "drn_d_38": 25_998_659,
    "drn_d_40": 30_719_299,
    "drn_d_54": 35_305_923,
    "drn_d_56": 40_026_563,
    "drn_d_105": 54_298_051,
    "drn_d_107": 59_018_691,
}
WIDTH = {name: 512 for name in PARAMETERS} | dict.fromkeys(("resnet_50", "resnet_101"), 2048)
WIDTH["drn_a_50"] = 2048
# Without that whose scores are no map, and those of test_fcn.py, for networks of other strides.
HEADS = tuple(h for h in heads.HEADS if h != "classify" and not h.startswith("fcn_"))


def _shapes(model, height=16, width=16):
    images = jnp.zeros((1, height, width, 3))
    return jax.eval_shape(model.init, jax.random.key(0), images)


@functools.cache
def _published(name):
    """A network for 19 classes, and the shapes of its variables."""
    model = models.create(name, num_classes=19)
    return model, _shapes(model)


def _count(tree):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(tree))


def _images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _tiny(**options):
    return models.create("resnet_tiny", num_classes=5, **options)


def _init(model, images, seed=0):
    # This generator compiles in a fraction of the default one's time.
    return jax.jit(model.init)(jax.random.key(seed, impl="unsafe_rbg"), images)


# -- parameters ------------------------------------------------------------------------------------


def test_every_network_has_a_published_count():
    tiny = {"resnet_tiny", "drn_tiny", "dla_tiny"}
    of_others = {"dla_34", "vgg_16", "vgg_tiny", "alexnet", "googlenet"}  # test_dla, test_fcn
    of_others |= {"mobilenet_v2", "xception_65"}  # test_separable
    of_others |= {"flownet_s", "flownet_thin", "flownet_c"}  # test_flownet
    assert set(models.names()) == set(PARAMETERS) | tiny | of_others


@pytest.mark.parametrize("name", PARAMETERS)
def test_networks_have_the_published_number_of_parameters(name):
    shapes = _published(name)[1]["params"]
    assert _count(shapes) == PARAMETERS[name]
    assert _count(shapes["head"]) == 19 * (WIDTH[name] + 1)


@pytest.mark.parametrize("name", ["resnet_18", "drn_a_50", "drn_c_26", "drn_d_22"])
def test_only_the_head_knows_the_number_of_classes(name):
    for_21 = _shapes(models.create(name, num_classes=21))["params"]
    assert _count(for_21) == PARAMETERS[name] + 2 * (WIDTH[name] + 1)


@pytest.mark.parametrize("name, stages", [
    ("resnet_34", {"conv1": 9_408, "bn1": 128, "layer1": 221_952, "layer2": 1_116_416,
                   "layer3": 6_822_400, "layer4": 13_114_368}),
    ("resnet_101", {"layer3": 26_090_496}),
    ("drn_d_54", {"layer0": 2_384, "layer1": 2_336, "layer2": 4_672, "layer3": 205_568,
                  "layer4": 1_219_584, "layer5": 7_098_368, "layer6": 14_964_736,
                  "layer7": 9_438_208, "layer8": 2_360_320}),
    ("drn_c_58", {"layer7": 12_848_128, "layer8": 4_720_640}),
])  # fmt: skip
def test_stages_have_the_published_number_of_parameters(name, stages):
    backbone = _published(name)[1]["params"]["backbone"]
    for stage, wanted in stages.items():
        parts = {key: leaf for key, leaf in backbone.items() if key.split("_")[0] == stage}
        assert _count(parts) == wanted, stage


# 3x3 kernels of 19 classes and 19 biases; covariances and regressors come on top.
@pytest.mark.parametrize("name, free_form", [("drn_a_34", 87_571), ("drn_a_50", 350_227)])
def test_heads_have_the_published_number_of_parameters(name, free_form):
    features = WIDTH[name]
    more = {
        "conv3": 0,
        "composition": 1,
        "dog": 2 + 9 * 19 * features,
        "gauss_deform": 9 * features + 1,
        "deform": 162 * features + 18,
    }
    for head, extra in more.items():
        shapes = _shapes(models.create(name, num_classes=19, head=head))["params"]
        assert _count(shapes["head"]) == free_form + extra, head
        assert _count(shapes["backbone"]) == PARAMETERS[name] - 19 * (features + 1)


# -- shapes ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [*PARAMETERS, "resnet_tiny"])
def test_logits_have_the_size_of_the_image(name):
    model, variables = _published(name)
    stride = {"resnet_tiny": 4}.get(name, 32 if name.startswith("resnet") else 8)
    images = jnp.zeros((2, 77, 110, 3))
    logits = jax.eval_shape(model.apply, variables, images)
    assert logits.shape == (2, 77, 110, 19) and logits.dtype == jnp.float32
    read = functools.partial(model.apply, method="features")
    features = jax.eval_shape(read, variables, images)
    assert features.shape[:3] == (2, -(-77 // stride), -(-110 // stride))
    assert features.shape[3] == WIDTH.get(name, 32) == model.backbone.architecture.features


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("shape", [(1, 1, 1, 3), (1, 30, 41, 3)])
def test_any_size_will_do(head, shape):
    model = _tiny(head=head)
    images = _images(*shape)
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    assert jax.eval_shape(model.apply, variables, images).shape == (*shape[:3], 5)


@pytest.mark.parametrize("options, stride, blocks", [
    ({}, 4, {"layer1_0", "layer1_1"}),
    ({"output_stride": 8}, 8, {"layer1_0", "layer2_0"}),
    ({"depth": 3, "output_stride": 8, "width": 8}, 8, {"layer1_0", "layer2_0", "layer2_1"}),
])  # fmt: skip
def test_the_tiny_network_has_the_shape_asked_for(options, stride, blocks):
    model = _tiny(backbone_options=options)
    backbone = _shapes(model)["params"]["backbone"]
    assert model.stride == stride
    assert set(backbone) == blocks | {"conv1", "bn1"}
    width = options.get("width", 16)
    assert backbone["conv1"]["kernel"].shape == (3, 3, 3, width)
    assert backbone["layer1_0"]["conv1"]["kernel"].shape == (3, 3, width, 2 * width)


def test_the_tiny_network_sees_31_pixels():
    model = _tiny(backbone_options={"width": 4})
    images = jnp.ones((1, 65, 65, 3))
    # Positive weights and inputs keep every path alive, so that the gradient is the support.
    variables = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), _shapes(model))

    def centre(images):
        return jnp.sum(model.apply(variables, images, method="features")[0, 8, 8])

    seen = np.any(np.asarray(jax.jit(jax.grad(centre))(images)[0]) != 0, -1)
    rows, columns = np.nonzero(seen)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (17, 47, 17, 47)


# -- upsampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("factor", [1, 3, 4])
def test_upsampling_is_linear_between_pixel_centres_and_clamped(factor):
    x = np.asarray(_images(2, 3, 4, 2))
    wanted = np.empty((2, 3 * factor, 4 * factor, 2))
    for i, j in np.ndindex(wanted.shape[1:3]):
        y, u = ((k + 0.5) / factor - 0.5 for k in (i, j))
        y, u = np.clip(y, 0, 2), np.clip(u, 0, 3)
        top, left = min(int(y), 1), min(int(u), 2)
        down, right = y - top, u - left
        upper = (1 - right) * x[:, top, left] + right * x[:, top, left + 1]
        lower = (1 - right) * x[:, top + 1, left] + right * x[:, top + 1, left + 1]
        wanted[:, i, j] = (1 - down) * upper + down * lower
    np.testing.assert_allclose(bilinear_upsample(jnp.asarray(x), factor), wanted, atol=1e-6)


def test_logits_are_the_upsampled_scores():
    model = _tiny(head="conv3")
    images = _images(1, 30, 41, 3)
    variables = _init(model, images)
    features = jax.jit(functools.partial(model.apply, method="features"))(variables, images)
    scores = model.head.layer.apply({"params": variables["params"]["head"]}, features)
    wanted = bilinear_upsample(scores, 4)[:, :30, :41]
    np.testing.assert_allclose(jax.jit(model.apply)(variables, images), wanted, atol=1e-4)


# -- structure of the networks ---------------------------------------------------------------------


def _randomised(variables, seed=0):
    """Variables none of which is trivial, variances positive."""
    rng = np.random.default_rng(seed)

    def draw(path, leaf):
        noise = rng.uniform(0.5, 1.5, size=leaf.shape).astype(np.float32)
        leaf = np.asarray(leaf)
        return noise if path[-1] in ("scale", "var") else leaf + 0.2 * (noise - 1.0)

    return traverse_util.path_aware_map(draw, variables)


@pytest.mark.parametrize("number, residual", [(6, True), (7, False), (8, False)])
def test_the_last_stages_of_drn_c_have_no_shortcut(number, residual):
    stage = registry.architecture("drn_c_26").stages[number - 1]
    assert stage.residual == residual
    block = BasicBlock(8, dilations=stage.step(0)[1], residual=stage.residual)
    x = _images(1, 9, 9, 8)
    variables = jax.tree.map(jnp.zeros_like, block.init(jax.random.key(0), x))
    bias = jnp.arange(8.0) - 3.0
    variables["params"]["bn2"]["bias"] = bias
    shortcut = x if residual else jnp.zeros_like(x)
    wanted = jax.nn.relu(shortcut + bias.reshape(1, 1, 1, 8))
    np.testing.assert_allclose(block.apply(variables, x)[0], wanted, atol=1e-6)


def test_drn_a_dilates_the_stages_that_it_does_not_stride():
    def dilations(**options):
        stages = registry.architecture("drn_a_34", options).stages
        return [[stage.step(index) for index in range(2)] for stage in stages[2:]]

    later = [(1, (2, 2)), (1, (4, 4))]
    assert dilations() == [[(1, (1, 1)), later[0]], [(1, (1, 1)), later[1]]]
    assert dilations(transition="previous") == [[(1, (1, 2)), later[0]], [(1, (2, 4)), later[1]]]
    assert dilations(transition="full") == [[later[0]] * 2, [later[1]] * 2]


def test_drn_a_is_the_resnet_on_a_denser_grid():
    """Where every dilation is in the place of a stride, every fourth pixel is the ResNet's."""
    images = _images(1, 40, 72, 3)
    resnet = models.create("resnet_18", num_classes=3)
    dense = models.create("drn_a_18", num_classes=3, backbone_options={"transition": "previous"})
    variables = _randomised(_init(resnet, images))
    sparse, finer = (
        jax.jit(functools.partial(model.apply, method="features"))(variables, images)
        for model in (resnet, dense)
    )
    scale = float(jnp.max(jnp.abs(sparse)))
    np.testing.assert_allclose(finer[:, ::4, ::4], sparse, atol=1e-4 * scale)


@pytest.mark.parametrize("conv", [nn.ComposedConv, nn.GaussianDeformableConv])
def test_a_backbone_takes_any_layer_and_starts_as_its_plain_self(conv):
    images = _images(1, 16, 21, 3)
    options = {"backbone_options": {"width": 4, "depth": 1}}
    plain = _tiny(**options)
    composed = _tiny(**options, conv=functools.partial(conv, sigma=1e-6))
    wanted = _init(plain, images)
    variables = traverse_util.flatten_dict(_init(composed, images))
    more = {path for path in variables if path not in traverse_util.flatten_dict(wanted)}
    # One covariance (or its regressor) for each 3x3 convolution of the block, none in the stem.
    wanted_in = {("params", "backbone", "layer1_0", name) for name in ("conv1", "conv2")}
    assert {path[:4] for path in more} == wanted_in
    variables |= traverse_util.flatten_dict(wanted)
    found = jax.jit(composed.apply)(traverse_util.unflatten_dict(variables), images)
    np.testing.assert_allclose(found, jax.jit(plain.apply)(wanted, images), atol=1e-3)


def test_a_composition_of_no_extent_is_the_network_with_a_plain_head():
    images = _images(1, 30, 41, 3)
    plain, composed = _tiny(head="conv3"), _tiny(head="composition")
    variables = _randomised(_init(composed, images))
    head = dict(variables["params"]["head"], covariance=jnp.full((1,), -14.0))
    variables["params"]["head"] = head
    found = jax.jit(composed.apply)(variables, images)
    del head["covariance"]
    np.testing.assert_allclose(found, jax.jit(plain.apply)(variables, images), atol=1e-4)


# -- training --------------------------------------------------------------------------------------


def _train(model, variables, images):
    return model.apply(variables, images, train=True, mutable=["batch_stats"])


def test_training_normalises_by_the_batch_and_updates_the_statistics():
    model = _tiny()
    images = 3.0 + _images(4, 20, 24, 3)
    variables = _init(model, images)
    logits, updated = jax.jit(functools.partial(_train, model))(variables, images)
    stem = nn.Conv(16, stride=2)
    x = stem.apply({"params": variables["params"]["backbone"]["conv1"]}, images)
    statistics = updated["batch_stats"]["backbone"]["bn1"]
    np.testing.assert_allclose(statistics["mean"], 0.1 * jnp.mean(x, (0, 1, 2)), atol=1e-5)
    variance = 0.9 + 0.1 * jnp.var(x, (0, 1, 2), ddof=1)  # the unbiased one, as PyTorch keeps it
    np.testing.assert_allclose(statistics["var"], variance, rtol=1e-4)
    assert not jnp.allclose(logits, jax.jit(model.apply)(variables, images), atol=1e-2)


def test_devices_share_their_batch_statistics():
    images = _images(8, 20, 24, 3)
    variables = _init(_tiny(), images)
    whole = jax.jit(functools.partial(_train, _tiny()))(variables, images)
    synced = jax.pmap(
        functools.partial(_train, _tiny(axis_name="batch")), axis_name="batch", in_axes=(None, 0)
    )(variables, images[:, None])
    np.testing.assert_allclose(synced[0][:, 0], whole[0], atol=1e-4)
    for path, wanted in traverse_util.flatten_dict(whole[1]).items():
        found = traverse_util.flatten_dict(synced[1])[path]
        np.testing.assert_allclose(found, np.broadcast_to(wanted, found.shape), atol=1e-5)


def test_an_axis_name_is_needed_in_training_only():
    model = _tiny(axis_name="batch")
    images = _images(1, 8, 8, 3)
    logits = jax.eval_shape(model.apply, _shapes(model), images)
    assert logits.shape == (1, 8, 8, 5)
    with pytest.raises(NameError, match="batch"):
        jax.eval_shape(functools.partial(_train, model), _shapes(model), images)


@pytest.mark.parametrize("head", ["score", "composition"])
def test_gradients_reach_every_parameter(head):
    model = _tiny(head=head, backbone_options={"width": 4})
    images = _images(2, 20, 24, 3)
    variables = _randomised(_init(model, images))

    def loss(params):
        return jnp.sum(_train(model, variables | {"params": params}, images)[0] ** 2)

    gradient = jax.jit(jax.grad(loss))(variables["params"])
    for path, leaf in traverse_util.flatten_dict(gradient).items():
        assert np.all(np.isfinite(leaf)) and np.any(np.asarray(leaf) != 0), path


def test_remat_recomputes_and_changes_nothing():
    images = _images(2, 20, 24, 3)
    plain, remat = _tiny(), _tiny(remat=True)
    variables = _init(plain, images)
    assert jax.tree.structure(variables) == jax.tree.structure(_shapes(remat))

    def gradient(model):
        def loss(params):
            return jnp.mean(_train(model, variables | {"params": params}, images)[0] ** 2)

        return jax.grad(loss)

    params = variables["params"]
    assert "remat" in str(jax.make_jaxpr(gradient(remat))(params))
    assert "remat" not in str(jax.make_jaxpr(gradient(plain))(params))
    wanted, found = (jax.jit(gradient(model))(params) for model in (plain, remat))
    chex.assert_trees_all_close(found, wanted, atol=1e-4, rtol=0)


@pytest.mark.parametrize("head", ["composition", "gauss_deform"])
def test_bfloat16_is_for_computing_only(head):
    images = _images(2, 20, 24, 3)
    model = _tiny(head=head, dtype=jnp.bfloat16)
    variables = _init(model, images)
    logits, updated = jax.jit(functools.partial(_train, model))(variables, images)
    floats = {leaf.dtype for leaf in jax.tree.leaves((variables, updated, logits))}
    assert floats == {jnp.dtype(jnp.float32)}
    read = functools.partial(model.apply, method="features")
    assert jax.eval_shape(read, variables, images).dtype == jnp.bfloat16
    wanted, _ = jax.jit(functools.partial(_train, _tiny(head=head)))(variables, images)
    # A dozen roundings to 8 bits.
    assert float(jnp.max(jnp.abs(logits - wanted))) < 0.1 * float(jnp.max(jnp.abs(wanted)))


# -- transforms ------------------------------------------------------------------------------------


@pytest.mark.parametrize("head", ["composition", "gauss_deform"])
def test_many_networks_run_as_one(head):
    model = _tiny(head=head, backbone_options={"width": 4})
    images = _images(1, 16, 20, 3)
    several = [_randomised(_init(model, images, seed), seed) for seed in range(3)]
    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *several)
    together = jax.jit(jax.vmap(model.apply, in_axes=(0, None)))(stacked, images)
    apply = jax.jit(model.apply)
    for index, variables in enumerate(several):
        np.testing.assert_allclose(together[index], apply(variables, images), atol=1e-3)


def test_an_exported_dynamic_network_gives_the_same_answer():
    pytest.importorskip("flatbuffers")  # in which JAX writes exported functions
    model = _tiny(head="gauss_deform", backbone_options={"width": 4})
    images = _images(1, 21, 30, 3)
    variables = _randomised(_init(model, images))
    apply = jax.jit(model.apply)
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), variables)
    image_shape = jax.ShapeDtypeStruct(images.shape, images.dtype)
    exported = jax.export.export(apply)(shapes, image_shape)
    loaded = jax.export.deserialize(exported.serialize())
    np.testing.assert_allclose(loaded.call(variables, images), apply(variables, images), atol=1e-5)


# -- options and errors ----------------------------------------------------------------------------


def test_options_of_a_head_reach_its_layer():
    options = {"sigma": (0.5, 2.0), "family": "full", "mode": "absolute", "padding": "edge"}
    head = _tiny(head="composition", head_options=options).head.layer
    assert {name: getattr(head, name) for name in options} == options
    assert head.use_bias and head.features == 5


@pytest.mark.parametrize("arguments, message", [
    ({"name": "resnet_19"}, "model is one of resnet_18, .*drn_d_107, .*; got 'resnet_19'"),
    ({"head": "fog"}, "head is one of score, conv3, composition, dog, .*, classify, .*; got 'fog'"),
    ({"head": "composition", "head_options": {"sigmas": 1.0, "size": 3}},
     "head 'composition' takes components, dilation, family, .*sigma, .*; got sigmas, size"),
    ({"head_options": {"kernel_size": 3}}, "'score' takes dilation, kernel_init; got kernel_size"),
    ({"head": "composition", "head_options": {"features": 3}}, "got features"),
    ({"backbone_options": {"width": 3}}, "backbone 'resnet_18' takes output_stride; got width"),
    ({"name": "drn_a_18", "backbone_options": {"transition": "some"}},
     "transition is one of none, previous, full; got 'some'"),
    ({"name": "resnet_tiny", "backbone_options": {"output_stride": 6}}, "output_stride must be"),
    ({"name": "resnet_tiny", "backbone_options": {"output_stride": 16}}, r"2\^\(depth \+ 1\) = 8"),
    ({"name": "resnet_tiny", "backbone_options": {"depth": 0}}, "depth must be a positive integer"),
    ({"num_classes": 0}, "num_classes must be a positive integer; got 0"),
])  # fmt: skip
def test_errors_list_the_choices(arguments, message):
    with pytest.raises(ValueError, match=message):
        models.create(**({"name": "resnet_18", "num_classes": 19} | arguments))


def test_images_must_be_batches_of_floats():
    model = _tiny()
    with pytest.raises(ValueError, match=r"images must have shape \[N, H, W, 3\]; got \(8, 8, 3\)"):
        model.init(jax.random.key(0), jnp.zeros((8, 8, 3)))
    with pytest.raises(TypeError, match="images must have a floating-point dtype; got uint8"):
        model.init(jax.random.key(0), jnp.zeros((1, 8, 8, 3), jnp.uint8))


def test_a_backbone_stands_alone():
    backbone = Backbone(registry.architecture("resnet_tiny"))
    images = _images(1, 20, 24, 3)
    features, _ = jax.eval_shape(backbone.init_with_output, jax.random.key(0), images)
    assert features.shape == (1, 5, 6, 32)
