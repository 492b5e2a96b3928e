"""Guided networks: what has to hold of them, on small backbones."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import guidance, models
from rfjax.models.guided import for_both_encoders, guided
from rfjax.models.stages import Start
from rfjax.tasks import losses

RNG = np.random.default_rng(0)
OPTIONS = {"width": 4, "output_stride": 8}
SIDE = 48


def build(outputs, name="resnet_tiny", **options):
    return models.create(name, num_classes=outputs, **{"backbone_options": OPTIONS} | options)


def images(*shape):
    return jnp.asarray(RNG.normal(size=(*shape, SIDE, SIDE, 3)), jnp.float32)


def marks(*shape, ways=2, share=0.05):
    return jnp.asarray(RNG.random((*shape, SIDE, SIDE, ways)) < share, jnp.float32)


@functools.cache
def network(fusion="late_global", shared=True, ways=2):
    """The network, and variables whose score is not zero."""
    model = guided(build, ways, fusion=fusion, shared=shared)
    inputs = (images(1, 1), marks(1, 1, ways=ways), images(1))
    variables = jax.jit(model.init)(jax.random.key(0), *inputs)
    params = {**variables["params"]}
    if "head" in params:
        kernel = params["head"]["kernel"]
        assert not kernel.any()  # scores start at zero
        params["head"] = {
            **params["head"],
            "kernel": jnp.asarray(np.random.default_rng(1).normal(size=kernel.shape), jnp.float32),
        }
    return model, {**variables, "params": params}


@functools.cache
def applied(fusion="late_global", shared=True):
    model, variables = network(fusion, shared)
    return jax.jit(functools.partial(model.apply, variables))


SUPPORT, MARKS, QUERY = images(2, 3), marks(2, 3), images(2)
FUSIONS = ("late_global", "prototypes", "early", "masked", "foreground")


@pytest.mark.parametrize("fusion", FUSIONS)
def test_every_form_scores_every_pixel_of_the_query(fusion):
    scores = applied(fusion)(SUPPORT, MARKS, QUERY)
    assert scores.shape == (2, SIDE, SIDE, 2) and scores.dtype == jnp.float32
    assert np.isfinite(scores).all() and np.std(scores) > 0
    changed = applied(fusion)(SUPPORT, MARKS.at[0].set(MARKS[0, ..., ::-1]), QUERY)
    assert np.allclose(changed[0], scores[0]) == (fusion == "foreground")
    np.testing.assert_allclose(changed[1], scores[1], atol=1e-5)


def test_maps_to_start_from_stand_for_images():
    model, variables = network()
    maps = functools.partial(model.apply, variables, method="maps", until="layer1")

    def start(images):
        flat = images.reshape(-1, *images.shape[-3:])
        of = maps(flat)["layer1"]
        return Start({"layer1": of.reshape(*images.shape[:-3], *of.shape[1:])}, images.shape[-3:-1])

    wanted = applied()(SUPPORT, MARKS, QUERY)
    found = applied()(start(SUPPORT), MARKS, start(QUERY))
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    own = applied()(None, MARKS[:, :1], start(QUERY))
    np.testing.assert_allclose(own, applied()(None, MARKS[:, :1], QUERY), atol=1e-5)
    encode = functools.partial(model.apply, variables, method="encode")
    np.testing.assert_allclose(encode(start(QUERY)), encode(QUERY), atol=1e-5)
    with pytest.raises(ValueError, match="must both be images, or both maps"):
        applied()(SUPPORT, MARKS, start(QUERY))
    for other in (network("masked"), network("early"), network(shared=False)):
        with pytest.raises(ValueError, match="wants images and not maps: its encoder does not"):
            other[0].apply(other[1], None, MARKS[:, :1], start(QUERY))
        with pytest.raises(ValueError, match="wants images and not maps"):
            other[0].apply(other[1], QUERY, method="maps")


def test_marks_in_the_query_are_a_support_of_one_shot():
    """One encoder then sees the image once."""
    own = MARKS[:, :1]
    found = applied()(None, own, QUERY)
    np.testing.assert_allclose(found, applied()(QUERY[:, None], own, QUERY), atol=1e-5)
    local = applied("late_local")(None, own, QUERY)
    assert local.shape == found.shape
    local_head = network("late_local")[1]["params"]["head"]["kernel"]
    assert local_head.shape == network()[1]["params"]["head"]["kernel"].shape
    same = network()[0].clone(fusion="late_local").apply(network()[1], None, own, QUERY)
    assert np.abs(same - found).max() > 1e-2  # what is far from a mark is not guided


def test_shots_and_marks_have_no_order_and_shots_add_up():
    scores = applied()(SUPPORT, MARKS, QUERY)
    order = jnp.array([2, 0, 1])
    np.testing.assert_allclose(
        applied()(SUPPORT[:, order], MARKS[:, order], QUERY), scores, atol=1e-5
    )
    twice = [jnp.concatenate([x, x], 1) for x in (SUPPORT, MARKS)]
    np.testing.assert_allclose(applied()(*twice, QUERY), scores, atol=1e-5)
    model, variables = network()
    features = model.apply(variables, SUPPORT[0], method="encode")
    whole = model.apply(variables, features[None], MARKS[:1], method="guide")
    singly = guidance.empty(2, features.shape[-1])
    for shot, of_shot in zip(features, MARKS[0], strict=True):
        cells = model.apply(variables, of_shot, shot.shape[:2], method="cells")
        singly = guidance.update(singly, shot, cells)
    np.testing.assert_allclose(whole["mean"][0], singly["mean"], atol=1e-6)
    again = model.apply(
        variables, model.apply(variables, QUERY[:1], method="encode"), whole["mean"],
        (SIDE, SIDE), method="segment",
    )  # fmt: skip
    np.testing.assert_allclose(again, scores[:1], atol=1e-4)


def test_what_is_moved_by_whole_strides_guides_alike():
    """Away from the border; a wrapped image has none, and features see 48 pixels at most."""
    model, variables = network()
    image, mark = jnp.tile(images(1), (1, 3, 3, 1)), jnp.zeros((1, 3 * SIDE, 3 * SIDE, 2))
    mark = mark.at[0, 60:90, 60:90].set(marks()[:30, :30])

    def mean(image, mark):
        features = model.apply(variables, image, method="encode")
        return model.apply(variables, features[None], mark[None], method="guide")["mean"]

    moved = [jnp.roll(x, (8, -16), (1, 2)) for x in (image, mark)]
    np.testing.assert_allclose(mean(*moved), mean(image, mark), atol=1e-5)
    # One cell is marked; what looks alike, a period further, scores alike.
    one = jnp.zeros((1, 1, 3 * SIDE, 3 * SIDE, 2)).at[0, 0, 64, 64].set(1.0)
    scores = model.apply(variables, None, one, image)
    middle = scores[0, SIDE + 8 : 2 * SIDE - 8, SIDE : 2 * SIDE]
    assert np.std(middle) > 1e-3
    np.testing.assert_allclose(
        scores[0, 64, 64 : 64 + SIDE : SIDE], scores[0, 64, 64:65], atol=1e-4
    )


def test_classes_are_scored_alike_and_may_be_any_number():
    model, variables = network()
    many = marks(2, 3, ways=4)
    scores = model.apply(variables, SUPPORT, many, QUERY)
    order = jnp.array([3, 1, 0, 2])
    mixed = model.apply(variables, SUPPORT, many[..., order], QUERY)
    assert scores.shape[-1] == 4
    np.testing.assert_allclose(mixed, scores[..., order], atol=1e-5)


def test_a_new_network_finds_all_classes_equally_likely():
    model = guided(build, 3)
    inputs = (SUPPORT, marks(2, 3, ways=3), QUERY)
    scores, _ = jax.jit(model.init_with_output)(jax.random.key(0), *inputs)
    total, count = losses.cross_entropy(scores, jnp.ones(scores.shape[:-1], jnp.int32))
    np.testing.assert_allclose(total / count, np.log(3), rtol=1e-6)


def test_nothing_marked_is_nothing_known():
    scores = applied()(SUPPORT, jnp.zeros_like(MARKS), QUERY)
    assert np.isfinite(scores).all()
    np.testing.assert_array_equal(scores[..., 0], scores[..., 1])


def test_early_fusion_with_no_marks_is_the_encoder_of_images():
    """Channels of marks that are zero add nothing, whatever their kernel."""
    model, variables = network("early")
    kernel = variables["params"]["support_backbone"]["conv1"]["kernel"]
    assert kernel.shape[2] == 5
    plain = {**variables["params"]["support_backbone"], "conv1": {"kernel": kernel[:, :, :3]}}
    seen = model.apply(
        variables, jnp.pad(QUERY, [(0, 0)] * 3 + [(0, 2)]), support=True, method="encode"
    )
    bare = build(2).backbone.apply(
        {"params": plain, "batch_stats": variables["batch_stats"]["support_backbone"]}, QUERY
    )
    np.testing.assert_allclose(seen, bare, atol=1e-5)


def test_a_second_encoder_starts_from_what_the_first_has_learned():
    """Marks begin as the mean of the colors do; a network of one encoder is left alone."""
    _, variables = network("early")
    _, learned = network()
    given = {name: {"backbone": tree["backbone"]} for name, tree in learned.items()}
    found = for_both_encoders(given, variables)
    first, second = (found["params"][name] for name in ("backbone", "support_backbone"))
    kernel = second["conv1"]["kernel"]
    np.testing.assert_array_equal(kernel[:, :, :3], first["conv1"]["kernel"])
    for channel in (3, 4):
        np.testing.assert_allclose(kernel[:, :, channel], kernel[:, :, :3].mean(2), atol=1e-6)
    jax.tree.map(np.testing.assert_array_equal, second["layer1_0"], first["layer1_0"])
    assert for_both_encoders(given, learned) == given


def gradients(shared):
    """Of the encoders by a loss on a few pixels."""
    model, variables = network(shared=shared)

    def loss(params, stop):
        own = {**variables, "params": params}
        features = model.apply(own, QUERY, method="encode")
        shots = jax.vmap(lambda x: model.apply(own, x, support=True, method="encode"))(SUPPORT)
        features, shots = (
            jax.lax.stop_gradient(x) if stop == name else x
            for name, x in (("query", features), ("support", shots))
        )
        mean = model.apply(own, shots, MARKS, method="guide")["mean"]
        return model.apply(own, features, mean, (SIDE, SIDE), method="segment")[0, 9, 9, 0]

    gradient = jax.jit(jax.grad(loss), static_argnums=1)
    return {stop: gradient(variables["params"], stop) for stop in ("query", "support")}


@pytest.mark.parametrize("shared", [True, False])
def test_encoders_learn_through_support_and_query(shared):
    found = gradients(shared)
    largest = lambda tree: max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))
    of_query, of_support = found["support"], found["query"]
    assert largest(of_query["backbone"]) > 0
    assert (largest(of_support["backbone"]) > 0) == shared
    assert ("support_backbone" in of_support) == (not shared)
    if not shared:
        assert largest(of_support["support_backbone"]) > 0


def test_any_backbone_and_head():
    for name, options, head in (
        ("vgg_tiny", {"light": 8}, "composition"),
        ("dla_tiny", {"width": 4}, "score"),
        ("drn_tiny", {"width": 4}, "gauss_deform"),
    ):
        make = functools.partial(build, name=name, backbone_options=options, head=head)
        shapes = jax.eval_shape(
            guided(make, 2).init_with_output, jax.random.key(0), SUPPORT, MARKS, QUERY
        )
        assert shapes[0].shape == (2, SIDE, SIDE, 2)


@pytest.mark.parametrize("light, count", [(None, 184_604_481), (256, 21_400_641)])
def test_the_published_network(light, count):
    """VGG-16 up to fc6: its parameters, and its grid, which begins at pixel 31.5."""
    options = {"border": 81, "light": light}
    model = guided(functools.partial(build, name="vgg_16", backbone_options=options), 2, at="fc6")
    inputs = (None, jnp.zeros((1, 1, 64, 64, 2)), jnp.zeros((1, 64, 64, 3)))
    shapes = jax.eval_shape(model.init, jax.random.key(0), *inputs)
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == count
    assert (model.place.stride, model.place.offset) == ((32, 32), (31.5, 31.5))
    for side in (321, 375, 500, 512):
        encode = functools.partial(model.apply, method="encode")
        features = jax.eval_shape(encode, shapes, jnp.zeros((1, side, 64, 3)))
        assert features.shape[1:3] == ((side + 31 - 64) // 32 + 1, 1)


MISTAKES = [
    (lambda: guided(build, 2, fusion="late"), ValueError, "fusion is one of late_global, late_lo"),
    (lambda: guided(build, 2, at="fc9"), ValueError, "map is one of conv1, .*; got 'fc9'"),
    (lambda: guided(build, 2, dropout=1.0), ValueError, "dropout must be .* below 1; got 1.0"),
    (
        lambda: guided(functools.partial(build, head="classify"), 2),
        ValueError,
        "wants a head of one map, as score or composition",
    ),
    (
        lambda: applied()(SUPPORT, MARKS[:, :1], QUERY),
        ValueError,
        r"want a support \[N, S, H, W, 3\] or None, .* got \(2, 3, 48, 48, 3\), \(2, 1, 48, 48, 2",
    ),
    (
        lambda: applied("late_local")(SUPPORT, MARKS, QUERY),
        ValueError,
        "late_local wants marks in the query itself, one shot; got 3 shots",
    ),
]


@pytest.mark.parametrize("call, kind, text", MISTAKES)
def test_mistakes_are_told(call, kind, text):
    with pytest.raises(kind, match=text):
        call()
