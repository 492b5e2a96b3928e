"""Fully convolutional networks: what they are built of, where their maps lie, what they compute."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import rfjax
from rfjax import models, receptive_field
from rfjax.models import caffe
from rfjax.models.fcn import equalizing_scales
from rfjax.models.resizing import fitted
from rfjax.models.stages import Start, with_last
from rfjax.places import Place, common, shift

RNG = np.random.default_rng(0)
ALL = ("fcn_32s", "fcn_16s", "fcn_8s")
SMALL = {"head": "fcn_8s", "num_classes": 5}


def normal(*shape):
    return jnp.asarray(RNG.normal(size=shape), jnp.float32)


def shapes(model, size=(64, 64)):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, *size, 3)))


def trained(variables, scale=0.1):
    """The variables with scores that are not zero."""
    drawn = {
        name: jax.tree.map(lambda leaf: scale * normal(*leaf.shape), layer)
        if name.startswith("score")
        else layer
        for name, layer in variables["params"]["head"].items()
    }
    return {"params": {**variables["params"], "head": drawn}}


@pytest.mark.parametrize("name, head, classes, number", [
    ("vgg_16", "fcn_32s", 21, 134_346_581), ("vgg_16", "fcn_16s", 21, 134_357_354),
    ("vgg_16", "fcn_8s", 21, 134_362_751), ("alexnet", "fcn_32s", 21, 56_954_261),
    ("googlenet", "fcn_32s", 21, 5_995_077), ("vgg_16", "fcn_32s", 19, 134_338_387),
    ("vgg_16", "fcn_16s", 19, 134_348_134), ("vgg_16", "fcn_8s", 19, 134_353_017),
    ("vgg_16", "fcn_32s", 33, 134_395_745), ("vgg_16", "fcn_32s", 40, 134_424_424),
    ("vgg_16", "fcn_8s", 40, 134_455_224),
    ("vgg_16", "fcn_32s", {"semantic": 33, "geometric": 3}, 134_408_036),
])  # fmt: skip
def test_numbers_of_parameters_are_the_published_ones(name, head, classes, number):
    variables = shapes(models.create(name, num_classes=classes, head=head))
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == number


def test_a_null_background_has_a_row_less_of_parameters_and_scores_zero():
    def count(**options):
        model = models.create("vgg_16", num_classes=21, head="fcn_32s", head_options=options)
        return sum(leaf.size for leaf in jax.tree.leaves(shapes(model)))

    assert count() - count(null_background=True) == 4097
    model = models.create("vgg_tiny", **SMALL, head_options={"null_background": True})
    images = normal(1, 40, 45, 3)
    scores = model.apply(trained(model.init(jax.random.key(0), images)), images)
    assert scores.shape == (1, 40, 45, 5) and jnp.abs(scores[..., 1:]).max() > 0
    np.testing.assert_array_equal(scores[..., 0], 0.0)


@pytest.mark.parametrize("name, sizes", [
    ("vgg_16", {"pool1": 6, "pool2": 16, "pool3": 44, "pool4": 100, "pool5": 212, "fc7": 404}),
    ("alexnet", {"fc7": 355}), ("googlenet", {"inception_5b": 715}),
])  # fmt: skip
def test_receptive_fields_are_the_published_ones(name, sizes):
    light = {} if name == "googlenet" else {"light": 8}
    model = models.create(name, num_classes=2, backbone_options=light)
    variables = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape), shapes(model))
    for until, size in sizes.items():
        run = functools.partial(model.apply, variables, method="maps", until=until)
        field = receptive_field.theoretical(lambda x: run(x)[until], (1, None, None, 3))
        assert field.size == (size, size), until
        place = model.backbone.places[until]
        assert (field.stride, field.offset) == (place.stride, place.offset), until


@pytest.mark.parametrize("name, options, places, skips, final", [
    ("vgg_16", {}, {"pool3": (8, -95.5), "pool4": (16, -91.5), "fc7": (32, 12.5)},
     (5, 9), (19, 27, 31)),
    ("vgg_16", {"border": 81}, {"fc7": (32, 31.5)}, (5, 9), (0, 8, 12)),
    ("vgg_16", {"border": None}, {"fc7": (32, 15.5)}, (-1, -1), (16, 8, 4)),
    ("alexnet", {}, {"pool1": (8, -91), "pool2": (16, -83), "pool5": (32, -67), "fc7": (32, 13)},
     (5, 10), (18, 18, 18)),
    ("googlenet", {}, {"pool2": (8, 6), "pool3": (16, 14), "pool4": (32, 30)}, (0, 0), (1, 1, 1)),
    ("resnet_18", {}, {"layer2": (8, 0), "layer3": (16, 0), "layer4": (32, 0)}, (-1, -1),
     (31, 15, 7)),
])  # fmt: skip
def test_crops_follow_from_the_algebra(name, options, places, skips, final):
    """As in Caffe's networks: pixels cut from a skip, or where negative from the scores above."""
    found = []
    for head, last in zip(ALL, final, strict=True):
        model = models.create(name, num_classes=2, head=head, backbone_options=options)
        own = with_last(model.backbone.places)
        assert {name: own[name] for name in places} == {n: Place(*p) for n, p in places.items()}
        *finer, coarsest = model.head.READS
        place, found = own[coarsest], []
        for skip in reversed(finer):
            raised = fitted(2, place, own[skip]).place(place)
            found += shift(own[skip], raised)
            place = common(raised, own[skip])
        assert place == model.head.place(own)
        whole = fitted(int(place.stride[0]), place, Place()).place(place)
        assert shift(whole, Place()) == (last, last)
    assert tuple(found) == tuple(np.repeat(skips, 2))


