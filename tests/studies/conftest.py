"""A scale so small that a table is a matter of seconds."""

import pytest

from rfjax.studies import scales
from tests.training.conftest import data_dir  # noqa: F401
from tests.training.runs import tiny_config

NETWORKS = {
    "drn": ("drn_tiny", {"width": 4}),
    "resnet": ("resnet_tiny", {"width": 4, "output_stride": 8}),
    "dla": ("dla_tiny", {"width": 4}),
}


@pytest.fixture(scope="session")
def scale(data_dir):  # noqa: F811
    return scales.Scale(
        NETWORKS, lambda: tiny_config(data_dir), 0.5, {"ccl": {"dilations": (2,), "width": 4}}
    )


@pytest.fixture
def tiny(scale, monkeypatch):
    """The scale, which also stands in for the one of digit scenes on a CPU."""
    monkeypatch.setitem(scales.SCALES, ("digit_scenes", "cpu"), scale)
    return scale
