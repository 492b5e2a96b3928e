"""Every layer on several devices: the same values and gradients as on one."""

import functools

import pytest

from rfjax import nn
from tests import placements
from tests.nn.layer_cases import LAYERS, case

pytestmark = pytest.mark.usefixtures("few_sums")

# Their parts of a batch are those of the primitive of the same name, in tests/test_placements.py.
_OF_ONE_PRIMITIVE = {
    "AffineConv",
    "BlurredDilatedConv",
    "ComposedConv",
    "ComposedConv channel",
    "ComposedConv multiple",
    "ComposedConv of groups",
    "DoGConv",
    "GaussianBlur",
}


def is_quick(place, name):
    return place == "N" or (place == "shard_map" and name not in _OF_ONE_PRIMITIVE)


@functools.cache
def on_one_device(name):
    function, _, operands = case(name)
    return placements.on_one_device(function, operands)


def test_every_layer_is_here():
    layers = {name for name in nn.__all__ if hasattr(getattr(nn, name), "apply")}
    assert {name.split()[0] for name in LAYERS} == layers


@pytest.mark.parametrize(
    "place, name",
    [
        pytest.param(place, name, marks=() if is_quick(place, name) else pytest.mark.slow)
        for place in placements.PLACES
        for name in LAYERS
    ],
)
def test_same_values_and_gradients(place, name):
    placements.assert_same(place, *case(name), on_one_device(name))


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize(
    "place",
    [pytest.param(p, marks=() if p == "N" else pytest.mark.slow) for p in placements.EXPLICIT],
)
def test_types_on_an_explicit_mesh(place, name):
    function, of_each, operands = case(name)
    value = placements.explicit_type(place, function, of_each, operands)
    if place == "N":
        assert value.sharding.spec[0] == "a"
