"""A network with each head on several devices: the same values and gradients as on one."""

import functools

import pytest

from rfjax.models.heads import HEADS
from tests import placements
from tests.models.head_cases import case

_FEW = {("N", head) for head in HEADS} | {("shard_map", "composition"), ("shard_map", "deform")}


@functools.cache
def on_one_device(head):
    function, _, operands = case(head)
    return placements.on_one_device(function, operands)


@pytest.mark.parametrize(
    "place, head",
    [
        pytest.param(place, head, marks=() if (place, head) in _FEW else pytest.mark.slow)
        for place in placements.PLACES
        for head in HEADS
    ],
)
def test_same_values_and_gradients(place, head):
    placements.assert_same(place, *case(head), on_one_device(head))


@pytest.mark.parametrize("head", HEADS)
def test_types_on_an_explicit_mesh(head):
    value = placements.explicit_type("N", *case(head))
    assert value.sharding.spec[0] == "a"
