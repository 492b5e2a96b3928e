"""Where maps lie: the algebra, against the fields that are followed through the networks."""

import functools

import jax
import jax.numpy as jnp
import pytest

from rfjax import models, receptive_field
from rfjax.places import Place, common, in_sequence, shift, window
from rfjax.receptive_field import Conv, Pool


@pytest.mark.parametrize("layers", [
    [Conv(3, stride=2), Conv(3, dilation=2)],
    [Conv(11, stride=4, padding=100), Pool(3, stride=2, padding=0), Conv(5)],
    [Conv((3, 4), stride=(2, 1), padding=(0, 1)), Pool(2, stride=2, padding=0)],
])  # fmt: skip
def test_places_of_windows_are_those_of_fields(layers):
    rows = [
        window(x.kernel_size, stride=x.stride, dilation=x.dilation, padding=x.padding)
        for x in layers
    ]
    found = in_sequence({str(number): row for number, row in enumerate(rows)})
    assert list(found.values())[-1] == receptive_field.theoretical(layers).place


@pytest.mark.parametrize("name, options", [
    ("resnet_tiny", {"output_stride": 8}), ("drn_tiny", {}), ("drn_d_22", {}),
])  # fmt: skip
def test_places_of_maps_are_those_of_the_fields_that_were_followed(name, options):
    options = options if name == "drn_d_22" else {"width": 2, **options}
    model = models.create(name, num_classes=2, backbone_options=options)
    variables = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    places = model.backbone.places
    for stage in list(places)[:3] if name == "drn_d_22" else places:
        run = functools.partial(model.apply, method="maps", until=stage)
        function = lambda x, v, run=run, stage=stage: run(v, x)[stage]
        field = receptive_field.theoretical(function, (1, None, None, 3), variables)
        assert places[stage] == field.place, stage


@pytest.mark.parametrize("name", ["resnet_50", "drn_a_34", "drn_c_26", "dla_34", "dla_tiny"])
def test_places_have_the_strides_of_the_maps(name):
    model = models.create(name, num_classes=2)
    images = jnp.zeros((1, 64, 128, 3))
    variables = jax.eval_shape(model.init, jax.random.key(0), images)
    maps = jax.eval_shape(functools.partial(model.apply, method="maps"), variables, images)
    places = model.backbone.places
    assert set(maps) == {*places, "last"}
    for stage, place in places.items():
        assert maps[stage].shape[1:3] == tuple(
            n // s for n, s in zip((64, 128), place.stride, strict=True)
        )
    assert list(places.values())[-1].stride == (model.stride,) * 2


def test_a_composition_of_places_is_one_after_the_other():
    first, second = Place((2, 4), (1, -3)), Place((3, 0.5), (0.5, -0.25))
    assert first.then(second).at((5, 6)) == first.at(second.at((5, 6)))


def test_maps_that_cannot_be_aligned_are_refused():
    with pytest.raises(ValueError, match="one stride"):
        shift(Place(4), Place(8))
    with pytest.raises(ValueError, match="whole pixels apart"):
        shift(Place(4), Place(4, 2))
    with pytest.raises(ValueError, match="whole pixels apart"):
        common(Place(4), Place(4, (0, 1)))
