"""Meshes with explicit axes, where a sharding is part of an array's type: every primitive."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding
from jax.sharding import PartitionSpec as P

import rfjax
from rfjax import guidance
from tests import placements
from tests.primitive_cases import CASES, FULL, KERNEL, SIGMA, X, normal

# With numbers; of the others the types alone, for XLA partitions them as in tests/test_placements.
_NUMBERS = ("gaussian_blur", "gaussian_blur full", "deformable_conv", "inflate", "correlation")


def every_case():
    for place in placements.EXPLICIT:
        for name, (_, of_each, operands) in CASES.items():
            if placements.splits(place, of_each, operands):
                marks = () if place == "N" or name in _NUMBERS else pytest.mark.slow
                yield pytest.param(place, name, marks=marks, id=f"{place}: {name}")


@pytest.mark.parametrize("place, name", list(every_case()))
def test_types_of_values_and_gradients(place, name):
    value = placements.explicit_type(place, *CASES[name])
    if place == "N":
        assert value.sharding.spec[0] == "a"


@pytest.mark.usefixtures("few_sums")
@pytest.mark.parametrize("name", _NUMBERS)
@pytest.mark.parametrize("place", ["N", "H"])
def test_same_values_and_gradients(place, name):
    function, of_each, operands = CASES[name]
    wanted = placements.on_one_device(function, operands)
    placements.assert_near(placements.run_explicit(place, function, of_each, operands), wanted)


def put(array, *spec):
    return jax.device_put(array, NamedSharding(placements.explicit_mesh(), P(*spec)))


def spec_of(array):
    return jax.typeof(array).sharding.spec


BLURRED = rfjax.gaussian_blur(X, SIGMA)


@pytest.mark.parametrize(
    "blurred",
    [
        lambda x: rfjax.gaussian_blur(x, SIGMA),
        lambda x: rfjax.gaussian_blur(params=SIGMA, x=x),
        lambda x: jax.vmap(lambda each: rfjax.gaussian_blur(each, SIGMA))(x),
        lambda x: jax.jit(jax.checkpoint(lambda x: rfjax.gaussian_blur(x, SIGMA)))(x),
        lambda x: jax.jvp(lambda x: rfjax.gaussian_blur(x, SIGMA), (x,), (x,))[1],
    ],
    ids=["at once", "by name", "vmap", "checkpoint", "jvp"],
)
def test_transforms_outside_jit(blurred):
    y = blurred(put(X, "a"))
    assert spec_of(y)[0] == "a"
    np.testing.assert_allclose(y, BLURRED, atol=1e-6)


@pytest.mark.parametrize(
    "function",
    [
        lambda x: rfjax.gaussian_blur(x, SIGMA),
        lambda x: rfjax.inflate(x, 1.5, max_factor=2.0),  # of which the size depends on no map
    ],
    ids=["gaussian_blur", "inflate"],
)
def test_a_second_call_outside_jit_compiles_nothing(function):
    names = []

    def listen(event, seconds, **facts):
        if event == "/jax/core/compile/backend_compile_duration":
            names.append(facts.get("fun_name"))

    x, other = put(X, "a"), put(X + 1, "a")
    first = jax.block_until_ready(function(x))
    jax.monitoring.register_event_duration_secs_listener(listen)
    try:
        jax.block_until_ready(function(other))
    finally:
        jax.monitoring.unregister_event_duration_listener(listen)
    assert names == []
    for got, wanted in zip(jax.tree.leaves(first), jax.tree.leaves(function(X)), strict=True):
        np.testing.assert_allclose(got, wanted, atol=1e-5)


def test_a_mesh_of_which_one_axis_is_mapped():
    kinds, devices = (AxisType.Explicit,) * 2, jax.devices()[:4]
    mesh = jax.make_mesh((2, 2), ("a", "b"), axis_types=kinds, devices=devices)
    with jax.set_mesh(mesh):
        x = jax.device_put(X, NamedSharding(mesh, P("a", "b")))
        part = jax.shard_map(
            lambda x: rfjax.gaussian_blur(x, SIGMA),
            in_specs=P("a"),
            out_specs=P("a"),
            axis_names={"a"},
        )
        y = jax.jit(part)(x)
    assert spec_of(y) == P("a", "b", None, None)
    np.testing.assert_allclose(y, BLURRED, atol=1e-6)


def test_outputs_of_a_kernel_are_sharded_as_the_kernel():
    positions = normal(9, 2)
    y = rfjax.sampled_conv(np.asarray(X), put(KERNEL, None, None, None, "a"), positions)
    assert spec_of(y) == P(None, None, None, "a")
    np.testing.assert_allclose(y, rfjax.sampled_conv(X, KERNEL, positions), atol=1e-5)


def test_points_are_sharded_as_the_coordinates():
    points = normal(4, 8, 2) * 3 + 4
    y = rfjax.bilinear_sample(put(X, None, None, "a"), put(points, None, "a"))
    assert spec_of(y) == P(None, "a", None)
    np.testing.assert_allclose(y, rfjax.bilinear_sample(X, points), atol=1e-6)


def test_an_axis_that_devices_cannot_share_is_whole():
    y = rfjax.blur_conv(put(X, None, "a"), KERNEL, SIGMA, stride=3)  # 3 rows for 4 devices
    assert y.shape[1] == 3
    assert spec_of(y) == P(None, None, None, None)
    np.testing.assert_allclose(y, rfjax.blur_conv(X, KERNEL, SIGMA, stride=3), atol=1e-5)


def test_no_axis_of_a_mesh_is_used_twice():
    kernel = put(KERNEL, None, None, None, "a")
    y = rfjax.blur_conv(put(X, "a"), kernel, FULL)
    assert spec_of(y) == P("a", None, None, None)


def test_guides_of_sharded_shots():
    mask = jnp.asarray(np.random.default_rng(0).random((*X.shape[:3], 2)), jnp.float32)
    before = guidance.empty(2, X.shape[-1])
    wanted = guidance.update(before, X, mask)
    for spec in (("a",), (None, "a")):
        assert spec_of(guidance.pool(put(X, *spec), put(mask, *spec)))[0] == spec[0]
        guide = guidance.update(before, put(X, *spec), put(mask, *spec))
        for name, value in guide.items():
            np.testing.assert_allclose(value, wanted[name], atol=1e-6)
