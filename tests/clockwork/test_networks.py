"""Networks of the library on clocks: cut at their maps, and on a still clip what they were."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from rfjax import clockwork, models

SIZE, FRAMES = (40, 56), 3
SCHEDULES = ("oracle", "exponential", "pipeline3", "adaptive:0.3")


def network(name, **options):
    """A network with scores that are not zero, and a frame for it."""
    model = models.create(name, num_classes=4, **options)
    frame = jax.random.normal(jax.random.key(0), (*SIZE, 3))
    variables = model.init(jax.random.key(1), frame[None])
    leaves, tree = jax.tree.flatten(variables["params"]["head"])
    drawn = [
        jax.random.normal(jax.random.key(number), leaf.shape) / np.sqrt(leaf.size)
        for number, leaf in enumerate(leaves)
    ]
    params = variables["params"] | {"head": jax.tree.unflatten(tree, drawn)}
    return model, variables | {"params": params}, frame


@pytest.fixture(scope="module")
def fcn():
    return network("vgg_tiny", head="fcn_8s", head_options={"at_once": (0.5, 0.25)})


def in_order(functions, variables, frame):
    """All stages on one frame, and what they are fused to."""
    maps = {"images": frame}
    for function in functions[:-1]:
        maps |= function(variables, maps)
    return maps, functions[-1](variables, maps)


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_network_on_a_still_clip(fcn, schedule):
    model, variables, frame = fcn
    init, step = clockwork.make(clockwork.stages(model), schedule)
    state, step = init(variables, frame), jax.jit(step)
    wanted = model.apply(variables, frame[None])[0]
    for _ in range(FRAMES):
        state, output, _ = step(variables, state, frame)
        np.testing.assert_allclose(output, wanted, rtol=1e-5, atol=1e-5)


def test_stages_hand_on_what_others_read(fcn):
    model, variables, frame = fcn
    first, second, third, fuse = clockwork.stages(model)
    maps = {"images": jnp.stack([frame, -frame])}
    assert set(first(variables, maps)) == {"pool3", "score_pool3"}
    maps |= first(variables, maps)
    assert set(second(variables, maps)) == {"pool4", "score_pool4"}
    maps |= second(variables, maps)
    assert set(third(variables, maps)) == {"score_fc7"}
    output = fuse(variables, maps | third(variables, maps))
    np.testing.assert_allclose(output, model.apply(variables, maps["images"]), atol=1e-5)


@pytest.mark.parametrize(
    "name, cuts, options",
    [
        ("vgg_tiny", ("pool4",), {"head": "fcn_16s"}),
        ("vgg_tiny", (), {"head": "fcn_8s", "head_options": {"null_background": True}}),
        ("vgg_tiny", ("pool2",), {"head": "composition"}),
        ("dla_tiny", ("level3",), {"head": "score"}),
    ],
)
def test_any_network_of_named_maps(name, cuts, options):
    model, variables, frame = network(name, **options)
    functions = clockwork.stages(model, cuts)
    assert len(functions) == len(cuts) + 2
    _, output = in_order(functions, variables, frame)
    np.testing.assert_allclose(output, model.apply(variables, frame[None])[0], atol=1e-5)


@pytest.mark.parametrize(
    "cuts, said",
    [(("pool4", "pool3"), "in the order pool1"), (("conv9",), "cuts is one of pool1")],
)
def test_where_no_network_can_be_cut(fcn, cuts, said):
    with pytest.raises(ValueError, match=said):
        clockwork.stages(fcn[0], cuts)


def test_a_network_without_named_maps():
    with pytest.raises(TypeError, match="named maps; got function"):
        clockwork.stages(lambda x: x)