def test_sizes_of_an_image_of_500_pixels():
    model = models.create("vgg_16", num_classes=21, backbone_options={"light": 8})
    maps = jax.eval_shape(
        functools.partial(model.apply, method="maps"), shapes(model), jnp.zeros((1, 500, 500, 3))
    )
    sizes = {name: leaf.shape[1] for name, leaf in maps.items()}
    assert sizes == {
        "pool1": 349, "pool2": 175, "pool3": 88, "pool4": 44, "pool5": 22, "fc6": 16, "fc7": 16,
        "last": 16,
    }  # fmt: skip
    enlarged = [
        rfjax.transposed_bilinear(jnp.zeros((n, n, 1)), factor)
        for n, factor in ((16, 32), (34, 16), (70, 8))
    ]
    assert [leaf.shape[0] for leaf in enlarged] == [544, 560, 568]


BUILT = [
    ("vgg_16", {"border": 100}), ("vgg_16", {"border": 81}), ("vgg_16", {"border": None}),
    ("vgg_16", {"border": None, "output_stride": 8}), ("vgg_16", {"output_stride": 8}),
    ("vgg_tiny", {}), ("alexnet", {}), ("alexnet", {"border": 81}), ("alexnet", {"border": None}),
    ("googlenet", {}), ("resnet_18", {}), ("drn_d_22", {}),
]  # fmt: skip
HEADS = (*ALL, "fcn_pool3", "fcn_pool4", "fcn_pool5")


def outputs_have_the_size_of_the_image(name, options, heads, sizes):
    """The maps are followed once, and every head from them."""
    built = [
        models.create(name, num_classes=3, head=head, backbone_options=options) for head in heads
    ]
    given = [shapes(model) for model in built]
    drawn = functools.partial(built[0].init, method="maps")
    backbone = jax.eval_shape(drawn, jax.random.key(0), jnp.zeros((1, 64, 64, 3)))
    maps_of = functools.partial(built[0].apply, method="maps")
    for height, width in sizes:
        images = jax.ShapeDtypeStruct((1, height, width, 3), jnp.float32)
        maps = jax.eval_shape(maps_of, backbone, images)
        for model, variables in zip(built, given, strict=True):
            start = Start({read: maps[read] for read in model.head.READS}, (height, width))
            scores = jax.eval_shape(model.apply, variables, start)
            assert scores.shape == (1, height, width, 3), (model.head, height, width)


def fitting(name, options):
    """The heads of a network."""
    if options.get("output_stride", 32) == 8:
        return ("fcn_8s",)
    return {"vgg": HEADS, "drn": ("fcn_8s",)}.get(name.split("_")[0], ALL)


@pytest.mark.parametrize("name, options", BUILT)
def test_outputs_have_the_size_of_the_image(name, options):
    sizes = [(33, 200), (47, 64), (65, 33)]
    outputs_have_the_size_of_the_image(name, options, fitting(name, options)[-1:], sizes)


@pytest.mark.slow
@pytest.mark.parametrize("name, options", BUILT)
def test_outputs_have_the_size_of_any_image(name, options):
    """Height and width go through the same arithmetic, so that every number stands for both."""
    sizes = [(n, 233 - n) for n in range(33, 117)]
    outputs_have_the_size_of_the_image(name, options, fitting(name, options), sizes)


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (31, 32)])
def test_without_a_border_any_image_will_do(size):
    for options in ({}, {"output_stride": 8}):
        outputs_have_the_size_of_the_image("vgg_tiny", options, ("fcn_8s", "fcn_pool4"), [size])


