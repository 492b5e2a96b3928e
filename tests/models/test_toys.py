"""Systems of users, each a file of `tests.toys` that touches none of the package."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import _names, models, nn
from rfjax.models.stages import with_last
from rfjax.places import common, shift
from rfjax.training import config as configs
from tests import toys
from tests.toys import carry, halves, recurrent, skips

ALL = (skips, halves, carry, recurrent)


@pytest.fixture(autouse=True)
def _registered():
    with toys.registered(*ALL):
        yield


def _images(*shape, seed=0):
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def _init(model, images):
    key = jax.random.key(0, impl="unsafe_rbg")
    return jax.jit(model.init)({"params": key, "dilation": key}, images)


def test_what_is_registered_is_known_to_models_and_configs():
    assert {"toy_skips", "toy_halves", "toy_carry", "toy_clip"} <= set(models.names())
    config = configs.base()
    config.model.name, config.model.head = "toy_carry", "toy_recurrent"
    config.model.head_options.kernel_size, config.model.backbone_options.depth = 3, 2
    configs.validate(config)
    config.model.name = "toy"
    with pytest.raises(configs.ConfigError, match=r"toy_carry, toy_clip; got 'toy'"):
        configs.validate(config)
    with pytest.raises(ValueError, match=r"toy_carry, toy_clip; got 'toy'"):
        models.create("toy", num_classes=2)
    with pytest.raises(ValueError, match=r"toy_skips, toy_recurrent; got 'toy'"):
        models.create("resnet_tiny", num_classes=2, head="toy")


def test_toys_are_forgotten():
    with toys.registered():
        models.register("toy_more", lambda: None)
        assert "toy_more" in models.names() and "toy_more" in _names.NETWORKS
    assert "toy_more" not in models.names() and "toy_more" not in _names.NETWORKS


# -- two skips -------------------------------------------------------------------------------------


def test_skips_of_both_signs_meet_where_they_lie():
    """Maps that hold where their pixels lie: sums of aligned maps are multiples of that."""
    model = models.create("toy_skips", num_classes=2, head="toy_skips")
    images = jnp.zeros((1, 45, 61, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    shapes = jax.eval_shape(functools.partial(model.apply, method="maps"), variables, images)
    held = {name: _coordinates(shape, skips.PLACES[name]) for name, shape in shapes.items()
            if name != "last"}  # fmt: skip
    params = jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), variables["params"])
    for name, size in skips.SCORES.items():
        params["head"][name]["kernel"][size // 2, size // 2, :2, :2] = np.eye(2)
    scores = jax.jit(functools.partial(model.apply, size=(45, 61)))({"params": params}, start=held)
    y, x = np.meshgrid(np.arange(45.0), np.arange(61.0), indexing="ij")
    np.testing.assert_allclose(scores[0, ..., 0], 3 * y, atol=1e-4)
    np.testing.assert_allclose(scores[0, ..., 1], 3 * x, atol=1e-4)


def _coordinates(shape, place):
    """A map whose first channels hold (y, x) of its pixels in the image."""
    axes = (
        np.arange(n) * s + b
        for n, s, b in zip(shape.shape[1:3], place.stride, place.offset, strict=True)
    )
    grid = np.stack(np.meshgrid(*axes, indexing="ij"), -1)
    return jnp.pad(jnp.asarray(grid, jnp.float32), ((0, 0), (0, 0), (0, shape.shape[3] - 2)))[None]


def test_one_skip_is_cropped_by_a_negative_offset():
    places = with_last(skips.PLACES)
    coarse = skips.TWICE.place(places["last"])
    fine = skips.own_place("pool2", places)
    finer = skips.TWICE.place(common(coarse, fine))
    shifts = shift(coarse, fine), shift(finer, skips.own_place("pool1", places))
    assert shifts == ((-1, -1), (1, 1))


@pytest.mark.parametrize("size", [(1, 1), (17, 40)])
def test_skips_learn_on_images_of_any_size(size):
    model = models.create("toy_skips", num_classes=2, head="toy_skips")
    images = _images(1, *size, 3)
    variables = _init(model, images)
    gradient = jax.jit(jax.grad(lambda v: jnp.sum(model.apply(v, images) ** 2)))(variables)
    assert all(jnp.any(leaf) for leaf in jax.tree.leaves(gradient))


def test_a_head_needs_a_backbone_with_its_maps():
    with pytest.raises(ValueError, match=r"reads pool1, pool2; the backbone's stages are conv1"):
        models.create("resnet_tiny", num_classes=2, head="toy_skips")


# -- half a network --------------------------------------------------------------------------------


def test_halves_are_the_whole_bit_for_bit():
    model = models.create("toy_halves", num_classes=3, dtype=jnp.bfloat16)
    images = _images(2, 30, 41, 3)
    variables = _init(model, images)
    first = jax.jit(functools.partial(model.apply, method="first"))
    second = jax.jit(functools.partial(model.apply, method="second"), static_argnames="size")
    kept = first(variables, images)
    assert list(kept) == ["layer1"] and kept["layer1"].dtype == jnp.bfloat16
    whole = jax.jit(model.apply)(variables, images)
    np.testing.assert_array_equal(second(variables, kept, size=(30, 41)), whole)


# -- a carry ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("remat", [False, True])
def test_a_carry_goes_from_layer_to_layer_and_leaves_no_trace(remat):
    model = models.create("toy_carry", num_classes=2, remat=remat)
    images = _images(2, 16, 20, 3)
    variables = _init(model, images)
    assert set(variables) == {"params", "batch_stats"}
    # A layer that has no preference of its own hands on what it was given.
    params = jax.tree.map(lambda leaf: leaf, variables["params"])
    first, second = (params["backbone"]["layer1_0"][name]["choice"] for name in ("conv1", "conv2"))
    first |= {"bias": jnp.array([2.0, 0.0]), "kernel": jnp.zeros_like(first["kernel"])}
    second |= {"kernel": jnp.zeros_like(second["kernel"])}
    apply = jax.jit(functools.partial(model.apply, mutable=["intermediates"]))
    _, sown = apply({**variables, "params": params}, images)
    chosen = sown["intermediates"]["backbone"]["layer1_0"]
    wanted = np.broadcast_to(np.asarray(jax.nn.softmax(jnp.array([2.0, 0.0]))), (2, 2))
    for name in ("conv1", "conv2"):
        np.testing.assert_allclose(chosen[name]["chosen"][0], wanted, rtol=1e-6)


@pytest.mark.parametrize("remat", [False, True])
def test_the_first_of_two_layers_learns_by_what_it_hands_on(remat):
    model = models.create("toy_carry", num_classes=2, remat=remat)
    images = _images(2, 16, 20, 3)
    variables = _init(model, images)

    def second(first):
        """What conv2 chooses, by the bias of conv1's choice alone."""
        params = jax.tree.map(lambda leaf: leaf, variables["params"])
        params["backbone"]["layer1_0"]["conv1"]["choice"]["bias"] = first
        kernel = params["backbone"]["layer1_0"]["conv2"]["choice"]["kernel"]
        params["backbone"]["layer1_0"]["conv2"]["choice"]["kernel"] = jnp.zeros_like(kernel)
        given = {**variables, "params": params}
        _, sown = model.apply(given, images, mutable=["intermediates"])
        return jnp.sum(sown["intermediates"]["backbone"]["layer1_0"]["conv2"]["chosen"][0][:, 0])

    gradient = jax.jit(jax.grad(second))(jnp.zeros(2))
    assert gradient[0] > 0 and gradient[1] < 0


