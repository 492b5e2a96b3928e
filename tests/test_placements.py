"""Every primitive on several devices: the same values and gradients as on one."""

import functools

import pytest

import rfjax
from tests import placements
from tests.primitive_cases import CASES

pytestmark = pytest.mark.usefixtures("few_sums")

# Their operands are known numbers, they have no gradient, or no examples to be split.
NOT_SPLIT = {
    "Blur",
    "bilinear_kernel",
    "circular_points",
    "compose_kernel",
    "half_size",
    "lattice_points",
    "ring_points",
}

# The engine chooses among the same forms within a part of the batch, so that one of them is enough
# for most primitives, and more of them would take minutes.
_FEW = {"N", "H", "shard_map"}
_ALL = {"gaussian_blur", "gaussian_blur full", "blur_resample_conv", "deformable_conv"}

# Split in height they are what their parts are: blurs, reads and convolutions, which are here too.
_COMPOSED = {
    "difference_of_gaussians",
    "blur_conv",
    "blur_resample_conv full, stride 2",
    "channel_conv",
    "mixture_conv",
    "composed_conv",
    "dog_conv",
    "blurred_dilated_conv",
}


def is_quick(place, name):
    few = place in _FEW and not (place == "H" and name in _COMPOSED)
    return few or name in _ALL


def every_case():
    for place in placements.PLACES:
        for name, (_, of_each, operands) in CASES.items():
            if placements.splits(place, of_each, operands):
                marks = () if is_quick(place, name) else pytest.mark.slow
                yield pytest.param(place, name, marks=marks, id=f"{place}: {name}")


@functools.cache
def on_one_device(name):
    function, _, operands = CASES[name]
    return placements.on_one_device(function, operands)


def test_every_primitive_is_here():
    covered = {name.split()[0] for name in CASES} | NOT_SPLIT
    assert covered == set(rfjax.__all__)


@pytest.mark.parametrize("place, name", list(every_case()))
def test_same_values_and_gradients(place, name):
    placements.assert_same(place, *CASES[name], on_one_device(name))