@pytest.mark.parametrize("name, head, options, message", [
    ("drn_d_22", "fcn_16s", {}, "fuses scores down to stride 16; the maps of this network have"),
    ("vgg_tiny", "fcn_32s", {"output_stride": 8}, "have strides 2, 4, 8"),
    ("resnet_18", "fcn_pool3", {}, "head 'fcn_pool3' reads pool3; the backbone's stages are"),
    ("vgg_16", "fcn_8s", {"border": 99}, "border is one of 100, 81, None; got 99"),
    ("vgg_16", "fcn_8s", {"output_stride": 16}, "output_stride is one of 32, 8; got 16"),
    ("vgg_16", "fcn_8s", {"light": 0}, "light must be a positive integer"),
])  # fmt: skip
def test_networks_that_cannot_be_are_refused(name, head, options, message):
    with pytest.raises(ValueError, match=message):
        models.create(name, num_classes=2, head=head, backbone_options=options)


def test_new_scores_are_uniform_and_a_new_skip_changes_nothing():
    images = normal(1, 70, 81, 3)
    coarse = models.create("resnet_18", num_classes=4, head="fcn_16s")
    fine = models.create("resnet_18", num_classes=4, head="fcn_8s")
    variables = coarse.init(jax.random.key(0), images)
    np.testing.assert_array_equal(coarse.apply(variables, images), 0.0)
    params = trained({"params": variables["params"]})["params"]
    new = fine.init(jax.random.key(1), images)["params"]["head"]["score_8"]
    wanted = coarse.apply({**variables, "params": params}, images)
    params = {**params, "head": {**params["head"], "score_8": new}}
    found = fine.apply({**variables, "params": params}, images)
    # Odd kernels: exact where no enlargement reads beyond the map.
    inside = (slice(None), slice(0, 48), slice(0, 48))
    np.testing.assert_allclose(found[inside], wanted[inside], atol=1e-5)
    assert jnp.std(wanted) > 0.01


def test_scales_of_features_are_those_of_the_weights():
    images = normal(1, 40, 41, 3)
    plain, scaled = (
        models.create("vgg_tiny", **SMALL, head_options={"at_once": at_once})
        for at_once in (False, (0.5, 0.125))
    )
    variables = trained(plain.init(jax.random.key(0), images))
    head = dict(variables["params"]["head"])
    for name, factor in (("score_16", 0.5), ("score_8", 0.125)):
        head[name] = {**head[name], "kernel": head[name]["kernel"] / factor}
    again = {"params": {**variables["params"], "head": head}}
    wanted = plain.apply(variables, images)
    np.testing.assert_allclose(scaled.apply(again, images), wanted, atol=1e-4)
    maps = plain.apply(variables, images, method="maps")
    scales = equalizing_scales(maps, plain.head.READS)
    norms = [float(jnp.linalg.norm(maps[name], axis=-1).mean()) for name in plain.head.READS]
    np.testing.assert_allclose([norms[2], norms[2]], np.multiply(scales, norms[1::-1]), rtol=1e-5)


@pytest.mark.parametrize("learned, size", [("class", 16 * 5), ("full", 16 * 25)])
def test_learned_enlargement_is_bilinear_at_first(learned, size):
    images = normal(1, 40, 41, 3)
    fixed = models.create("vgg_tiny", **SMALL)
    model = models.create("vgg_tiny", **SMALL, head_options={"learn_upsampling": learned})
    variables = model.init(jax.random.key(0), images)
    assert variables["params"]["head"]["raise_16"]["kernel"].size == size
    variables = trained(variables)
    found = model.apply(variables, images)
    np.testing.assert_allclose(found, fixed.apply(variables, images), atol=1e-5)
    gradient = jax.grad(lambda v: (model.apply(v, images) ** 2).sum())(variables)
    assert jnp.abs(gradient["params"]["head"]["raise_8"]["kernel"]).max() > 0


def test_a_window_of_the_size_of_fc6_is_a_dense_layer_and_slides():
    model = models.create("vgg_tiny", num_classes=2, backbone_options={"border": 100})
    variables = model.init(jax.random.key(0), jnp.zeros((1, 33, 33, 3)))
    fc6 = variables["params"]["backbone"]["fc6"]
    pooled = normal(1, 9, 8, 64)
    found = model.apply(variables, start={"pool5": pooled}, until="fc7", method="maps")["fc7"]
    assert found.shape == (1, 3, 2, 64)
    for i, j in np.ndindex(3, 2):
        window = pooled[0, i : i + 7, j : j + 7].reshape(-1)
        dense = jax.nn.relu(window @ fc6["kernel"].reshape(-1, 64) + fc6["bias"])
        fc7 = variables["params"]["backbone"]["fc7"]
        dense = jax.nn.relu(dense @ fc7["kernel"][0, 0] + fc7["bias"])
        np.testing.assert_allclose(found[0, i, j], dense, atol=1e-4)