def test_a_carry_is_each_networks_own_under_vmap():
    model = models.create("toy_carry", num_classes=2)
    images = _images(3, 2, 16, 20, 3)
    variables = _init(model, images[0])
    together = jax.jit(jax.vmap(model.apply, (None, 0)))(variables, images)
    alone = jax.jit(model.apply)(variables, images[1])
    np.testing.assert_allclose(together[1], alone, atol=1e-5)


def test_layers_draw_from_a_stream_of_their_own_in_training():
    model = models.create("toy_carry", num_classes=2)
    images = _images(2, 16, 20, 3)
    variables = _init(model, images)

    @functools.partial(jax.jit, static_argnames="train")
    def chosen(seed, train):
        mutable = ["intermediates", "batch_stats"]
        rngs = {"dilation": jax.random.key(seed)}
        _, sown = model.apply(variables, images, train=train, mutable=mutable, rngs=rngs)
        layer = sown["intermediates"]["backbone"]["layer1_0"]
        return [layer[name]["chosen"][0] for name in ("conv1", "conv2")]

    calm, other = chosen(0, train=False), chosen(1, train=False)
    np.testing.assert_array_equal(calm[0], other[0])
    drawn, again, anew = chosen(0, train=True), chosen(0, train=True), chosen(1, train=True)
    np.testing.assert_array_equal(drawn[0], again[0])
    assert np.all(drawn[0] != anew[0]) and np.all(drawn[0] != calm[0])


def test_a_layer_that_asks_for_the_carry_returns_it():
    class Forgetful(nn.Conv):
        def __call__(self, x, carry):
            return super().__call__(x)

    model = models.create("resnet_tiny", num_classes=2, conv=Forgetful)
    with pytest.raises(TypeError, match=r"Forgetful asks for the carry, .* \(y, carry\); got"):
        jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 16, 16, 3)))


# -- a memory --------------------------------------------------------------------------------------


def test_a_clip_changes_the_memory_as_its_frames_do():
    model = models.create("toy_clip", num_classes=2)
    clip = _images(3, 16, 20, 3)
    variables = _init(model, clip)
    assert set(variables) == {"params", "batch_stats", "memory"}
    assert not any(jnp.any(leaf) for leaf in jax.tree.leaves(variables["memory"]))
    scores, updated = jax.jit(functools.partial(model.apply, mutable=["memory"]))(variables, clip)
    of_frames = model.of_frames
    step = jax.jit(functools.partial(of_frames.apply, mutable=["memory"]))
    own = {name: tree["of_frames"] for name, tree in variables.items()}
    for frame, wanted in zip(clip, scores, strict=True):
        y, memory = step(own, frame[None])
        own = own | memory
        np.testing.assert_allclose(y[0], wanted, atol=1e-5)
    remembered = updated["memory"]["of_frames"]["head"]["h"]
    np.testing.assert_allclose(remembered, own["memory"]["head"]["h"], atol=1e-5)
    assert jnp.any(remembered != 0)


def test_a_clip_trains():
    model = models.create("toy_clip", num_classes=2)
    clip = _images(3, 16, 20, 3)
    variables = _init(model, clip)
    params = variables.pop("params")

    def loss(params):
        given = {"params": params, **variables}
        scores, updated = model.apply(given, clip, train=True, mutable=list(variables))
        return jnp.mean(scores**2), updated

    gradient, updated = jax.jit(jax.grad(loss, has_aux=True))(params)
    assert all(jnp.any(leaf) for leaf in jax.tree.leaves(gradient["of_frames"]["head"]))
    assert set(updated) == {"batch_stats", "memory"}