def test_every_fourth_pixel_of_the_dilated_network_is_one_of_the_sparse_one():
    """Inside, where neither sees a border: the map at stride 8 begins a whole number of its pixels
    before that at 32."""
    images = normal(1, 460, 460, 3)
    sparse = models.create("vgg_tiny", num_classes=2)
    dense = models.create("vgg_tiny", num_classes=2, backbone_options={"output_stride": 8})
    variables = sparse.init(jax.random.key(0), images)
    coarse = sparse.apply(variables, images, method="features")
    fine = dense.apply(variables, images, method="features")
    first, _ = shift(dense.backbone.places["fc7"], Place(8, sparse.backbone.places["fc7"].offset))
    every = fine[:, first::4, first::4]
    np.testing.assert_allclose(every[:, 5:9, 5:9], coarse[:, 5:9, 5:9], atol=1e-5)


def test_dropout_is_of_training_alone():
    images = normal(1, 33, 34, 3)
    model = models.create("vgg_tiny", num_classes=2)
    variables = model.init(jax.random.key(0), images)

    def feature(key, train=True):
        rngs = {"dropout": jax.random.key(key)}
        return model.apply(variables, images, train=train, method="features", rngs=rngs)

    np.testing.assert_array_equal(feature(0, train=False), feature(1, train=False))
    assert jnp.abs(feature(0) - feature(1)).max() > 0


def test_activations_are_computed_again_with_remat():
    images = normal(1, 33, 34, 3)
    plain, again = (models.create("vgg_tiny", **SMALL, remat=remat) for remat in (False, True))
    variables = trained(plain.init(jax.random.key(0), images))

    def gradient(model):
        return jax.grad(lambda v: (model.apply(v, images) ** 2).sum())(variables)

    jax.tree.map(
        functools.partial(np.testing.assert_allclose, atol=1e-4, rtol=1e-4),
        gradient(again),
        gradient(plain),
    )


def test_scores_can_be_composed_with_a_gaussian():
    images = normal(1, 40, 41, 3)
    model = models.create("vgg_tiny", **SMALL, head_options={"sigma": 0.5})
    variables = model.init(jax.random.key(0), images)
    assert "covariance" in variables["params"]["head"]["score_8"]
    assert model.apply(variables, images).shape == (1, 40, 41, 5)


@pytest.mark.parametrize("size, stride, padding", [(2, 2, 0), (3, 2, 0), (3, 1, 1)])
@pytest.mark.parametrize("length", [3, 4, 7, 8, 9])
def test_poolings_round_up(size, stride, padding, length):
    x = normal(1, length, 3, 1)
    found = caffe.max_pool(x, size, stride, padding=padding)[0, :, 0, 0]
    number = -(-(length + 2 * padding - size) // stride) + 1
    rows = [slice(max(i * stride - padding, 0), i * stride - padding + size) for i in range(number)]
    wanted = [x[0, row, max(0, -padding) : size - padding, 0].max() for row in rows]
    np.testing.assert_array_equal(found, wanted)


def test_local_response_norm_is_caffes():
    x = np.asarray(normal(2, 3, 9)) * 10
    found = caffe.local_response_norm(jnp.asarray(x))
    for c in range(9):
        total = np.square(x[..., max(c - 2, 0) : c + 3]).sum(-1)
        wanted = x[..., c] / (1 + 1e-4 / 5 * total) ** 0.75
        np.testing.assert_allclose(found[..., c], wanted, rtol=1e-5)


@pytest.mark.parametrize("dilation", [1, 2])
def test_a_window_slides_over_a_map_that_is_smaller(dilation):
    x, kernel = (jax.random.normal(jax.random.key(0), s) for s in ((2, 3, 5, 2), (5, 5, 2, 3)))
    around, options = [(2 * dilation,) * 2] * 2, {"rhs_dilation": (dilation,) * 2}
    options["dimension_numbers"] = ("NHWC", "HWIO", "NHWC")

    def value(slide):
        return lambda *given: jnp.sum(jnp.sin(slide(*given, (1, 1), around, **options)))

    found = jax.value_and_grad(value(caffe.slide), (0, 1))(x, kernel)
    wanted = jax.value_and_grad(value(jax.lax.conv_general_dilated), (0, 1))(x, kernel)
    jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), found, wanted)
